"""Read-ahead: fills the cache with what a handle will ask for next."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
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


@dataclass(eq=False, slots=True)
class _Prefetch:
    wanted: Extent
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)


class ReadAhead:
    """The read-ahead of one handle. It never makes a reader wait, and its failures are left for the reader to meet.

    Args:
        nursery: runs the prefetches; `close` cancels them.
        budget: tells how far this handle may be ahead.
    """

    def __init__(
        self,
        source: BlockSource,
        cache: BlockCache,
        nursery: trio.Nursery,
        budget: Budget,
        stats: Stats,
    ) -> None:
        self._source = source
        self._cache = cache
        self._nursery = nursery
        self._budget = budget
        self._file = File(source, source.size)
        self._stats = stats
        self._pattern = AccessPattern(0)
        self._prefetches: set[_Prefetch] = set()
        self._unread: set[int] = set()  # the offsets of blocks that were fetched ahead

    def observe(self, read: Extent, chunks: Sequence[Chunk]) -> bool:
        """Takes note of a read, which `chunks` hold; starts to fetch what should follow, ends fetching what will not.

        Returns:
            Whether the read is a random one, so that no more than its bytes are of use (see `window.Advice`).
        """
        return self._follow(read, lost=bool(self._unread) and self._came_too_early(chunks))

    def found(self, read: Extent, chunks: Sequence[Chunk]) -> None:
        """Takes note of a read whose chunks were all in memory."""
        if self._unread:
            self._unread.difference_update([chunk.extent.start for chunk in chunks])
        if self._pattern.wanders(read, self._source.size):
            self._budget.note(self, self._file)
        else:
            self._follow(read, lost=False)

    def close(self) -> None:
        """Cancels what is under way."""
        self._budget.leave(self)
        for prefetch in self._prefetches:
            prefetch.scope.cancel()

    def _follow(self, read: Extent, *, lost: bool) -> bool:
        pattern, size = self._pattern, self._source.size
        if lost:
            pattern.lost(read, size)
        pattern.maximum = self._budget.share(self, self._file)
        pattern.behind, pattern.alone = self._budget.behind, self._budget.alone
        if self._cache.memory.contended:
            pattern.shrink()
            pattern.maximum = 0
        advice = pattern.observe(read, size)
        if lost or not advice.expected:
            for prefetch in self._prefetches:
                if not pattern.wants(prefetch.wanted, size):
                    prefetch.scope.cancel()
        if len(advice.passed) and self._budget.short:  # the kernel has its pages
            self._source.drop(advice.passed, downwards=read.start < advice.passed.start)
        for wanted in advice.extents:
            prefetch = _Prefetch(wanted)
            self._prefetches.add(prefetch)
            self._nursery.start_soon(self._run, prefetch)
        return advice.random

    def _came_too_early(self, chunks: Sequence[Chunk]) -> bool:
        """Whether one of these blocks was fetched ahead, and evicted before this, its first read."""
        lost = False
        for chunk in chunks:
            if chunk.extent.start in self._unread:
                self._unread.discard(chunk.extent.start)
                lost |= not self._source.cached(chunk)
        return lost

    async def _run(self, prefetch: _Prefetch) -> None:
        try:
            with prefetch.scope:
                chunks = await self._source.chunks(prefetch.wanted)
                batches = self._source.batches(chunks, alone=self._pattern.alone)
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
