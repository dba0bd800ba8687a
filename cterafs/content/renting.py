"""Whether to fetch a part of a block or all of it, as in the problem of renting skis or buying them. Pure; no I/O."""

from __future__ import annotations

from collections.abc import Hashable

from cachetools import LRUCache

COST = 128 << 10
"""Bytes that a request for a part counts as at least: what storage at 100 MB/s sends in 1.3 ms, which is no more than a
request's own delay. Of 4 MiB, the seventeenth small part is not fetched any more; of 256 KiB, the second."""

REMEMBERED = 16 << 10
"""Blocks of which the parts are counted, in some 4 MB: 64 GiB in blocks of 4 MiB. Random reads of more than that seldom
come back to a block."""


class Renting:
    """Counts the parts that were fetched of blocks, so that who needs much of one gets all of it, for half as much more
    than it would have been at once."""

    def __init__(self) -> None:
        self._paid: LRUCache[Hashable, int] = LRUCache(REMEMBERED)

    def rent(self, block: Hashable, length: int, part: int) -> bool:
        """Whether `part` bytes of a block of `length` bytes are worth a request; then they are counted."""
        paid = self._paid.get(block, 0) + max(part, COST)
        if paid > length // 2:
            return False
        self._paid[block] = paid
        return True
