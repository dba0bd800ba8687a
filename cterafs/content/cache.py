"""Blocks, from memory, disk or storage, each fetched once however many readers want it.

A download belongs to the cache, not to the reader that asked first: when one reader is cancelled, the others still get
their block; when all are, the download is cancelled too.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from cterafs.content.disk import DiskCache
from cterafs.content.memory import BlockKey, BlockMemory
from cterafs.errors import CteraError, DirectIOError
from cterafs.stats import Stats

log = logging.getLogger(__name__)

IN_FLIGHT_FACTOR = 2
"""A block under way holds its stored form and its plaintext at once."""

DISK_THREADS = 8
"""Blocks that are read from the disk at a time; verifying them is work for as many cores."""

DISK_PATIENCE = 2.0
"""Seconds after which the disk counts as hung: eight blocks of 4 MiB from the slowest disk take half of that."""


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
    """Memory, then a download that is under way, then the disk, then storage.

    Args:
        memory: where blocks stay.
        nursery: runs the downloads; it outlives every reader.
        disk: where blocks stay for longer; None: nowhere.
    """

    def __init__(self, memory: BlockMemory, nursery: trio.Nursery, stats: Stats, disk: DiskCache | None = None) -> None:
        self.memory = memory
        self.disk = disk
        self._disk_threads = trio.CapacityLimiter(DISK_THREADS)
        self._nursery = nursery
        self._stats = stats
        self._flights: dict[BlockKey, _Flight] = {}

    def __contains__(self, key: BlockKey) -> bool:
        """In memory, or on its way."""
        return key in self.memory or key in self._flights

    async def get(self, key: BlockKey, length: int, fetch: Callable[[], Awaitable[bytes]], origin: str = "") -> bytes:
        """The plaintext of a block of `length` bytes, which `fetch` would download.

        Args:
            origin: what storage calls the block, without what is signed anew.

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
            self._nursery.start_soon(self._load, key, length, fetch, origin, flight)
        return await flight.wait()

    async def _load(
        self, key: BlockKey, length: int, fetch: Callable[[], Awaitable[bytes]], origin: str, flight: _Flight
    ) -> None:
        try:
            with flight.scope:
                flight.data = await self._fetch(key, length, fetch, origin)
        except CteraError as error:
            flight.error = error
        except Exception as error:  # whatever storage answered, it must not end the mount
            log.exception("a download failed unexpectedly")
            flight.error = DirectIOError(key.file_id, f"unexpected {type(error).__name__}")
        finally:
            if self._flights.get(key) is flight:
                del self._flights[key]
            flight.done.set()

    async def _fetch(self, key: BlockKey, length: int, fetch: Callable[[], Awaitable[bytes]], origin: str) -> bytes:
        need = length * IN_FLIGHT_FACTOR
        try:
            await self.memory.reserve(need)
        except ValueError:
            raise DirectIOError(
                key.file_id, f"a block of {length} bytes needs {need} in memory; raise cache.memory"
            ) from None
        try:
            data = await self._from_disk(key, length, origin)
            if data is None:
                data = await self._download(key, fetch, origin)
        except BaseException:
            self.memory.release(need)
            raise
        self.memory.store(key, data, need)
        return data

    async def _from_disk(self, key: BlockKey, length: int, origin: str) -> bytes | None:
        if self.disk is None:
            return None
        with trio.move_on_after(DISK_PATIENCE) as scope:
            get = partial(self.disk.get, key, length, origin)
            return await trio.to_thread.run_sync(get, abandon_on_cancel=True, limiter=self._disk_threads)
        if scope.cancelled_caught:
            self.disk.hung()
        return None

    async def _download(self, key: BlockKey, fetch: Callable[[], Awaitable[bytes]], origin: str) -> bytes:
        data = await fetch()
        self._stats.downloaded_blocks += 1
        self._stats.downloaded_bytes += len(data)
        if self.disk is not None:
            self.disk.offer(key, data, origin)
        return data
