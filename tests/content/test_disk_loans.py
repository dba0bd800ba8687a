"""Blocks that come faster than the disk is written: kept later, if they are in memory still."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from disk_tier import SIZE, block, key, open_cache, origin, slow, there

from cterafs.content import disk
from cterafs.content.blockstore import BlockStore, Encoded
from cterafs.content.disk import WATCH, DiskCache
from cterafs.content.memory import BlockKey

WAITING = 4
"""Blocks for which there is room."""
ALL = 20


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[DiskCache]:
    cache = open_cache(tmp_path / "cache", pending=WAITING * SIZE)
    yield cache
    cache.close()


@contextmanager
def overrun(cache: DiskCache) -> Iterator[list[memoryview]]:
    """The memory of a reader who is faster than the disk, which takes nothing meanwhile: some blocks wait, and the
    others are on loan."""
    memory = [memoryview(block(number)) for number in range(ALL)]
    with slow(cache._directory):
        for number, data in enumerate(memory):
            cache.offer(key(number), data, origin(number))
        yield memory


def flush_loans(cache: DiskCache) -> None:
    """Until nothing waits any more."""
    while cache._work.loans:
        cache.flush()
    cache.flush()


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """What is written, by transaction."""
    batches: list[list[int]] = []
    write = BlockStore.write

    def spy(store: BlockStore, blocks: Collection[Encoded]) -> list[bool]:
        batches.append([block.place.key.offset // SIZE for block in blocks])
        return write(store, blocks)

    monkeypatch.setattr(BlockStore, "write", spy)
    return batches


def test_what_is_too_much_is_kept_later_if_it_is_still_in_memory(cache: DiskCache) -> None:
    with overrun(cache) as memory:
        del memory[::2]
    flush_loans(cache)
    late = range(WAITING, ALL)
    assert there(cache, range(ALL)) == [*range(WAITING), *(number for number in late if number % 2)]
    assert cache.dropped == len(late) // 2


def test_no_more_than_so_many_are_kept_later(cache: DiskCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "LOANS", 3)
    with overrun(cache) as memory:
        assert cache.dropped == len(memory) - WAITING - 3
    flush_loans(cache)
    assert there(cache, range(ALL)) == list(range(WAITING + 3))


def test_blocks_that_have_left_the_memory_do_not_stand_in_the_way_of_others(
    cache: DiskCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "LOANS", ALL - WAITING)
    with overrun(cache) as memory:
        memory.clear()
        others = [memoryview(block(number)) for number in range(ALL, ALL + 3)]
        for number, data in enumerate(others, ALL):
            cache.offer(key(number), data, origin(number))
    flush_loans(cache)
    assert there(cache, range(ALL, ALL + 3)) == list(range(ALL, ALL + 3))


@pytest.mark.parametrize(("batch", "at_once"), [(2 * SIZE, 2), (2 * WAITING * SIZE, WAITING)])
def test_so_many_are_taken_into_memory_at_a_time(
    cache: DiskCache, batches: list[list[int]], monkeypatch: pytest.MonkeyPatch, batch: int, at_once: int
) -> None:
    monkeypatch.setattr(disk, "BATCH", batch)
    with overrun(cache) as memory:
        pass
    flush_loans(cache)
    late = [numbers for numbers in batches if numbers[-1] >= WAITING]
    assert late == [list(range(first, first + at_once)) for first in range(WAITING, len(memory), at_once)]


def test_what_is_kept_later_comes_after_all_else(
    cache: DiskCache, batches: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits, wait_for = threading.Event(), cache._lock.wait_for
    waiting = threading.Thread(target=lambda: cache.keep(key(50), block(50), origin(50)))

    def wait(predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        if threading.current_thread() is waiting:
            waits.set()
        return wait_for(predicate, timeout)

    monkeypatch.setattr(cache._lock, "wait_for", wait)
    with overrun(cache) as memory:
        waiting.start()
        assert waits.wait(60)
    waiting.join()
    flush_loans(cache)
    assert [*itertools.chain(*batches)] == [*range(WAITING), 50, *range(WAITING, len(memory))]


def test_it_is_kept_as_soon_as_there_is_nothing_else_to_write(
    cache: DiskCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, write = threading.Event(), BlockStore.write

    def spy(store: BlockStore, blocks: Collection[Encoded]) -> list[bool]:
        if any(block.place.key == key(ALL - 1) for block in blocks):
            done.set()
        return write(store, blocks)

    monkeypatch.setattr(BlockStore, "write", spy)
    cache._untidied.clear()  # for which the writing thread would wake up as well
    with overrun(cache) as memory:
        assert not done.is_set()
    assert done.wait(WATCH / 2)
    assert len(memory) == ALL, "they are in use up to here"


def test_the_end_does_not_wait_for_what_would_be_kept_later(cache: DiskCache, tmp_path: Path) -> None:
    with overrun(cache) as memory:
        closing = threading.Thread(target=cache.close)
        closing.start()
        while not cache._closing:
            closing.join(0.01)
    closing.join()
    cache._thread.join()
    again = open_cache(tmp_path / "cache")
    assert there(again, range(len(memory))) == list(range(WAITING))
    again.close()


def test_what_a_failed_disk_would_keep_later_is_given_up(cache: DiskCache) -> None:
    with overrun(cache) as memory:
        cache.hung()
    flush_loans(cache)
    assert cache.dropped == len(memory) - WAITING


def test_a_version_that_is_forgotten_is_not_kept_later(cache: DiskCache) -> None:
    with overrun(cache) as memory:
        cache.offer(BlockKey(7, "v2", 0), memory[0], "bucket/v2")
        cache.forget(7, "v1")
    flush_loans(cache)
    assert [place.origin for place in cache.places(7, "v2")] == ["bucket/v2"]
    assert there(cache, range(WAITING, ALL)) == []
