"""SQLite's errors that are the disk's fault become StateError here; those that are ours pass, and are heard of."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from cterafs.errors import StateError

PULSE: Final = 200_000  # steps of SQLite's machine: some milliseconds
_DAMAGED: Final = {None, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}  # None: found by us, or by the sqlite3 module


class DamagedDatabase(StateError):
    """What is in the database contradicts itself: trying again does not help. `database` is its path."""

    def __init__(self, message: str, database: Path) -> None:
        super().__init__(message)
        self.database: Final = database


@contextlib.contextmanager
def disk_errors(database: Path, action: str) -> Iterator[None]:
    """Around whatever reads or writes a database.

    Raises:
        DamagedDatabase: it is damaged.
        StateError: the disk is full, read-only or failing, or the database locked.
    """
    try:
        yield
    except sqlite3.Error as error:
        message = f"{database} cannot be {action}: {error}"
        # A damaged file is a bare DatabaseError, or contradicts itself; the other kinds tell of a wrong statement.
        fault = isinstance(error, (sqlite3.OperationalError, sqlite3.IntegrityError))
        if not fault and type(error) is not sqlite3.DatabaseError:
            raise
        code = getattr(error, "sqlite_errorcode", None)
        if isinstance(error, sqlite3.IntegrityError) or (code if code is None else code & 0xFF) in _DAMAGED:
            raise DamagedDatabase(message, database) from error
        raise StateError(message) from error
    except UnicodeDecodeError as error:  # a message that quotes a damaged text
        raise DamagedDatabase(f"{database} cannot be {action}: it is damaged", database) from error
    except MemoryError as error:  # a length that is damaged, or there is no memory
        raise StateError(f"{database} cannot be {action}: it may be damaged (MemoryError)") from error


@contextlib.contextmanager
def interruptible(alive: Callable[[], None] | None, *connections: sqlite3.Connection) -> Iterator[None]:
    """Calls `alive` every few milliseconds of a statement; an exception from it interrupts the statement."""

    def pulse() -> int:
        if alive is not None:
            alive()
        return 0

    for db in connections:
        db.set_progress_handler(pulse, PULSE)
    try:
        yield
    finally:
        for db in connections:
            db.set_progress_handler(None, 0)


def commit(db: sqlite3.Connection) -> None:
    """Commits, and takes note of that as the first reader would: by a read mark in the log's index, which is on the
    disk. Whoever came first once the disk hangs would wait for it."""
    db.execute("COMMIT")
    with contextlib.suppress(sqlite3.Error, MemoryError):  # it is committed, whatever comes of this
        db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
