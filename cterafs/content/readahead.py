"""Read-ahead: fills the cache with what a handle will ask for next."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import trio

from cterafs.content.budget import Budget, File
from cterafs.content.cache import BlockCache
from cterafs.content.source import BlockSource
from cterafs.content.window import AccessPattern
from cterafs.errors import DirectIOError
from cterafs.model import Chunk, Extent
from cterafs.stats import Stats

log = logging.getLogger(__name__)

PARALLEL = 32
"""Runs that one prefetch asks for at a time: twice the downloads that run by default. With all at once, a window of
small blocks would be a queue of hundreds in front of a block that somebody waits for."""

REMEMBERED = 4096
"""Blocks of which is known that they were fetched ahead and not read yet: 16 times the largest window by default."""


MILESTONE = 4 << 20
"""Bytes. What a program finds in the page cache is not heard of, so a part at each multiple of this is left out there:
the kernel asks for it when the program has come so far."""

GAP = 128 << 10
"""Bytes of that part: what costs one request, whatever the kernel reads ahead."""

WORTH_FILLING = 1 << 20
"""Bytes of the smallest block that is handed over. Each takes a call of its own in the process that serves.
While that one downloaded, too, a cold read was 1.1 times as fast for it with blocks of 4 MiB, but 0.94 times with
blocks of 256 KiB."""

FILLED = 64
"""Ranges that are remembered as filled, one for each milestone: four times the largest window by default."""

PAGE = 4096
"""Bytes of a page. Of one that lies in two blocks, neither can fill all."""

Fill = Callable[[int, memoryview], bool]
"""Takes bytes of the file, from an offset on, that the frontend could keep; False where it does not."""


@dataclass(eq=False, slots=True)
class _Prefetch:
    wanted: Extent
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)


class ReadAhead:
    """The read-ahead of one handle. It never makes a reader wait, and its failures are left for the reader to meet.

    Args:
        nursery: runs the prefetches; `close` cancels them.
        budget: tells how far this handle may be ahead.
        fill: hands what was read far ahead to whom it is read for, who will then not ask for it.
    """

    def __init__(
        self,
        source: BlockSource,
        cache: BlockCache,
        nursery: trio.Nursery,
        budget: Budget,
        stats: Stats,
        *,
        fill: Fill | None = None,
    ) -> None:
        self._source = source
        self._cache = cache
        self._nursery = nursery
        self._budget = budget
        self._file = File(source, source.size)
        self._stats = stats
        self._pattern = AccessPattern(0)
        self._prefetches: set[_Prefetch] = set()
        self._fill = fill
        self._filled: list[Extent] = []  # in the order of filling; those that meet are one
        self._reached = 0  # behind the last byte that was asked for
        self._unread: set[int] = set()  # the offsets of blocks that were fetched ahead

    def observe(self, read: Extent, chunks: Sequence[Chunk], *, here: bool = False) -> bool:
        """Takes note of a read, which `chunks` hold; starts to fetch what should follow, ends fetching what will not.

        Args:
            here: all of them are known to be in memory.

        Returns:
            Whether the read is a random one, so that no more than its bytes are of use (see `window.Advice`).
        """
        pattern, size = self._pattern, self._source.size
        if self._came_too_early(chunks, here):
            pattern.lost(read, size)
        pattern.maximum = self._budget.share(self, self._file)
        if self._cache.memory.contended:
            pattern.shrink()
            pattern.maximum = 0
        advice = pattern.observe(self._with_what_was_filled(read), size)
        for prefetch in self._prefetches:
            if not pattern.wants(prefetch.wanted, size):
                prefetch.scope.cancel()
        if len(advice.passed) and self._budget.short:  # the kernel has its pages
            self._source.drop(advice.passed)
        for wanted in advice.extents:
            prefetch = _Prefetch(wanted)
            self._prefetches.add(prefetch)
            self._nursery.start_soon(self._run, prefetch)
        return advice.random

    def close(self) -> None:
        """Cancels what is under way."""
        self._budget.leave(self)
        for prefetch in self._prefetches:
            prefetch.scope.cancel()

    def _came_too_early(self, chunks: Sequence[Chunk], here: bool) -> bool:
        """Whether one of these blocks was fetched ahead, and evicted before this, its first read."""
        lost = False
        for chunk in chunks:
            if chunk.extent.start in self._unread:
                self._unread.discard(chunk.extent.start)
                lost |= not (here or self._source.cached(chunk))
        return lost

    async def _run(self, prefetch: _Prefetch) -> None:
        try:
            with prefetch.scope:
                batches = self._source.batches(await self._source.chunks(prefetch.wanted))
                waiting = iter(batches)
                async with trio.open_nursery() as nursery:
                    for _ in batches[:PARALLEL]:
                        nursery.start_soon(self._fetch, waiting, prefetch)
        except DirectIOError as error:
            log.debug("read-ahead of %s gave up: %s", prefetch.wanted, error)
        except Exception:  # the reader meets it, and its own request ends with it; the mount must not
            log.exception("read-ahead of %s failed unexpectedly", prefetch.wanted)
        finally:
            self._prefetches.discard(prefetch)

    async def _fetch(self, waiting: Iterator[Sequence[Chunk]], prefetch: _Prefetch) -> None:
        for batch in waiting:
            run = self._source.fetch(batch)
            self._stats.prefetched += len(run.flights)
            with run:
                await run.ended.wait()
            if run.error is not None:
                log.debug("read-ahead of %s gave up: %s", prefetch.wanted, run.error)
                prefetch.scope.cancel()
                return
            if len(self._unread) >= REMEMBERED:
                self._unread.clear()
            self._unread.update(chunk.extent.start for chunk in batch)
            if self._fill is not None and len(prefetch.wanted) >= MILESTONE:
                for chunk in batch:
                    self._hand_over(chunk, self._fill)

    def _hand_over(self, chunk: Chunk, fill: Fill) -> None:
        data = self._source.peek(chunk)
        if data is None or len(data) < WORTH_FILLING or chunk.extent.start < self._reached:
            return
        for part in _between_milestones(chunk.extent, self._source.size):
            if fill(part.start, data[part.start - chunk.extent.start : part.stop - chunk.extent.start]):
                self._stats.filled_bytes += len(part)
                self._note_filled(part)

    def _note_filled(self, part: Extent) -> None:
        for index, known in enumerate(self._filled):
            if part.start == known.stop or part.stop == known.start:
                del self._filled[index]
                self._note_filled(Extent(min(part.start, known.start), max(part.stop, known.stop)))
                return
        self._filled.append(part)
        del self._filled[:-FILLED]

    def _with_what_was_filled(self, read: Extent) -> Extent:
        """A read that comes out of what was filled has come through all of it."""
        self._reached = max(self._reached, read.stop)
        for index, known in enumerate(self._filled):
            if known.start <= read.start <= known.stop:
                del self._filled[index]
                return Extent(known.start, read.stop)
        return read


def _between_milestones(extent: Extent, size: int) -> Iterator[Extent]:
    """The parts of a block, in whole pages, that lie between two gaps."""
    start = -(-extent.start // PAGE) * PAGE
    stop = extent.stop if extent.stop == size else extent.stop // PAGE * PAGE
    while start < stop:
        milestone = start // MILESTONE * MILESTONE
        start = max(start, milestone + GAP)
        end = min(stop, milestone + MILESTONE)
        if start < end:
            yield Extent(start, end)
        start = milestone + MILESTONE
