"""Which block on the disk holds which bytes of which file: an SQLite database that several processes share.

Nothing in it is believed: each place carries a seal over everything that was said of it, and the block itself is
verified. Whoever holds the write lock may also change the files beside it, so that the two go together.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import sqlite3
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from blake3 import blake3

from cterafs.content import eviction
from cterafs.content.blockcodec import BlockCodec, DamagedBlock, EncryptingCodec
from cterafs.content.memory import BlockKey

log = logging.getLogger(__name__)

LOCK = "lock"

_NAME = re.compile(r"index-[0-9]{20}\.db")
"""The newest one is in use. No name is ever used again: SQLite takes the files beside a database for its own, whatever
database they were made for, and what one connection cuts off another has mapped."""

READ_PATIENCE = 0.2
"""Seconds that a read waits for the index. It hardly ever does: readers are not locked out by a writer."""

LOG_PAGES = 256
"""Of 4 KiB, that SQLite's write-ahead log grows to before its content is moved: it takes space beside the blocks."""

WRITE_PATIENCE = 30.0
"""Seconds that a writer waits for those of other processes, who hold the lock for a few MiB each."""

_SCHEMA = """
CREATE TABLE blocks (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,            -- of the plaintext, keyed where it is encrypted; it names the file
    cost INTEGER NOT NULL,                  -- bytes of disk that it takes
    queue INTEGER NOT NULL,                 -- 0: new, 1: proven
    turn INTEGER NOT NULL,                  -- place in the queue; the lowest leaves first
    hits INTEGER NOT NULL DEFAULT 0         -- times that it was asked for since it came into the queue, up to a few
);
CREATE INDEX blocks_in_turn ON blocks (queue, turn);
CREATE TABLE places (
    scope BLOB NOT NULL,                    -- a digest of the portal's host and context
    file_id INTEGER NOT NULL,
    version BLOB NOT NULL,
    offset INTEGER NOT NULL,
    block INTEGER NOT NULL,
    length INTEGER NOT NULL,                -- of the plaintext, in bytes
    origin BLOB NOT NULL,                   -- what storage calls it, encrypted where the block is
    seal BLOB NOT NULL,                     -- a digest of all that, and of the block's digest, keyed likewise
    PRIMARY KEY (scope, file_id, version, offset)
) WITHOUT ROWID;
CREATE INDEX places_of_block ON places (block);
CREATE TABLE ghosts (                       -- blocks that left the queue of new ones without having been asked for
    turn INTEGER PRIMARY KEY AUTOINCREMENT,
    digest BLOB NOT NULL UNIQUE
);
CREATE TABLE totals (                       -- of each queue
    queue INTEGER PRIMARY KEY,
    bytes INTEGER NOT NULL,
    blocks INTEGER NOT NULL
);
CREATE TRIGGER block_enters AFTER INSERT ON blocks BEGIN
    UPDATE totals SET bytes = bytes + new.cost, blocks = blocks + 1 WHERE queue = new.queue;
END;
CREATE TRIGGER block_leaves AFTER DELETE ON blocks BEGIN
    UPDATE totals SET bytes = bytes - old.cost, blocks = blocks - 1 WHERE queue = old.queue;
END;
CREATE TRIGGER block_moves AFTER UPDATE OF queue ON blocks WHEN old.queue != new.queue BEGIN
    UPDATE totals SET bytes = bytes - old.cost, blocks = blocks - 1 WHERE queue = old.queue;
    UPDATE totals SET bytes = bytes + new.cost, blocks = blocks + 1 WHERE queue = new.queue;
END;
"""

_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT}
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


class DamagedIndex(Exception):
    """The index is no index of ours, or contradicts itself: it has to be set aside."""


class BusyIndex(Exception):
    """Another process holds the index for too long."""


