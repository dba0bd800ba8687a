"""A mount whose process that downloads is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest
from mount_processes import Ending
from real_mount import DEADLINE, Mount
from starlette.requests import Request

from cterafs import control
from cterafs.demo.encoder import Codec, Encoding
from cterafs.demo.server import EmbeddedPortal

BLOCK = 1 << 20
CONTENT = b"".join(number.to_bytes(4, "big") * (BLOCK // 4) for number in range(24))


@pytest.fixture
def path(portal: EmbeddedPortal, mount: Mount) -> Path:
    portal.namespace.encoding = Encoding(block_size=BLOCK, codec=Codec.NONE)
    portal.namespace.create(portal.namespace.create_folder("Folder"), "file", CONTENT)
    return mount.path / "Folder/file"


def test_reads_go_on_without_it(portal: EmbeddedPortal, mount: Mount, path: Path) -> None:
    reached, killed = threading.Event(), threading.Event()

    async def hold(kind: str, request: Request) -> None:
        if portal.faults.requests["block"] >= 4 and not reached.is_set():
            reached.set()
            await asyncio.to_thread(killed.wait, DEADLINE)

    portal.faults.storage = hold
    mount.start()
    pid = mount.download_pid()
    with subprocess.Popen(["cat", path], stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        head = reader.stdout.read(3 * BLOCK)
        assert reached.wait(DEADLINE)
        os.kill(pid, signal.SIGKILL)
        killed.set()
        assert head + reader.stdout.read() == CONTENT
    assert reader.returncode == 0
    assert mount.download_pid(other_than=pid)


def test_it_is_there_when_the_mount_answers(mount: Mount, path: Path) -> None:
    mount.run("mount", "--config", str(mount.config), str(mount.path))
    record = control.find(mount.path)  # asked from here, since a command takes longer to start than that process
    assert record is not None
    assert control.ask_status(record)["download_pid"]


def test_it_ends_with_the_mount(mount: Mount, path: Path) -> None:
    mount.start()
    pid = mount.download_pid()
    assert path.read_bytes() == CONTENT
    mount.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_it_ends_when_the_mount_is_killed(mount: Mount, path: Path) -> None:
    mount.start()
    pid = mount.download_pid()
    assert path.read_bytes() == CONTENT
    ending = Ending([pid])
    os.kill(mount.pid, signal.SIGKILL)
    ending.wait()
    mount.run("umount", str(mount.path))


def test_a_terminals_signals_do_not_end_it(mount: Mount, path: Path) -> None:
    mount.start()
    pid = mount.download_pid()
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        os.kill(pid, number)
    assert path.read_bytes() == CONTENT
    assert mount.download_pid() == pid
