"""Small reads in large blocks that are not compressed: no more is downloaded than is asked for."""

from __future__ import annotations

import errno
import os
import random
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from real_mount import DEADLINE, Mount
from starlette.requests import Request

from cterafs.demo.encoder import Codec, Encoding
from cterafs.demo.objects import Item
from cterafs.demo.server import EmbeddedPortal

MIB = 1 << 20
BLOCK = 4 * MIB
PAGE = 4096
SIZE = 256 * MIB
READS = 200

# A page that is touched in a mapping is read by a thread that holds the interpreter's lock, so in a process of its own.
TOUCH = f"""
import hashlib, mmap, random, sys
with open(sys.argv[1], "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
    for page in random.Random(5).sample(range(len(mapped) // {PAGE}), int(sys.argv[2])):
        print(page, mapped[page * {PAGE} : page * {PAGE} + 8].hex())
"""


class Numbered:
    """Bytes that tell where they lie, and in which version: random ones that are repeated at an odd distance."""

    def __init__(self, version: int = 1, size: int = SIZE) -> None:
        self.size = size
        self._period = random.Random(version).randbytes(MIB + 7)

    def read(self, offset: int, length: int) -> bytes:
        start = offset % len(self._period)
        return (self._period * (length // MIB + 2))[start : start + length]


CONTENT = Numbered()


class Sent:
    """What storage was asked for, in bytes of the blocks as they are stored there."""

    def __init__(self, portal: EmbeddedPortal) -> None:
        self.bytes = self.whole = 0
        self._lock = threading.Lock()
        portal.faults.storage = self._count

    def _count(self, kind: str, request: Request) -> None:
        asked = request.headers.get("range")
        with self._lock:
            if asked is None:
                self.whole += 1
                self.bytes += BLOCK
            else:
                start, stop = (int(number) for number in asked.removeprefix("bytes=").split("-"))
                self.bytes += stop + 1 - start


@pytest.fixture(params=[False, True], ids=["plain", "encrypted"])
def encrypted(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def item(portal: EmbeddedPortal, encrypted: bool) -> Item:
    portal.namespace.encoding = Encoding(block_size=BLOCK, codec=Codec.NONE, encrypted=encrypted)
    return portal.namespace.create(portal.namespace.create_folder("Folder"), "file", CONTENT)


@pytest.fixture
def sent(portal: EmbeddedPortal) -> Sent:
    return Sent(portal)


def pages(count: int) -> list[int]:
    return random.Random(3).sample(range(SIZE // PAGE), count)


def asked_of(mount: Mount) -> int:
    """Bytes that the kernel asked for."""
    return int(mount.status()["reads"]["bytes"])


@pytest.mark.usefixtures("item")
def test_random_preads_cost_what_they_read(mount: Mount, sent: Sent) -> None:
    mount.start()
    file = os.open(mount.path / "Folder/file", os.O_RDONLY)
    try:
        for page in pages(READS):
            assert os.pread(file, PAGE, page * PAGE) == CONTENT.read(page * PAGE, PAGE)
    finally:
        os.close(file)
    reads = mount.status()["reads"]
    assert sent.bytes <= 2 * reads["bytes"]
    assert sent.whole == 0
    assert reads["ranges"] == READS
    assert reads["downloaded_bytes"] == reads["bytes"]
    assert reads["downloaded_blocks"] == 0


@pytest.mark.usefixtures("item")
def test_touched_pages_of_a_mapping_cost_what_the_kernel_asks_for(mount: Mount, sent: Sent) -> None:
    mount.start()
    command = [sys.executable, "-c", TOUCH, mount.path / "Folder/file", "60"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=DEADLINE)
    for line in done.stdout.splitlines():
        page, data = line.split()
        assert bytes.fromhex(data) == CONTENT.read(int(page) * PAGE, 8)
    assert len(done.stdout.splitlines()) == 60
    assert sent.bytes <= 2 * asked_of(mount)


@pytest.mark.usefixtures("item")
def test_a_block_of_which_much_is_read_is_fetched_whole_once(mount: Mount, sent: Sent) -> None:
    mount.start()
    with (mount.path / "Folder/file").open("rb", buffering=0) as file:
        for page in random.Random(3).sample(range(BLOCK // PAGE), 60):
            file.seek(10 * BLOCK + page * PAGE)
            assert file.read(PAGE) == CONTENT.read(10 * BLOCK + page * PAGE, PAGE)
    assert sent.whole == 1
    assert 0 < mount.status()["reads"]["ranges"] <= 16


def test_compressed_blocks_are_fetched_whole(mount: Mount, portal: EmbeddedPortal, sent: Sent) -> None:
    encoding = Encoding(block_size=BLOCK, codec=Codec.SNAPPY)
    folder = portal.namespace.create_folder("Folder")
    portal.namespace.create(folder, "file", Numbered(size=8 * BLOCK), encoding=encoding)
    mount.start()
    with (mount.path / "Folder/file").open("rb", buffering=0) as file:
        for number in (6, 3, 5):
            file.seek(number * BLOCK + 12 * PAGE)
            assert file.read(PAGE) == CONTENT.read(number * BLOCK + 12 * PAGE, PAGE)
    assert sent.whole == 3
    assert mount.status()["reads"]["ranges"] == 0


def test_what_the_disk_holds_is_not_asked_for_by_parts(
    mount: Mount, portal: EmbeddedPortal, sent: Sent, encrypted: bool
) -> None:
    encoding = Encoding(block_size=BLOCK, codec=Codec.NONE, encrypted=encrypted)
    folder = portal.namespace.create_folder("Folder")
    portal.namespace.create(folder, "file", Numbered(size=4 * BLOCK), encoding=encoding)
    mount.configure(cache_disk="1GB", cache_directory=str(mount.home / "cache"))
    mount.start()
    mount.run("warm", str(mount.path / "Folder/file"))
    with (mount.path / "Folder/file").open("rb", buffering=0) as file:
        for page in random.Random(3).sample(range(4 * BLOCK // PAGE), 20):
            file.seek(page * PAGE)
            assert file.read(PAGE) == CONTENT.read(page * PAGE, PAGE)
    assert sent.bytes == 4 * BLOCK
    assert mount.status()["reads"]["ranges"] == 0


@pytest.mark.parametrize("purge", [False, True], ids=["kept", "purged"])
@pytest.mark.parametrize("same_id", [False, True], ids=["new id", "same id"])
def test_a_part_read_after_the_file_was_replaced_is_of_the_old_version(
    mount: Mount, portal: EmbeddedPortal, encrypted: bool, purge: bool, same_id: bool
) -> None:
    portal.namespace.keep_file_ids = same_id
    portal.namespace.encoding = Encoding(block_size=BLOCK, codec=Codec.NONE, encrypted=encrypted)
    old, new = (Numbered(version, 8 * BLOCK).read(0, 8 * BLOCK) for version in (1, 2))
    item = portal.namespace.create(portal.namespace.create_folder("Folder"), "file", old)
    mount.start()
    path = mount.path / "Folder/file"
    file, outcomes = os.open(path, os.O_RDONLY), []
    try:
        assert os.pread(file, PAGE, 3 * BLOCK) == old[3 * BLOCK :][:PAGE]
        content = item.file.content
        portal.namespace.write(item, new)
        if purge:
            content.drop()  # type: ignore[attr-defined]  # held in memory
        mount.settle()
        for number, expired in ((5, False), (1, True), (6, False)):
            if expired:
                portal.store.expire_urls()
            try:
                found = os.pread(file, PAGE, number * BLOCK + 9 * PAGE)
            except OSError as error:
                outcomes.append(error.errno)
            else:
                assert found == old[number * BLOCK + 9 * PAGE :][:PAGE]
                outcomes.append(0)
        assert mount.status()["reads"]["ranges"] > 0
    finally:
        os.close(file)
    stale = errno.ESTALE
    # a list of the old version that was not fetched yet, or has to be renewed, can be had no more where the id stays
    assert outcomes == ([stale] * 3 if purge else [0, stale, stale] if same_id else [0, 0, 0])
    with path.open("rb", buffering=0) as again:
        again.seek(5 * BLOCK)
        assert again.read(PAGE) == new[5 * BLOCK :][:PAGE]


def test_a_database_is_searched_and_then_read_whole(
    mount: Mount, portal: EmbeddedPortal, encrypted: bool, tmp_path: Path
) -> None:
    local = tmp_path / "rows.db"
    with sqlite3.connect(local) as made:
        made.execute("CREATE TABLE rows (number INTEGER PRIMARY KEY, text TEXT)")
        filling = random.Random(1)
        made.executemany("INSERT INTO rows VALUES (?, ?)", ((i, filling.randbytes(300).hex()) for i in range(60_000)))
    made.close()
    portal.namespace.encoding = Encoding(block_size=BLOCK, codec=Codec.NONE, encrypted=encrypted)
    portal.namespace.create(portal.namespace.create_folder("Folder"), "rows.db", local.read_bytes())
    mount.start()
    chance = random.Random(2)
    found = []
    for path in (local, mount.path / "Folder/rows.db"):
        chance.seed(2)
        with sqlite3.connect(f"file:{path}?immutable=1", uri=True) as database:
            look = "SELECT text FROM rows WHERE number = ?"
            rows = [database.execute(look, (chance.randrange(60_000),)).fetchall() for _ in range(50)]
            rows += database.execute("SELECT count(*), sum(length(text)), max(text) FROM rows").fetchall()
            rows += [database.execute(look, (chance.randrange(60_000),)).fetchall() for _ in range(50)]
        database.close()
        found.append(rows)
    assert found[0] == found[1]
    assert (mount.path / "Folder/rows.db").read_bytes() == local.read_bytes()
    assert mount.status()["reads"]["ranges"] > 0
