"""Random reads through a handle: parts of blocks, and when all of a block is fetched after all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest
import trio
import trio.testing
from played_storage import PlayedStorage

from cterafs.content.budget import Budget
from cterafs.content.cache import BlockCache
from cterafs.content.memory import BlockMemory
from cterafs.content.readahead import ReadAhead
from cterafs.content.reader import Reader
from cterafs.content.source import BlockSource
from cterafs.errors import BlockInfo, DirectIOError, DownloadError
from cterafs.model import ROOT_INODE, Chunk, Extent, Inode, Node
from cterafs.stats import Stats

BLOCK = 1 << 20
PAGE = 4096
SIZE = 64 * BLOCK
NODE = Node(
    inode=Inode(2), parent=ROOT_INODE, name="f", wire_name="f", is_dir=False, file_id=9, size=SIZE, gvsn="1", mtime_ns=1
)

pytestmark = pytest.mark.trio


def content(extent: Extent) -> bytes:
    first = extent.start // 4
    data = b"".join(number.to_bytes(4, "big") for number in range(first, -(-extent.stop // 4)))
    return data[extent.start - first * 4 :][: len(extent)]


class Remote(PlayedStorage):
    """Blocks of which parts can be had, unless it is `compressed`. Reads of parts wait for `gate`."""

    fingerprint = ()
    listed = 0

    def __init__(self) -> None:
        self.parts: list[Extent] = []
        self.blocks: list[int] = []
        self.compressed = self.broken = False
        self.gate = trio.Event()
        self.gate.set()

    async def chunks(self, extent: Extent) -> Sequence[Chunk]:
        first = extent.start // BLOCK * BLOCK
        return [Chunk(Extent(at, at + BLOCK), f"https://s/{at}") for at in range(first, extent.stop, BLOCK)]

    async def read(self, chunk: Chunk) -> bytes:
        self.blocks.append(chunk.extent.start // BLOCK)
        await self.gate.wait()
        return content(chunk.extent)

    async def read_part(self, chunk: Chunk, extent: Extent) -> bytes | None:
        assert chunk.extent.contains(extent)
        if self.compressed:
            return None
        self.parts.append(extent)
        await self.gate.wait()
        if self.broken:
            raise DownloadError(BlockInfo(9, None, chunk.extent.start, BLOCK), "broken")
        return content(extent)


@pytest.fixture
async def nursery() -> AsyncIterator[trio.Nursery]:
    async with trio.open_nursery() as nursery:
        yield nursery
        nursery.cancel_scope.cancel()


@pytest.fixture
def remote() -> Remote:
    return Remote()


@pytest.fixture
def stats() -> Stats:
    return Stats()


@pytest.fixture
def cache(nursery: trio.Nursery, stats: Stats) -> BlockCache:
    return BlockCache(BlockMemory(32 * BLOCK), nursery, stats)


@pytest.fixture
def reader(remote: Remote, cache: BlockCache, nursery: trio.Nursery, stats: Stats) -> Reader:
    source = BlockSource(NODE, remote, cache)
    return Reader(source, ReadAhead(source, cache, nursery, Budget(32 * BLOCK, 0), stats), 60, stats)


async def read(reader: Reader, offset: int, length: int = PAGE) -> None:
    assert bytes(await reader.read(offset, length)) == content(Extent(offset, offset + length))


async def test_a_random_read_fetches_its_bytes_and_keeps_nothing(
    reader: Reader, remote: Remote, cache: BlockCache, stats: Stats
) -> None:
    await read(reader, 40 * BLOCK + 17)
    await read(reader, 20 * BLOCK)
    assert remote.parts == [Extent(40 * BLOCK + 17, 40 * BLOCK + 17 + PAGE), Extent(20 * BLOCK, 20 * BLOCK + PAGE)]
    assert (remote.blocks, cache.memory.used) == ([], 0)
    assert (stats.ranges, stats.downloaded_bytes, stats.downloaded_blocks, stats.misses) == (2, 2 * PAGE, 0, 2)


async def test_a_random_read_of_two_blocks(reader: Reader, remote: Remote) -> None:
    await read(reader, 10 * BLOCK - 100)
    assert remote.parts == [Extent(10 * BLOCK - 100, 10 * BLOCK), Extent(10 * BLOCK, 10 * BLOCK - 100 + PAGE)]


async def test_what_goes_on_is_fetched_whole(reader: Reader, remote: Remote) -> None:
    for offset in range(10 * BLOCK, 10 * BLOCK + 5 * PAGE, PAGE):
        await read(reader, offset)
    assert (len(remote.parts), remote.blocks) == (1, [10])


async def test_what_is_in_memory_or_under_way_is_not_fetched_by_part(
    reader: Reader, remote: Remote, cache: BlockCache, nursery: trio.Nursery
) -> None:
    chunks = await reader.source.chunks(Extent(30 * BLOCK, 32 * BLOCK))
    await reader.source.fetch(chunks[:1]).ended.wait()
    remote.gate = trio.Event()
    reader.source.fetch(chunks[1:])
    await trio.testing.wait_all_tasks_blocked()
    nursery.start_soon(read, reader, 31 * BLOCK + 500 * PAGE // 4)
    await read(reader, 30 * BLOCK + 99 * PAGE)
    await trio.testing.wait_all_tasks_blocked()
    remote.gate.set()
    await trio.testing.wait_all_tasks_blocked()
    assert (remote.parts, remote.blocks) == ([], [30, 31])


async def test_a_block_of_which_much_was_read_is_fetched_and_kept(reader: Reader, remote: Remote) -> None:
    for turn in (1, 5, 2, 7, 3, 6, 4, 0):
        for block in (50, 20):
            await read(reader, block * BLOCK + turn * 20 * PAGE + PAGE)
    assert (len(remote.parts), sorted(remote.blocks)) == (8, [20, 50])


async def test_what_has_no_parts_is_fetched_whole(reader: Reader, remote: Remote, stats: Stats) -> None:
    remote.compressed = True
    await read(reader, 40 * BLOCK + 17)
    assert (remote.blocks, stats.ranges, stats.downloaded_blocks) == ([40], 0, 1)


async def test_a_part_that_fails_gives_its_memory_back(reader: Reader, remote: Remote, cache: BlockCache) -> None:
    remote.broken = True
    for _ in range(2):  # the kernel's second try as well
        with pytest.raises(DirectIOError, match="broken"):
            await reader.read(40 * BLOCK, PAGE)
    assert (len(remote.parts), cache.memory.used) == (1, 0)


async def test_parts_under_way_count_as_memory(
    reader: Reader, remote: Remote, cache: BlockCache, nursery: trio.Nursery
) -> None:
    remote.gate = trio.Event()
    for block in (9, 20, 42):
        nursery.start_soon(read, reader, block * BLOCK)
    await trio.testing.wait_all_tasks_blocked()
    assert cache.memory.used == 3 * 2 * PAGE
    remote.gate.set()
    await trio.testing.wait_all_tasks_blocked()
    assert cache.memory.used == 0
