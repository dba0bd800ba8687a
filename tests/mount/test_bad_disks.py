"""The disk of the state, or of the cache, is full, fails or hangs: what is known is served, and no byte is wrong."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from known_tree import (
    CONTENT,
    FRESH,
    all_is_right,
    begin,
    error_of_reading,
    fill,
    fresh,
    goes_on,
    status_of,
    wait_for_state,
)
from real_mount import Mount, finish
from small_disk import SmallDisk
from starlette.responses import Response

from cterafs.demo.server import EmbeddedPortal


@pytest.fixture(autouse=True)
def files(portal: EmbeddedPortal) -> None:
    fill(portal)


def mount_on(portal: EmbeddedPortal, home: Path, **options: object) -> Iterator[Mount]:
    mount = Mount(portal, home, **options)
    yield mount
    finish(mount)


@pytest.fixture
def stateful(portal: EmbeddedPortal, tmp_path: Path, disk: SmallDisk) -> Iterator[Mount]:
    """A mount whose state is on the disk."""
    yield from mount_on(
        portal, tmp_path / "home", state_directory=str(disk.path / "state"), log_file=str(tmp_path / "log")
    )


@pytest.fixture
def caching(portal: EmbeddedPortal, tmp_path: Path, disk: SmallDisk) -> Iterator[Mount]:
    """A mount whose blocks are on the disk."""
    yield from mount_on(
        portal, tmp_path / "home", cache_disk="1GiB", cache_keep_free="0", cache_directory=str(disk.path / "cache")
    )


def tell_much(portal: EmbeddedPortal) -> None:
    """More than there is room for in what SQLite has allocated already."""
    folder = portal.namespace.mkdir(portal.namespace.find("Folder"), "much")
    for number in range(4000):
        portal.namespace.create(folder, f"{number} {'n' * 200}")


def test_a_full_disk_under_the_state(portal: EmbeddedPortal, stateful: Mount, disk: SmallDisk) -> None:
    begin(stateful)
    with disk.full():
        tell_much(portal)
        wait_for_state(stateful, "offline", "full")
        goes_on(stateful)
        assert error_of_reading(fresh(stateful, 1)) == 0
    stateful.settle()
    wait_for_state(stateful, "live")
    assert len(list((stateful.path / "Folder/much").iterdir())) == 4000
    all_is_right(stateful)


def test_a_full_disk_under_the_first_import(portal: EmbeddedPortal, stateful: Mount, disk: SmallDisk) -> None:
    tell_much(portal)
    with disk.full():
        done = stateful.run("mount", "--config", str(stateful.config), str(stateful.path), check=False)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
        assert not stateful.is_mounted
    begin(stateful)


def test_a_disk_under_the_state_that_fails(portal: EmbeddedPortal, stateful: Mount, disk: SmallDisk) -> None:
    begin(stateful)
    disk.fail()
    tell_much(portal)
    wait_for_state(stateful, "offline", "cannot be written")
    goes_on(stateful)
    all_is_right(stateful)
    stateful.stop()
    assert not stateful.is_mounted
    done = stateful.run("mount", "--config", str(stateful.config), str(stateful.path), check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "Read-only" in done.stderr


def test_a_disk_under_the_state_that_hangs(portal: EmbeddedPortal, stateful: Mount, disk: SmallDisk) -> None:
    begin(stateful)
    with disk.hanging():
        portal.namespace.create(portal.namespace.find("Folder"), "new", b"new")
        goes_on(stateful)
        assert error_of_reading(fresh(stateful, 1)) == 0
        status_of(stateful)
    stateful.settle()
    assert (stateful.path / "Folder/new").read_bytes() == b"new"
    all_is_right(stateful)


def test_a_full_disk_under_the_cache(portal: EmbeddedPortal, caching: Mount, disk: SmallDisk) -> None:
    """Where bytes are short, other blocks make room, and whether the disk then has it is up to it; so files are."""
    begin(caching)
    with disk.full_of_files():
        all_is_right(caching)
        # of the others, all may have been read ahead, and written, before it was full
        portal.namespace.create(portal.namespace.find("Folder"), "too much", CONTENT[::-1])
        caching.settle()
        assert (caching.path / "Folder/too much").read_bytes() == CONTENT[::-1]
        caching.wait_until(lambda status: status["cache"]["disk"]["reason"] is not None)
        goes_on(caching)
    portal.faults.storage = lambda kind, request: Response(status_code=503)
    assert (caching.path / "Folder/cached").read_bytes() == CONTENT
    assert len(caching.complaints()) == 1


def test_a_disk_under_the_cache_that_fails(portal: EmbeddedPortal, caching: Mount, disk: SmallDisk) -> None:
    begin(caching)
    disk.fail()
    all_is_right(caching)
    goes_on(caching)
    assert status_of(caching)["state"] == "live"
    caching.stop()
    caching.start()
    all_is_right(caching)
    caching.wait_until(lambda status: status["cache"]["disk"]["reason"] is not None)


def test_a_disk_under_the_cache_that_hangs(portal: EmbeddedPortal, caching: Mount, disk: SmallDisk) -> None:
    begin(caching)
    with disk.hanging():
        all_is_right(caching)
        goes_on(caching)
        assert status_of(caching)["state"] == "live"
    all_is_right(caching)


def test_two_mounts_share_a_cache(portal: EmbeddedPortal, tmp_path: Path) -> None:
    """What one has read, the other reads without storage; each has a state of its own."""
    contents = [random.Random(number).randbytes(150_000) for number in range(FRESH)]  # blocks that are kept once each
    for number, content in enumerate(contents):
        portal.namespace.create(portal.namespace.find("Folder"), f"its own {number}", content)

    def read_all(mount: Mount) -> None:
        assert [(mount.path / f"Folder/its own {number}").read_bytes() for number in range(FRESH)] == contents

    shared = {"cache_disk": "1GiB", "cache_directory": str(tmp_path / "cache")}
    one, other = (Mount(portal, tmp_path / name, **shared) for name in ("one", "other"))
    try:
        one.start()
        other.start()
        read_all(one)
        one.wait_until(lambda status: status["cache"]["disk"]["used"] >= sum(map(len, contents)))
        one.stop()
        one.start()
        portal.faults.storage = lambda kind, request: Response(status_code=503)
        read_all(other)
        assert status_of(other)["reads"]["downloaded_blocks"] == 0
        assert status_of(other)["cache"]["disk"]["used"] == status_of(one)["cache"]["disk"]["used"]
        one.stop()
        other.stop()
        other.start()
        read_all(other)
        assert one.complaints() == other.complaints() == []
    finally:
        finish(one)
        finish(other)
