"""Blocks, from memory or from storage, each downloaded once however many readers want it.

A download belongs to the cache, not to the reader that asked first: when one reader is cancelled, the others still get
their block; when all are, the download is cancelled too.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import trio

from cterafs.content.memory import BlockKey, BlockMemory
from cterafs.errors import CteraError, DirectIOError
from cterafs.stats import Stats

log = logging.getLogger(__name__)

IN_FLIGHT_FACTOR = 2
"""A block under way holds its stored form and its plaintext at once."""


class _Flight:
    """One download that somebody waits for."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.scope = trio.CancelScope()
        self.waiters = 0
        self.data: bytes | None = None
        self.error: Exception | None = None

    async def wait(self) -> bytes:
        self.waiters += 1
        try:
            await self.done.wait()
        finally:
            self.waiters -= 1
            if not self.waiters:
                self.scope.cancel()
        if self.error is not None:
            raise self.error.with_traceback(None)
        if self.data is None:
            raise DirectIOError(None, "the mount is ending")
        return self.data


class BlockCache:
    """Memory, then a download that is under way, then storage.

    Args:
        memory: where blocks stay.
        nursery: runs the downloads; it outlives every reader.
    """

    def __init__(self, memory: BlockMemory, nursery: trio.Nursery, stats: Stats) -> None:
        self.memory = memory
        self._nursery = nursery
        self._stats = stats
        self._flights: dict[BlockKey, _Flight] = {}

    def __contains__(self, key: BlockKey) -> bool:
        """In memory, or on its way."""
        return key in self.memory or key in self._flights

    async def get(self, key: BlockKey, length: int, fetch: Callable[[], Awaitable[bytes]]) -> bytes:
        """The plaintext of a block of `length` bytes, which `fetch` would download.

        Raises:
            DirectIOError: what `fetch` raised, or the block is larger than the whole budget.
        """
        data = self.memory.get(key)
        if data is not None:
            self._stats.hits += 1
            return data
        flight = self._flights.get(key)
        if flight is None or flight.scope.cancel_called:
            self._stats.misses += 1
            flight = self._flights[key] = _Flight()
            self._nursery.start_soon(self._download, key, length, fetch, flight)
        return await flight.wait()

    async def _download(
        self, key: BlockKey, length: int, fetch: Callable[[], Awaitable[bytes]], flight: _Flight
    ) -> None:
        try:
            with flight.scope:
                flight.data = await self._fetch(key, length, fetch)
        except CteraError as error:
            flight.error = error
        except Exception as error:  # whatever storage answered, it must not end the mount
            log.exception("a download failed unexpectedly")
            flight.error = DirectIOError(key.file_id, f"unexpected {type(error).__name__}")
        finally:
            if self._flights.get(key) is flight:
                del self._flights[key]
            flight.done.set()

    async def _fetch(self, key: BlockKey, length: int, fetch: Callable[[], Awaitable[bytes]]) -> bytes:
        need = length * IN_FLIGHT_FACTOR
        try:
            await self.memory.reserve(need)
        except ValueError:
            raise DirectIOError(
                key.file_id, f"a block of {length} bytes needs {need} in memory; raise cache.memory"
            ) from None
        try:
            data = await fetch()
        except BaseException:
            self.memory.release(need)
            raise
        self.memory.store(key, data, need)
        self._stats.downloaded_blocks += 1
        self._stats.downloaded_bytes += len(data)
        return data
