"""Sequential read-ahead: fills the cache with what a handle will ask for next."""

from __future__ import annotations

import logging

import trio

from cterafs.content.cache import BlockCache
from cterafs.content.source import BlockSource
from cterafs.content.window import AccessPattern
from cterafs.direct.streamer import Streamer
from cterafs.errors import DirectIOError
from cterafs.model import Extent
from cterafs.stats import Stats

log = logging.getLogger(__name__)

SHARE = 8
"""One reader's window is at most this part of the memory: 8 readers at full speed fit, with what they still read."""


class ReadAhead:
    """The read-ahead of one handle. It never makes a reader wait, and its failures are left for the reader to meet.

    Args:
        nursery: runs the prefetches; `close` cancels them.
        maximum: bytes ahead of a reader, at most; 0 turns read-ahead off.
    """

    def __init__(
        self, source: BlockSource, cache: BlockCache, nursery: trio.Nursery, maximum: int, stats: Stats
    ) -> None:
        self._source = source
        self._cache = cache
        self._nursery = nursery
        self._stats = stats
        self._pattern = AccessPattern(min(maximum, cache.memory.limit // SHARE))
        self._prefetches: set[trio.CancelScope] = set()

    def observe(self, read: Extent) -> None:
        """Takes note of a read, and starts to fetch what should follow."""
        if self._cache.memory.contended:
            self._pattern.shrink()
            return
        wanted = self._pattern.observe(read, self._source.size)
        if len(wanted):
            scope = trio.CancelScope()
            self._prefetches.add(scope)
            self._nursery.start_soon(self._prefetch, wanted, scope)

    def close(self) -> None:
        """Cancels what is under way."""
        for scope in self._prefetches:
            scope.cancel()

    async def _prefetch(self, wanted: Extent, scope: trio.CancelScope) -> None:
        try:
            with scope:
                chunks = [chunk for chunk in await self._source.chunks(wanted) if not self._source.cached(chunk)]
                self._stats.prefetched += len(chunks)
                async with Streamer(self._source.file_id, chunks, self._source.block, ahead=len(wanted)) as blocks:
                    async for _ in blocks:
                        pass
        except DirectIOError as error:
            log.debug("read-ahead of %s gave up: %s", wanted, error)
        except Exception:  # the reader meets it, and its own request ends with it; the mount must not
            log.exception("read-ahead of %s failed unexpectedly", wanted)
        finally:
            self._prefetches.discard(scope)
