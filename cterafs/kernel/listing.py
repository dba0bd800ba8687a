"""Open directories, which the kernel reads by position and the tree by name.

A listing goes forwards through the names, page by page, so that changes in between neither repeat nor lose any other
name. The kernel's position is a count of the entries given; the name at each page's end is remembered, so that
a reader can go back.
"""

from __future__ import annotations

import bisect
import itertools

from cterafs.model import Dirent, Inode
from cterafs.volume import Volume

PAGE = 500
"""Entries fetched at first: more than most directories have."""

NEXT_PAGE = 2000
"""Entries fetched from then on: 1 ms of work for a thread hop of some 0.1 ms; 10 million entries make 5,000 marks."""


class _Listing:
    """One open directory: the page of `entries` that begins at position `first`, as it was at `epoch`.

    `marks` are (position, the last name before it), in ascending order. `ended`: nothing lies behind the page.
    """

    def __init__(self, inode: Inode, dots: list[Dirent]) -> None:
        self.inode = inode
        self.dots = dots
        self.first = len(dots)
        self.entries: list[Dirent] = []
        self.marks: list[tuple[int, str | None]] = [(self.first, None)]
        self.epoch = -1
        self.ended = False


class Listings:
    """The open directories of one mount."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._listings: dict[int, _Listing] = {}
        self._handles = itertools.count(1)

    async def open(self, inode: Inode) -> int:
        """Opens a directory.

        Raises:
            StaleInode, NotADirectory: there is no such directory.
        """
        parent = await self._volume.parent(inode)
        handle = next(self._handles)
        # Of these two, the kernel looks at nothing but the number.
        self._listings[handle] = _Listing(inode, [Dirent(inode, ".", 1, 0, 0, 0), Dirent(parent, "..", 1, 0, 0, 0)])
        return handle

    def close(self, handle: int) -> None:
        del self._listings[handle]

    async def page(self, handle: int, position: int) -> list[Dirent]:
        """Some entries from `position` on, none older than the last change; empty at the end.

        The first two are called "." and "..", which no other is.
        """
        listing = self._listings[handle]
        if position < len(listing.dots):
            return [*listing.dots[position:], *await self.page(handle, len(listing.dots))]
        while True:
            index = position - listing.first
            reach = len(listing.entries) + listing.ended  # the end itself is known as well
            if listing.epoch == self._volume.epoch and 0 <= index < reach:
                return listing.entries[index:]
            if 0 < index <= len(listing.entries):  # going forwards: from behind the name that was given last
                self._mark(listing, position, listing.entries[index - 1].name)
            if not await self._load(listing, position):
                return []

    def _mark(self, listing: _Listing, position: int, name: str) -> None:
        index = bisect.bisect_left(listing.marks, position, key=lambda mark: mark[0])
        listing.marks[index:] = [(position, name)]

    async def _load(self, listing: _Listing, position: int) -> bool:
        """Fetches the page that holds `position`, or one before it; False where the directory ends before it."""
        index = bisect.bisect_right(listing.marks, position, key=lambda mark: mark[0]) - 1
        first, after = listing.marks[index]
        epoch = self._volume.epoch
        limit = PAGE if after is None else NEXT_PAGE
        entries = await self._volume.entries(listing.inode, after, limit)
        listing.first, listing.epoch, listing.entries, listing.ended = first, epoch, entries, len(entries) < limit
        if entries and position > first + len(entries):  # the page has shrunk since it was given
            self._mark(listing, position, entries[-1].name)
        return bool(entries)
