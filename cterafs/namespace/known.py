"""What the writer knows of the database from one transaction to the next, so that it need not ask again."""

from __future__ import annotations

from typing import Final

from cterafs.namespace.findable import Stale
from cterafs.namespace.rows import Acls, Row
from cterafs.namespace.schema import CLOUD_FOLDER, DIRECTORY

_DIRECTORIES_KEPT: Final = 50_000  # 6 MiB


class Known:
    """True as long as transactions are committed: whoever rolls one back, or writes past the edits, has to `forget`.

    Attributes:
        acls: access lists.
        directories: the rows of some directories that there are, by their keys: a page has few, and the next page the
            same.
        stale: what `find` has to look at.
    """

    def __init__(self) -> None:
        self.acls: Final = Acls()
        self.directories: Final[dict[bytes, int]] = {}
        self.stale: Final = Stale()

    def remember(self, key: bytes, row: Row) -> None:
        """The row is what the database has now."""
        if row.kind not in {DIRECTORY, CLOUD_FOLDER}:
            self.directories.pop(key, None)
            return
        if len(self.directories) >= _DIRECTORIES_KEPT:
            self.directories.clear()
        self.directories[key] = row.id

    def forget(self) -> None:
        """All of it may be untrue."""
        self.acls.forget()
        self.directories.clear()
        self.stale.forget()
