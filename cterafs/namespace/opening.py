"""What makes a file in the state directory an index that can be used, and what is said where it is none."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from cterafs import errors
from cterafs.namespace import schema
from cterafs.namespace.rows import COLUMNS, read
from cterafs.namespace.staging import STAGING, remove

DATABASE: Final = "index.db"
_SIDE_FILES: Final = ("-wal", "-shm")
_STATE: Final = (
    "selection, bytes, layout, imported, relist, generation, next_id, files, directories, orphans, staging, open"
)


def set_aside(directory: Path) -> Path:
    """Renames a database that cannot be used to `index.db.corrupt-<n>`, so that a new one can be made.

    Raises:
        StateError: it cannot be renamed.
    """
    path = directory / DATABASE
    number = 1
    while (aside := directory / f"{DATABASE}.corrupt-{number}").exists():
        number += 1
    try:
        path.rename(aside)
        for suffix in _SIDE_FILES:  # the log belongs to the file: beside a new one it would be applied to that
            side = directory / (DATABASE + suffix)
            if side.exists():
                side.rename(directory / (aside.name + suffix))
    except OSError as error:
        raise errors.StateError(f"{path} cannot be set aside: {error.strerror}; remove it by hand") from error
    remove(directory / STAGING)
    return aside


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns what SQLite says upon opening into a sentence that says what to do."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        primary = code & 0xFF if isinstance(code, int) else None
        # A statement that cannot be compiled (SQLITE_ERROR) is right for the tables as we make them.
        if primary in {None, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}:
            raise UnusableIndex(
                f"{path} is damaged ({error}); set it aside, and the namespace is imported again"
            ) from error
        if primary in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            raise errors.StateError(f"{path} is in use by another process; stop it, or wait for it") from error
        raise errors.StateError(f"{path} cannot be opened ({error}); check its permissions and the disk") from error
    except (MemoryError, UnicodeDecodeError) as error:  # a length, or the text that SQLite's message quotes
        raise UnusableIndex(f"{path} is damaged; set it aside, and the namespace is imported again") from error


class UnusableIndex(errors.StateError):
    """The index is damaged or not an index at all: `set_aside` makes room for a new one."""


def prepare(db: sqlite3.Connection, path: Path, *, read_only: bool) -> bool:
    """Checks that the database is ours, makes it where it is empty, and brings it up to date."""
    version = db.execute("PRAGMA user_version").fetchone()[0]
    application = db.execute("PRAGMA application_id").fetchone()[0]
    if application == 0 and version == 0 and db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0:
        if read_only:
            raise errors.StateError(f"{path} is empty; mount once to fill it")
        schema.create(db)
        return False
    if application != schema.APPLICATION_ID:
        raise UnusableIndex(f"{path} is not an index of cterafs; set it aside, or choose another state.directory")
    if version > schema.VERSION:
        raise errors.StateError(
            f"{path} was written by a newer cterafs (version {version}, this one knows {schema.VERSION}); "
            "upgrade, or remove it to import the namespace again"
        )
    if version < schema.VERSION:
        if read_only:
            raise errors.StateError(f"{path} was written by an older cterafs; mount once to bring it up to date")
        schema.migrate(db, version)
    _check(db, path)
    (state,) = db.execute("SELECT open FROM state").fetchone()
    if state == schema.DAMAGED and not read_only:
        raise UnusableIndex(f"{path} was found damaged by the last check; set it aside")
    return bool(state != schema.CLOSED)


def _check(db: sqlite3.Connection, path: Path) -> None:
    """A cheap check: the tables are there, and the two rows that everything stands on can be read."""
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    indexes = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'index'")}
    if not tables >= schema.TABLE_NAMES or not indexes >= schema.INDEX_NAMES:
        raise UnusableIndex(
            f"{path} is damaged (tables are missing); set it aside, and the namespace is imported again"
        )
    states = db.execute(f"SELECT {_STATE} FROM state").fetchall()
    root = db.execute(f"SELECT {COLUMNS} FROM entry WHERE id = ?", (schema.ROOT,)).fetchone()
    if len(states) != 1 or not _plausible(states[0]) or root is None or read(root).kind != schema.SYNTHETIC:
        raise UnusableIndex(f"{path} is damaged (it has no state); set it aside, and the namespace is imported again")


def _plausible(state: tuple[Any, ...]) -> bool:
    selection, total, layout, *numbers = state
    try:
        msgspec.json.decode(selection, type=list[int])
        int(total)
    except (ValueError, TypeError, msgspec.DecodeError):
        return False
    return isinstance(layout, str) and all(isinstance(number, int) for number in numbers)
