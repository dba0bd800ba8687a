"""What is handed over before it is asked for: which parts, and what a read says that comes out of them."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence

import pytest
import trio
import trio.testing
from played_storage import PlayedStorage

from cterafs.content.budget import Budget
from cterafs.content.cache import BlockCache
from cterafs.content.memory import BlockMemory
from cterafs.content.readahead import GAP, MILESTONE, ReadAhead
from cterafs.content.reader import Reader
from cterafs.content.source import BlockSource
from cterafs.model import ROOT_INODE, Chunk, Extent, Inode, Node
from cterafs.stats import Stats

MIB = 1 << 20
BLOCK = MIB + 1000  # so that pages lie in two blocks
SIZE = 96 * MIB + 123
NODE = Node(
    inode=Inode(2), parent=ROOT_INODE, name="f", wire_name="f", is_dir=False, file_id=9, size=SIZE, gvsn="1", mtime_ns=1
)

pytestmark = pytest.mark.trio


class Remote(PlayedStorage):
    """Each byte tells its block's number."""

    fingerprint = ()
    listed = 0

    async def chunks(self, extent: Extent) -> Sequence[Chunk]:
        return self.known(extent)

    def known(self, extent: Extent) -> Sequence[Chunk]:
        first = extent.start // BLOCK * BLOCK
        return [Chunk(Extent(at, min(at + BLOCK, SIZE)), f"https://s/{at}") for at in range(first, extent.stop, BLOCK)]

    async def read(self, chunk: Chunk) -> bytes:
        await trio.lowlevel.checkpoint()
        return bytes([chunk.extent.start // BLOCK]) * len(chunk.extent)


class Frontend:
    """A page cache. It asks for what it does not have, as the kernel does, in pieces of at most 128 KiB."""

    def __init__(self) -> None:
        self.parts: list[tuple[int, bytes]] = []
        self.takes = True

    def fill(self, offset: int, data: memoryview) -> bool:
        if self.takes:
            self.parts.append((offset, bytes(data)))
        return self.takes

    def holds(self, offset: int) -> int:
        """Up to where it has all bytes from `offset` on."""
        for start, data in sorted(self.parts):
            if start <= offset < start + len(data):
                offset = start + len(data)
        return offset


@pytest.fixture
async def nursery() -> AsyncIterator[trio.Nursery]:
    async with trio.open_nursery() as nursery:
        yield nursery
        nursery.cancel_scope.cancel()


def opened(nursery: trio.Nursery, frontend: Frontend | None, memory: int = 512 * MIB) -> Reader:
    cache = BlockCache(BlockMemory(memory), nursery, Stats())
    source, stats = BlockSource(NODE, Remote(), cache), Stats()
    budget = Budget(memory, 64 * MIB)
    readahead = ReadAhead(source, cache, nursery, budget, stats, fill=frontend and frontend.fill)
    return Reader(source, readahead, 60, stats)


async def read_through(reader: Reader, frontend: Frontend) -> list[int]:
    """Reads the file from its beginning; the offsets of what had to be asked for."""
    asked, position = [], 0
    while position < SIZE:
        if (there := frontend.holds(position)) > position:
            position = there
            continue
        asked.append(position)
        position += len(await reader.read(position, min(GAP, SIZE - position)))
        await trio.testing.wait_all_tasks_blocked()  # what can be read ahead has been
    return asked


@pytest.mark.parametrize("block", [MIB, BLOCK])
async def test_a_program_that_goes_on_asks_for_little_more_than_a_gap_in_each_milestone(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "BLOCK", block)
    frontend = Frontend()
    asked = await read_through(opened(nursery, frontend), frontend)
    late = [offset for offset in asked if offset > 32 * MIB]
    gaps = [offset for offset in late if offset % MILESTONE < GAP]
    edges = len(late) - len(gaps)  # pages that lie in two blocks
    assert len(gaps) <= 64 * MIB // MILESTONE + 1
    assert edges <= (64 if block % 4096 else 0)


async def test_what_is_handed_over_is_right_in_whole_pages_and_never_beyond_the_end(nursery: trio.Nursery) -> None:
    frontend = Frontend()
    await read_through(opened(nursery, frontend), frontend)
    assert frontend.parts
    for offset, data in frontend.parts:
        assert offset % 4096 == 0
        assert offset % MILESTONE >= GAP
        assert (offset + len(data)) % 4096 == 0 or offset + len(data) == SIZE
        assert set(data) == {offset // BLOCK}


async def test_nothing_is_handed_over_to_who_reads_here_and_there(nursery: trio.Nursery) -> None:
    frontend = Frontend()
    reader = opened(nursery, frontend)
    for offset in (5, 70, 20, 90, 40, 60, 10):
        await reader.read(offset * MIB, 4096)
        await trio.testing.wait_all_tasks_blocked()
    assert not frontend.parts


async def test_what_is_not_taken_is_asked_for(nursery: trio.Nursery) -> None:
    frontend = Frontend()
    frontend.takes = False
    asked = await read_through(opened(nursery, frontend), frontend)
    assert len(asked) == -(-SIZE // GAP)


@pytest.mark.parametrize(("memory", "kept"), [(128 * MIB, SIZE), (80 * MIB, 30 * MIB)])
async def test_what_a_file_larger_than_the_memory_left_behind_takes_none(
    nursery: trio.Nursery, memory: int, kept: int
) -> None:
    reader = opened(nursery, None, memory)
    for position in range(0, SIZE, GAP):
        await reader.read(position, min(GAP, SIZE - position))
        await trio.testing.wait_all_tasks_blocked()
        if position == 90 * MIB:
            reader.close()  # so that nothing is fetched ahead of the end
    used = reader.source._cache.memory.used
    assert used == kept if kept == SIZE else used <= kept
