"""`cterafs warm`: afterwards, storage is not needed."""

from __future__ import annotations

import asyncio
import os
import pty
import random
import select
import signal
import subprocess
import threading
from pathlib import Path

import pytest
from real_mount import CTERAFS, DEADLINE, Mount
from starlette.requests import Request
from starlette.responses import Response

from cterafs.demo.encoder import Encoding
from cterafs.demo.server import EmbeddedPortal

BLOCK = 100_000
FILES = {
    "Docs/large.bin": random.Random(1).randbytes(40 * BLOCK + 17),
    "Docs/text.txt": b"a line of text\n" * 50_000,
    "Docs/sub/one": random.Random(2).randbytes(500),
    "Docs/sub/empty": b"",
    "Docs/sub/deep/two": random.Random(3).randbytes(BLOCK),
    "Other/three": random.Random(4).randbytes(2 * BLOCK),
    **{f"Docs/many/{number:03}": random.Random(number).randbytes(1000) for number in range(60)},
}
BLOCKS = 41 + 8 + 1 + 1 + 2 + 60


@pytest.fixture
def source(portal: EmbeddedPortal, tmp_path: Path) -> Path:
    """The same files in a directory, for cmp and diff."""
    portal.namespace.encoding = Encoding(block_size=BLOCK)
    directories = {name: portal.namespace.create_folder(name) for name in ("Docs", "Other")}
    for path, content in FILES.items():
        parent, _, name = path.rpartition("/")
        for depth in range(1, parent.count("/") + 1):
            directory = "/".join(parent.split("/")[: depth + 1])
            if directory not in directories:
                above, _, last = directory.rpartition("/")
                directories[directory] = portal.namespace.mkdir(directories[above], last)
        portal.namespace.create(directories[parent], name, content)
        file = tmp_path / "source" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return tmp_path / "source"


@pytest.fixture
def warmed(mount: Mount, source: Path) -> Mount:
    """A mount with a disk tier."""
    mount.configure(cache_disk="1GiB")
    mount.start()
    return mount


def cut_off(portal: EmbeddedPortal) -> None:
    portal.faults.storage = lambda kind, request: Response(status_code=503)


def blocks(portal: EmbeddedPortal) -> int:
    """How many blocks storage was asked for."""
    return portal.faults.requests["block"]


def diff(source: Path, mounted: Path) -> None:
    subprocess.run(["diff", "--recursive", "--brief", source, mounted], check=True, timeout=DEADLINE)


def test_after_it_everything_is_read_without_storage(warmed: Mount, portal: EmbeddedPortal, source: Path) -> None:
    before = warmed.status()["cache"]["memory"]
    done = warmed.run("warm", str(warmed.path))
    total = sum(map(len, FILES.values()))
    assert done.stdout.startswith(f"{len(FILES)} files, {total / 2**20:.1f} MiB on the disk; ")
    assert done.stderr == ""
    assert blocks(portal) == BLOCKS
    assert warmed.status()["cache"]["memory"] == before, "the memory of readers is left alone"
    cut_off(portal)
    diff(source, warmed.path)
    warmed.stop()
    warmed.start()
    diff(source, warmed.path)
    subprocess.run(["cmp", source / "Docs/large.bin", warmed.path / "Docs/large.bin"], check=True)
    found = warmed.status()
    assert (found["cache"]["disk"]["misses"], found["reads"]["downloaded_blocks"]) == (0, 0)
    assert found["errors"] == {}
    assert warmed.complaints() == []


def test_what_is_there_is_not_downloaded_again(warmed: Mount, portal: EmbeddedPortal) -> None:
    one = warmed.run("warm", str(warmed.path / "Docs/sub"), str(warmed.path / "Other/three"))
    assert one.stdout.startswith("4 files, ")
    assert blocks(portal) == 4
    again = warmed.run("warm", str(warmed.path / "Docs/sub"), str(warmed.path / "Other"))
    assert again.stdout.startswith("4 files, 293.5 KiB on the disk; 0 B downloaded")
    assert blocks(portal) == 4


