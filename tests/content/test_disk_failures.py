"""A disk that fails, is damaged, or is shared: always a miss at worst, never wrong bytes, never an error."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from disk_tier import COST, SIZE, block, files, get, index_of, key, open_cache, origin, put, there
from hypothesis import given, settings
from hypothesis import strategies as st

from cterafs.config import Reserve
from cterafs.content import disk
from cterafs.content.blockcodec import BlockCodec, EncryptingCodec
from cterafs.content.blockstore import Bounds
from cterafs.content.disk import DiskCache

BLOCKS = 12
TEXT = b"a text that shrinks " * (SIZE // 20)


@pytest.fixture
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed is tried again at the next occasion."""
    monkeypatch.setattr(disk, "RETRY", 0.0)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs", path], check=True)
    yield path
    subprocess.run(["umount", "-l", path], check=True)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def expected(number: int) -> bytes:
    return TEXT if number == 0 else block(number)


def check(cache: DiskCache) -> int:
    """How many blocks are still there; none may be wrong."""
    answers = [cache.get(key(number), SIZE, origin(number)) for number in range(BLOCKS)]
    assert all(answer in (None, expected(number)) for number, answer in enumerate(answers))
    return sum(answer is not None for answer in answers)


@pytest.fixture(scope="module", params=[BlockCodec(), EncryptingCodec("secret")], ids=["plain", "encrypted"])
def codec(request: pytest.FixtureRequest) -> BlockCodec:
    codec: BlockCodec = request.param
    return codec


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, codec: BlockCodec) -> Path:
    """A directory of blocks, to be copied and damaged."""
    directory = tmp_path_factory.mktemp("whole") / "cache"
    cache = open_cache(directory, codec=codec)
    for number in range(BLOCKS):
        cache.offer(key(number), expected(number), origin(number))
    cache.close()
    return directory


CHANGES = st.one_of(
    st.tuples(st.just("flip"), st.floats(0, 1, exclude_max=True), st.integers(1, 255)),
    st.tuples(st.just("cut"), st.floats(0, 1, exclude_max=True), st.just(0)),
    st.tuples(st.just("zero"), st.floats(0, 1, exclude_max=True), st.just(0)),
    st.tuples(st.just("grow"), st.just(0.0), st.just(0)),
)


def change(file: Path, kind: str, place: float, mask: int) -> None:
    try:
        content = bytearray(file.read_bytes())
    except FileNotFoundError:
        return
    if not content:
        return
    position = int(place * len(content))
    if kind == "flip":
        content[position] ^= mask
    elif kind == "cut":
        del content[position:]
    elif kind == "zero":
        content[position : position + 512] = bytes(len(content[position : position + 512]))
    else:
        content += b"more"
    with file.open("r+b") as stream:  # the same inode: who has it open sees it too
        stream.write(content)
        stream.truncate()


@settings(max_examples=100)
@given(data=st.data(), is_open=st.booleans())
def test_whatever_is_damaged_no_byte_is_wrong(
    whole: Path, codec: BlockCodec, data: st.DataObject, is_open: bool
) -> None:
    index = index_of(whole).name
    targets = [index, index, f"{index}-wal", *(str(file.relative_to(whole)) for file in files(whole))]
    changes = data.draw(st.lists(st.tuples(st.sampled_from(targets), CHANGES), min_size=1, max_size=8))
    with tempfile.TemporaryDirectory() as temporary:
        directory = shutil.copytree(whole, Path(temporary) / "cache")
        cache = open_cache(directory, codec=codec) if is_open else None
        for file, how in changes:
            change(directory / file, *how)
        cache = cache or open_cache(directory, codec=codec)
        check(cache)
        cache.flush()
        for number in range(BLOCKS):
            cache.offer(key(number), expected(number), origin(number))
        cache.flush()
        check(cache)
        cache.close()


def test_rows_that_lead_to_another_block_are_not_believed(whole: Path, codec: BlockCodec, tmp_path: Path) -> None:
    """No flip of a bit could do it as neatly."""
    directory = shutil.copytree(whole, tmp_path / "cache")
    with closing(sqlite3.connect(index_of(directory), isolation_level=None)) as db:
        db.execute("UPDATE places SET block = block % (SELECT max(id) FROM blocks) + 1")
    cache = open_cache(directory, codec=codec)
    assert check(cache) == 0
    cache.close()


