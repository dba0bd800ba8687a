"""What can befall the mount's process, and those who read: nothing is lost, and nothing is left."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from mount_processes import Ending, family, threads
from real_mount import DEADLINE, Mount

from cterafs.demo.encoder import Codec, Encoding
from cterafs.demo.faultplan import FaultPlan
from cterafs.demo.injections import Delay
from cterafs.demo.server import EmbeddedPortal

MIB = 1 << 20
FILES = 8
CONTENT = random.Random(9).randbytes(2 * MIB)
MEMORY = 16 * MIB
AT_ONCE = 40


@pytest.fixture(autouse=True)
def folder(portal: EmbeddedPortal, mount: Mount) -> Path:
    folder = portal.namespace.create_folder("Folder")
    for number in range(FILES):
        portal.namespace.create(folder, f"{number}", CONTENT, encoding=Encoding(block_size=100_000))
    return mount.path / "Folder"


@contextmanager
def reading(folder: Path, count: int = 4) -> Iterator[None]:
    """Processes that read until nothing is there any more."""
    script = f"while cat '{folder}/'* > /dev/null; do :; done"
    readers = [subprocess.Popen(["sh", "-c", script], stderr=subprocess.DEVNULL) for _ in range(count)]
    try:
        yield
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()


def databases(mount: Mount) -> list[Path]:
    """The index, and that of the cache on the disk."""
    return [*(mount.home / "state").rglob("*.db"), *(mount.home / ".cache").rglob("*.db")]


def test_killed_at_random_moments_it_is_whole(mount: Mount, folder: Path) -> None:
    """The index, the cache on the disk, and what is read; and no process outlives the one that was killed."""
    chance = random.Random(4)
    mount.configure(cache_disk="64MiB", cache_memory="16MiB")
    namespace = mount.portal.namespace
    for round_ in range(5):
        mount.start()
        ending = Ending(family(mount.pid))
        with reading(folder):
            goal = chance.randrange(100) if round_ == 0 else 0
            mount.wait_until(lambda status, goal=goal: status["reads"]["downloaded_blocks"] >= goal)
            for number in range(chance.randrange(30)):
                namespace.write(namespace.find(f"Folder/{number % FILES}"), chance.randbytes(200_000))
            os.kill(mount.pid, signal.SIGKILL)
            ending.wait()
        found = databases(mount)
        assert len(found) == 2
        for file in found:
            with closing(sqlite3.connect(file)) as database:
                assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    mount.start()
    mount.settle()
    for number in range(FILES):
        content = namespace.find(f"Folder/{number}").file.content
        assert (folder / f"{number}").read_bytes() == content.read(0, content.size)
    assert mount.complaints() == []


def test_stopped_and_continued_it_goes_on(mount: Mount, folder: Path) -> None:
    """For longer than a read may be without progress: what was being read then may fail, and nothing after that."""
    mount.configure(direct_timeout="1s")
    mount.start()
    processes = family(mount.pid)
    readers = [subprocess.Popen(["sha256sum", folder / f"{number}"], stdout=subprocess.PIPE) for number in range(FILES)]
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    readers.append(subprocess.Popen(["sha256sum", folder / "0"], stdout=subprocess.PIPE))
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            readers[-1].wait(2)
    finally:
        for pid in processes:
            os.kill(pid, signal.SIGCONT)
    for reader in readers:
        said, _ = reader.communicate(timeout=DEADLINE)
        assert not said or said.split()[0].decode() == hashlib.sha256(CONTENT).hexdigest()
    for number in range(FILES):
        assert (folder / f"{number}").read_bytes() == CONTENT
    mount.portal.namespace.create(mount.portal.namespace.find("Folder"), "new", b"new")
    mount.settle()
    assert (folder / "new").read_bytes() == b"new"


CANCELLED = """
import mmap, os, signal, sys
file, count, at_once = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
readers, size = [], os.stat(file).st_size
for number in range(count):
    pid = os.fork()
    if not pid:
        reading = os.open(file, os.O_RDONLY | (os.O_DIRECT if number % 2 else 0))
        offset = number * 7_000_003 % size // 4096 * 4096
        for _ in range(5):
            offset += os.preadv(reading, [mmap.mmap(-1, 128 << 10)], offset)
        os._exit(0)
    readers.append(pid)
    if len(readers) == at_once:
        pid = readers.pop(0)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
for pid in readers:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
"""


def test_a_thousand_cancelled_reads_leave_nothing(mount: Mount, portal: EmbeddedPortal, folder: Path) -> None:
    block = MEMORY // 2  # under way it needs all of the memory, so that no other read may hold any of it
    large = Encoding(block_size=block, codec=Codec.NONE, encrypted=False)
    portal.namespace.create(portal.namespace.find("Folder"), "large", bytes(block), encoding=large)
    many = Encoding(block_size=MIB // 8, codec=Codec.NONE, encrypted=False)
    portal.namespace.create(portal.namespace.find("Folder"), "many blocks", CONTENT * 32, encoding=many)
    mount.configure(cache_memory=f"{MEMORY}", direct_timeout="5s")
    mount.start()
    tasks, before = mount.status()["tasks"], threads(mount.pid)
    portal.faults.plan = FaultPlan([Delay(kind="block", seconds=0.03)])
    subprocess.run([sys.executable, "-c", CANCELLED, folder / "many blocks", "1000", f"{AT_ONCE}"], check=True)
    portal.faults.plan = None
    assert (folder / "large").read_bytes() == bytes(block)
    status = mount.wait_until(lambda status: not status["reads"]["open_files"] and status["tasks"] <= tasks)
    assert status["cache"]["memory"]["used"] <= MEMORY
    assert threads(mount.pid) <= before + AT_ONCE
    for number in range(FILES):
        assert (folder / f"{number}").read_bytes() == CONTENT
    ending = Ending(family(mount.pid))
    mount.stop()
    ending.wait()


INTERRUPTED = """
import hashlib, signal, sys
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
found = hashlib.sha256()
with open(sys.argv[1], "rb", buffering=0) as file:
    while part := file.read(50_000):
        found.update(part)
signal.setitimer(signal.ITIMER_REAL, 0)
print(found.hexdigest())
"""


def test_interrupted_reads_are_whole(mount: Mount, portal: EmbeddedPortal, folder: Path) -> None:
    mount.start()
    portal.faults.plan = FaultPlan([Delay(kind="block", seconds=0.05)])
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, folder / "3"], check=True, stdout=subprocess.PIPE)
    assert done.stdout.decode().strip() == hashlib.sha256(CONTENT).hexdigest()
