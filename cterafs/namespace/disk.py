"""SQLite's errors that are the disk's fault become StateError here; those that are ours pass, and are heard of."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from cterafs.errors import StateError


@contextlib.contextmanager
def disk_errors(database: Path, action: str) -> Iterator[None]:
    """Around whatever reads or writes a database.

    Raises:
        StateError: the disk is full, read-only or failing, or the database locked or damaged.
    """
    try:
        yield
    except sqlite3.Error as error:
        # A damaged file is a bare DatabaseError; its other kinds tell of a wrong statement.
        if isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError:
            raise StateError(f"{database} cannot be {action}: {error}") from error
        raise
