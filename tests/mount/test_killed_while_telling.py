"""A mount that is killed while the kernel makes it wait: whoever reads is let go, and what is left can be cleared."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from mount_processes import Ending, family
from real_mount import DEADLINE, Mount

from cterafs import control
from cterafs.kernel import mountpoint

PROGRAM = Path(__file__).with_name("hung_mount.py")


class Hung:
    """That mount, with one thread in the kernel, and somebody who waits for it.

    Attributes:
        mount: what can be mounted in its place.
    """

    def __init__(self, mount: Mount, process: subprocess.Popen[bytes], reader: subprocess.Popen[str]) -> None:
        self.mount = mount
        self.process = process
        self.reader = reader

    @property
    def guardian(self) -> int:
        """Its other process."""
        _, guardian = family(self.process.pid)
        return guardian

    def lets_go(self) -> None:
        _, said = self.reader.communicate(timeout=DEADLINE)
        assert os.strerror(errno.ECONNABORTED) in said


@contextmanager
def hanging(mount: Mount) -> Iterator[Hung]:
    command = [sys.executable, PROGRAM, mount.path, mount.home]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, process_group=0)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"mounted\n"
        mounted = mountpoint.mounted_at(mount.path)
        assert mounted is not None
        reader = subprocess.Popen(["stat", mount.path / "name"], stderr=subprocess.PIPE, text=True)
        try:
            wait_until(lambda: tells(process.pid))
            yield Hung(mount, process, reader)
        finally:
            with suppress(OSError):  # ended, as it has to be; or else nobody would ever get away from it
                mounted.abort()
            if mount.is_mounted:
                mountpoint.unmount(mount.path, lazy=True)
            reader.kill()
            reader.communicate()
    finally:
        process.kill()
        process.communicate()


def states(pid: int) -> dict[str, str]:
    """Of all threads of a process (proc_pid_stat(5)): Z for one that has ended, D for one that no signal reaches."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            found[task.name] = (task / "stat").read_text().rpartition(") ")[2][0]
    return found


def tells(pid: int) -> bool:
    """A thread is in the kernel to take a name back, by its function that it waits in (proc_pid_wchan(5))."""
    return b"fuse_reverse_inval_entry" in [task.read_bytes() for task in Path(f"/proc/{pid}/task").glob("*/wchan")]


def wait_until(condition: Callable[[], object]) -> None:
    """No event tells of what the kernel does with a process; it is looked for often, and without keeping a processor
    from that process."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def hung(mount: Mount) -> Iterator[Hung]:
    with hanging(mount) as hung:
        yield hung


@pytest.mark.parametrize("kill", [os.kill, os.killpg])
def test_its_readers_are_let_go(hung: Hung, kill: Callable[[int, int], None]) -> None:
    """Also where all of its group is killed, as by a shell."""
    ending = Ending([hung.process.pid, hung.guardian])
    kill(hung.process.pid, signal.SIGKILL)
    hung.lets_go()
    ending.wait()
    hung.process.wait()
    hung.mount.run("umount", str(hung.mount.path))
    assert not hung.mount.is_mounted


def signals(pid: int, name: str) -> set[int]:
    """The signals that a process has blocked (SigBlk), or that wait for it (ShdPnd), by proc_pid_status(5)."""
    mask = int(Path(f"/proc/{pid}/status").read_text().partition(f"{name}:")[2].split()[0], 16)
    return {number for number in range(1, 65) if mask >> (number - 1) & 1}


def waits(guardian: int) -> bool:
    """For the end of what it guards: the kernel lets through what it waits for, and nothing else."""
    blocked = signals(guardian, "SigBlk")
    return signal.SIGTERM in blocked and signal.SIGUSR1 not in blocked


def test_signals_do_not_end_a_guardian_nor_what_it_guards(hung: Hung) -> None:
    guardian = hung.guardian
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(guardian, number)
    wait_until(lambda: signal.SIGUSR1 not in signals(guardian, "ShdPnd") and waits(guardian))
    assert hung.reader.poll() is None
    hung.process.kill()
    hung.lets_go()


def test_a_guardian_that_was_killed_is_replaced(hung: Hung) -> None:
    first = hung.guardian
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: any(waits(pid) for pid in family(hung.process.pid)[1:] if pid != first))
    hung.process.kill()
    hung.lets_go()


@pytest.fixture
def unguarded(hung: Hung) -> Hung:
    """Killed, and its guardian before it: nobody is let go."""
    os.kill(hung.guardian, signal.SIGKILL)
    hung.process.kill()
    wait_until(lambda: sorted(states(hung.process.pid).values()) == ["D", "Z"])
    return hung


@pytest.mark.parametrize("options", [(), ("--lazy",)])
@pytest.mark.parametrize("asked", [False, True])
def test_umount_lets_the_readers_go_if_the_guardian_was_killed_too(
    unguarded: Hung, options: tuple[str, ...], asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if so many have asked it for its status that it hears no more of them."""
    ending, mount = Ending([unguarded.process.pid]), unguarded.mount
    monkeypatch.chdir(mount.home)  # a socket's address is short
    with ExitStack() as stack:
        while asked:
            asking = stack.enter_context(socket.socket(socket.AF_UNIX))
            asking.setblocking(False)
            if asking.connect_ex(control.SOCKET_NAME) == errno.EAGAIN:
                break
        mount.run("umount", *options, str(mount.path))
    assert not mount.is_mounted
    unguarded.lets_go()
    ending.wait()


def test_another_mount_takes_its_place_if_the_guardian_was_killed_too(unguarded: Hung) -> None:
    mount = unguarded.mount
    mount.portal.namespace.create_folder("Folder")
    mount.start()
    unguarded.lets_go()
    assert [path.name for path in mount.path.iterdir()] == ["Folder"]
