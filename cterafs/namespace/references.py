"""How often each inode has been told to a frontend that did not forget it yet.

A kernel with memory to spare holds every inode that it was ever told of, ten million after a `find`. A dictionary of
counts would take some 100 bytes for each; rows are numbered one after the other, so pages of one byte per row take
little more than one, and four more where a row of the page has had other contents before.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from cterafs.model import Inode
from cterafs.namespace.schema import ROW_BITS, ROWS

BITS = 12
PAGE = 1 << BITS
"""Rows per page: a whole page is freed at once, so it should not be long."""

LARGEST = 255
"""What a byte holds; the few inodes that are referred to more often (a root, a hot directory) have more elsewhere."""


class References:
    """A counter per inode that is small for very many inodes. Absent is zero.

    A row's slot counts for one of its versions, the one that came first; what does not fit there is in a dictionary.
    """

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}
        self._versions: dict[int, array[int]] = {}  # for which version each slot counts; absent: for the first
        self._live: dict[int, int] = {}
        self._more: dict[int, int] = {}

    def add_all(self, inodes: Iterable[Inode]) -> None:
        """One more reference to each. For each entry of each listing, so what is usual is done here, without calls."""
        current, page = -1, None
        for inode in inodes:
            number, slot = inode >> BITS, inode & (PAGE - 1)
            if number != current:  # of other than first versions, there is no such page
                current, page = number, None if number in self._versions else self._pages.get(number)
            count = page[slot] if page is not None else LARGEST
            if page is None or count == LARGEST:
                self.add(inode)
                current = -1
                continue
            if not count:
                self._live[number] += 1
            page[slot] = count + 1

    def add(self, inode: Inode) -> None:
        """One more reference."""
        number, slot = (inode & ROWS) >> BITS, inode & (PAGE - 1)
        page = self._pages.get(number)
        if page is None:
            page = self._pages[number] = bytearray(PAGE)
            self._live[number] = 0
        count = page[slot]
        if not count:
            self._live[number] += 1
            if inode > ROWS or number in self._versions:
                self._claim(number, slot, inode >> ROW_BITS)
        elif count == LARGEST or not self._counts(number, slot, inode):
            self._more[inode] = self._more.get(inode, 0) + 1
            return
        page[slot] = count + 1

    def subtract(self, inode: Inode, count: int) -> None:
        """`count` fewer references; never fewer than none."""
        number, slot = (inode & ROWS) >> BITS, inode & (PAGE - 1)
        page = self._pages.get(number)
        counted = page[slot] if page is not None and self._counts(number, slot, inode) else 0
        left = max(0, counted + self._more.pop(inode, 0) - count)
        kept = min(left, LARGEST) if counted else 0
        if left > kept:
            self._more[inode] = left - kept
        if page is None or not counted:
            return
        page[slot] = kept
        if not kept:
            self._live[number] -= 1
            if not self._live[number]:
                del self._pages[number], self._live[number]
                self._versions.pop(number, None)

    def _claim(self, number: int, slot: int, version: int) -> None:
        """A slot begins to count for a version."""
        versions = self._versions.get(number)
        if versions is None:
            versions = self._versions[number] = array("I", bytes(4 * PAGE))
        versions[slot] = version

    def _counts(self, number: int, slot: int, inode: Inode) -> bool:
        """Whether the slot counts for this inode, if for anything."""
        versions = self._versions.get(number)
        return (versions[slot] if versions is not None else 0) == inode >> ROW_BITS

    def __contains__(self, inode: Inode) -> bool:
        return self._in_slot(inode) or inode in self._more

    def __len__(self) -> int:
        """How many inodes are referred to."""
        elsewhere = sum(not self._in_slot(Inode(inode)) for inode in self._more)
        return sum(self._live.values()) + elsewhere

    def _in_slot(self, inode: Inode) -> bool:
        number, slot = (inode & ROWS) >> BITS, inode & (PAGE - 1)
        page = self._pages.get(number)
        return page is not None and page[slot] > 0 and self._counts(number, slot, inode)
