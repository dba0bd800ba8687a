"""What the tests of real mounts share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_mount import Mount, finish
from small_disk import SmallDisk

from cterafs.demo.server import EmbeddedPortal


@pytest.fixture(scope="session", autouse=True)
def fuse() -> None:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.exit("/dev/fuse is missing or closed to this user: these tests mount for real", returncode=1)


@pytest.fixture
def portal() -> Iterator[EmbeddedPortal]:
    with EmbeddedPortal() as portal:
        yield portal


@pytest.fixture
def mount(portal: EmbeddedPortal, tmp_path: Path) -> Iterator[Mount]:
    """A mountpoint that is not mounted yet; whatever is left there is taken away, and found fault with."""
    mount = Mount(portal, tmp_path)
    yield mount
    finish(mount)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with SmallDisk(tmp_path) as disk:
        yield disk
