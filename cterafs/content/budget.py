"""How much a reader may have ahead of itself and behind, so that all of them stay within the memory. Pure; no I/O."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

from cterafs.content.window import BEHIND, BEHIND_OF_MANY

PART = 6
"""Of the memory that all readers are ahead, at most. A block under way may take its size twice, so that is a third of
the memory, and what is read right now comes on top: beyond a half, downloads that nobody asked for are put off."""

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
        self._files: Counter[File] = Counter()  # how many read each

    @property
    def short(self) -> bool:
        """What is being read does not fit into the memory: when it was all read, its beginning will be gone again."""
        return sum(file.size for file in self._files) > self._memory

    @property
    def alone(self) -> bool:
        """At most one handle has read lately. Who walks ahead has a share, too, but reads nothing."""
        return len(self._files) <= 1 and self._files.total() <= 1

    @property
    def behind(self) -> int:
        """Bytes that a reader may come back to. Handles of one file come to the same blocks one after the other; where
        several files are read, each keeps less."""
        return BEHIND if len(self._files) <= 1 else BEHIND_OF_MANY

    def note(self, reader: object, file: File | None = None) -> None:
        """`reader` reads now."""
        self._turn += 1
        known = self._readers.get(reader)
        if known is None:
            known = self._readers[reader] = _Reader(file)
            if file is not None:
                self._files[file] += 1
        else:
            self._readers.move_to_end(reader)
        known.turn = self._turn
        while self._turn - self._readers[first := next(iter(self._readers))].turn > RECENT:
            self.leave(first)

    def share(self, reader: object, file: File | None = None) -> int:
        """What `reader`, who reads now, may be ahead, in bytes."""
        self.note(reader, file)
        return min(self._maximum, self._memory // PART // len(self._readers))

    def leave(self, reader: object) -> None:
        """`reader` is closed."""
        known = self._readers.pop(reader, None)
        if known is None or known.file is None:
            return
        self._files[known.file] -= 1
        if not self._files[known.file]:
            del self._files[known.file]
