"""No reader ever sees a mixture of two versions, whatever races with whatever."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence

import pytest
from real_mount import DEADLINE, Mount

from cterafs.demo.encoder import Codec, Encoding
from cterafs.demo.objects import Item
from cterafs.demo.server import EmbeddedPortal

VERSIONS = 25
UNIT = 4096
READERS = 6

# Each reader opens the file again and again, and reads it whole in some way. Every unit of a version begins with the
# version's number, and its size tells it as well: all of that has to agree, in bytes and in what fstat says. ESTALE is
# right only of the calls that are named. To a mapping, a stale handle is SIGBUS, so where versions go away the readers
# do not map.
READER = f"""
import errno, mmap, os, random, sys
path, stop, seed, *stale = sys.argv[1:]
chance, seen = random.Random(int(seed)), set()
print("ready", flush=True)
while not os.path.exists(stop):
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        continue
    except OSError as error:
        if error.errno != errno.ESTALE or "open" not in stale:
            raise
        continue
    try:
        size = os.fstat(file).st_size
        way = chance.randrange(2 if "read" in stale else 3)
        if way == 0:
            data = b"".join(iter(lambda: os.read(file, 100_000), b""))
        elif way == 1:
            offsets = list(range(0, size, {UNIT} * 7))
            chance.shuffle(offsets)
            parts = {{at: os.pread(file, {UNIT} * 7, at) for at in offsets}}
            data = b"".join(parts[at] for at in sorted(parts))
        else:
            with mmap.mmap(file, 0, access=mmap.ACCESS_READ) as mapped:
                data = mapped[:]
        if os.fstat(file).st_size != size:
            sys.exit("the size of an open file changed")
    except OSError as error:
        if error.errno != errno.ESTALE or "read" not in stale:
            raise
        continue
    finally:
        os.close(file)
    numbers = {{data[at : at + 4] for at in range(0, len(data), {UNIT})}}
    if len(numbers) != 1:
        sys.exit(f"a mixture of {{numbers}}")
    number = int.from_bytes(numbers.pop(), "big")
    if len(data) != size or size != {UNIT} * (100 + number):
        sys.exit(f"version {{number}} with {{len(data)}} bytes, and fstat says {{size}}")
    seen.add(number)
print(len(seen))
"""


def content(number: int) -> bytes:
    """A version: its number in every unit, and in its size."""
    filling = random.Random(number).randbytes(UNIT - 4)
    return (number.to_bytes(4, "big") + filling) * (100 + number)


@pytest.fixture(params=["kept", "dropped"])
def purge(request: pytest.FixtureRequest) -> bool:
    """Whether storage drops a version as soon as it is replaced."""
    return bool(request.param == "dropped")


@pytest.fixture(params=["new id", "same id"])
def item(request: pytest.FixtureRequest, portal: EmbeddedPortal) -> Item:
    portal.namespace.keep_file_ids = request.param == "same id"
    portal.namespace.encoding = Encoding(block_size=50_000, codec=Codec.NONE)
    return portal.namespace.create(portal.namespace.create_folder("Folder"), "file", content(0))


@contextlib.contextmanager
def reading(mount: Mount, *, stale: Sequence[str]) -> Iterator[None]:
    """Processes that read meanwhile, and none of which may complain: of ESTALE neither, but of the calls `stale`."""
    stop = mount.home / "stop"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", READER, mount.path / "Folder/file", stop, str(seed), *stale],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in range(READERS)
    ]
    try:
        for reader in running:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "ready\n"
        yield
        stop.touch()
        seen = []
        for reader in running:
            output, complaint = reader.communicate(timeout=DEADLINE)
            assert reader.returncode == 0, complaint
            seen.append(int(output))
        assert max(seen) > 1  # one that is often too late for its version may have seen only the last
    finally:
        for reader in running:
            reader.kill()
            reader.communicate()


def test_every_reader_sees_one_version_at_a_time(mount: Mount, item: Item, purge: bool) -> None:
    mount.start()
    # Where the file id stays, the list of an old version that was not read yet cannot be had any more either. Who meets
    # that may do so before the mount heard of the change, and then nobody can open the file while others have it open.
    replaced = purge or mount.portal.namespace.keep_file_ids
    with reading(mount, stale=["open", "read"] if replaced else []):
        for number in range(1, VERSIONS):
            old = item.file.content
            mount.portal.namespace.write(item, content(number))
            if purge:
                old.drop()  # type: ignore[attr-defined]  # held in memory
            mount.settle()
            assert (mount.path / "Folder/file").read_bytes() == content(number)


@pytest.mark.parametrize("item", ["new id"], indirect=True)  # each of these files has one content only
def test_a_file_that_comes_and_goes_is_never_half_there(mount: Mount, item: Item) -> None:
    folder = item.parent
    assert folder is not None
    mount.start()
    with reading(mount, stale=["read"]):  # the list of a deleted file cannot be had any more
        for number in range(1, VERSIONS):
            mount.portal.namespace.delete(item)
            item = mount.portal.namespace.create(folder, "file", content(number))
            mount.settle()
            mount.portal.namespace.rename(item, "elsewhere")
            mount.settle()
            mount.portal.namespace.rename(item, "file")
            mount.settle()
