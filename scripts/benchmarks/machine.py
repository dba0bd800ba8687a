"""What the operating system tells of processes and of this machine, and how to make it forget."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
MIB = 1 << 20


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far (proc_pid_stat(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def resident(pid: int) -> int:
    """Bytes of memory in use."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


@contextmanager
def placed(*pids: int, apart: bool) -> Iterator[None]:
    """Keep these processes on one CPU, and what this thread starts meanwhile on the same or on another: how long an
    answer takes depends on it by a factor of two, and where they meet by themselves changes from run to run."""
    before = os.sched_getaffinity(0)
    theirs = [int(task.name) for pid in pids for task in Path(f"/proc/{pid}/task").iterdir()]
    try:
        os.sched_setaffinity(0, {min(before) if apart else max(before)})
        for task in theirs:
            os.sched_setaffinity(task, {max(before)})
        yield
    finally:
        for task in (0, *theirs):
            with suppress(ProcessLookupError):  # a thread that has ended since
                os.sched_setaffinity(task, before)


def peak(pid: int) -> int:
    """Most bytes of memory that were ever in use (proc_pid_status(5), VmHWM)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def private(pid: int) -> int:
    """Bytes of memory in use that are a process's own (proc_pid_statm(5), fields 2 and 3)."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return (int(fields[1]) - int(fields[2])) * PAGE


def available_memory() -> int:
    """Bytes that programs and the kernel's caches may take (proc_meminfo(5))."""
    return int(Path("/proc/meminfo").read_text().partition("MemAvailable:")[2].split()[0]) << 10


def forget_pages(path: Path) -> None:
    """Make the kernel drop what it holds of a file's content; this needs no privilege, and leaves other files alone."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(file)


def forget_names() -> bool:
    """Make the kernel drop names and attributes that it cached; False where only root may."""
    if os.geteuid() != 0:
        return False
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("2")
    return True


def timed(command: Sequence[str | Path]) -> float:
    """Seconds that a command takes; what it prints is thrown away, by a pipe, for tools look whether it is /dev/null.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while os.read(process.stdout.fileno(), MIB):
            pass
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, [str(word) for word in command])
    return time.perf_counter() - began


def fixed_work() -> float:
    """Milliseconds that the same work takes: how steady this machine is."""
    data = bytes(16 * MIB)
    began = time.perf_counter()
    hashlib.sha256(data).digest()
    return (time.perf_counter() - began) * 1000
