"""The index as it was last committed: lookups, listings, paths. Any thread may ask; `tree` is the only writer."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from cterafs import errors
from cterafs.model import ROOT_INODE, Cursor, Dirent, FolderInfo, Inode, Node
from cterafs.namespace import schema
from cterafs.namespace.disk import disk_errors
from cterafs.namespace.guid import guid_key, guid_text
from cterafs.namespace.opening import DATABASE, UnusableIndex, explained, prepare, set_aside
from cterafs.namespace.rows import COLUMNS, Acls, node, read, told, told_or_none
from cterafs.namespace.staging import STAGING, staged_cursor

__all__ = ["Counts", "Store", "UnknownParent", "UnusableIndex", "set_aside"]

_BUSY_TIMEOUT: Final = 5.0  # seconds; only another process (`find`, a backup) can hold the database for so long
_READER_CACHE_KIB: Final = 4 << 10  # per connection; the kernel's page cache stands behind it
_WRITER_CACHE_KIB: Final = 64 << 10  # what a page of events dirties at ten million rows fits in
_READERS_KEPT: Final = 9  # connections: of a volume's eight threads and its follower's; whoever else comes opens one
_WAL_LIMIT: Final = 64 << 20  # bytes that the log keeps once it is copied back
_LONGEST_LOG: Final = 16 << 10  # pages of 4 KiB; a commit copies the log back itself only where nobody else does
_DEPTH_LIMIT: Final = 4096  # directories above an entry: a path has 4096 bytes at most, so it cannot name more

_SHOWN: Final = f"kind >= {schema.FILE}"
_NUMBERED: Final = f"entry.id = ?1 & {schema.ROWS} AND entry.version = ?1 >> {schema.ROW_BITS}"
_GET: Final = f"SELECT {COLUMNS} FROM entry WHERE {_NUMBERED} AND {_SHOWN}"
_BY_GUID: Final = f"SELECT {COLUMNS} FROM entry WHERE guid = ? AND {_SHOWN}"
_IN_DIRECTORY: Final = (
    f"FROM entry JOIN entry AS up ON up.id = ?1 AND up.kind >= {schema.DIRECTORY} WHERE entry.parent = ?1"
)
_LOOKUP: Final = f"SELECT {COLUMNS} {_IN_DIRECTORY} AND entry.name = ?2"
_CHILDREN: Final = f"SELECT {COLUMNS} {_IN_DIRECTORY} AND entry.name > ?2 ORDER BY entry.name LIMIT ?3"
_BY_INODE: Final = (  # by the numbers themselves, not by way of the index of the directory's names
    f"SELECT {COLUMNS} FROM entry WHERE id > ?2 & {schema.ROWS} AND id <= (?2 & {schema.ROWS}) + ?3"
    f" AND version = ?2 >> {schema.ROW_BITS} AND +parent = ?1 AND kind = {schema.FILE} ORDER BY id LIMIT ?4"
)
_ENTRIES: Final = (
    f"SELECT {schema.INODE}, entry.name, entry.kind >= {schema.DIRECTORY}, entry.size, entry.mtime_ns, entry.ctime_ns"
    f" {_IN_DIRECTORY} AND entry.name > ?2 ORDER BY entry.name LIMIT ?3"
)
_UNKNOWN_PARENTS: Final = (
    "SELECT folder_id, guid, (SELECT guid FROM entry AS child WHERE child.parent = entry.id LIMIT 1)"
    f" FROM entry WHERE kind <= {schema.DETACHED} AND kind = {schema.UNKNOWN} AND folder_id IS NOT NULL LIMIT ?"
)
_STEP_UP: Final = f"SELECT parent, name, kind FROM entry WHERE {_NUMBERED} AND {_SHOWN}"


class UnknownParent(NamedTuple):
    """A directory of which only the guid is known, the cloud folder it lies in, and something that lies in it."""

    folder_id: int
    guid: str
    child: str


@dataclass(frozen=True, slots=True)
class Counts:
    """What the index holds.

    An object counts from the event that tells of it to the event that deletes it, whether or not its directory is known
    or deleted: a directory deleted without a word about its contents leaves them counted until the next re-listing.

    Attributes:
        files: and `bytes`, the sum of their sizes.
        directories: cloud folders included; the mount's root and the owners' directories are not.
        orphans: directories of which only the guid is known, or which were deleted while something names them.
    """

    files: int
    directories: int
    bytes: int
    orphans: int


class Store:
    """The committed state of one index. Use `open`; close with `close` or `with`.

    Attributes:
        crashed: whoever wrote to it last did not close it: a power failure may have damaged it, see `health.verify`.

    Raises (all methods):
        StateError: the disk fails, the index is damaged, or it was closed.
    """

    def __init__(self, path: Path, *, read_only: bool) -> None:
        self.database: Final = path
        self.read_only: Final = read_only
        self.crashed = False
        self._acls: Final = Acls()
        self._idle: Final[deque[sqlite3.Connection]] = deque()
        self._held: Final[set[sqlite3.Connection]] = set()
        self._closed = False

    @classmethod
    def open(cls, directory: Path, *, read_only: bool = False) -> Store:
        """Opens the index in a state directory, and makes it where there is none (unless `read_only`).

        Raises:
            StateError: it cannot be used; the message says what to do.
        """
        path = directory / DATABASE
        if read_only and not path.exists():
            raise errors.StateError(f"there is no index in {directory} yet; mount once to make it")
        store = cls(path, read_only=read_only)
        with explained(path):
            try:
                db = store._connect()
                store._idle.append(db)
                store.crashed = prepare(db, path, read_only=read_only)
                if not read_only:
                    store._open_readers()
            except BaseException:
                store.close()
                raise
        return store

    @property
    def staging(self) -> Path:
        """Where a large first import waits until it is complete."""
        return self.database.with_name(STAGING)

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        self._closed = True
        for db in list(self._held):
            db.interrupt()
        while self._idle:
            self._idle.pop().close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- the tree

    def get(self, inode: Inode) -> Node | None:
        """The object that has this inode number; None where none has, any more or yet."""
        return self._one(_GET, (inode,))

    def by_guid(self, guid: str) -> Node | None:
        return self._one(_BY_GUID, (guid_key(guid),))

    def lookup(self, parent: Inode, name: str) -> Node | None:
        """The entry of a directory, by the name that is shown."""
        try:
            return self._one(_LOOKUP, (parent, name))
        except UnicodeEncodeError:  # bytes that are no UTF-8 reach us as lone surrogates; no shown name has them
            return None

    def children(self, parent: Inode, after: str | None, limit: int) -> list[Node]:
        """The next `limit` entries of a directory behind the name `after`, in the order of their UTF-8 bytes."""
        with self._reader() as db:
            rows = db.execute(_CHILDREN, (parent, after if after is not None else "", limit)).fetchall()
            return [self._node(db, row) for row in rows]

    def files_by_inode(self, parent: Inode, after: Inode, span: int, limit: int) -> list[Node]:
        """Up to `limit` files of a directory in the order of their inode numbers, among the `span` after `after`.

        Those whose content was replaced another number of times lie elsewhere, and are left out.
        """
        with self._reader() as db:
            rows = db.execute(_BY_INODE, (parent, after, span, limit)).fetchall()
            return [self._node(db, row) for row in rows]

    def entries(self, parent: Inode, after: str | None, limit: int) -> list[Dirent]:
        """The same, as much of it as a listing shows."""
        with self._reader() as db:
            rows = db.execute(_ENTRIES, (parent, after if after is not None else "", limit)).fetchall()
        try:
            return msgspec.convert(rows, list[Dirent])
        except msgspec.ValidationError as error:
            raise errors.StateError(f"{self.database}: a row is damaged ({error})") from None

    def resolve(self, path: str) -> Node | None:
        """The object at a path of shown names below the mount's root; `/` is the root."""
        with self._snapshot() as db:
            row = db.execute(_GET, (ROOT_INODE,)).fetchone()
            for name in path.split("/"):
                if name not in {"", "."} and row is not None:
                    try:
                        row = db.execute(_LOOKUP, (row[0], name)).fetchone()
                    except UnicodeEncodeError:
                        return None
            return self._node(db, row) if row is not None else None

    def path(self, inode: Inode) -> str | None:
        """The path below the mount's root, with a leading slash; None where the object cannot be reached from there."""
        names: list[str] = []
        above: int = inode
        with self._snapshot() as db:
            for _ in range(_DEPTH_LIMIT):
                if above == ROOT_INODE:
                    return "/" + "/".join(reversed(names))
                row = db.execute(_STEP_UP, (above,)).fetchone()
                if row is None or row[0] is None or (names and row[2] < schema.DIRECTORY):
                    return None
                above = row[0]
                names.append(row[1])
        return None

    # -- the feed's state

    @property
    def counts(self) -> Counts:
        row = self._state("files, directories, bytes, orphans")
        return Counts(row[0], row[1], int(row[2]), row[3])

    @property
    def cursor(self) -> Cursor | None:
        """Where the feed goes on; None: from the beginning."""
        cursor, staging = self._state("cursor, staging")
        if staging:
            return staged_cursor(self.staging)
        text = told_or_none(cursor)
        return None if text is None else Cursor(text)

    @property
    def selection(self) -> tuple[int, ...]:
        """The folder ids that the cursor was issued for, sorted; empty: all."""
        return tuple(msgspec.json.decode(self._state("selection")[0], type=list[int]))

    @property
    def imported(self) -> bool:
        """A complete listing has been applied at some time."""
        return bool(self._state("imported")[0])

    @property
    def generation(self) -> int:
        """31 random bits that tell this database's inode numbers from those of the one before it."""
        return int(self._state("generation")[0])

    @property
    def relist(self) -> int:
        """How far the re-listing is: schema.IDLE, LISTING or SWEEPING."""
        return int(self._state("relist")[0])

    @property
    def folders(self) -> list[FolderInfo]:
        """The cloud folders as they were last told, by their ids."""
        with self._reader() as db:
            rows = db.execute("SELECT folder_id, name, owner FROM folder ORDER BY folder_id").fetchall()
            return [FolderInfo(folder_id, told(name), told_or_none(owner)) for folder_id, name, owner in rows]

    def unknown_parents(self, limit: int) -> list[UnknownParent]:
        """Some of the directories that something names as its parent and that nothing told of; not those that were
        asked about in vain."""
        with self._reader() as db:
            rows = db.execute(_UNKNOWN_PARENTS, (limit,)).fetchall()
            return [UnknownParent(folder_id, guid_text(key), guid_text(child)) for folder_id, key, child in rows]

    # -- connections

    def writer(self) -> sqlite3.Connection:
        """A connection for the one writer; the caller closes it.

        Raises:
            StateError: the index was opened for reading only.
        """
        if self.read_only:
            raise errors.StateError(f"{self.database} was opened for reading only")
        db = self._connect()
        db.execute(f"PRAGMA cache_size = -{_WRITER_CACHE_KIB}")
        db.execute(f"PRAGMA wal_autocheckpoint = {_LONGEST_LOG}")
        return db

    @contextlib.contextmanager
    def held(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own for a long query: it sees one state, writes nothing, and ends when the store does."""
        if self._closed:
            raise errors.StateError(f"{self.database} is closed")
        with disk_errors(self.database, "read"):
            db = self._connect()
            self._held.add(db)
            try:
                db.execute("PRAGMA query_only = 1")
                db.execute("BEGIN")
                yield db
            finally:
                self._held.discard(db)
                db.close()

    def _open_readers(self) -> None:
        """All that are kept, 0.3 ms each: to open one takes writing to the disk, which may hang by the time of need."""
        while len(self._idle) < _READERS_KEPT:
            self._idle.append(self._connect())
            self._idle[-1].execute("SELECT id FROM state").fetchone()  # which opens the log, too

    def _connect(self) -> sqlite3.Connection:
        mode = "ro" if self.read_only else "rwc"
        db = sqlite3.connect(
            f"{self.database.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=_BUSY_TIMEOUT,
            isolation_level=None,  # transactions are begun and ended by hand
            check_same_thread=False,  # one thread at a time uses a connection; sqlite3.threadsafety is 3 besides
        )
        db.execute(f"PRAGMA cache_size = -{_READER_CACHE_KIB}")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT}")
        return db

    @contextlib.contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        if self._closed:
            raise errors.StateError(f"{self.database} is closed")
        with disk_errors(self.database, "read"):
            try:
                db = self._idle.pop()
            except IndexError:
                db = self._connect()
            try:
                yield db
            finally:
                if self._closed or len(self._idle) >= _READERS_KEPT:
                    db.close()
                else:
                    self._idle.append(db)

    @contextlib.contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        """A reader for several statements that shall see one state."""
        with self._reader() as db:
            db.execute("BEGIN")
            try:
                yield db
            finally:
                db.execute("ROLLBACK")

    def _one(self, sql: str, parameters: Sequence[object]) -> Node | None:
        with self._reader() as db:
            row = db.execute(sql, parameters).fetchone()
            return self._node(db, row) if row is not None else None

    def _node(self, db: sqlite3.Connection, values: Sequence[Any]) -> Node:
        row = read(values)
        return node(row, self._acls.text(db, row.acl))

    def _state(self, columns: str) -> tuple[Any, ...]:
        with self._reader() as db:
            row: tuple[Any, ...] = db.execute(f"SELECT {columns} FROM state").fetchone()
            return row
