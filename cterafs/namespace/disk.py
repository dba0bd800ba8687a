"""SQLite's errors that are the disk's fault become StateError here; those that are ours pass, and are heard of."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from cterafs.errors import StateError

PULSE: Final = 200_000  # steps of SQLite's machine: some milliseconds


@contextlib.contextmanager
def disk_errors(database: Path, action: str) -> Iterator[None]:
    """Around whatever reads or writes a database.

    Raises:
        StateError: the disk is full, read-only or failing, or the database locked or damaged.
    """
    try:
        yield
    except sqlite3.Error as error:
        # A damaged file is a bare DatabaseError, or contradicts itself; the other kinds tell of a wrong statement.
        fault = isinstance(error, (sqlite3.OperationalError, sqlite3.IntegrityError))
        if fault or type(error) is sqlite3.DatabaseError:
            raise StateError(f"{database} cannot be {action}: {error}") from error
        raise
    except (MemoryError, UnicodeDecodeError) as error:  # a length that is damaged; a message that quotes such a text
        raise StateError(f"{database} cannot be {action}: it may be damaged ({type(error).__name__})") from error


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