def test_a_damaged_block_is_dropped_and_can_be_kept_anew(tmp_path: Path) -> None:
    cache = open_cache(tmp_path / "cache")
    put(cache, 0, 1)
    for file in files(tmp_path / "cache"):
        change(file, "flip", 0.5, 1)
    assert get(cache, 0) is None
    cache.flush()
    assert len(files(tmp_path / "cache")) == 1
    assert cache.used() == COST
    put(cache, 0)
    assert get(cache, 0) == block(0)
    assert cache.reason is None
    cache.close()


GARBAGE = {"garbage": b"garbage" * 2000, "empty": b"", "another database": None, "a header only": b"SQLite format 3\0"}


@pytest.mark.parametrize("garbage", GARBAGE)
def test_an_index_that_is_none_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture, garbage: str) -> None:
    directory = tmp_path / "cache"
    cache = open_cache(directory)
    put(cache, *range(5))
    cache.close()
    content = GARBAGE[garbage]
    index = index_of(directory)
    index.unlink()
    if content is None:
        with sqlite3.connect(index) as db:
            db.execute("CREATE TABLE blocks (something TEXT)")
        db.close()
    else:
        index.write_bytes(content)
    cache = open_cache(directory)
    assert get(cache, 0) is None
    put(cache, 1)
    assert get(cache, 1) == block(1)
    assert len(files(directory)) == 1, "what the old index led to is removed before anything is written"
    assert cache.used() == COST
    assert "begins anew" in warnings(caplog)[0]
    assert len(warnings(caplog)) == 1
    assert index.exists()
    assert index_of(directory) != index
    cache.close()


def test_an_index_that_is_damaged_while_it_is_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = tmp_path / "cache"
    cache, neighbour = open_cache(directory), open_cache(directory, scope="another")
    put(cache, *range(5))
    put(neighbour, 5)
    index = index_of(directory)
    for file in (index, index.with_name(f"{index.name}-wal")):
        with file.open("r+b") as stream:
            stream.write(b"\xff" * file.stat().st_size)
    with index.with_name(f"{index.name}-shm").open("r+b") as stream:  # the log's index
        stream.write(bytes(136))
    for number in range(5):
        assert get(cache, number) in (None, block(number))
    for number in (*range(10), *range(10)):  # those that meet the damage are lost
        put(cache, number)
        put(neighbour, number)
    assert [get(cache, number) for number in range(10)] == [block(number) for number in range(10)]
    assert [get(neighbour, number) for number in range(10)] == [block(number) for number in range(10)]
    assert 1 <= len(warnings(caplog)) <= 2, "one of each process, at most"
    assert cache.reason is neighbour.reason is None
    assert cache.used() == neighbour.used() == 10 * COST
    cache.close()
    neighbour.close()


def test_a_directory_that_is_removed_while_it_is_used(tmp_path: Path) -> None:
    cache = open_cache(tmp_path / "cache")
    put(cache, 0)
    (tmp_path / "cache").rename(tmp_path / "gone")
    cache.flush()
    put(cache, 1)
    assert get(cache, 1) == block(1)
    assert get(cache, 0) is None
    cache.close()


