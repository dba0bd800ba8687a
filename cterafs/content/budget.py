"""How far each reader may be ahead of itself, so that all of them together stay within the memory. Pure; no I/O."""

from __future__ import annotations

from collections import OrderedDict

PART = 6
"""Of the memory that all readers are ahead, at most. A block under way may take its size twice, so that is a third of
the memory, and what is read right now comes on top: beyond a half, downloads that nobody asked for are put off."""

RECENT = 1024
"""Reads of all handles after which one that had none gives its share up: a player that pauses, 128 MiB of others' reads
later."""


class Budget:
    """The bytes that all handles of a volume may be ahead, in equal shares.

    Args:
        memory: bytes of the block cache.
        maximum: bytes that one reader may be ahead of itself; 0 turns read-ahead off.
    """

    def __init__(self, memory: int, maximum: int) -> None:
        self._total = memory // PART
        self._maximum = maximum
        self._turn = 0
        self._readers: OrderedDict[object, int] = OrderedDict()  # the turn of each one's last read, the oldest first

    def share(self, reader: object) -> int:
        """What `reader`, who reads now, may be ahead, in bytes."""
        self._turn += 1
        self._readers[reader] = self._turn
        self._readers.move_to_end(reader)
        while self._turn - next(iter(self._readers.values())) > RECENT:
            self._readers.popitem(last=False)
        return min(self._maximum, self._total // len(self._readers))

    def leave(self, reader: object) -> None:
        """`reader` is closed."""
        self._readers.pop(reader, None)
