"""Memory that the process that downloads writes and the process that serves reads, without a copy between them.

The kernel gives pages to the parts that are used, so the arena can be much larger than what it will ever hold.
"""

from __future__ import annotations

import contextlib
import ctypes
import heapq
import mmap
import os
import weakref
from collections import OrderedDict, deque
from functools import partial
from typing import Any, Self

from cterafs.downloading.anonymous import anonymous_file

PAGE = mmap.PAGESIZE
STATES = 1 << 15
"""Landings that can be under way at once: half a gigabyte of files of 16 KiB."""
STATE = 8
"""Integers of 64 bits that each has, more than `direct.landing.State` needs: a line of the processor's cache."""
STATES_SIZE = STATES * STATE * 8
SPARE = 64
"""Times the budget that the arena's addresses span. Each size of segments, by powers of two, takes twice the budget at
most, and there are 12 from 4 KiB to 8 MiB: so either half has room for them."""
HUGE = 2 << 20
"""Bytes of a huge page, and what the arena's halves begin at a multiple of."""
SNUG, LOOSE = 256 << 10, 16
"""Bytes of the smallest segment on huge pages, and the part of it, a 16th, that may be left over. A huge page is given
as a whole: with blocks of 72 KiB in segments of 128 KiB, the rest would take as much memory again."""
LEAST, MOST = 16 << 30, 32 << 40
"""Bytes of addresses: a process has 128 TiB."""
KEPT, KEPT_PART = 64 << 20, 4
"""Bytes of free segments whose pages stay, and the part of the budget, a quarter, that they are at most. To write into
pages that exist takes a 15th of the time that new ones take (0.04 and 0.65 s a GiB), and a block that is evicted makes
room for the next of its size. A run that ends frees up to 16 MiB at once, and with 32 MiB here, a 12th of a sequential
read's blocks had their pages made anew. With a small budget runs are shorter: a 12th of it, or one block."""
SLACK = 64 << 10
"""Bytes behind a block that its segment may have pages for since an earlier, longer block."""


class Full(Exception):
    """There is no room."""


class Arena:
    """The memory itself, as either process sees it.

    Args:
        file: a descriptor of the anonymous file behind it, as long as there shall be addresses; closed in the end.

    Attributes:
        huge: from this place on, pages are huge ones, if the file's are at all.

    Raises:
        OSError: there are not as many addresses.
    """

    def __init__(self, file: int) -> None:
        self.file = file
        self.size = os.fstat(file).st_size
        self.memory = mmap.mmap(file, self.size)
        self.memory.madvise(mmap.MADV_DONTDUMP)  # contents of files have no place in a core file
        self.huge = self.size // 2 // HUGE * HUGE
        with contextlib.suppress(OSError):  # then there are no huge pages anyway
            self.memory.madvise(mmap.MADV_NOHUGEPAGE, 0, self.huge)
        self._view = memoryview(self.memory)
        self._states = self._view[:STATES_SIZE].cast("Q")

    @classmethod
    def create(cls, budget: int) -> Self:
        """A new one for `budget` bytes of blocks.

        Raises:
            OSError: there is no such memory.
        """
        file = anonymous_file("cterafs")
        try:
            os.ftruncate(file, min(max(LEAST, SPARE * budget), MOST))
            return cls(file)
        except BaseException:
            os.close(file)
            raise

    def state(self, number: int) -> memoryview:
        """What the two processes know of one landing."""
        return self._states[number * STATE : (number + 1) * STATE]

    def view(self, place: int, length: int) -> memoryview:
        """The bytes at a place."""
        return self._view[place : place + length]

    def close(self) -> None:
        """Its memory is gone when the last view of it is."""
        self._states.release()
        self._view.release()
        os.close(self.file)
        with contextlib.suppress(BufferError):  # it is closed with the last of its views
            self.memory.close()


class Segments:
    """Which parts of an arena are in use. A segment is free again when its last view is gone, in whatever thread.

    They are as long as powers of two; there are never more of one length than were in use at once.

    Args:
        budget: bytes of the blocks that are to be kept in them.
    """

    def __init__(self, arena: Arena, budget: int) -> None:
        self._arena = arena
        self._kept = min(KEPT, budget // KEPT_PART)
        self._ends = {False: -(-STATES_SIZE // PAGE) * PAGE, True: arena.huge}  # by whether pages are huge
        self._limits = {False: arena.huge, True: arena.size}
        self._types: dict[int, Any] = {}
        # By length and pages. Heaps: blocks that follow upon each other get places that do.
        self._free: dict[tuple[int, bool], list[int]] = {}
        self._pages: dict[int, int] = {}  # bytes, by the place of a segment, that there may be pages for
        self._idle: OrderedDict[int, None] = OrderedDict()  # free segments with pages, the longest free first
        self._idle_bytes = 0
        self._in_use: dict[int, weakref.ref[Any]] = {}
        self._left: deque[tuple[int, int]] = deque()  # place and length of those that became free; from any thread

    def allocate(self, length: int) -> tuple[int, memoryview]:
        """A segment of `length` bytes: its place, and the view that it lives as long as.

        Raises:
            Full: no addresses are left.
        """
        self._reclaim()
        whole = max(PAGE, 1 << (length - 1).bit_length())
        place = self._place(whole, whole >= SNUG and (whole - length) * LOOSE <= whole)
        pages = -(-length // PAGE) * PAGE
        if self._pages.get(place, 0) > pages + SLACK:
            self._give_back(place, pages)
        self._pages[place] = max(self._pages.get(place, 0), pages)
        kind = self._types.get(whole)
        if kind is None:
            kind = self._types[whole] = ctypes.c_ubyte * whole
        anchor = kind.from_buffer(self._arena.memory, place)
        self._in_use[place] = weakref.ref(anchor, partial(_leave, self._left, place, whole))
        return place, memoryview(anchor).cast("B")[:length]

    def _place(self, whole: int, huge: bool) -> int:
        free = self._free.get((whole, huge))
        if free:
            place = heapq.heappop(free)
            if place in self._idle:
                del self._idle[place]
                self._idle_bytes -= self._pages[place]
            return place
        place = self._ends[huge]
        if place + whole > self._limits[huge]:
            raise Full
        self._ends[huge] += whole
        return place

    def _reclaim(self) -> None:
        while self._left:
            place, whole = self._left.popleft()
            del self._in_use[place]
            heapq.heappush(self._free.setdefault((whole, place >= self._arena.huge), []), place)
            self._idle[place] = None
            self._idle_bytes += self._pages[place]
        while self._idle_bytes > self._kept:
            place, _ = self._idle.popitem(last=False)
            self._idle_bytes -= self._pages[place]
            self._give_back(place, 0)

    def _give_back(self, place: int, kept: int) -> None:
        """Of a segment's pages, all but the first `kept` bytes."""
        self._arena.memory.madvise(mmap.MADV_REMOVE, place + kept, self._pages[place] - kept)
        self._pages[place] = kept


def _leave(left: deque[tuple[int, int]], place: int, whole: int, _: object) -> None:
    left.append((place, whole))
