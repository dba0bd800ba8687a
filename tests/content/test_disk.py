"""Blocks on the disk: what is found again, and within which bounds."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pytest
from disk_tier import COST, SIZE, block, files, get, key, open_cache, origin, put, slow, there

from cterafs.config import Reserve
from cterafs.content import disk, diskqueue
from cterafs.content.blockcodec import BlockCodec
from cterafs.content.blockstore import BlockStore, Bounds, Encoded
from cterafs.content.disk import WATCH, DiskCache
from cterafs.content.memory import BlockKey


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[DiskCache]:
    cache = open_cache(tmp_path / "cache")
    yield cache
    cache.close()
    assert cache.reason is None


def test_a_block_is_found_again_also_by_the_next_mount(cache: DiskCache, tmp_path: Path) -> None:
    assert get(cache, 0) is None
    put(cache, 0)
    assert get(cache, 0) == block(0)
    cache.close()
    again = open_cache(tmp_path / "cache")
    assert get(again, 0) == block(0)
    assert (again.hits, again.misses, again.used()) == (1, 0, COST)
    again.close()
    assert (cache.hits, cache.misses) == (1, 1)


def test_what_names_a_block_is_all_of_it(cache: DiskCache, tmp_path: Path) -> None:
    put(cache, 0)
    for other in (BlockKey(8, "v1", 0), BlockKey(7, "v2", 0), BlockKey(7, "v1", 1)):
        assert cache.get(other, SIZE, origin(0)) is None
    assert cache.get(key(0), SIZE - 1, origin(0)) is None
    assert cache.get(key(0), SIZE, "bucket/another") is None, "storage has another version"
    neighbour = open_cache(tmp_path / "cache", scope="another portal")
    assert get(neighbour, 0) is None
    neighbour.close()
    assert get(cache, 0) == block(0)


def test_another_version_in_storage_takes_the_place(cache: DiskCache) -> None:
    put(cache, 0)
    cache.offer(key(0), block(1), "bucket/another")
    cache.flush()
    assert cache.get(key(0), SIZE, "bucket/another") == block(1)
    assert get(cache, 0) is None


def test_equal_blocks_are_kept_once(cache: DiskCache, tmp_path: Path) -> None:
    for number in range(5):
        cache.offer(key(number), block(0), origin(number))
    cache.flush()
    assert [get(cache, number) for number in range(5)] == [block(0)] * 5
    assert len(files(tmp_path / "cache")) == 1
    assert cache.used() == COST


@pytest.mark.parametrize(("data", "pages"), [(b"text " * 4000, 1), (block(0), 5)], ids=["shrinks", "does not shrink"])
def test_compressed_where_it_pays(cache: DiskCache, tmp_path: Path, data: bytes, pages: int) -> None:
    cache.offer(key(0), data, origin(0))
    cache.flush()
    assert get(cache, 0) == data
    (file,) = files(tmp_path / "cache")
    assert (file.stat().st_size < SIZE) == (pages == 1)
    assert cache.used() == pages * 4096 + 512


def test_nobody_else_may_read_it(cache: DiskCache, tmp_path: Path) -> None:
    put(cache, 0)
    for path in [tmp_path / "cache", *(tmp_path / "cache").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_never_more_than_the_limit(tmp_path: Path) -> None:
    cache = open_cache(tmp_path / "cache", limit=10 * COST)
    for number in range(40):
        put(cache, number)
        assert sum(file.stat().st_blocks * 512 for file in files(tmp_path / "cache")) <= 10 * COST
        assert cache.used() <= 10 * COST
    assert len(there(cache, range(40))) == len(files(tmp_path / "cache")) == 10
    cache.offer(key(99), bytes(11 * COST), origin(99))  # compressed, it fits
    cache.flush()
    assert cache.get(key(99), 11 * COST, origin(99)) == bytes(11 * COST)
    assert not cache.keep(key(98), b"".join(map(block, range(11))), origin(98)), "larger than the limit"
    assert len(there(cache, range(40))) >= 9, "nothing makes room for what cannot fit"
    cache.close()


def test_a_smaller_limit_holds_from_the_next_mount_on(tmp_path: Path) -> None:
    cache = open_cache(tmp_path / "cache")
    put(cache, *range(10))
    cache.close()
    cache = open_cache(tmp_path / "cache", limit=3 * COST)
    put(cache, 10)
    assert cache.used() == 3 * COST
    assert len(files(tmp_path / "cache")) == 3
    cache.close()


def test_space_is_left_free(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "cache", "portal", Bounds(1 << 30, Reserve(percent=100)), BlockCodec())
    put(cache, 0)
    assert get(cache, 0) is None
    assert files(tmp_path / "cache") == []
    assert cache.reason is None
    cache.close()


def test_when_others_need_the_space_blocks_leave_although_nothing_is_written(tmp_path: Path) -> None:
    cache = open_cache(tmp_path / "cache")
    put(cache, *range(5))
    cache.close()
    cache = DiskCache(tmp_path / "cache", "portal", Bounds(1 << 30, Reserve(percent=100)), BlockCodec())
    while cache.used():
        cache.flush()
    assert files(tmp_path / "cache") == []
    cache.close()


def test_a_hot_set_stays_while_more_than_the_cache_holds_passes_through(tmp_path: Path) -> None:
    cache = open_cache(tmp_path / "cache", limit=20 * COST)
    hot = range(10)
    put(cache, *hot)
    assert [get(cache, number) for number in hot] == [block(number) for number in hot]
    cache.flush()
    put(cache, *range(100, 200))
    assert there(cache, hot) == list(hot)
    assert cache.used() <= 20 * COST
    cache.close()


def test_what_was_asked_for_is_known_to_the_next_mount(tmp_path: Path) -> None:
    cache = open_cache(tmp_path / "cache", limit=20 * COST)
    put(cache, *range(10))
    assert [get(cache, number) for number in range(10)] == [block(number) for number in range(10)]
    cache.close()
    cache = open_cache(tmp_path / "cache", limit=20 * COST)
    put(cache, *range(100, 200))
    assert there(cache, range(10)) == list(range(10))
    cache.close()


def test_what_was_hot_once_leaves_in_the_end(tmp_path: Path) -> None:
    cache = open_cache(tmp_path / "cache", limit=10 * COST)
    for first in range(0, 100, 10):
        put(cache, *range(first, first + 10))
        for number in range(first, first + 10):
            get(cache, number)
        cache.flush()
    assert there(cache, range(10)) == []
    cache.close()


def test_what_comes_back_soon_is_proven(tmp_path: Path) -> None:
    cache = open_cache(tmp_path / "cache", limit=10 * COST)
    put(cache, *range(12))
    assert 0 not in there(cache, range(12))
    put(cache, 0, *range(100, 150))
    assert 0 in there(cache, range(12))
    cache.close()


def test_what_is_wanted_on_the_disk_stays_while_others_pass_through(tmp_path: Path) -> None:
    cache = open_cache(tmp_path / "cache", limit=10 * COST)
    for number in range(8):
        assert cache.keep(key(number), block(number), origin(number))
    put(cache, *range(100, 150))
    assert there(cache, range(8)) == list(range(8))
    cache.close()


def test_asking_whether_it_is_there_counts_as_using_it(tmp_path: Path) -> None:
    cache = open_cache(tmp_path / "cache", limit=10 * COST)
    put(cache, *range(5))
    assert all(cache.has(key(number), SIZE, origin(number)) for number in range(5))
    assert not cache.has(key(5), SIZE, origin(5))
    cache.flush()
    put(cache, *range(100, 150))
    assert there(cache, range(5)) == list(range(5))
    cache.close()


def test_a_missing_file_is_not_there(cache: DiskCache, tmp_path: Path) -> None:
    put(cache, 0)
    files(tmp_path / "cache")[0].unlink()
    assert not cache.has(key(0), SIZE, origin(0))
    put(cache, 0)
    assert get(cache, 0) == block(0)


def test_an_offer_never_waits_and_what_is_too_much_is_not_kept(tmp_path: Path) -> None:
    cache = open_cache(tmp_path / "cache", pending=2 * SIZE)
    waiting = threading.Thread(target=lambda: cache.keep(key(50), block(50), origin(50)))
    with slow(tmp_path / "cache"):
        for number in range(10):
            cache.offer(key(number), block(number), origin(number))
        assert cache.dropped == 8
        waiting.start()
        assert get(cache, 0) is None, "a reader does not wait"
    cache.flush()
    waiting.join()
    assert there(cache, range(100)) == [0, 1, 50]
    assert get(cache, 1) == block(1)
    cache.close()


def test_closing_writes_what_waits(tmp_path: Path) -> None:
    cache = open_cache(tmp_path / "cache")
    for number in range(50):
        cache.offer(key(number), block(number), origin(number))
    cache.close()
    cache.offer(key(60), block(60), origin(60))
    assert not cache.keep(key(61), block(61), origin(61))
    cache.flush()
    cache = open_cache(tmp_path / "cache")
    assert there(cache, range(100)) == list(range(50))
    cache.close()


def test_where_the_blocks_of_a_version_belong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = open_cache(tmp_path / "cache")
    put(cache, 2, 0, 1)
    cache.offer(BlockKey(7, "v2", 0), block(5), "bucket/\udcff")
    cache.flush()
    assert [(place.key, place.origin, place.length) for place in cache.places(7, "v1")] == [
        (key(number), origin(number), SIZE) for number in range(3)
    ]
    assert [place.origin for place in cache.places(7, "v2")] == ["bucket/\udcff"]
    assert cache.places(8, "v1") == []
    cache.forget(7, "v1")
    assert cache.places(7, "v1") == []
    assert get(cache, 0) is None
    assert len(cache.places(7, "v2")) == 1
    put(cache, 3, 4)
    monkeypatch.setattr(disk, "PLACES", 1)
    assert cache.places(7, "v1") == [], "too many to be handed over"
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


def test_who_asks_where_blocks_are_waits_for_what_is_forgotten_and_for_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = open_cache(tmp_path / "cache")
    monkeypatch.setattr(diskqueue, "BATCH", SIZE)
    cache._untidied.clear()
    waits, go_on, write, wait_for = threading.Event(), threading.Event(), BlockStore.write, cache._lock.wait_for
    asking = threading.Thread(target=lambda: cache.places(7, "v1"), daemon=True)
    written = []

    def stall(store: BlockStore, blocks: Collection[Encoded]) -> list[bool]:
        if len(written) == 2:  # one before what is to be forgotten, and one with it
            go_on.wait()
        written.extend(blocks)
        return write(store, blocks)

    def wait(predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        if threading.current_thread() is asking:
            waits.set()
        return wait_for(predicate, timeout)

    monkeypatch.setattr(BlockStore, "write", stall)
    monkeypatch.setattr(cache._lock, "wait_for", wait)
    with slow(tmp_path / "cache"):
        for number in range(5):
            cache.offer(key(number), block(number), origin(number))
        cache.forget(7, "v0")
        asking.start()
        assert waits.wait(WATCH)
    asking.join(WATCH)
    answered = not asking.is_alive()
    go_on.set()
    assert answered
    cache.close()
