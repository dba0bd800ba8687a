"""The disk tier, between memory and storage."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import trio
import trio.testing
from disk_tier import SIZE, block, files, get, key, open_cache, origin, put

from cterafs.content.cache import BlockCache
from cterafs.content.disk import DiskCache
from cterafs.content.memory import BlockMemory
from cterafs.content.runs import Wanted
from cterafs.direct.landing import BEGINNING, COMPLETE, FILLED, SHORT, Landing
from cterafs.errors import BlockInfo
from cterafs.stats import Stats

pytestmark = pytest.mark.trio


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[DiskCache]:
    disk = open_cache(tmp_path / "cache")
    yield disk
    disk.close()


class Storage:
    """Has every block, at once; `asked` tells for which it was asked."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    async def land(self, landings: Sequence[Landing]) -> None:
        for landing in landings:
            number = landing.block.offset // SIZE
            self.asked.append(number)
            landing.replace(block(number))
            landing.finish()


def wanted(number: int) -> Wanted:
    return Wanted(key(number), BlockInfo(key(number).file_id, None, key(number).offset, SIZE), origin(number))


async def read(cache: BlockCache, number: int, storage: Storage) -> bytes:
    return bytes(await cache.read(wanted(number), 0, SIZE, storage.land))


async def test_a_download_is_kept_and_asked_for_before_the_next_one(disk: DiskCache) -> None:
    stats, storage = Stats(), Storage()
    async with trio.open_nursery() as nursery:
        cache = BlockCache(BlockMemory(10 * SIZE), nursery, stats, disk)
        assert await read(cache, 0, storage) == block(0)
        await trio.to_thread.run_sync(disk.flush)
        cache = BlockCache(BlockMemory(10 * SIZE), nursery, stats, disk)
        assert await read(cache, 0, storage) == block(0)
        assert cache.memory.used == SIZE
        assert await read(cache, 0, storage) == block(0)
    assert storage.asked == [0]
    assert (disk.hits, disk.misses) == (1, 1)
    assert (stats.hits, stats.misses, stats.downloaded_blocks) == (1, 2, 1)


async def test_what_the_disk_has_of_a_run_is_not_downloaded(disk: DiskCache) -> None:
    storage = Storage()
    put(disk, 1, 3)
    async with trio.open_nursery() as nursery:
        cache = BlockCache(BlockMemory(20 * SIZE), nursery, Stats(), disk)
        await cache.fetch([wanted(number) for number in range(5)], storage.land).ended.wait()
        assert [bytes(cache.memory.get(key(number)) or b"") for number in range(5)] == [*map(block, range(5))]
    assert storage.asked == [0, 2, 4]
    assert cache.memory.used == 5 * SIZE


async def test_what_the_disk_is_offered_is_what_the_memory_keeps(
    disk: DiskCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a block can wait for the disk as long as it is in memory, and no longer."""
    offered: list[weakref.ref[memoryview]] = []
    monkeypatch.setattr(disk, "offer", lambda key, data, origin: offered.append(weakref.ref(data)))
    length = SHORT

    async def land(landings: Sequence[Landing]) -> None:
        for landing in landings:  # as another process does it
            state = list(BEGINNING)
            landing.moor(state, memoryview(bytearray(length)))
            state[FILLED], state[COMPLETE] = length, 1

    block = Wanted(key(0), BlockInfo(7, None, 0, length), origin(0))
    async with trio.open_nursery() as nursery:
        cache = BlockCache(BlockMemory(10 * length), nursery, Stats(), disk)
        await cache.fetch([block], land).ended.wait()
        kept = cache.memory.get(block.key)
        assert kept is not None
        assert offered[0]() is kept
        del kept
        cache.memory.drop([block.key])
        assert offered[0]() is None


async def test_a_disk_that_hangs_is_not_waited_for_long(
    disk: DiskCache, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    autojump_clock.autojump_threshold = 0.2  # seconds for the thread to begin
    put(disk, 0, 1)
    hanging = next(file for file in files(tmp_path / "cache") if file.read_bytes() == block(0))
    hanging.unlink()
    os.mkfifo(hanging, 0o600)  # opening it waits until somebody writes
    async with trio.open_nursery() as nursery:
        cache, began = BlockCache(BlockMemory(10 * SIZE), nursery, Stats(), disk), trio.current_time()
        assert await read(cache, 0, Storage()) == block(0)
        assert trio.current_time() - began < 3
    assert disk.reason == "the disk does not answer"
    assert get(disk, 1) is None, "it is left alone"
    os.close(os.open(hanging, os.O_RDWR))  # lets the thread go
