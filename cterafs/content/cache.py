"""Blocks, from memory, disk or storage, each fetched once however many readers want it.

A download belongs to the cache, not to the reader that asked first: when one reader is cancelled, the others still get
their block; when all are, the download is cancelled too. Neighbouring blocks are fetched in runs, since each trip to
where they are downloaded has its price, and a block is read while it is still arriving.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import TypeVar

import trio

from cterafs.content.blockindex import Place
from cterafs.content.disk import DiskCache
from cterafs.content.memory import BlockKey, BlockMemory, Plain
from cterafs.content.renting import Renting
from cterafs.content.runs import IN_FLIGHT_FACTOR, Flight, Land, Run, Wanted
from cterafs.errors import BlockError, CteraError, DirectIOError
from cterafs.stats import Stats
from cterafs.threads import patiently

T = TypeVar("T")

log = logging.getLogger(__name__)

DISK_THREADS = 8
"""Runs that are read from the disk at a time; verifying them is work for as many cores."""

DISK_PATIENCE = 2.0
"""Seconds after which a block is downloaded instead. A disk that was asked for so long counts as hung: eight blocks of
4 MiB from the slowest disk take a fifth of that."""


def _concerns(error: CteraError | None, flight: Flight) -> bool:
    return not isinstance(error, BlockError) or error.block.offset == flight.wanted.block.offset


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
        self._flights: dict[BlockKey, Flight] = {}
        self._renting = Renting()
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.get_ident()
        self._heard: deque[Flight] = deque()  # from worker threads
        self._called = False

    def __contains__(self, key: BlockKey) -> bool:
        """In memory, or on its way."""
        return key in self.memory or key in self._flights

    async def on_disk(self, file_id: int, version: str) -> Sequence[Place]:
        """Where the blocks of a version belong that are on the disk, in order."""
        if self.disk is not None:
            with trio.move_on_after(DISK_PATIENCE):
                places = partial(self.disk.places, file_id, version)
                return await self._disk_thread(places)
        return ()

    def count_hits(self, count: int) -> None:
        """So many blocks were found in memory."""
        self._stats.hits += count

    def get(self, key: BlockKey) -> Plain | None:
        """A block that is in memory, or has arrived in a run that still goes on."""
        flight = self._flights.get(key) if self._flights else None
        if flight is None:
            return self.memory.get(key)
        # It stays where it is: what others wait for might push it out of the memory as soon as it came there.
        return flight.landing.take() if flight.landing.complete else None

    def drop(self, keys: Sequence[BlockKey]) -> None:
        """Nobody will read these blocks again. Those that are still arriving come all the same, and what arrived in a
        run that still goes on takes its memory until that ends, though it does not count any more."""
        for key in keys:
            flight = self._flights.get(key)
            if flight is not None and flight.landing.complete:
                self._look_at(flight)
        self.memory.drop(keys)

    async def read(self, wanted: Wanted, start: int, stop: int, land: Land) -> memoryview:
        """Bytes `start` to `stop` of a block, which `land` would fetch.

        Raises:
            DirectIOError: what `land` raised, or the block is larger than the whole budget.
        """
        while True:
            data = self.get(wanted.key)
            if data is not None:
                self.count_hits(1)
                return memoryview(data)[start:stop]
            flight = self._flights.get(wanted.key)
            if flight is None:
                self._stats.misses += 1
                flight = self.fetch((wanted,), land).flights[0]
            part = await flight.part(start, stop)
            if part is not None:
                return part

    def rent(self, wanted: Wanted, length: int) -> bool:
        """Whether to fetch no more than `length` bytes of a block (`read_part`): neither is it in memory or under way,
        nor worth having as a whole. To be asked once for each part: it is counted."""
        return wanted.key not in self and self._renting.rent(wanted.key, wanted.block.length, length)

    async def read_part(
        self, wanted: Wanted, length: int, fetch: Callable[[], Awaitable[bytes | None]]
    ) -> bytes | None:
        """What `fetch` gets of a block: `length` bytes, which are not kept. None if the disk has it or `fetch` says so.

        Twice the length has to fit into memory, as it does with random reads (`window.SMALL_READ`) whatever the limit.

        Raises:
            DirectIOError: what `fetch` raised.
        """
        if await self._has(wanted):
            return None
        need = length * IN_FLIGHT_FACTOR
        await self.memory.reserve(need)
        try:
            data = await fetch()
        finally:
            self.memory.release(need)
        if data is not None:
            self._stats.misses += 1
            self._stats.ranges += 1
            self._stats.downloaded_bytes += len(data)
        return data

    def fetch(self, blocks: Iterable[Wanted], land: Land) -> Run:
        """Begins to fetch those that are neither in memory nor under way, in their order. Nobody has to wait."""
        run = Run(land)
        for wanted in blocks:
            if wanted.key not in self:
                flight = self._flights[wanted.key] = Flight(run, wanted)
                flight.landing.tell = partial(self._hear, flight)
                run.flights.append(flight)
        if run.flights:
            self._nursery.start_soon(self._load, run)
        else:
            run.ended.set()
        return run

    def forget(self, file_id: int, version: str) -> None:
        """Drops the blocks of one version of a file. What is under way will be nobody's."""
        self.memory.forget(file_id, version)
        for key, flight in tuple(self._flights.items()):
            if key.file_id == file_id and key.version == version:
                self._end(flight, None, None)

    async def _load(self, run: Run) -> None:
        run.error = DirectIOError(None, "the mount is ending")
        try:
            with run.scope:
                await self._reserve(run)
                if self.disk is not None:
                    await self._from_disk(self.disk, run)
                await run.land([flight.landing for flight in run.flights if not flight.ended])
            run.error = None
        except CteraError as error:
            run.error = error.with_traceback(None)  # a cycle through this frame would keep what it holds
        except Exception as error:  # whatever storage answered, it must not end the mount
            log.exception("a download failed unexpectedly")
            run.error = DirectIOError(run.flights[0].wanted.key.file_id, f"unexpected {type(error).__name__}")
        finally:
            for flight in run.flights:
                self._look_at(flight)
                if not flight.ended:
                    self._end(flight, None, run.error if _concerns(run.error, flight) else None)
            run.flights.clear()
            run.ended.set()
            self.memory.release(run.reserved)

    async def _reserve(self, run: Run) -> None:
        need = run.need
        try:
            await self.memory.reserve(need)
        except ValueError:
            block = max((flight.wanted.block for flight in run.flights), key=lambda block: block.length)
            raise DirectIOError(
                block.file_id, f"a block of {block.length} bytes needs {need} in memory; raise cache.memory"
            ) from None
        run.reserved = need

    async def _from_disk(self, disk: DiskCache, run: Run) -> None:
        """What the disk has of the run, in one trip to a thread."""
        found: list[tuple[Flight, bytes]] = []

        def get() -> None:
            for flight in run.flights:
                wanted = flight.wanted
                data = disk.get(wanted.key, wanted.block.length, wanted.origin)
                if data is not None:
                    found.append((flight, data))

        await self._ask_disk(disk, get)
        for flight, data in tuple(found):
            if not flight.ended:
                self._store(flight, data)

    async def _has(self, wanted: Wanted) -> bool:
        """Whether the disk has a block."""
        if self.disk is None:
            return False
        has = partial(self.disk.has, wanted.key, wanted.block.length, wanted.origin)
        return bool(await self._ask_disk(self.disk, has))

    async def _ask_disk(self, disk: DiskCache, ask: Callable[[], T]) -> T | None:
        """What `ask` answers, in a thread; None if the disk hangs."""
        began = False

        def asking() -> T:
            nonlocal began
            began = True
            return ask()

        with trio.move_on_after(DISK_PATIENCE) as scope:
            return await self._disk_thread(asking)
        if scope.cancelled_caught and began:  # and did not only wait for others
            disk.hung()
        return None

    async def _disk_thread(self, ask: Callable[[], T]) -> T:
        return await patiently(
            partial(trio.to_thread.run_sync, ask, abandon_on_cancel=True, limiter=self._disk_threads)
        )

    def _hear(self, flight: Flight) -> None:
        """Called in any thread; one call of the loop's serves all that is heard in others until it comes."""
        if threading.get_ident() == self._thread:
            self._look_at(flight)
            return
        self._heard.append(flight)
        if not self._called:
            self._called = True
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._listen)

    def _listen(self) -> None:
        self._called = False
        while self._heard:
            self._look_at(self._heard.popleft())

    def _look_at(self, flight: Flight) -> None:
        landing = flight.landing
        if flight.ended:
            return
        if landing.complete:
            data = landing.take()
            self._stats.downloaded_blocks += 1
            self._stats.downloaded_bytes += len(data)
            if self.disk is not None:
                self.disk.offer(flight.wanted.key, data, flight.wanted.origin)
            self._store(flight, data)
        elif landing.dropped:
            self._end(flight, None, None)
        else:
            flight.tell()

    def _store(self, flight: Flight, data: Plain) -> None:
        wanted = flight.wanted
        need = wanted.need
        flight.run.reserved -= need
        self.memory.store(wanted.key, data, need)
        self._end(flight, data, None)

    def _end(self, flight: Flight, data: Plain | None, error: Exception | None) -> None:
        del self._flights[flight.wanted.key]
        flight.end(data, error)
