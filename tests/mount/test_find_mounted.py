"""`cterafs find` below a mountpoint: it asks the index of that mount, and leaves the mount alone."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest
from real_mount import Mount

from cterafs.demo.server import EmbeddedPortal

PATHS = ["Docs", "Docs/sub", "Docs/sub/deep.txt", "Docs/top.txt"]


@pytest.fixture
def mounted(portal: EmbeddedPortal, mount: Mount) -> Mount:
    folder = portal.namespace.create_folder("Docs")
    portal.namespace.create(folder, "top.txt", b"1")
    portal.namespace.create(portal.namespace.mkdir(folder, "sub"), "deep.txt", b"22")
    mount.start()
    return mount


def found(mount: Mount, *arguments: str) -> list[str]:
    done = mount.run("find", *arguments)
    assert done.stderr == ""
    return sorted(done.stdout.splitlines())


def test_it_finds_what_find_finds(mounted: Mount) -> None:
    path = str(mounted.path)
    listed = subprocess.run(["find", path, "-mindepth", "1"], capture_output=True, text=True, check=True)
    assert found(mounted, path) == sorted(listed.stdout.splitlines()) == [f"{path}/{below}" for below in PATHS]
    assert found(mounted, f"{path}/Docs/sub/") == [f"{path}/Docs/sub", f"{path}/Docs/sub/deep.txt"]
    assert found(mounted, f"{path}/Docs/top.txt") == [f"{path}/Docs/top.txt"]


def test_the_mount_is_not_touched_so_it_may_hang(mounted: Mount) -> None:
    process = os.pidfd_open(mounted.pid)
    signal.pidfd_send_signal(process, signal.SIGSTOP)
    try:
        assert found(mounted, f"{mounted.path}/Docs/sub", "--type", "f") == [f"{mounted.path}/Docs/sub/deep.txt"]
    finally:
        signal.pidfd_send_signal(process, signal.SIGCONT)
        os.close(process)


def test_links_lead_into_the_mount(mounted: Mount) -> None:
    link = mounted.home / "link"
    link.symlink_to(mounted.path / "Docs")
    assert found(mounted, str(link), "--name", "*.txt") == [f"{link}/sub/deep.txt", f"{link}/top.txt"]


def test_changes_are_found_while_it_is_mounted(portal: EmbeddedPortal, mounted: Mount) -> None:
    portal.namespace.rename(portal.namespace.find("Docs/sub"), "renamed")
    mounted.settle()
    assert found(mounted, str(mounted.path), "--name", "deep*") == [f"{mounted.path}/Docs/renamed/deep.txt"]


def test_the_index_answers_after_the_mount_is_gone(mounted: Mount) -> None:
    mounted.stop()
    assert found(mounted, "--config", str(mounted.config)) == [f"/{path}" for path in PATHS]
