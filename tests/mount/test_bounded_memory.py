"""What a hostile portal or storage sends, and many of everything: memory stays within its budget and a fixed margin."""

from __future__ import annotations

import contextlib
import gzip
import os
import random
import resource
import subprocess
from collections.abc import Callable, Iterator

import cramjam
import lz4.frame
import pytest
from mount_processes import family, limited, peak
from real_mount import DEADLINE, Mount
from starlette.responses import Response

from cterafs.demo.encoder import Codec, Encoding
from cterafs.demo.server import EmbeddedPortal

MIB = 1 << 20
MEMORY = 32 * MIB
MARGIN = 256 * MIB  # of two processes; the C library keeps up to 64 MiB of free memory in each
BLOCK = MIB
BOMB = 400 * MIB
LIST = 64 * MIB
SILENT = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


@pytest.fixture
def bounded(mount: Mount) -> Iterator[Mount]:
    """A mount that is to be started; at its end, it never took more than it may."""
    mount.configure(cache_memory=f"{MEMORY}", direct_timeout="3s")
    yield mount
    assert peak(family(mount.pid)) <= MEMORY + MARGIN


def snappy_frames() -> bytes:
    frame = bytes(cramjam.snappy.compress_raw(bytes(BOMB // 8)))
    return b"\x82SNAPPY\x00" + bytes(8) + (len(frame).to_bytes(4, "big") + frame)


BOMBS: dict[str, tuple[Codec, Callable[[], bytes]]] = {
    "gzip": (Codec.GZIP, lambda: gzip.compress(bytes(BOMB))),
    "lz4": (Codec.LZ4, lambda: bytes(lz4.frame.compress(bytes(BOMB // 2)))),
    "snappy": (Codec.SNAPPY_RAW, lambda: bytes(cramjam.snappy.compress_raw(bytes(BOMB // 5)))),
    "snappy frames": (Codec.SNAPPY, snappy_frames),
}


@pytest.mark.parametrize("codec", BOMBS)
def test_a_block_that_expands_to_more_than_it_should(bounded: Mount, portal: EmbeddedPortal, codec: str) -> None:
    how, make = BOMBS[codec]
    bomb = make()
    folder = portal.namespace.create_folder("Folder")
    encoding = Encoding(block_size=4 * BLOCK, codec=how, encrypted=False)
    for number in range(4):
        portal.namespace.create(folder, f"{number}", bytes(4 * BLOCK), encoding=encoding)
    portal.faults.storage = lambda kind, request: Response(bomb)
    bounded.start()
    readers = [subprocess.Popen(["cat", bounded.path / f"Folder/{n}"], **SILENT) for n in range(4)]
    for reader in readers:
        reader.wait(DEADLINE)
    assert bounded.status()["reads"]["downloaded_blocks"] == 0


def listing(chunks: bytes) -> bytes:
    return (
        b'{"actual_blocks_range":{"file_size":1000,"range":"0-999"},"compression_type":"NONE","chunks":['
        + chunks
        + b"]}"
    )


ANSWERS: dict[str, Callable[[], Response]] = {
    "millions of blocks": lambda: Response(listing(b'{"url":"","len":1},' * 4_000_000 + b'{"url":"","len":1}')),
    "millions of values": lambda: Response(b'{"encrypt_info":[' + b"[]," * 20_000_000 + b"0]}"),
    "gzip": lambda: Response(gzip.compress(bytes(LIST), 1), headers={"Content-Encoding": "gzip"}),
    "endless": lambda: Response(bytes(LIST)),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_a_list_of_blocks_that_is_enormous(bounded: Mount, portal: EmbeddedPortal, kind: str) -> None:
    answer = ANSWERS[kind]()
    folder = portal.namespace.create_folder("Folder")
    for number in range(8):
        portal.namespace.create(folder, f"{number}", bytes(1000))
    portal.faults.portal = lambda kind, request: answer if kind == "directio" else None
    bounded.start()
    readers = [subprocess.Popen(["cat", bounded.path / f"Folder/{n}"], **SILENT) for n in range(8)]
    for reader in readers:
        assert reader.wait(DEADLINE)
    portal.faults.portal = None
    assert (bounded.path / "Folder/3").read_bytes() == bytes(1000)


def test_an_enormous_name(bounded: Mount, portal: EmbeddedPortal) -> None:
    """It is left out: nobody could be told what it was, since an attribute has 64 KiB at most."""
    folder = portal.namespace.create_folder("Folder")
    portal.namespace.create(folder, "before", b"1")
    bounded.start()
    portal.namespace.create(folder, "n" * (32 * MIB), b"2")
    portal.namespace.create(folder, "after", b"3")
    bounded.settle()
    assert (bounded.path / "Folder/after").read_bytes() == b"3"
    assert sorted(path.name for path in (bounded.path / "Folder").iterdir()) == ["after", "before"]


def test_a_page_that_claims_ten_gigabytes(bounded: Mount, portal: EmbeddedPortal) -> None:
    folder = portal.namespace.create_folder("Folder")
    bounded.start()
    claims = Response(b"{", headers={"Content-Length": f"{10 << 30}"})
    portal.faults.portal = lambda kind, request: claims if kind == "list" else None
    portal.namespace.create(folder, "file", b"1")
    assert "longer than 64 MiB" in bounded.wait_until(lambda status: status["state"] == "offline")["reason"]
    portal.faults.portal = None
    bounded.settle()
    assert (bounded.path / "Folder/file").read_bytes() == b"1"


def test_a_deep_chain_of_directories(bounded: Mount, portal: EmbeddedPortal) -> None:
    deepest = portal.namespace.create_folder("Folder")
    depth = 5000
    with portal.namespace.batch():
        for _ in range(depth):
            deepest = portal.namespace.mkdir(deepest, "d")
        portal.namespace.create(deepest, "file", b"deep")
    bounded.start()
    place = os.open(bounded.path / "Folder", os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(depth):
        below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=place)
        os.close(place)
        place = below
    file = os.open("file", os.O_RDONLY, dir_fd=place)
    assert os.read(file, 10) == b"deep"
    os.close(file)
    os.close(place)
    portal.namespace.delete(portal.namespace.find("Folder").children["d"])
    bounded.settle()
    assert list((bounded.path / "Folder").iterdir()) == []


def test_ten_thousand_open_files(bounded: Mount, portal: EmbeddedPortal) -> None:
    count = 10_000
    folder = portal.namespace.create_folder("Folder")
    with portal.namespace.batch():
        for number in range(count):
            portal.namespace.create(folder, f"{number}", b"%010d" % number)
    bounded.start()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert most > count + 100
    with limited(os.getpid(), resource.RLIMIT_NOFILE, most), contextlib.ExitStack() as stack:
        order = random.Random(1).sample(range(count), count)  # nobody goes through them, so none is fetched ahead
        opened = {number: stack.enter_context((bounded.path / f"Folder/{number}").open("rb")) for number in order}
        assert bounded.status()["reads"]["open_files"] == count
        for number in order[::97]:
            assert opened[number].read() == b"%010d" % number
    bounded.wait_until(lambda status: not status["reads"]["open_files"])


class Zeros:
    size = 1 << 30

    def read(self, offset: int, length: int) -> bytes:
        return bytes(min(length, self.size - offset))


def test_lists_of_many_large_files(bounded: Mount, portal: EmbeddedPortal) -> None:
    """Each is of 16,384 blocks, and of no use after its file was closed, unless that is opened again."""
    folder = portal.namespace.create_folder("Folder")
    encoding = Encoding(block_size=64 << 10, codec=Codec.NONE, encrypted=False)
    with portal.namespace.batch():
        for number in range(32):
            portal.namespace.create(folder, f"{number}", Zeros(), encoding=encoding)
    bounded.start()
    for number in range(32):
        with (bounded.path / f"Folder/{number}").open("rb", buffering=0) as file:
            assert os.pread(file.fileno(), 10, 500 * MIB) == bytes(10)
