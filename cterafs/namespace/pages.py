"""What was listed lately, for whoever lists it again, or comes to it on a walk that was read ahead of.

A large directory takes SQLite as long as the kernel's requests for it. Pure bookkeeping; no I/O.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from cterafs.model import Change, Dirent, Inode

KEPT = 150_000
"""Entries kept: about 40 MiB. A directory of 100,000, and the small ones of a tree that a tool goes through again."""

OVERHEAD = 2
"""Entries whose memory a page takes besides its own."""


class Pages:
    """Pages of directories as they are now: whoever changes something has to `forget`. The lists are not copied."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        # The one that was begun last is the last. A plain dictionary finds its first key slowly once others have gone.
        self._directories: OrderedDict[Inode, dict[str | None, list[Dirent]]] = OrderedDict()
        self._size = 0

    def get(self, directory: Inode, after: str | None) -> list[Dirent] | None:
        """The page behind the name `after`."""
        pages = self._directories.get(directory)
        if pages is None:
            return None
        if after is None:
            self._directories.move_to_end(directory)
        return pages.get(after)

    def keep(self, directory: Inode, after: str | None, entries: list[Dirent]) -> None:
        """What was listed longest ago makes room."""
        pages = self._directories.setdefault(directory, {})
        self._size += len(entries) + OVERHEAD - _weight(pages.get(after))
        pages[after] = entries
        while self._size > self._kept:
            self._drop(next(iter(self._directories)))

    def forget(self, changes: Iterable[Change]) -> None:
        """These changes were made: neither where they were made nor what changed is as it was."""
        if not self._directories:
            return
        for change in changes:
            for node in (change.old, change.new):
                if node is not None:
                    self._drop(node.parent)
                    self._drop(node.inode)

    def __contains__(self, directory: Inode) -> bool:
        return directory in self._directories

    def _drop(self, directory: Inode) -> None:
        pages = self._directories.pop(directory, None)
        if pages is not None:
            self._size -= sum(map(_weight, pages.values()))


def _weight(page: list[Dirent] | None) -> int:
    return 0 if page is None else len(page) + OVERHEAD
