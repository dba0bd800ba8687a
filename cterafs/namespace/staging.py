"""Where a large first import waits until it is complete: appended in the order of arrival, indexed by nothing.

`import.db` in the state directory, beside the index. Keeping the indexes of ten million random guids up row by row
writes a page of each for every row; building them once, sorted, does not. So from some size on, the listing's pages are
appended here, together with the cursor, until the listing ends; then `settle` decides what became of each object, and
`building` moves it all into the index in one transaction. Only directories are looked up meanwhile, as their entries
need their inode numbers.

The index keeps answering as it was when the staging began. The file is a database of its own, so that its room is given
back when it is removed, and the cursor that belongs to it is in it, so that both are committed together. When it is
lost or damaged, the namespace is listed again.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cterafs.errors import StateError
from cterafs.model import Cursor, Event
from cterafs.namespace.disk import disk_errors
from cterafs.namespace.guid import guid_key, guid_text
from cterafs.namespace.names import safe
from cterafs.namespace.rows import MARKS, Acls, Row, described, kind_of, read, stored, told, told_or_none
from cterafs.namespace.schema import CLOUD_FOLDER, DIRECTORY, FILE

STAGING: Final = "import.db"

GONE: Final = -1  # the kind of an event that tells of a deletion

_NOWHERE: Final = 0  # the parent of a file that names none
_OWNERS: Final = 1_000_000  # numbers left free: the index may draw some for owners' directories meanwhile
_PLACES_KEPT: Final = 100_000  # directories in memory: 15 MB
_BATCH: Final = 200  # parameters in one query
_CACHE_KIB: Final = 32 << 10
_WAL_LIMIT: Final = 64 << 20  # bytes

_COLUMNS: Final = "inode, guid, kind, parent, name, want, wire, folder_id, file_id, size, gvsn, acl, mtime_ns, ctime_ns"
_INSERT: Final = f"INSERT INTO event VALUES (?, {', '.join(MARKS)})"
_EVENT: Final = """(
    seq        INTEGER PRIMARY KEY,  -- the order of arrival: of a file, its inode
    inode      INTEGER NOT NULL,     -- `id` of `entry` in the index; the others are its columns of the same names
    guid       BLOB NOT NULL,
    kind       INTEGER NOT NULL,     -- FILE, DIRECTORY, CLOUD_FOLDER or GONE
    parent     INTEGER,
    name       TEXT,
    want       TEXT,                 -- always NULL: names are shared out at the end
    wire       ANY,
    folder_id  INTEGER,
    file_id    INTEGER,
    size       INTEGER NOT NULL,
    gvsn       ANY,
    acl        INTEGER,              -- acl.id of this database
    mtime_ns   INTEGER NOT NULL,
    ctime_ns   INTEGER NOT NULL
) STRICT;
"""
_SCHEMA: Final = f"""
CREATE TABLE event {_EVENT}
CREATE TABLE odd {_EVENT}            -- the last events of the objects that the index applies one by one
CREATE TABLE place (                 -- directories, whatever is named as a parent, and all that the index has
    guid       BLOB PRIMARY KEY,
    inode      INTEGER NOT NULL,
    known      INTEGER NOT NULL      -- 1 where the index had it when the staging began
) STRICT, WITHOUT ROWID;
CREATE TABLE acl (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    sddl       ANY NOT NULL UNIQUE
) STRICT;
CREATE TABLE state (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    generation INTEGER NOT NULL,     -- of the index that this belongs to
    first      INTEGER NOT NULL,     -- the first inode number drawn here
    next_inode INTEGER NOT NULL,
    cursor     ANY,                  -- where the feed goes on
    complete   INTEGER NOT NULL      -- 1 once the listing has ended: the index can be built
) STRICT;
"""

# What is known of a guid, as the least and the greatest of these marks and their number.
_MARKED: Final = f"""
SELECT guid, CASE kind WHEN {FILE} THEN 1 WHEN {DIRECTORY} THEN 2 WHEN {GONE} THEN 5 ELSE 6 END AS mark FROM event
UNION ALL SELECT guid, 3 + known FROM place
"""
_FILE_ONLY: Final = "max(mark) = 1"
_DIRECTORY_ONLY: Final = "(min(mark) = 2 AND max(mark) = 3)"
_NEVER_TOLD: Final = "(min(mark) = max(mark) AND max(mark) IN (3, 4))"
_SETTLE: Final = (
    "INSERT INTO event SELECT * FROM odd",  # of an earlier attempt, which more pages have followed
    "DELETE FROM odd",
    "CREATE TEMP TABLE suspect (guid BLOB PRIMARY KEY, odd INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    f"""INSERT INTO suspect SELECT guid, NOT ({_FILE_ONLY} OR {_DIRECTORY_ONLY}) FROM ({_MARKED}) GROUP BY guid
    HAVING NOT ({_NEVER_TOLD} OR ({_FILE_ONLY} AND count(*) = 1) OR ({_DIRECTORY_ONLY} AND count(*) = 2))""",
    "CREATE TEMP TABLE doubtful (seq INTEGER PRIMARY KEY, guid BLOB NOT NULL, odd INTEGER NOT NULL) STRICT",
    "INSERT INTO doubtful SELECT seq, guid, odd FROM event CROSS JOIN suspect USING (guid)",
    "CREATE TEMP TABLE last (seq INTEGER PRIMARY KEY, odd INTEGER NOT NULL) STRICT",
    "INSERT INTO last SELECT max(seq), odd FROM doubtful GROUP BY guid",
    "INSERT INTO odd SELECT event.* FROM last CROSS JOIN event USING (seq) WHERE last.odd",
    """DELETE FROM event WHERE seq IN (SELECT seq FROM doubtful)
    AND seq NOT IN (SELECT seq FROM last WHERE NOT odd)""",
    "CREATE INDEX IF NOT EXISTS place_inode ON place (inode)",  # for `odd`, which runs while the index is written
)
_UNSETTLE: Final = "DROP TABLE IF EXISTS suspect; DROP TABLE IF EXISTS doubtful; DROP TABLE IF EXISTS last;"


class Staging:
    """The one writer of a staged import. Transactions are ended by the caller, through `db`.

    Raises (all methods):
        StateError: the disk is full or failing, or the file damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path: Final = path
        with disk_errors(path, "opened"):
            self.db: Final = _connect(path)
        self._acls: Final = Acls()
        self._places: Final[dict[bytes, int]] = {}
        self._next_inode = 0

    @classmethod
    def begin(cls, path: Path, index: sqlite3.Connection) -> Staging:
        """Makes a new file for what follows the entries of `index`, the writer's connection; one left over goes."""
        remove(path)
        staging = cls(path)
        with disk_errors(path, "written"):
            db = staging.db
            db.executescript(f"PRAGMA journal_mode = WAL; BEGIN IMMEDIATE; {_SCHEMA}")
            known = index.execute("SELECT guid, id FROM entry WHERE guid IS NOT NULL ORDER BY guid")
            db.executemany("INSERT INTO place (guid, inode, known) VALUES (?, ?, 1)", known)
            generation, after, cursor = index.execute("SELECT generation, next_id, cursor FROM state").fetchone()
            first = after + _OWNERS
            db.execute("INSERT INTO state VALUES (1, ?, ?, ?, ?, 0)", (generation, first, first, cursor))
            db.execute("COMMIT")
        return staging

    @classmethod
    def resume(cls, path: Path, generation: int) -> Staging | None:
        """The file of an interrupted import into the index of this generation; None where it cannot be used."""
        if not path.exists():
            return None
        staging: Staging | None = None
        try:
            staging = cls(path)
            if staging.state("generation") == generation:
                return staging
        except StateError:
            pass  # damaged: the caller lists again, and `begin` makes a new one
        if staging is not None:
            staging.close()
        return None

    def close(self) -> None:
        self.db.close()

    def forget(self) -> None:
        """After a rollback: numbers that were drawn in it are drawn again."""
        self._acls.forget()
        self._places.clear()

    def state(self, column: str) -> Any:
        with disk_errors(self.path, "read"):
            row = self.db.execute(f"SELECT {column} FROM state").fetchone()
        if row is None:
            raise StateError(f"{self.path} is damaged: it has no state")
        return row[0]

    def stage(self, events: Sequence[Event], cursor: Cursor | None, *, complete: bool) -> None:
        """Appends a page, in a transaction that it begins and leaves open."""
        with disk_errors(self.path, "written"):
            self.db.execute("BEGIN IMMEDIATE")
            try:
                self._next_inode = self.state("next_inode")
                keys = [guid_key(event.guid) for event in events]
                parents = self._find_places(keys, events)
                self.db.executemany(_INSERT, self._rows(keys, events, parents))
                self.db.execute(
                    "UPDATE state SET next_inode = ?, cursor = coalesce(?, cursor), complete = ?",
                    (self._next_inode, None if cursor is None else stored(cursor), int(complete)),
                )
            except BaseException:
                self.forget()
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                raise

    def settle(self) -> None:
        """Leaves one event of each object: in `event` where the object is new and stands for itself, else in `odd`.

        Odd are cloud folders, deletions, what the index has already, and what has been a file and a directory.
        """
        with disk_errors(self.path, "written"):
            self.db.executescript(_UNSETTLE)
            self.db.execute("BEGIN IMMEDIATE")
            try:
                for statement in _SETTLE:
                    self.db.execute(statement)
                self.db.execute("COMMIT")
            except BaseException:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                raise
            self.db.executescript(_UNSETTLE)

    def odd(self) -> Iterator[Event]:
        """The events that the index applies one by one, in the order of arrival."""
        sql = (
            f"SELECT {', '.join(f'odd.{c.strip()}' for c in _COLUMNS.split(','))}, place.guid, acl.sddl FROM odd"
            " LEFT JOIN place ON place.inode = odd.parent LEFT JOIN acl ON acl.id = odd.acl ORDER BY seq"
        )
        with disk_errors(self.path, "read"):
            for *values, parent, sddl in self.db.execute(sql):
                yield _event(read(values), parent, told_or_none(sddl))

    # -- a page

    def _find_places(self, keys: Sequence[bytes], events: Sequence[Event]) -> dict[str, int]:
        """Sees to it that all directories of a page have their numbers at hand; gives those of all parents it names."""
        if len(self._places) > _PLACES_KEPT:
            self._places.clear()
        parents: dict[str, bytes] = {}  # a page has few directories and many entries of each
        wanted: dict[bytes, None] = {}  # in their order
        for key, event in zip(keys, events, strict=True):
            if event.deleted or not event.parent_guid:
                continue
            if event.is_dir:
                wanted[key] = None
            if event.parent_guid not in parents:
                parents[event.parent_guid] = parent = guid_key(event.parent_guid)
                wanted[parent] = None
        missing = [key for key in wanted if key not in self._places]
        for start in range(0, len(missing), _BATCH):
            part = missing[start : start + _BATCH]
            marks = ", ".join("?" * len(part))
            self._places.update(self.db.execute(f"SELECT guid, inode FROM place WHERE guid IN ({marks})", part))
        new = {key: self._draw() for key in missing if key not in self._places}
        self._places.update(new)
        self.db.executemany("INSERT INTO place (guid, inode, known) VALUES (?, ?, 0)", new.items())
        return {guid: self._places[key] for guid, key in parents.items()}

    def _draw(self) -> int:
        self._next_inode += 1
        return self._next_inode - 1

    def _rows(
        self, keys: Sequence[bytes], events: Iterable[Event], parents: Mapping[str, int]
    ) -> Iterator[tuple[object, ...]]:
        """What the statement takes, made without anything in between: there are millions. See `rows.parameters`."""
        for key, event in zip(keys, events, strict=True):
            seq = self._draw()
            if event.deleted:
                yield (seq, 0, bytearray(key), GONE, None, None, 0, 0, None, None, 0, None, 0, 0, 0)
                continue
            kind, name = kind_of(event), safe(event.name)
            folder_id, file_id, size, gvsn, mtime_ns, ctime_ns = described(event)
            yield (
                seq,
                self._places[key] if kind == DIRECTORY else seq,
                bytearray(key),
                kind,
                parents[event.parent_guid] if event.parent_guid else None if kind == CLOUD_FOLDER else _NOWHERE,
                name,
                0,
                stored(event.name) if name != event.name else 0,
                folder_id,
                file_id,
                size,
                gvsn,
                self._acls.intern(self.db, event.acl) or 0,
                mtime_ns,
                ctime_ns,
            )


def staged_cursor(path: Path) -> Cursor | None:
    """Where the feed goes on behind what is staged; None, from the beginning, where that cannot be told.

    Raises:
        StateError: the file is there and cannot be read.
    """
    if not path.exists():
        return None
    with disk_errors(path, "read"), contextlib.closing(_connect(path)) as db:
        cursor = told_or_none(db.execute("SELECT cursor FROM state").fetchone()[0])
    return None if cursor is None else Cursor(cursor)


def remove(path: Path) -> None:
    """Removes a staging that nobody has open."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()  # first: a log without its database is nothing
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).unlink()


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT}")
    return db


def _event(row: Row, parent: bytes | None, acl: str | None) -> Event:
    """The event that a staged row was made of."""
    return Event(
        guid=guid_text(row.guid or b""),
        name=told(row.wire) if row.wire is not None else row.name or "",
        is_dir=row.kind >= DIRECTORY,
        deleted=row.kind == GONE,
        folder_id=row.folder_id,
        parent_guid=None if parent is None else guid_text(parent),
        file_id=row.file_id,
        size=row.size,
        gvsn=told_or_none(row.gvsn),
        acl=acl,
        mtime_ns=row.mtime_ns,
        ctime_ns=row.ctime_ns,
    )
