"""What a listing from the beginning has mentioned of all that is known already, and what it has not.

What it mentions is marked, in the transaction of its page, so that a crash resumes in the middle. Once it is complete,
the rest goes, in the order of rows; except for directories that it left out although there are such, which something
that it did mention gives away. Where this stands is in memory only: whoever begins again looks at all of it once more.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any, Final

from cterafs.namespace.guid import guid_text
from cterafs.namespace.rows import COLUMNS, Row
from cterafs.namespace.schema import FILE, ROWS, SYNTHETIC
from cterafs.namespace.store import UnknownParent

_UNSEEN: Final = (
    f"FROM entry WHERE kind >= {FILE} AND kind < {SYNTHETIC}"
    " AND NOT EXISTS (SELECT 1 FROM seen WHERE seen.id = entry.id)"
)
_SWEPT: Final = f"SELECT {COLUMNS} {_UNSEEN} AND entry.id > ? ORDER BY entry.id LIMIT ?"
_DOUBTFUL: Final = (
    "SELECT id, folder_id, guid, (SELECT below.guid FROM entry AS below CROSS JOIN seen USING (id)"
    f" WHERE below.parent = entry.id LIMIT 1) AS child {_UNSEEN}"
    " AND id > ? AND folder_id IS NOT NULL AND child IS NOT NULL ORDER BY id LIMIT ?"
)
_SWEPT_AT_ONCE: Final = 2_000  # rows that one batch of a sweep removes: as many as a page of events touches


class Relisting:
    """The marks of one index, through its writer's connection; transactions are the caller's."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db: Final = db
        self._swept = 0  # up to this row, nothing is left to be removed
        self._doubted = 0  # up to this row, nothing is doubtful

    def begin(self) -> None:
        self._swept = self._doubted = 0
        self.end()

    def end(self) -> None:
        self._db.execute("DELETE FROM seen")

    def mark(self, rows: Iterable[Row]) -> None:
        """The portal mentioned these objects, which may put what they lie in into doubt."""
        marked = [*rows]
        self._db.executemany("INSERT OR IGNORE INTO seen VALUES (?)", [(row.id,) for row in marked])
        self._doubted = min([self._doubted, *(row.parent - 1 for row in marked if row.parent)])

    def mark_built(self) -> None:
        """What has just been built of a staged listing was mentioned by it."""
        self._db.execute("INSERT OR IGNORE INTO seen SELECT inode FROM staged.event")
        self._doubted = 0

    def is_unseen(self, key: bytes) -> bool:
        return self._db.execute(f"SELECT 1 {_UNSEEN} AND guid = ?", (key,)).fetchone() is not None

    def doubtful(self, limit: int) -> list[UnknownParent]:
        """Some of what is not marked although something in it is."""
        rows = self._db.execute(_DOUBTFUL, (self._doubted, limit)).fetchall()
        if rows:
            self._doubted = rows[0][0] - 1
        else:
            self._doubted = self._db.execute("SELECT next_id FROM state").fetchone()[0]
        return [UnknownParent(folder_id, guid_text(key), guid_text(child)) for _, folder_id, key, child in rows]

    def unseen(self) -> tuple[list[tuple[Any, ...]], bool]:
        """The next rows to be removed, and whether they are the last."""
        rows = self._db.execute(_SWEPT, (self._swept, _SWEPT_AT_ONCE)).fetchall()
        if rows:
            self._swept = (rows[0][0] & ROWS) - 1  # not further: it may be rolled back
        return rows, len(rows) < _SWEPT_AT_ONCE