class OtherKind(Exception):
    """The index is one of encrypted blocks and we write plain ones, or the other way round."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a block belongs.

    Attributes:
        origin: what storage calls the block, without what is signed anew; a block from elsewhere is another version.
        length: of the plaintext, in bytes.
    """

    scope: str
    key: BlockKey
    origin: str
    length: int

    @property
    def row(self) -> tuple[bytes, int, bytes, int]:
        """The primary key."""
        return (*_file(self.scope, self.key.file_id, self.key.version), self.key.offset)

    def statement(self, digest: bytes) -> bytes:
        """That this block belongs here, to be sealed."""
        key = self.key
        return repr((self.scope, key.file_id, key.version, key.offset, self.origin, self.length, digest)).encode()


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """SQLite's errors, told apart: damage, patience, and the disk's (OSError)."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in _DAMAGE:
            raise DamagedIndex(str(error)) from error
        if code in _BUSY:
            raise BusyIndex(str(error)) from error
        raise OSError(None, str(error)) from error
    except (MemoryError, OverflowError, TypeError, ValueError) as error:  # lengths and types that are damaged
        raise DamagedIndex(type(error).__name__) from error


class BlockIndex:
    """The index in `directory`. Reads come from any thread; writes from one, which holds the lock while it writes.

    All methods raise `DamagedIndex`, `BusyIndex` and `OSError`.
    """

    def __init__(self, path: Path, writer: sqlite3.Connection, codec: BlockCodec, *, is_new: bool) -> None:
        self.is_new = is_new
        self._codec = codec
        self._path = path
        self._writer = writer
        self._readers: deque[sqlite3.Connection] = deque()
        self._closed = False

    @classmethod
    def open(cls, directory: Path, codec: BlockCodec, *, is_first: bool) -> Self:
        """Opens the index, and makes it where there is none; a damaged one is set aside with a warning.

        Raises:
            OtherKind: unless this `is_first`; then such an index is replaced by a new one.
        """
        with _locked(directory):
            for path in _indexes(directory)[-1:]:
                try:
                    return cls(path, _open(path, codec), codec, is_new=False)
                except OtherKind as error:
                    if not is_first:
                        raise
                    log.info("%s is left: %s", path, error)
                except DamagedIndex as error:
                    log.warning("%s is damaged (%s); it is left, and the cache begins anew", path, error)
            path = _make(directory, codec)
            return cls(path, _open(path, codec), codec, is_new=True)

    def set_aside(self) -> None:
        """Closes it, and makes a new one for whoever opens the directory next, unless a neighbour has done so."""
        self.close()
        with _locked(self._path.parent):
            if self.is_current:
                _make(self._path.parent, self._codec)

    @property
    def is_current(self) -> bool:
        """Whether it is still the one in use: a neighbour may have set it aside."""
        return _indexes(self._path.parent)[-1:] == [self._path]

    def close(self) -> None:
        """Must not be called while it is written; reads under way end as they would have."""
        self._closed = True
        with contextlib.suppress(sqlite3.Error):
            self._writer.close()
        self._close_readers()

    def _close_readers(self) -> None:
        while self._readers:
            with contextlib.suppress(IndexError, sqlite3.Error):
                self._readers.pop().close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that nobody else uses meanwhile."""
        with _errors():
            try:
                db = self._readers.pop()
            except IndexError:
                db = _connect(self._path, READ_PATIENCE)
            try:
                yield db
            finally:
                self._readers.append(db)
                if self._closed:
                    self._close_readers()

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """The write lock of all processes, and a transaction."""
        with _errors():
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._writer.execute("ROLLBACK")
                raise

    def find(self, place: Place) -> bytes | None:
        """The digest of the block that belongs there."""
        query = (
            "SELECT digest, seal FROM places JOIN blocks ON blocks.id = block"
            " WHERE scope = ? AND file_id = ? AND version = ? AND offset = ?"
        )
        with self.reading() as db:
            row = db.execute(query, place.row).fetchone()
        if row is None:
            return None
        digest, seal = row
        return digest if seal == self._codec.seal(place.statement(digest)) else None

    def places(self, scope: str, file_id: int, version: str, most: int) -> list[Place]:
        """All that is known of one version of a file, in the order of offsets; nothing if it is more than `most`."""
        query = (
            "SELECT offset, length, origin, digest, seal FROM places JOIN blocks ON blocks.id = block"
            " WHERE scope = ? AND file_id = ? AND version = ? ORDER BY offset LIMIT ?"
        )
        with self.reading() as db:
            rows = db.execute(query, (*_file(scope, file_id, version), most + 1)).fetchall()
            found = []
            for offset, length, origin, digest, seal in rows:
                with contextlib.suppress(DamagedBlock):  # of another key
                    place = Place(scope, BlockKey(file_id, version, offset), _text(self._codec.show(origin)), length)
                    if seal == self._codec.seal(place.statement(digest)):
                        found.append(place)
        return found if len(rows) <= most else []

    def lead(self, db: sqlite3.Connection, place: Place, block: int, digest: bytes) -> None:
        """From now on, `block` is what belongs there. `db` is that of `writing`."""
        origin, seal = self._codec.hide(_bytes(place.origin)), self._codec.seal(place.statement(digest))
        row = (*place.row, block, place.length, origin, seal)
        db.execute("INSERT OR REPLACE INTO places VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    def used(self) -> int:
        """Bytes of disk that all blocks take."""
        with self.reading() as db:
            return eviction.used(db)


def forget(db: sqlite3.Connection, scope: str, file_id: int, version: str) -> None:
    """Nothing leads from this version of a file to any block."""
    file = _file(scope, file_id, version)
    db.execute("DELETE FROM places WHERE scope = ? AND file_id = ? AND version = ?", file)


def number(db: sqlite3.Connection, digest: bytes) -> int | None:
    """The block with this digest."""
    row = db.execute("SELECT id FROM blocks WHERE digest = ?", (digest,)).fetchone()
    return None if row is None else row[0]


def beginning_with(db: sqlite3.Connection, byte: int) -> set[bytes]:
    """The digests that begin with this byte."""
    low, high = bytes([byte]), bytes([byte]) + b"\xff" * 32
    return {digest for (digest,) in db.execute("SELECT digest FROM blocks WHERE digest BETWEEN ? AND ?", (low, high))}


def drop(db: sqlite3.Connection, digests: Iterable[bytes]) -> None:
    """Removes blocks and what leads to them."""
    for digest in digests:
        block = number(db, digest)
        if block is not None:
            eviction.drop(db, block)


def _file(scope: str, file_id: int, version: str) -> tuple[bytes, int, bytes]:
    return blake3(scope.encode()).digest(8), file_id, _bytes(version)


def _bytes(text: str) -> bytes:
    """What a portal calls text may not be Unicode."""
    return text.encode("utf-8", "surrogatepass")


def _text(stored: bytes) -> str:
    return stored.decode("utf-8", "surrogatepass")


def _indexes(directory: Path) -> list[Path]:
    """The newest at the end."""
    try:
        return sorted(path for path in directory.iterdir() if _NAME.fullmatch(path.name))
    except FileNotFoundError:
        return []


def _make(directory: Path, codec: BlockCodec) -> Path:
    """An empty index, newer than all others. Of these, the last one stays for whoever wants to look at it; but none
    beside encrypted blocks, since it may have digests of plain ones."""
    old = _indexes(directory)
    for path in old if codec.overhead else old[:-1]:
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    number = max([time.time_ns(), *(int(path.stem.removeprefix("index-")) + 1 for path in old)])
    path = directory / f"index-{number:020}.db"
    unfinished = path.with_suffix(".new")
    unfinished.unlink(missing_ok=True)
    os.close(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))  # the files beside it follow its mode
    with _errors(), contextlib.closing(_connect(unfinished, WRITE_PATIENCE)) as db:
        db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {codec.version}; COMMIT")
        eviction.recount(db)
    unfinished.rename(path)
    return path


def _open(path: Path, codec: BlockCodec) -> sqlite3.Connection:
    """The writing connection, once the index has shown that it is one."""
    with _errors():
        db = _connect(path, WRITE_PATIENCE)
        try:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version != codec.version:
                raise _stranger(version)
            eviction.used(db)
        except BaseException:
            db.close()
            raise
    return db


def _stranger(version: int) -> Exception:
    if version == BlockCodec.version:
        return OtherKind("its blocks are not encrypted")
    if version == EncryptingCodec.version:
        return OtherKind("its blocks are encrypted")
    return DamagedIndex("it is not of this version")


def _connect(path: Path, patience: float) -> sqlite3.Connection:
    address = f"{path.absolute().as_uri()}?mode=rw"  # it is never made by this
    db = sqlite3.connect(address, uri=True, timeout=patience, isolation_level=None, check_same_thread=False)
    try:
        db.text_factory = bytes  # there is no text in it, unless it is damaged
        db.execute("PRAGMA cell_size_check = ON")
        db.execute("PRAGMA synchronous = NORMAL")  # no sync per commit; a power cut costs the last blocks
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
    except BaseException:
        db.close()
        raise
    return db


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Only one process at a time makes an index or sets one aside."""
    handle = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
