"""Blocks that are fetched one after the other, and read while they arrive."""

from __future__ import annotations

import gc
import weakref
from collections.abc import AsyncIterator, Sequence

import pytest
import trio
import trio.testing
from msgspec.structs import replace

from cterafs.content.cache import BlockCache
from cterafs.content.memory import BlockKey, BlockMemory
from cterafs.content.runs import Wanted
from cterafs.direct.landing import Landing
from cterafs.errors import BlockInfo, DirectIOError, DownloadError
from cterafs.stats import Stats

LENGTH = 10
BLOCKS = [
    Wanted(BlockKey(7, "v1", offset), BlockInfo(7, None, offset, LENGTH), f"path/{offset}") for offset in (0, 10, 20)
]

pytestmark = [pytest.mark.trio, pytest.mark.usefixtures("divided")]


class Storage:
    """Blocks of the letter x, byte by byte as it is told, from a thread as they come in life."""

    def __init__(self) -> None:
        self.tried: list[int] = []
        self.broken: set[int] = set()
        self.bytes_to_come = trio.Semaphore(0)

    async def land(self, landings: Sequence[Landing]) -> None:
        for landing in landings:
            if landing.dropped:
                continue
            offset = landing.block.offset
            self.tried.append(offset)
            if offset in self.broken:
                raise DownloadError(landing.block, "broken")
            view = await trio.to_thread.run_sync(landing.start)
            for at in range(LENGTH):
                await self.bytes_to_come.acquire()
                view[at : at + 1] = b"x"
                await trio.to_thread.run_sync(landing.advance, 1)
            landing.verify()
            await trio.to_thread.run_sync(landing.finish)

    def give(self, count: int) -> None:
        for _ in range(count):
            self.bytes_to_come.release()


@pytest.fixture
async def nursery() -> AsyncIterator[trio.Nursery]:
    async with trio.open_nursery() as nursery:
        yield nursery
        nursery.cancel_scope.cancel()


@pytest.fixture
def cache(nursery: trio.Nursery) -> BlockCache:
    return BlockCache(BlockMemory(200), nursery, Stats())


async def read(cache: BlockCache, block: Wanted, storage: Storage, start: int = 0, stop: int = LENGTH) -> bytes:
    with trio.fail_after(30):
        return bytes(await cache.read(block, start, stop, storage.land))


async def reached(storage: Storage, offset: int) -> None:
    """Returns when this block is the next to come."""
    with trio.fail_after(30):
        while offset not in storage.tried:
            await trio.lowlevel.checkpoint()


async def ended(cache: BlockCache) -> None:
    """Returns when no block is under way."""
    with trio.fail_after(30):
        while any(block.key in cache and block.key not in cache.memory for block in BLOCKS):
            await trio.lowlevel.checkpoint()


async def test_the_beginning_of_a_block_does_not_wait_for_its_end(cache: BlockCache) -> None:
    storage = Storage()
    storage.give(4)
    assert await read(cache, BLOCKS[0], storage, 1, 4) == b"xxx"
    assert BLOCKS[0].key not in cache.memory
    storage.give(6)
    assert await read(cache, BLOCKS[0], storage) == b"x" * 10
    await ended(cache)
    assert storage.tried == [0], "who got a part left the rest under way"
    assert cache.memory.used == LENGTH


async def test_one_that_waits_for_more_is_not_woken_in_vain_nor_forgotten(cache: BlockCache) -> None:
    storage, got = Storage(), []

    async def reader(stop: int) -> None:
        got.append(len(await read(cache, BLOCKS[0], storage, 0, stop)))

    async with trio.open_nursery() as nursery:
        for stop in (9, 2, 5):
            nursery.start_soon(reader, stop)
        for count in (2, 3, 4):
            await trio.testing.wait_all_tasks_blocked()
            storage.give(count)
    assert got == [2, 5, 9]


async def test_what_has_arrived_is_there_before_its_run_has_ended(cache: BlockCache) -> None:
    storage = Storage()
    cache.fetch(BLOCKS, storage.land)
    storage.give(LENGTH)
    await reached(storage, 10)
    assert BLOCKS[0].key not in cache.memory, "nobody was told"
    for _ in range(2):
        assert cache.get(BLOCKS[0].key) == b"x" * LENGTH
    assert cache.get(BLOCKS[1].key) is None
    storage.give(2 * LENGTH)
    await ended(cache)
    assert cache.memory.used == len(BLOCKS) * LENGTH


