"""Programs that read many small files through a mount: what is fetched before it is asked for, and that it is right."""

from __future__ import annotations

import asyncio
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_mount import Mount, finish
from starlette.requests import Request
from starlette.responses import Response

from cterafs.demo.encoder import Codec, Encoding
from cterafs.demo.objects import Item
from cterafs.demo.server import EmbeddedPortal

FLAT = 300
INTO = "to=$(mktemp -d) &&"
COMPARE = "cd $to && find . -type f -exec sha256sum {} + | sort && rm -r $to"
ENCODING = Encoding(block_size=256 << 10, codec=Codec.SNAPPY)


def fill(portal: EmbeddedPortal, copy: Path) -> None:
    """300 files in one directory, and as many in a tree; the same in `copy`."""
    random.seed(9)
    folder = portal.namespace.create_folder("Folder")
    flat = portal.namespace.mkdir(folder, "flat")
    tree = portal.namespace.mkdir(folder, "tree")
    (copy / "Folder/flat").mkdir(parents=True)
    for number in random.sample(range(FLAT), FLAT):  # created, and so numbered, in another order than that of names
        _file(portal, copy, flat, f"{number:04}")
    for number in range(30):
        above = portal.namespace.mkdir(tree, f"d{number:02}")
        below = portal.namespace.mkdir(above, "m")
        (copy / below.path).mkdir(parents=True)
        for directory, names in ((above, "abcxyz"), (below, "abcd")):
            for name in names:
                _file(portal, copy, directory, name)
    for number in range(4):
        _file(portal, copy, folder, f"large{number}", 3 << 20)


def _file(portal: EmbeddedPortal, copy: Path, directory: Item, name: str, size: int = 0) -> None:
    data = random.randbytes(size or random.randrange(1, 10_000))
    item = portal.namespace.create(directory, name, data, encoding=ENCODING)
    (copy / item.path).write_bytes(data)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EmbeddedPortal, Path]]:
    with EmbeddedPortal() as portal:
        copy = tmp_path_factory.mktemp("copy")
        fill(portal, copy)
        yield portal, copy


@pytest.fixture
def cold(filled: tuple[EmbeddedPortal, Path], tmp_path: Path) -> Iterator[Mount]:
    """A mount that has read nothing yet."""
    mount = Mount(filled[0], tmp_path)
    mount.start()
    filled[0].faults.requests.clear()
    try:
        yield mount
        assert mount.complaints() == []
    finally:
        finish(mount)


@pytest.fixture
def copy(filled: tuple[EmbeddedPortal, Path]) -> Path:
    return filled[1]


def output(command: str, cwd: Path) -> bytes:
    return subprocess.run(["sh", "-c", command], cwd=cwd, check=True, capture_output=True, timeout=120).stdout


@pytest.mark.parametrize(
    ("command", "files"),
    [
        (f"{INTO} tar cf - Folder/flat | tar xf - -C $to && {COMPARE}", FLAT),
        (f"{INTO} tar cf - Folder/tree | tar xf - -C $to && {COMPARE}", 300),
        (f"{INTO} cp -r Folder/tree $to && {COMPARE}", 300),
        (f"{INTO} rsync -r Folder/tree $to && {COMPARE}", 300),
        ("cat Folder/flat/* | sha256sum", FLAT),
        ("grep -rc a Folder/tree | sort", 300),
        ("find Folder/tree -type f -exec sha256sum {} ';' | sort", 300),
        ("find Folder/tree -type f -exec sha256sum {} + | sort", 300),
        ("ls Folder/flat | xargs -P4 -n10 -I{} sha256sum Folder/flat/{} | sort", FLAT),
    ],
)
def test_tools_have_files_fetched_before_they_open_them(
    filled: tuple[EmbeddedPortal, Path], cold: Mount, copy: Path, command: str, files: int
) -> None:
    assert output(command, cold.path) == output(command, copy)
    requests = filled[0].faults.requests
    assert requests["directio"] == requests["block"] == files  # each once, and nothing else
    assert cold.status()["reads"]["prefetched_blocks"] >= 0.8 * files


