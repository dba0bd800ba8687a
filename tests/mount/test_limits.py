"""A mount that the system refuses threads or descriptors goes on, and works again by itself when it gets them."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import subprocess
from pathlib import Path

import pytest
from mount_processes import family, limited
from real_mount import DEADLINE, Mount

from cterafs.demo.encoder import Encoding
from cterafs.demo.server import EmbeddedPortal

FILES = 20
CONTENT = random.Random(7).randbytes(300_000)
STACK = 16 << 30
"""Bytes of each thread's stack: a limit of the address space then stops new threads, and nothing else."""


@pytest.fixture(autouse=True)
def folder(portal: EmbeddedPortal, mount: Mount) -> Path:
    folder = portal.namespace.create_folder("Folder")
    for number in range(FILES):
        portal.namespace.create(folder, f"{number}", CONTENT, encoding=Encoding(block_size=50_000))
    return mount.path / "Folder"


def open_files(pid: int) -> set[int]:
    return {int(each.name) for each in Path(f"/proc/{pid}/fd").iterdir()}


def read_all(folder: Path) -> list[str]:
    """What `cat` of each file, all at once, complains of."""
    readers = [
        subprocess.Popen(["cat", folder / f"{number}"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for number in range(FILES)
    ]
    return [reader.communicate(timeout=DEADLINE)[1] for reader in readers]


def check(mount: Mount, folder: Path) -> None:
    """It follows its portal, and everything can be read."""
    mount.portal.namespace.create(mount.portal.namespace.find("Folder"), "another", b"new")
    mount.settle()
    assert (folder / "another").read_bytes() == b"new"
    for number in range(FILES):
        assert (folder / f"{number}").read_bytes() == CONTENT
    assert mount.status()["state"] == "live"


def test_out_of_threads(mount: Mount, folder: Path) -> None:
    mount.configure(direct_timeout="3s")
    with limited(os.getpid(), resource.RLIMIT_STACK, STACK):
        mount.start()
    processes = family(mount.pid)
    with contextlib.ExitStack() as limits:
        for pid in processes:
            used = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
            limits.enter_context(limited(pid, resource.RLIMIT_AS, used + STACK // 2))
        read_all(folder)
        assert len(list(folder.iterdir())) == FILES
        mount.portal.namespace.rename(mount.portal.namespace.find("Folder/7"), "seven")
        mount.settle()
        assert not (folder / "7").exists()
    assert family(mount.pid) == processes
    mount.portal.namespace.rename(mount.portal.namespace.find("Folder/seven"), "7")
    check(mount, folder)


def test_out_of_descriptors(mount: Mount, folder: Path) -> None:
    mount.configure(direct_timeout="3s")
    mount.start()
    with contextlib.ExitStack() as limits:
        process = mount.download_pid()
        used = open_files(process)
        lowest_free = min(set(range(len(used) + 1)) - used)
        limits.enter_context(limited(process, resource.RLIMIT_NOFILE, lowest_free))
        limits.enter_context(limited(mount.pid, resource.RLIMIT_NOFILE, max(open_files(mount.pid)) + 1))
        assert any(read_all(folder))
        assert len(list(folder.iterdir())) == FILES
        os.statvfs(folder)
    assert any("Too many open files" in complaint for complaint in mount.complaints())
    check(mount, folder)
