"""How often each inode has been told to a frontend that did not forget it yet.

A kernel with memory to spare holds every inode that it was ever told of, ten million after a `find`. A dictionary of
counts would take some 100 bytes for each; inode numbers are drawn one after the other, so pages of one byte per inode
take little more than one.
"""

from __future__ import annotations

from cterafs.model import Inode

BITS = 12
PAGE = 1 << BITS
"""Inodes per page: a whole page is freed at once, so it should not be long."""

LARGEST = 255
"""What a byte holds; the few inodes that are referred to more often (a root, a hot directory) have a full count."""


class References:
    """A counter per inode that is small for very many inodes. Absent is zero."""

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}
        self._live: dict[int, int] = {}
        self._more: dict[int, int] = {}

    def add(self, inode: Inode) -> None:
        """One more reference."""
        number, slot = inode >> BITS, inode & (PAGE - 1)  # for each entry of each listing: `divmod` takes longer
        page = self._pages.get(number)
        if page is None:
            page = self._pages[number] = bytearray(PAGE)
            self._live[number] = 0
        count = page[slot]
        if count == LARGEST:
            self._more[inode] = self._more.get(inode, 0) + 1
            return
        if not count:
            self._live[number] += 1
        page[slot] = count + 1

    def subtract(self, inode: Inode, count: int) -> None:
        """`count` fewer references; never fewer than none."""
        number, slot = divmod(inode, PAGE)
        page = self._pages.get(number)
        if page is None or not page[slot]:
            return
        left = page[slot] + self._more.pop(inode, 0) - count
        if left > LARGEST:
            self._more[inode] = left - LARGEST
        page[slot] = max(0, min(left, LARGEST))
        if not page[slot]:
            self._live[number] -= 1
            if not self._live[number]:
                del self._pages[number], self._live[number]

    def __contains__(self, inode: Inode) -> bool:
        number, slot = divmod(inode, PAGE)
        page = self._pages.get(number)
        return page is not None and page[slot] > 0

    def __len__(self) -> int:
        """How many inodes are referred to."""
        return sum(self._live.values())
