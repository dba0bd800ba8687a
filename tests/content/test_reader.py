"""Reads through a handle: cutting, failing, and read-ahead."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest
import trio
import trio.testing
from played_storage import PlayedStorage

from cterafs.content import budget as budgets
from cterafs.content import window
from cterafs.content.budget import PART, Budget, File
from cterafs.content.cache import BlockCache
from cterafs.content.memory import BlockMemory
from cterafs.content.readahead import PARALLEL, ReadAhead
from cterafs.content.reader import FAILURE_MEMORY, Reader
from cterafs.content.runs import Run
from cterafs.content.source import BlockSource
from cterafs.content.window import PASSED, AccessPattern, Advice
from cterafs.errors import BlockInfo, DirectIOError, DownloadError, DownloadTimeout
from cterafs.model import ROOT_INODE, Chunk, Extent, Inode, Node
from cterafs.stats import Stats

BLOCK = 64 << 10
SIZE = 8 << 20
NODE = Node(
    inode=Inode(2), parent=ROOT_INODE, name="f", wire_name="f", is_dir=False, file_id=9, size=SIZE, gvsn="1", mtime_ns=1
)

pytestmark = pytest.mark.trio


class Remote(PlayedStorage):
    """Blocks whose bytes tell their number. `hung` blocks never come, `broken` ones fail."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.hung: set[int] = set()
        self.broken: set[int] = set()
        self.covers = Extent(0, SIZE)
        self.fingerprint = ()
        self.listed = 0

    async def chunks(self, extent: Extent) -> Sequence[Chunk]:
        return self.blocks(extent)

    def blocks(self, extent: Extent) -> Sequence[Chunk]:
        covered = extent.intersect(self.covers)
        first = covered.start // BLOCK * BLOCK
        return [Chunk(Extent(at, at + BLOCK), f"https://s/{at}") for at in range(first, covered.stop, BLOCK)]

    async def read(self, chunk: Chunk) -> bytes:
        number = chunk.extent.start // BLOCK
        self.asked.append(number)
        await trio.lowlevel.checkpoint()
        if number in self.hung:
            await trio.sleep_forever()
        if number in self.broken:
            raise DownloadError(BlockInfo(9, None, chunk.extent.start, BLOCK), "broken")
        return number.to_bytes(2, "big") * (BLOCK // 2)


@pytest.fixture
def remote() -> Remote:
    return Remote()


@pytest.fixture
async def nursery() -> AsyncIterator[trio.Nursery]:
    async with trio.open_nursery() as nursery:
        yield nursery
        nursery.cancel_scope.cancel()


@pytest.fixture
def cache(nursery: trio.Nursery) -> BlockCache:
    return BlockCache(BlockMemory(SIZE * 2), nursery, Stats())


def reader(remote: Remote, cache: BlockCache, nursery: trio.Nursery, *, readahead: int = 0) -> Reader:
    source = BlockSource(NODE, remote, cache)
    return Reader(
        source, ReadAhead(source, cache, nursery, Budget(cache.memory.limit, readahead), Stats()), 60, Stats()
    )


async def test_a_read_over_many_blocks(remote: Remote, cache: BlockCache, nursery: trio.Nursery) -> None:
    data = bytes(await reader(remote, cache, nursery).read(BLOCK - 2, 2 * BLOCK + 4))
    assert data == b"\0\0" + b"\0\1" * (BLOCK // 2) + b"\0\2" * (BLOCK // 2) + b"\0\3"
    assert sorted(remote.asked) == [0, 1, 2, 3]


async def test_one_broken_block_fails_the_read_that_needs_it_and_no_other(
    remote: Remote, cache: BlockCache, nursery: trio.Nursery
) -> None:
    remote.broken = {1}
    reading = reader(remote, cache, nursery)
    with pytest.raises(DownloadError, match="broken"):
        await reading.read(0, 3 * BLOCK)
    assert bytes(await reading.read(2 * BLOCK, 2)) == b"\0\2"


async def test_a_failure_is_remembered_for_the_kernels_second_try_and_then_forgotten(
    remote: Remote, cache: BlockCache, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    remote.broken = {5}
    reading = reader(remote, cache, nursery)
    for size in (BLOCK, 4096, 4096):
        with pytest.raises(DownloadError):
            await reading.read(5 * BLOCK, size)
    assert remote.asked == [5]
    remote.broken.clear()
    await trio.sleep(FAILURE_MEMORY)
    assert bytes(await reading.read(5 * BLOCK, 2)) == b"\0\5"


async def test_no_read_outlives_its_deadline(
    remote: Remote, cache: BlockCache, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    remote.hung = {0}
    start = trio.current_time()
    with pytest.raises(DownloadTimeout):
        await reader(remote, cache, nursery).read(0, 10)
    assert trio.current_time() - start == pytest.approx(60)


async def test_a_list_that_does_not_cover_the_read_is_an_error(
    remote: Remote, cache: BlockCache, nursery: trio.Nursery
) -> None:
    remote.covers = Extent(0, 4 * BLOCK)
    with pytest.raises(DirectIOError, match="does not cover"):
        await reader(remote, cache, nursery).read(3 * BLOCK, 2 * BLOCK)


async def test_a_sequential_reader_finds_its_blocks_on_their_way(
    remote: Remote, cache: BlockCache, nursery: trio.Nursery
) -> None:
    reading = reader(remote, cache, nursery, readahead=SIZE)
    for offset in range(0, SIZE // 2, BLOCK):
        await reading.read(offset, BLOCK)
    await trio.testing.wait_all_tasks_blocked()
    assert len(remote.asked) > SIZE // 2 // BLOCK
    assert len(remote.asked) == len(set(remote.asked))  # nothing is fetched twice


async def test_closing_cancels_read_ahead(remote: Remote, cache: BlockCache, nursery: trio.Nursery) -> None:
    remote.hung = set(range(8, 128))
    reading = reader(remote, cache, nursery, readahead=SIZE)
    for offset in range(0, 8 * BLOCK, BLOCK):
        await reading.read(offset, BLOCK)
    await trio.testing.wait_all_tasks_blocked()
    assert cache.memory.used > 8 * BLOCK
    reading.close()
    await trio.testing.wait_all_tasks_blocked()
    assert cache.memory.used == 8 * BLOCK


async def test_a_jump_cancels_what_was_fetched_ahead_of_the_old_place(
    remote: Remote, cache: BlockCache, nursery: trio.Nursery
) -> None:
    remote.hung = set(range(8, 64))
    reading = reader(remote, cache, nursery, readahead=SIZE)
    for offset in range(0, 8 * BLOCK, BLOCK):
        await reading.read(offset, BLOCK)
    await trio.testing.wait_all_tasks_blocked()
    assert cache.memory.used > 8 * BLOCK
    await reading.read(100 * BLOCK, BLOCK)
    await trio.testing.wait_all_tasks_blocked()
    assert cache.memory.used == 9 * BLOCK


async def test_blocks_that_were_evicted_unread_are_fetched_ahead_again(
    remote: Remote, cache: BlockCache, nursery: trio.Nursery
) -> None:
    reading = reader(remote, cache, nursery, readahead=SIZE)
    for offset in range(0, 8 * BLOCK, BLOCK):
        await reading.read(offset, BLOCK)
    await trio.testing.wait_all_tasks_blocked()
    ahead = remote.asked[8:]
    assert ahead
    reading.source.forget()
    remote.asked.clear()
    await reading.read(8 * BLOCK, BLOCK)
    await trio.testing.wait_all_tasks_blocked()
    assert set(remote.asked) >= {8, 9, 10, 11}


async def test_no_read_ahead_while_memory_is_contended(
    remote: Remote, cache: BlockCache, nursery: trio.Nursery
) -> None:
    reading = reader(remote, cache, nursery, readahead=SIZE)
    await cache.memory.reserve(cache.memory.limit // 2 + BLOCK)
    for number in range(16):
        await reading.read(number * BLOCK, BLOCK)
    await trio.testing.wait_all_tasks_blocked()
    assert remote.asked == list(range(16))
    cache.memory.release(cache.memory.limit // 2 + BLOCK)
    await reading.read(16 * BLOCK, BLOCK)
    await trio.testing.wait_all_tasks_blocked()
    assert len(remote.asked) > 17


async def test_a_failure_ends_the_prefetch_that_it_is_part_of(remote: Remote, nursery: trio.Nursery) -> None:
    remote.broken = set(range(64, 128))
    cache = BlockCache(BlockMemory(SIZE * 8), nursery, Stats())
    reading = reader(remote, cache, nursery, readahead=SIZE)
    for offset in (0, 1 << 20, 2 << 20):
        await reading.read(offset, 1 << 20)
    await trio.testing.wait_all_tasks_blocked()
    assert len(remote.asked) <= 64 + PARALLEL


async def test_a_closed_reader_leaves_its_share_to_others(
    remote: Remote, cache: BlockCache, nursery: trio.Nursery
) -> None:
    source, budget = BlockSource(NODE, remote, cache), Budget(60 * PART, 1000)
    reading = Reader(source, ReadAhead(source, cache, nursery, budget, Stats()), 60, Stats())
    await reading.read(0, 1)
    assert budget.share("another") == 30
    reading.close()
    assert budget.share("another") == 60


@pytest.mark.parametrize(("memory", "kept"), [(SIZE - BLOCK, SIZE - PASSED), (3 * SIZE, SIZE)])
async def test_what_was_read_is_dropped_where_not_all_of_it_can_stay(
    remote: Remote, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, memory: int, kept: int
) -> None:
    monkeypatch.setattr(remote, "known", remote.blocks)
    cache, budget = BlockCache(BlockMemory(memory), nursery, Stats()), Budget(memory, 0)
    budget.note("another", File("another", 1))
    source = BlockSource(NODE, remote, cache)
    reading = Reader(source, ReadAhead(source, cache, nursery, budget, Stats()), 60, Stats())
    for offset in range(0, SIZE, BLOCK):
        await reading.read(offset, BLOCK)
    assert cache.memory.used == kept


@pytest.mark.parametrize("step", [1, -1])
async def test_no_block_is_dropped_before_all_of_it_was_read(
    remote: Remote, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    monkeypatch.setattr(remote, "known", remote.blocks)
    monkeypatch.setattr(budgets, "BEHIND", BLOCK // 4)
    monkeypatch.setattr(window, "PASSED", BLOCK // 4)
    cache = BlockCache(BlockMemory(SIZE - BLOCK), nursery, Stats())
    reading = reader(remote, cache, nursery)
    for offset in [*range(0, SIZE, BLOCK // 8)][::step]:
        await reading.read(offset, BLOCK // 8)
    assert len(remote.asked) == SIZE // BLOCK
    assert cache.memory.used <= 2 * BLOCK


@pytest.mark.parametrize(("others", "runs"), [(0, 2), (1, 1)])
async def test_a_window_is_spread_over_runs_where_nobody_else_reads(
    remote: Remote, cache: BlockCache, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, others: int, runs: int
) -> None:
    budget, fetched, fetch = Budget(cache.memory.limit, SIZE), [], BlockSource.fetch

    def spy(source: BlockSource, chunks: Sequence[Chunk]) -> Run:
        fetched.append(len(chunks))
        return fetch(source, chunks)

    for other in range(others):
        budget.note(other, File(other, 1))
    source = BlockSource(NODE, remote, cache)
    reading = Reader(source, ReadAhead(source, cache, nursery, budget, Stats()), 60, Stats())
    await reading.read(0, BLOCK)
    await reading.read(BLOCK, BLOCK)
    monkeypatch.setattr(BlockSource, "fetch", spy)
    await reading.read(2 * BLOCK, BLOCK)
    await trio.testing.wait_all_tasks_blocked()
    assert len(fetched) == runs
    assert sum(fetched) > runs


@pytest.mark.parametrize("alone", [True, False])
async def test_no_run_is_too_long(remote: Remote, cache: BlockCache, alone: bool) -> None:
    chunks = [Chunk(Extent(at * BLOCK, (at + 1) * BLOCK), f"https://s/{at}") for at in range(513)]
    batches = BlockSource(NODE, remote, cache).batches(chunks, alone=alone)
    assert [len(batch) for batch in batches] == [256, 256, 1]


async def test_small_blocks_fetched_ahead_do_not_queue_before_one_that_is_read(
    remote: Remote, nursery: trio.Nursery
) -> None:
    remote.hung = set(range(64, 128))
    cache = BlockCache(BlockMemory(SIZE * 8), nursery, Stats())
    reading = reader(remote, cache, nursery, readahead=SIZE)
    for offset in (0, 1 << 20, 2 << 20):
        await reading.read(offset, 1 << 20)
    await trio.testing.wait_all_tasks_blocked()
    assert 64 < len(remote.asked) <= 64 + PARALLEL


async def test_read_ahead_that_fails_is_silent_until_the_block_is_read(
    remote: Remote, cache: BlockCache, nursery: trio.Nursery
) -> None:
    remote.broken = {20}
    reading = reader(remote, cache, nursery, readahead=SIZE)
    for offset in range(0, 20 * BLOCK, BLOCK):
        await reading.read(offset, BLOCK)
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(DownloadError):
        await reading.read(20 * BLOCK, BLOCK)
    assert bytes(await reading.read(21 * BLOCK, 2)) == b"\0\x15"


async def test_read_ahead_that_fails_unforeseen_ends_nothing_else(
    cache: BlockCache, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    class Confused(Remote):
        async def chunks(self, extent: Extent) -> Sequence[Chunk]:
            if len(extent) > BLOCK:
                raise ZeroDivisionError
            return await super().chunks(extent)

    reading = reader(Confused(), cache, nursery, readahead=SIZE)
    for offset in range(0, 8 * BLOCK, BLOCK):
        await reading.read(offset, BLOCK)
    await trio.testing.wait_all_tasks_blocked()
    assert "failed unexpectedly" in caplog.text
    assert len(await reading.read(8 * BLOCK, BLOCK)) == BLOCK


@pytest.mark.parametrize("wanders", [False, True])
async def test_what_was_at_hand_is_observed_unless_it_wanders(
    remote: Remote, cache: BlockCache, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, wanders: bool
) -> None:
    observed, observe = [], AccessPattern.observe

    def spy(pattern: AccessPattern, read: Extent, size: int) -> Advice:
        observed.append(read)
        return observe(pattern, read, size)

    monkeypatch.setattr(AccessPattern, "observe", spy)
    monkeypatch.setattr(AccessPattern, "wanders", lambda *read: wanders)
    counted, note = [], Budget.note

    def spy_on_budget(budget: Budget, handle: object, file: File | None = None) -> None:
        counted.append(file)
        note(budget, handle, file)

    monkeypatch.setattr(Budget, "note", spy_on_budget)
    one = reader(remote, cache, nursery)
    monkeypatch.setattr(one.source, "known", lambda extent: [Chunk(Extent(0, BLOCK), "https://s/0")])
    await one.read(0, BLOCK)
    observed.clear()
    assert one.ready(0, BLOCK) is not None
    assert observed == ([] if wanders else [Extent(0, BLOCK)])
    assert len(counted) == 2, "it takes part in what all readers share"


async def test_what_was_found_and_then_evicted_was_not_fetched_too_early(
    remote: Remote, cache: BlockCache, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[Extent] = []
    monkeypatch.setattr(AccessPattern, "lost", lambda pattern, read, size: lost.append(read))
    reading = reader(remote, cache, nursery, readahead=SIZE)
    for offset in range(0, 8 * BLOCK, BLOCK):
        await reading.read(offset, BLOCK)
    await trio.testing.wait_all_tasks_blocked()
    monkeypatch.setattr(reading.source, "known", lambda extent: [Chunk(Extent(8 * BLOCK, 9 * BLOCK), "https://s/8")])
    assert reading.ready(8 * BLOCK, BLOCK) is not None
    reading.source.forget()
    await reading.read(8 * BLOCK, BLOCK)
    assert not lost
    await reading.read(9 * BLOCK, BLOCK)
    assert lost
