"""Blocks on their way to the disk: how many at a time, and what becomes of errors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
import trio
import trio.lowlevel
import trio.testing
from disk_tier import open_cache

from cterafs.content.cache import BlockCache
from cterafs.content.disk import DiskCache
from cterafs.content.fill import MEMORY_SHARE, DiskFill
from cterafs.content.memory import BlockKey, BlockMemory
from cterafs.content.source import BlockSource, origin
from cterafs.errors import DirectIOError, DownloadTimeout, StateError
from cterafs.model import Chunk, Extent, Inode, Node
from cterafs.stats import Stats

LENGTH = 1000
BLOCKS = 30


class Storage:
    """A file whose blocks arrive when they are let through."""

    def __init__(self) -> None:
        self.gate = trio.Event()
        self.running = self.most = self.asked = 0
        self.fails_at: int | None = None
        self.fingerprint = ()
        self.listed = 0

    def rest(self) -> None:
        pass

    async def chunks(self, extent: Extent) -> Sequence[Chunk]:
        return [
            Chunk(Extent(number * LENGTH, (number + 1) * LENGTH), f"https://storage/bucket/{number}?signed=1")
            for number in range(extent.start // LENGTH, -(-extent.stop // LENGTH))
        ]

    async def read(self, chunk: Chunk) -> bytes:
        self.asked += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.gate.wait()
        finally:
            self.running -= 1
        if chunk.extent.start == self.fails_at:
            raise DirectIOError(7, "refused")
        return content(chunk)


def content(chunk: Chunk) -> bytes:
    return (chunk.extent.start.to_bytes(8, "big") * LENGTH)[:LENGTH]


NODE = Node(
    inode=Inode(5), parent=Inode(1), name="f", wire_name="f", is_dir=False, file_id=7, size=BLOCKS * LENGTH, gvsn="1"
)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[DiskCache]:
    disk = open_cache(tmp_path / "cache")
    yield disk
    disk.close()


@pytest.fixture
def memory() -> BlockMemory:
    return BlockMemory(LENGTH * 1000)


@pytest.fixture
async def storage() -> Storage:
    return Storage()


@pytest.fixture
async def source(storage: Storage) -> AsyncIterator[BlockSource]:
    """With caches of its own, which are gone past."""
    async with trio.open_nursery() as nursery:
        yield BlockSource(NODE, storage, BlockCache(BlockMemory(0), nursery, Stats()))


def filling(memory: BlockMemory, disk: DiskCache, workers: int = 8, deadline: float = 30) -> DiskFill:
    return DiskFill(memory, disk, workers=workers, deadline=deadline)


def ignore(_: int, __: bool) -> None:
    """Nobody wants to know."""


@pytest.mark.trio
async def test_all_of_a_file_and_nothing_twice(
    memory: BlockMemory, disk: DiskCache, storage: Storage, source: BlockSource
) -> None:
    told: list[tuple[int, bool]] = []
    storage.gate.set()
    fill = filling(memory, disk)
    await fill.file(source, lambda count, downloaded: told.append((count, downloaded)))
    assert sum(count for count, downloaded in told if downloaded) == NODE.size
    for chunk in await storage.chunks(Extent(0, NODE.size)):
        assert disk.get(source.key(chunk), LENGTH, origin(chunk)) == content(chunk)
    told.clear()
    await fill.file(source, lambda count, downloaded: told.append((count, downloaded)))
    assert told == [(NODE.size, False)]
    assert storage.asked == BLOCKS


@pytest.mark.trio
async def test_some_downloads_are_left_to_readers_whatever_the_number_of_files(
    memory: BlockMemory, disk: DiskCache, storage: Storage, source: BlockSource
) -> None:
    fill = filling(memory, disk, workers=8)
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(fill.file, source, ignore)
        while storage.running < 6:
            await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        assert storage.running == 6
        storage.gate.set()
    assert storage.most == 6


@pytest.mark.trio
async def test_readers_keep_most_of_the_memory_and_all_that_is_cached_there(
    disk: DiskCache, storage: Storage, source: BlockSource
) -> None:
    memory = BlockMemory(LENGTH * 4 * MEMORY_SHARE)  # room for two blocks under way
    cached = BlockKey(1, "v", 0)
    memory.store(cached, bytes(LENGTH), 0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(filling(memory, disk).file, source, ignore)
        while storage.running < 2:
            await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        assert storage.running == 2
        assert memory.used == LENGTH * 5
        storage.gate.set()
    assert storage.most == 2
    assert memory.used == LENGTH
    assert cached in memory


@pytest.mark.trio
async def test_the_first_error_ends_the_file(
    memory: BlockMemory, disk: DiskCache, storage: Storage, source: BlockSource
) -> None:
    storage.gate.set()
    storage.fails_at = 10 * LENGTH
    with pytest.raises(DirectIOError, match="refused"):
        await filling(memory, disk).file(source, ignore)
    assert storage.asked < BLOCKS
    assert memory.used == 0


@pytest.mark.trio
async def test_a_block_that_never_comes(
    memory: BlockMemory, disk: DiskCache, source: BlockSource, autojump_clock: trio.testing.MockClock
) -> None:
    with pytest.raises(DownloadTimeout, match="not on the disk in 30 s"):
        await filling(memory, disk).file(source, ignore)
    assert memory.used == 0


@pytest.mark.trio
async def test_a_block_larger_than_the_memory(disk: DiskCache, source: BlockSource) -> None:
    with pytest.raises(DirectIOError, match=r"raise cache\.memory"):
        await filling(BlockMemory(LENGTH), disk).file(source, ignore)


@pytest.mark.trio
async def test_a_disk_that_cannot_be_used(
    tmp_path: Path, memory: BlockMemory, storage: Storage, source: BlockSource
) -> None:
    (tmp_path / "blocked").touch()
    disk = open_cache(tmp_path / "blocked")
    storage.gate.set()
    with pytest.raises(StateError, match="the disk cache cannot be used: File exists"):
        await filling(memory, disk).file(source, ignore)
    disk.close()
    assert memory.used == 0


@pytest.mark.trio
async def test_a_block_larger_than_the_disk(
    tmp_path: Path, memory: BlockMemory, storage: Storage, source: BlockSource
) -> None:
    disk = open_cache(tmp_path / "cache", limit=100)
    storage.gate.set()
    with pytest.raises(DirectIOError, match=r"is cache\.disk large enough"):
        await filling(memory, disk).file(source, ignore)
    disk.close()