def test_a_walk_has_many_requests_under_way_at_a_time(
    filled: tuple[EmbeddedPortal, Path], cold: Mount, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some way into it, neither the portal nor storage answers one before it was asked for eight."""
    portal = filled[0]
    asked: dict[str, list[asyncio.Event]] = {"directio": [], "block": []}

    async def together(kind: str, request: Request) -> Response | None:
        if kind not in asked or portal.faults.requests[kind] not in range(50, 250):
            return None
        waiting = asked[kind]
        waiting.append(asyncio.Event())
        if len(waiting) >= 8:
            for event in waiting:
                event.set()
            waiting.clear()
        else:
            await waiting[-1].wait()
        return None

    monkeypatch.setattr(portal.faults, "portal", together)
    monkeypatch.setattr(portal.faults, "storage", together)
    command = f"{INTO} cp -r Folder/flat $to && {COMPARE}"
    assert output(command, cold.path) == output(command, copy)


def test_what_is_read_in_no_order_is_right_and_fetched_when_it_is_asked_for(
    filled: tuple[EmbeddedPortal, Path], cold: Mount, copy: Path
) -> None:
    names = [f"Folder/flat/{number:04}" for number in range(FLAT)]
    random.Random(4).shuffle(names)
    for name in names[:100]:
        assert (cold.path / name).read_bytes() == (copy / name).read_bytes()
    assert filled[0].faults.requests["block"] <= 110


def test_files_that_change_while_they_are_walked_through(portal: EmbeddedPortal, mount: Mount) -> None:
    """What was fetched of an earlier version is not given to anybody."""
    folder = portal.namespace.create_folder("Folder")
    files = [portal.namespace.create(folder, f"{number:04}", b"old %d" % number) for number in range(200)]
    mount.start()
    for number in range(20):
        assert (mount.path / f"Folder/{number:04}").read_bytes() == b"old %d" % number
    for number in range(20, 60):
        portal.namespace.write(files[number], b"new %d" % number)
    portal.namespace.delete(files[60])
    mount.settle()
    for number in range(20, 200):
        path = mount.path / f"Folder/{number:04}"
        if number == 60:
            assert not path.exists()
        else:
            assert path.read_bytes() == (b"new %d" if number < 60 else b"old %d") % number
    assert mount.complaints() == []


def test_broken_files_fail_for_who_reads_them_and_for_nobody_else(portal: EmbeddedPortal, mount: Mount) -> None:
    folder = portal.namespace.create_folder("Folder")
    for number in range(60):
        item = portal.namespace.create(folder, f"{number:04}", b"x" * 100)
        if number % 20 == 19:
            item.directio_status = 422
    mount.start()
    for number in range(60):
        path = mount.path / f"Folder/{number:04}"
        if number % 20 == 19:
            with pytest.raises(OSError, match="not supported"):
                path.read_bytes()
        else:
            assert path.read_bytes() == b"x" * 100
    assert mount.status()["reads"]["prefetched_blocks"] >= 45
    assert len(mount.complaints()) == 3


@pytest.fixture
def crowd(portal: EmbeddedPortal, mount: Mount) -> Path:
    """A directory of more than 10,000 files, which fts goes through by inode number; most of them are empty."""
    folder = portal.namespace.create_folder("Folder")
    with portal.namespace.silence():
        for number in random.Random(2).sample(range(10_500), 10_500):
            portal.namespace.create(folder, f"{number:05}", b"" if number % 50 else b"%d" % number)
    mount.start()
    portal.faults.requests.clear()
    return mount.path / "Folder"


def test_one_file_of_ten_thousand(portal: EmbeddedPortal, mount: Mount, crowd: Path) -> None:
    assert len(list(crowd.iterdir())) == 10_500
    assert (crowd / "05000").read_bytes() == b"5000"
    assert (crowd / "05000").read_bytes() == b"5000"
    assert (portal.faults.requests["directio"], portal.faults.requests["block"]) == (1, 1)


def test_grep_of_more_than_ten_thousand(portal: EmbeddedPortal, mount: Mount, crowd: Path) -> None:
    assert len(output("grep -rl 0", crowd).splitlines()) == 210
    assert portal.faults.requests["block"] == 210
    assert mount.status()["reads"]["prefetched_blocks"] >= 190
