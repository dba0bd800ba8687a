"""Single flight, the budget, and who may cancel what."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest
import trio
import trio.testing

from cterafs.content.cache import BlockCache
from cterafs.content.memory import BlockKey, BlockMemory
from cterafs.content.runs import IN_FLIGHT_FACTOR, Wanted
from cterafs.direct.landing import Landing
from cterafs.errors import BlockInfo, DirectIOError
from cterafs.stats import Stats

KEY = BlockKey(7, "v1", 0)


class Storage:
    """Blocks that arrive when they are let through."""

    def __init__(self) -> None:
        self.started = 0
        self.cancelled = 0
        self.gate = trio.Event()
        self.arrived = trio.Event()
        self.error: Exception | None = None

    async def land(self, landings: Sequence[Landing]) -> None:
        for landing in landings:
            self.started += 1
            self.arrived.set()
            try:
                await self.gate.wait()
            except trio.Cancelled:
                self.cancelled += 1
                raise
            if self.error is not None:
                raise self.error
            landing.replace(b"x" * 10)
            landing.finish()


def wanted(key: BlockKey, length: int = 10) -> Wanted:
    return Wanted(key, BlockInfo(key.file_id, None, key.offset, length), "")


async def get(cache: BlockCache, key: BlockKey, storage: Storage) -> bytes:
    return bytes(await cache.read(wanted(key), 0, 10, storage.land))


@pytest.fixture
async def cache() -> AsyncIterator[BlockCache]:
    async with trio.open_nursery() as nursery:
        yield BlockCache(BlockMemory(100), nursery, Stats())
        nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_many_readers_one_download(cache: BlockCache) -> None:
    storage, answers = Storage(), []

    async def read() -> None:
        answers.append(await get(cache, KEY, storage))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(read)
        await storage.arrived.wait()
        storage.gate.set()
    assert answers == [b"x" * 10] * 5
    assert storage.started == 1
    assert await get(cache, KEY, storage) == b"x" * 10
    assert storage.started == 1
    assert cache.memory.used == 10


@pytest.mark.trio
async def test_a_cancelled_reader_harms_no_other(cache: BlockCache) -> None:
    storage, answers = Storage(), []

    async def read() -> None:
        answers.append(await get(cache, KEY, storage))

    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as first:
            first.start_soon(read)
            await storage.arrived.wait()
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            first.cancel_scope.cancel()
        assert storage.cancelled == 0
        storage.gate.set()
    assert answers == [b"x" * 10]
    assert storage.started == 1


@pytest.mark.trio
async def test_when_all_readers_are_cancelled_the_download_is_and_the_next_reader_starts_anew(
    cache: BlockCache,
) -> None:
    storage = Storage()
    async with trio.open_nursery() as readers:
        readers.start_soon(get, cache, KEY, storage)
        await storage.arrived.wait()
        readers.cancel_scope.cancel()
    storage.gate.set()
    assert await get(cache, KEY, storage) == b"x" * 10
    assert (storage.started, storage.cancelled) == (2, 1)
    assert cache.memory.used == 10


@pytest.mark.trio
async def test_an_error_reaches_every_reader_and_nothing_stays_reserved(cache: BlockCache) -> None:
    storage, errors = Storage(), []
    storage.error = DirectIOError(7, "refused")

    async def read() -> None:
        with pytest.raises(DirectIOError, match="refused") as caught:
            await get(cache, KEY, storage)
        errors.append(caught.value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        nursery.start_soon(read)
        await storage.arrived.wait()
        storage.gate.set()
    assert len(errors) == 2
    assert cache.memory.used == 0


@pytest.mark.trio
async def test_a_block_above_the_whole_budget_is_refused_at_once(cache: BlockCache) -> None:
    with pytest.raises(DirectIOError, match=r"cache\.memory"):
        await cache.read(wanted(KEY, 100), 0, 100, Storage().land)


@pytest.mark.trio
async def test_downloads_wait_for_room_in_turn_and_never_exceed_the_budget() -> None:
    memory = BlockMemory(10 * IN_FLIGHT_FACTOR * 2)  # room for two downloads of 10 bytes
    async with trio.open_nursery() as nursery:
        cache = BlockCache(memory, nursery, Stats())
        storages = [Storage() for _ in range(4)]
        for number, storage in enumerate(storages):
            nursery.start_soon(get, cache, BlockKey(number, "v1", 0), storage)
            await trio.testing.wait_all_tasks_blocked()
        assert [storage.started for storage in storages] == [1, 1, 0, 0]
        assert memory.used == memory.limit
        assert memory.contended
        storages[1].gate.set()
        await storages[2].arrived.wait()
        assert memory.used <= memory.limit
        assert storages[3].started == 0
        for storage in storages:
            storage.gate.set()
    assert memory.used <= memory.limit


@pytest.mark.trio
async def test_a_cancelled_wait_for_room_gives_its_place_up() -> None:
    memory = BlockMemory(10)
    await memory.reserve(10)
    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as first:
            first.start_soon(memory.reserve, 8)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(memory.reserve, 2)
            await trio.testing.wait_all_tasks_blocked()
            first.cancel_scope.cancel()
        memory.release(10)
    assert memory.used == 2


def test_the_least_recently_used_block_goes_first() -> None:
    memory = BlockMemory(30)

    async def fill() -> None:
        for number in range(3):
            await memory.reserve(10)
            memory.store(BlockKey(number, "v1", 0), b"x" * 10, 10)
        assert memory.get(BlockKey(0, "v1", 0)) is not None
        await memory.reserve(10)

    trio.run(fill)
    assert [BlockKey(number, "v1", 0) in memory for number in range(3)] == [True, False, True]


def test_forgetting_a_version_leaves_the_others() -> None:
    memory = BlockMemory(100)
    for key in (BlockKey(1, "a", 0), BlockKey(1, "a", 10), BlockKey(1, "b", 0), BlockKey(2, "a", 0)):
        memory.store(key, b"x" * 10, 0)
    memory.forget(1, "a")
    assert memory.used == 20
    assert BlockKey(1, "b", 0) in memory


@pytest.mark.trio
async def test_an_unforeseen_failure_is_the_readers_and_not_the_mounts(
    cache: BlockCache, caplog: pytest.LogCaptureFixture
) -> None:
    storage = Storage()
    storage.error = ZeroDivisionError("secret")
    storage.gate.set()
    with pytest.raises(DirectIOError, match="unexpected ZeroDivisionError") as failure:
        await get(cache, KEY, storage)
    assert "secret" not in str(failure.value)
    assert "failed unexpectedly" in caplog.text
    storage.error = None
    assert await get(cache, KEY, storage) == b"x" * 10
    assert cache.memory.used == 10


@pytest.mark.trio
@pytest.mark.parametrize("late", [False, True], ids=["under way", "arrived at the same moment"])
async def test_what_is_forgotten_while_it_is_under_way_is_nobodys(cache: BlockCache, late: bool) -> None:
    """Storage has other bytes now, under the same name."""
    old, new = Storage(), Storage()
    run = cache.fetch((wanted(KEY),), old.land)
    await old.arrived.wait()
    if late:
        old.gate.set()
    cache.forget(KEY.file_id, KEY.version)
    assert KEY not in cache
    new.gate.set()
    with trio.fail_after(10):
        await get(cache, KEY, new)
    assert new.started == 1
    cache.memory.forget(KEY.file_id, KEY.version)
    old.gate.set()
    await run.ended.wait()
    assert KEY not in cache
    assert cache.memory.used == 0
