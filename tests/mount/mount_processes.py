"""The processes of a mount, from outside."""

from __future__ import annotations

import contextlib
import os
import resource
import select
from collections.abc import Iterator
from pathlib import Path

from real_mount import DEADLINE


def family(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(FileNotFoundError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                with contextlib.suppress(FileNotFoundError):
                    found += map(int, (task / "children").read_text().split())
    return found


def threads(pid: int) -> int:
    """Of all of them."""
    return sum(len(list(Path(f"/proc/{each}/task").iterdir())) for each in family(pid))


def peak(pids: list[int]) -> int:
    """Most bytes that each of these processes ever had in memory, together (VmHWM of proc_pid_status(5))."""
    texts = [Path(f"/proc/{each}/status").read_text() for each in pids]
    return sum(int(text.partition("VmHWM:")[2].split()[0]) for text in texts) << 10


@contextlib.contextmanager
def limited(pid: int, kind: int, limit: int) -> Iterator[None]:
    """Gives a process another soft limit (getrlimit(2)) for as long as the context lasts."""
    before = resource.prlimit(pid, kind)
    resource.prlimit(pid, kind, (limit, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, kind, before)


class Ending:
    """Waits for the end of processes that are somebody else's children."""

    def __init__(self, pids: list[int]) -> None:
        self._handles = [os.pidfd_open(pid) for pid in pids]

    def wait(self) -> None:
        for handle in self._handles:
            assert select.select([handle], [], [], DEADLINE)[0], "a process did not end"
            os.close(handle)