@pytest.mark.usefixtures("no_wait")
def test_a_full_disk(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    cache = open_cache(small_disk / "cache")
    put(cache, 0)
    ballast = small_disk / "ballast"
    with pytest.raises(OSError, match="No space"):
        ballast.write_bytes(bytes(8 << 20))
    for number in range(1, 20):
        put(cache, number)
        assert get(cache, number) in (None, block(number))
    assert cache.reason is not None
    assert len(warnings(caplog)) == 1
    ballast.unlink()
    put(cache, *range(20, 25))
    assert there(cache, range(20, 30)) == [*range(20, 25)]
    assert cache.reason is None
    assert "works again" in caplog.text
    assert list(small_disk.rglob("*.new")) == []
    cache.close()


def test_what_is_on_a_disk_that_takes_no_more_is_still_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = tmp_path / "cache"
    cache = open_cache(directory)
    put(cache, *range(20))
    refused = next(number for number in range(100, 200) if not directory_of(directory, number).exists())
    directory_of(directory, refused).touch()  # nothing can be written there
    put(cache, refused)
    assert not cache.keep(key(refused), block(refused), origin(refused)), "it is not tried again at once"
    put(cache, 50)
    assert cache.reason == "Not a directory"
    assert [get(cache, number) for number in range(20)] == [block(number) for number in range(20)]
    assert get(cache, 50) is None
    assert len(warnings(caplog)) == 1
    cache.close()


def test_a_block_that_the_disk_does_not_give(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = open_cache(tmp_path / "cache")
    put(cache, 0)
    (file,) = files(tmp_path / "cache")
    file.unlink()
    file.symlink_to("nowhere")  # which is not followed
    assert get(cache, 0) is None
    assert cache.reason == "Too many levels of symbolic links"
    assert len(warnings(caplog)) == 1
    cache.close()


def directory_of(cache: Path, number: int) -> Path:
    return cache / f"{BlockCodec().digest(block(number))[0]:02x}"


def test_a_disk_smaller_than_the_limit_is_kept_within_its_reserve(small_disk: Path) -> None:
    cache = DiskCache(small_disk / "cache", "portal", Bounds(1 << 30, Reserve(size=2 << 20)), BlockCodec())
    for number in range(300):
        put(cache, number)
        found = os.statvfs(small_disk)
        assert found.f_bavail * found.f_frsize >= (2 << 20) - (3 << 19), "less the log of the index"
    assert cache.reason is None
    assert len(there(cache, range(300))) > 80
    cache.close()


@pytest.mark.usefixtures("no_wait")
def test_a_disk_that_becomes_read_only(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = open_cache(small_disk / "cache")
    put(cache, 0)
    cache.close()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    cache = open_cache(small_disk / "cache")
    put(cache, 1)
    put(cache, 2)
    assert get(cache, 1) is None
    assert len(warnings(caplog)) == 1
    assert "cannot be used for now" in warnings(caplog)[0]
    assert not cache.keep(key(3), block(3), origin(3))
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    cache.flush()
    put(cache, 4)
    assert get(cache, 4) == block(4)
    assert get(cache, 0) == block(0)
    cache.close()


def test_a_place_where_no_directory_can_be(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = open_cache(tmp_path / "file" / "cache")
    assert get(cache, 0) is None
    put(cache, 0)
    assert not cache.has(key(0), SIZE, origin(0))
    assert (cache.used(), cache.dropped, cache.misses) == (0, 1, 1)
    assert cache.reason == "Not a directory"
    assert len(warnings(caplog)) == 1
    cache.close()


WRITER = """
import sys
sys.path.insert(0, sys.argv[3])
from pathlib import Path
from disk_tier import *
cache = open_cache(Path(sys.argv[1]), limit=30 * COST)
for number in range(int(sys.argv[2]), 10_000):
    assert cache.keep(key(number), block(number), origin(number)), cache.reason
    print(number, flush=True)
    assert get(cache, number % 200) in (None, block(number % 200))
"""


def writer(directory: Path, first: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(directory), str(first), str(Path(__file__).parent)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_crash_at_any_moment(tmp_path: Path) -> None:
    """What was kept is there; what a crash left is removed, and the bounds hold again."""
    directory = tmp_path / "cache"
    for attempt in range(12):
        with writer(directory, attempt * 500) as process:
            assert process.stdout is not None
            for _ in range(5 + attempt):
                last = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
        cache = open_cache(directory, limit=30 * COST)
        assert get(cache, last) == block(last)
        while cache._untidied:
            cache.flush()
        assert len(files(directory)) * COST == cache.used() <= 30 * COST
        assert list(directory.rglob("*.new")) == []
        assert cache.reason is None
        cache.close()


def test_two_processes_share_a_directory(tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    cache = open_cache(directory, limit=30 * COST)
    with writer(directory, 1000) as one, writer(directory, 1500) as other:
        for process in (one, other):
            assert process.stdout is not None
            for _ in range(60):
                last = int(process.stdout.readline())
                assert cache.used() <= 30 * COST
                put(cache, 3000)
                assert get(cache, last) in (None, block(last))
                assert get(cache, 3000) in (None, block(3000))
        for process in (one, other):
            process.kill()
    assert cache.reason is None
    assert len(files(directory)) <= 31
    cache.close()


def test_what_a_crash_may_leave_is_removed(tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    cache = open_cache(directory)
    put(cache, *range(4))
    cache.close()
    first, second, *_ = files(directory)
    first.with_name("ab" * 31).write_bytes(b"without an entry")
    first.with_name(first.name + ".new").write_bytes(b"unfinished")
    first.with_name("of somebody else").write_bytes(b"")
    second.unlink()
    with sqlite3.connect(index_of(directory)) as db:
        db.execute("UPDATE totals SET bytes = 10000000")
    db.close()
    cache = open_cache(directory)
    while cache._untidied:
        cache.flush()
    assert cache.used() == 3 * COST
    assert len(there(cache, range(4))) == 3
    assert {file.name for file in files(directory)} - {"of somebody else"} == {
        file.name for file in files(directory) if len(file.name) == 62 and file.name != "ab" * 31
    }
    assert len(files(directory)) == 4
    cache.close()
