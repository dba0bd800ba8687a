"""A mount that is killed while the kernel makes it wait: whoever reads is let go, and what is left can be cleared."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mount_processes import Ending, family
from real_mount import DEADLINE, Mount

from cterafs.kernel import mountpoint

PROGRAM = Path(__file__).with_name("hung_mount.py")


class Hung:
    """That mount, with one thread in the kernel, and somebody who waits for it.

    Attributes:
        mount: what can be mounted in its place.
        guardian: its other process.
    """

    def __init__(self, mount: Mount) -> None:
        self.mount = mount
        self.process = subprocess.Popen([sys.executable, PROGRAM, mount.path, mount.home], stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"mounted\n"
        self.reader = subprocess.Popen(["stat", mount.path / "name"], stderr=subprocess.PIPE, text=True)
        wait_until(lambda: "D" in states(self.process.pid))
        _, self.guardian = family(self.process.pid)

    def end(self) -> None:
        """Whatever became of it."""
        mounted = mountpoint.mounted_at(self.mount.path)
        if mounted is not None:
            (mounted.connection / "abort").write_text("1")
            mountpoint.unmount(self.mount.path, lazy=True)
        for process in (self.process, self.reader):
            process.kill()
            process.communicate()


def states(pid: int) -> list[str]:
    """Of all threads of a process (proc_pid_stat(5)): Z for one that has ended, D for one that no signal reaches."""
    return [(task / "stat").read_text().rpartition(") ")[2][0] for task in Path(f"/proc/{pid}/task").iterdir()]


def wait_until(condition: Callable[[], object]) -> None:
    """No event tells of it."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def hung(mount: Mount) -> Iterator[Hung]:
    hung = Hung(mount)
    yield hung
    hung.end()


def test_its_readers_are_let_go(hung: Hung) -> None:
    ending = Ending([hung.process.pid, hung.guardian])
    hung.process.kill()
    _, said = hung.reader.communicate(timeout=DEADLINE)
    assert os.strerror(errno.ECONNABORTED) in said
    ending.wait()
    hung.mount.run("umount", str(hung.mount.path))
    assert not hung.mount.is_mounted


@pytest.fixture
def unguarded(hung: Hung) -> Hung:
    """Killed, and its guardian before it: nobody is let go."""
    os.kill(hung.guardian, signal.SIGKILL)
    hung.process.kill()
    wait_until(lambda: sorted(states(hung.process.pid)) == ["D", "Z"])
    return hung


def test_umount_lets_the_readers_go_if_the_guardian_was_killed_too(unguarded: Hung) -> None:
    unguarded.mount.run("umount", str(unguarded.mount.path))
    assert not unguarded.mount.is_mounted
    assert unguarded.reader.wait(DEADLINE) != 0


def test_another_mount_takes_its_place_if_the_guardian_was_killed_too(unguarded: Hung) -> None:
    unguarded.mount.start()
    assert unguarded.reader.wait(DEADLINE) != 0
    assert list(unguarded.mount.path.iterdir()) == []
