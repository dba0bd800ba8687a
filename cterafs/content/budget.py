"""How much a reader may have ahead of itself and behind, so that all of them stay within the memory. Pure; no I/O."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

from cterafs.content.window import BEHIND, SLACK

PART = 6
"""Of the memory that all readers are ahead, at most. A block under way may take its size twice, so that is a third of
the memory, and what is read right now comes on top: beyond a half, downloads that nobody asked for are put off."""

PART_BEHIND = 32
"""Of the memory that all readers have behind them, at most, as long as that is enough for each. New memory costs more
than what was used before: eight readers of eight files are 1.1 times as fast with 2 MiB each as with 8 (1.2 times with
blocks of 256 KiB), since 130 MiB are in use then, and not 176."""

RECENT = 1024
"""Reads of all handles after which one that had none gives its share up: a player that pauses, 128 MiB of others' reads
later."""


class File(NamedTuple):
    """What is read: whatever tells it from others, and its bytes."""

    name: object
    size: int


@dataclass(slots=True)
class _Reader:
    file: File | None
    turn: int = 0


class Budget:
    """The bytes that all handles of a volume may be ahead, in equal shares.

    Args:
        memory: bytes of the block cache.
        maximum: bytes that one reader may be ahead of itself; 0 turns read-ahead off.
    """

    def __init__(self, memory: int, maximum: int) -> None:
        self._memory = memory
        self._maximum = maximum
        self._turn = 0
        self._readers: OrderedDict[object, _Reader] = OrderedDict()  # whose last read is longest ago first

    @property
    def short(self) -> bool:
        """What is being read does not fit into the memory: when it was all read, its beginning will be gone again."""
        files = {reader.file for reader in self._readers.values() if reader.file is not None}
        return sum(file.size for file in files) > self._memory

    @property
    def alone(self) -> bool:
        """There is one reader, and no other."""
        return len(self._readers) == 1

    def note(self, reader: object, file: File | None = None) -> None:
        """`reader` reads now."""
        self._turn += 1
        known = self._readers.get(reader)
        if known is None:
            known = self._readers[reader] = _Reader(file)
        else:
            self._readers.move_to_end(reader)
        known.turn = self._turn
        while self._turn - next(iter(self._readers.values())).turn > RECENT:
            self._readers.popitem(last=False)

    def share(self, reader: object, file: File | None = None) -> int:
        """What `reader`, who reads now, may be ahead, in bytes."""
        self.note(reader, file)
        return min(self._maximum, self._memory // PART // len(self._readers))

    @property
    def behind(self) -> int:
        """What each reader may come back to, in bytes: no less than its reads may be out of order."""
        return max(SLACK, min(BEHIND, self._memory // PART_BEHIND // max(1, len(self._readers))))

    def leave(self, reader: object) -> None:
        """`reader` is closed."""
        self._readers.pop(reader, None)
