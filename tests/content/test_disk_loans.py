"""Blocks that come faster than the disk is written: kept later, if they are in memory still."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import pytest
from disk_tier import SIZE, block, key, open_cache, origin, put, slow, there

from cterafs.content import disk
from cterafs.content.blockstore import BlockStore, Encoded
from cterafs.content.disk import WATCH, DiskCache
from cterafs.content.memory import BlockKey


def offer(cache: DiskCache, memory: Sequence[memoryview], first: int = 0) -> None:
    """Blocks as a reader leaves them, who goes on at once."""
    for number, data in enumerate(memory, first):
        cache.offer(key(number), data, origin(number))


def flush_loans(cache: DiskCache) -> None:
    """Until nothing waits any more."""
    while cache._work.loans:
        cache.flush()
    cache.flush()


def test_what_is_too_much_is_kept_later_if_it_is_still_in_memory(tmp_path: Path) -> None:
    cache = open_cache(tmp_path / "cache", pending=2 * SIZE)
    memory = {number: memoryview(block(number)) for number in range(20)}
    with slow(tmp_path / "cache"):
        for number, data in memory.items():
            cache.offer(key(number), data, origin(number))
        del data
        for number in range(0, 20, 2):
            del memory[number]
    flush_loans(cache)
    assert there(cache, range(20)) == sorted({0, *range(1, 20, 2)})
    assert cache.dropped == 9
    cache.close()


def test_no_more_than_so_many_are_kept_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "LOANS", 3)
    cache = open_cache(tmp_path / "cache", pending=2 * SIZE)
    memory = [memoryview(block(number)) for number in range(10)]
    with slow(tmp_path / "cache"):
        offer(cache, memory)
        assert cache.dropped == 5
    flush_loans(cache)
    assert there(cache, range(10)) == list(range(5))
    cache.close()


def test_blocks_that_have_left_the_memory_do_not_stand_in_the_way_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "LOANS", 3)
    cache = open_cache(tmp_path / "cache", pending=2 * SIZE)
    with slow(tmp_path / "cache"):
        for number in range(5):
            cache.offer(key(number), memoryview(block(number)), origin(number))
        memory = [memoryview(block(number)) for number in range(5, 8)]
        offer(cache, memory, 5)
    flush_loans(cache)
    assert there(cache, range(10)) == [0, 1, 5, 6, 7]
    cache.close()


def test_what_is_kept_later_comes_after_all_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[int] = []
    waits, done, write = threading.Event(), threading.Event(), BlockStore.write

    def spy(store: BlockStore, blocks: Collection[Encoded]) -> list[bool]:
        order.extend(block.place.key.offset // SIZE for block in blocks)
        if len(order) > 20:
            done.set()
        return write(store, blocks)

    monkeypatch.setattr(BlockStore, "write", spy)
    cache = open_cache(tmp_path / "cache", pending=2 * SIZE)
    cache._untidied.clear()  # the writing thread has nothing else to do
    waiting = threading.Thread(target=lambda: cache.keep(key(50), block(50), origin(50)))
    wait_for = cache._lock.wait_for

    def wait(predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        if threading.current_thread() is waiting:
            waits.set()
        return wait_for(predicate, timeout)

    monkeypatch.setattr(cache._lock, "wait_for", wait)
    memory = [memoryview(block(number)) for number in range(20)]
    with slow(tmp_path / "cache"):
        offer(cache, memory)
        waiting.start()
        assert waits.wait(60)
    waiting.join()
    assert done.wait(WATCH / 2), "it is done at once"
    assert order == [0, 1, 50, *range(2, 20)]
    cache.close()


def test_nobody_waits_for_what_would_be_kept_later(tmp_path: Path) -> None:
    cache = open_cache(tmp_path / "cache", pending=2 * SIZE)
    memory = [memoryview(block(number)) for number in range(20)]
    with slow(tmp_path / "cache"):
        offer(cache, memory)
        closing = threading.Thread(target=cache.close)
        closing.start()
        while not cache._closing:
            closing.join(0.01)
    closing.join()
    cache._thread.join()
    assert cache.dropped == 18
    cache = open_cache(tmp_path / "cache")
    assert there(cache, range(20)) == [0, 1]
    cache.close()


def test_what_a_failed_disk_would_keep_later_is_given_up(tmp_path: Path) -> None:
    cache = open_cache(tmp_path / "cache", pending=2 * SIZE)
    memory = [memoryview(block(number)) for number in range(20)]
    with slow(tmp_path / "cache"):
        offer(cache, memory)
        cache.hung()
    flush_loans(cache)
    assert cache.dropped == 18
    cache.close()


def test_a_version_that_is_forgotten_is_not_kept_later(tmp_path: Path) -> None:
    cache = open_cache(tmp_path / "cache", pending=2 * SIZE)
    memory = [memoryview(block(number)) for number in range(20)]
    with slow(tmp_path / "cache"):
        offer(cache, memory)
        cache.offer(BlockKey(7, "v2", 0), memory[0], "bucket/v2")
        cache.forget(7, "v1")
    flush_loans(cache)
    assert [place.origin for place in cache.places(7, "v2")] == ["bucket/v2"]
    assert not set(range(2, 20)) & set(there(cache, range(2, 20)))
    cache.close()


def test_a_directory_that_cannot_be_listed_is_a_failure_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(store: BlockStore) -> bool:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    cache = open_cache(tmp_path / "cache")
    put(cache, 0)
    monkeypatch.setattr(BlockStore, "is_current", property(fail))
    flushing = threading.Thread(target=cache.flush, daemon=True)
    flushing.start()
    flushing.join(WATCH)
    assert not flushing.is_alive()
    assert cache.reason == "Too many open files"
    cache.close()
