"""What the one writer hands out: a transaction that is still open, and what it changes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from cterafs.model import Change
from cterafs.namespace.disk import commit, disk_errors


class Batch:
    """An open transaction and what it changes. Until `commit`, readers see the state before it.

    Attributes:
        changes: what becomes of everything that was or will be visible in its directory; nothing for repeated events.
    """

    def __init__(
        self, db: sqlite3.Connection, database: Path, forget: Callable[[], None], changes: Sequence[Change]
    ) -> None:
        self.changes: Final = changes
        self._db: Final = db
        self._database: Final = database
        self._forget: Final = forget

    def commit(self) -> None:
        """
        Raises:
            StateError: the disk is full or failing; nothing was changed.
        """
        with disk_errors(self._database, "written"):
            try:
                commit(self._db)
            except sqlite3.Error:
                self.rollback()
                raise

    def rollback(self) -> None:
        """Leaves the state as it was. Harmless where SQLite has rolled back by itself."""
        self._forget()
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