async def test_what_has_arrived_is_not_pushed_out_by_those_that_wait_for_room(nursery: trio.Nursery) -> None:
    cache, storage = BlockCache(BlockMemory(4 * LENGTH), nursery, Stats()), Storage()
    cache.fetch(BLOCKS[:2], storage.land)
    await reached(storage, 0)
    cache.fetch(BLOCKS[2:], storage.land)
    storage.give(LENGTH)
    await reached(storage, 10)
    assert cache.memory.contended
    assert cache.get(BLOCKS[0].key) == b"x" * LENGTH
    assert await read(cache, BLOCKS[0], storage) == b"x" * LENGTH
    storage.give(2 * LENGTH)
    await ended(cache)
    assert storage.tried == [0, 10, 20], "each of them once"


async def test_what_is_dropped_before_its_run_has_ended_needs_no_memory_afterwards(cache: BlockCache) -> None:
    storage = Storage()
    cache.fetch(BLOCKS, storage.land)
    storage.give(LENGTH)
    await reached(storage, 10)
    cache.drop([block.key for block in BLOCKS[:2]])
    assert cache.memory.used == 2 * BLOCKS[0].need, "of those that are still to come"
    storage.give(2 * LENGTH)
    await ended(cache)
    assert [block.key in cache.memory for block in BLOCKS] == [False, True, True]
    assert cache.memory.used == 2 * LENGTH


async def test_a_block_that_cannot_be_had_does_not_fail_those_behind_it(cache: BlockCache) -> None:
    storage = Storage()
    storage.broken = {0}
    run = cache.fetch(BLOCKS, storage.land)
    storage.give(2 * LENGTH)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, cache, BLOCKS[1], storage)
        with pytest.raises(DirectIOError, match="broken"):
            await read(cache, BLOCKS[0], storage)
        await run.ended.wait()
    assert run.error is not None
    assert await read(cache, BLOCKS[2], storage) == b"x" * 10
    await ended(cache)
    assert cache.memory.used == 2 * LENGTH


async def test_nothing_of_a_run_that_failed_waits_for_a_search_for_cycles(cache: BlockCache) -> None:
    storage = Storage()
    storage.broken = {0}
    gc.disable()
    try:
        run = cache.fetch(BLOCKS[:1], storage.land)
        await run.ended.wait()
        assert run.error is not None
        await trio.testing.wait_all_tasks_blocked()
        left = weakref.ref(run)
        del run
        assert left() is None
    finally:
        gc.enable()


async def test_what_was_dropped_behind_one_that_hangs_is_fetched_by_who_wants_it(cache: BlockCache) -> None:
    hangs, works = Storage(), Storage()
    run = cache.fetch(BLOCKS, hangs.land)
    await trio.testing.wait_all_tasks_blocked()
    for flight in run.flights[1:]:
        flight.landing.drop()
    works.give(2 * LENGTH)
    assert await read(cache, BLOCKS[2], works) == b"x" * 10
    assert await read(cache, BLOCKS[1], works) == b"x" * 10
    assert works.tried == [20, 10]
    hangs.give(LENGTH)
    await run.ended.wait()
    assert run.error is None
    assert cache.memory.used == 3 * LENGTH


async def test_a_run_that_nobody_needs_any_more_ends_and_gives_its_room_back(cache: BlockCache) -> None:
    storage = Storage()
    run = cache.fetch(BLOCKS, storage.land)
    with trio.move_on_after(0), run:
        await run.ended.wait()
    await run.ended.wait()
    assert cache.memory.used == 0
    assert not any(block.key in cache for block in BLOCKS)


async def test_a_run_that_somebody_waits_for_goes_on(cache: BlockCache) -> None:
    storage = Storage()
    run = cache.fetch(BLOCKS, storage.land)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, cache, BLOCKS[2], storage)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0), run:
            await run.ended.wait()
        storage.give(3 * LENGTH)
    assert storage.tried == [0, 10, 20]


async def test_what_was_read_of_a_block_that_is_given_up_was_never_verified(cache: BlockCache) -> None:
    storage, spoiled = Storage(), trio.Event()
    block = replace(BLOCKS[0], spoil=spoiled.set)
    run = cache.fetch((block,), storage.land)
    storage.give(4)
    assert bytes(await cache.read(block, 0, 3, storage.land)) == b"xxx"
    assert not spoiled.is_set()
    run.abandon()
    await run.ended.wait()
    assert spoiled.is_set()