def test_what_is_in_memory_is_not_downloaded_either(warmed: Mount, portal: EmbeddedPortal) -> None:
    assert (warmed.path / "Other/three").read_bytes() == FILES["Other/three"]
    asked = blocks(portal)
    done = warmed.run("warm", str(warmed.path / "Other/three"))
    assert "; 0 B downloaded" in done.stdout
    assert blocks(portal) == asked


def test_one_file_that_fails_does_not_keep_the_others_back(warmed: Mount, portal: EmbeddedPortal, source: Path) -> None:
    portal.namespace.find("Docs/sub/one").directio_status = 422
    done = warmed.run(
        "warm", str(warmed.path / "Docs"), str(warmed.path / "Other"), str(warmed.path / "missing"), check=False
    )
    assert done.returncode == 1
    first, second = sorted(done.stderr.splitlines())
    assert first.startswith(f"cterafs: {warmed.path}/Docs/sub/one: not all blocks are on a storage node")
    assert second == f"cterafs: {warmed.path}/missing: no such name: 'missing'"
    assert done.stdout.startswith(f"{len(FILES) - 1} files, ")
    cut_off(portal)
    portal.namespace.find("Docs/sub/one").directio_status = None
    subprocess.run(["cmp", source / "Docs/large.bin", warmed.path / "Docs/large.bin"], check=True)


def test_without_a_disk_tier_it_says_how_to_have_one(mount: Mount, source: Path) -> None:
    mount.start()
    done = mount.run("warm", str(mount.path / "Docs"), check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "set cache.disk" in done.stderr


def test_more_than_fits_is_refused_before_anything_is_downloaded(
    mount: Mount, portal: EmbeddedPortal, source: Path
) -> None:
    mount.configure(cache_disk="1MiB")
    mount.start()
    done = mount.run("warm", str(mount.path), check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "raise cache.disk" in done.stderr
    assert blocks(portal) == 0


def test_a_path_elsewhere(warmed: Mount, tmp_path: Path) -> None:
    done = warmed.run("warm", str(tmp_path), check=False)
    assert done.returncode == 5
    assert f"{tmp_path} is in no mount of cterafs" in done.stderr


class Gate:
    """Storage that does not answer, and tells when it was asked."""

    def __init__(self, portal: EmbeddedPortal) -> None:
        self.asked = threading.Event()
        portal.faults.storage = self._hold

    async def _hold(self, kind: str, request: Request) -> Response | None:
        self.asked.set()
        await asyncio.sleep(3600)
        return None


def test_an_interrupt_ends_it_in_the_mount_too(warmed: Mount, portal: EmbeddedPortal) -> None:
    gate = Gate(portal)
    command = [*CTERAFS, "warm", str(warmed.path)]
    with subprocess.Popen(command, env=warmed.environment, stderr=subprocess.PIPE, text=True) as process:
        assert gate.asked.wait(DEADLINE)
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=DEADLINE)
    assert (process.returncode, complaint) == (130, "")
    portal.faults.storage = None
    large = FILES["Docs/large.bin"]
    assert (warmed.path / "Docs/large.bin").read_bytes() == large
    assert blocks(portal) <= 12 + 41, "those under way, which were cancelled, and those of the file"
    assert warmed.complaints() == []


def test_the_mount_ends_while_it_runs(warmed: Mount, portal: EmbeddedPortal) -> None:
    gate = Gate(portal)
    command = [*CTERAFS, "warm", str(warmed.path)]
    with subprocess.Popen(command, env=warmed.environment, stderr=subprocess.PIPE, text=True) as process:
        assert gate.asked.wait(DEADLINE)
        warmed.stop()
        _, complaint = process.communicate(timeout=DEADLINE)
    assert process.returncode == 5
    assert "the mount ended meanwhile" in complaint


def test_progress_on_a_terminal(warmed: Mount) -> None:
    ours, theirs = pty.openpty()
    command = [*CTERAFS, "warm", str(warmed.path)]
    with subprocess.Popen(command, env=warmed.environment, stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while select.select([ours], [], [], DEADLINE)[0]:
            try:
                shown += os.read(ours, 4096)
            except OSError:  # the other side is closed (pty(7): EIO)
                break
        process.wait(DEADLINE)
    os.close(ours)
    assert process.returncode == 0
    assert f"of {len(FILES)} files".encode() in shown
    assert shown.endswith(b"\r\x1b[K")
