"""What the mount's processes take: memory, threads, descriptors, tasks."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from cterafs import control

INTERVAL = 1.0


@dataclass(frozen=True, slots=True)
class Sample:
    """The processes at one moment, together.

    Attributes:
        at: by the monotonic clock.
        memory: bytes; what they share is counted once (Pss of proc_pid_smaps(5)).
        descriptors: other than sockets.
        zombies: children that ended, and that nobody has waited for.
        tasks: of the mount's event loop; None where it does not tell.
    """

    at: float
    memory: int
    processes: int
    threads: int
    descriptors: int
    sockets: int
    zombies: int
    tasks: int | None


def family(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for parent in found:
        for task in _listed(Path(f"/proc/{parent}/task")):
            with contextlib.suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return found


def sample(pid: int, mountpoint: Path) -> Sample:
    """The mount's processes now.

    Raises:
        OSError: there are none.
    """
    at, memory, threads, descriptors, sockets, zombies = time.monotonic(), 0, 0, 0, 0, 0
    processes = family(pid)
    memory = _field(pid, "smaps_rollup", "Pss") << 10
    for each in processes:
        with contextlib.suppress(OSError):  # one that has just ended
            zombies += "\nState:\tZ" in Path(f"/proc/{each}/status").read_text()
            threads += _field(each, "status", "Threads")
            memory += _field(each, "smaps_rollup", "Pss") << 10 if each != pid else 0
            for descriptor in _listed(Path(f"/proc/{each}/fd")):
                with contextlib.suppress(FileNotFoundError):
                    is_socket = str(descriptor.readlink()).startswith("socket:")
                    sockets, descriptors = sockets + is_socket, descriptors + (not is_socket)
    return Sample(at, memory, len(processes), threads, descriptors, sockets, zombies, _tasks(mountpoint))


class Watch:
    """Takes samples in a thread, for as long as the context lasts.

    Attributes:
        samples: so far.
        first: of the mount before anybody used it.
    """

    def __init__(self, pid: int, mountpoint: Path) -> None:
        self._pid = pid
        self._mountpoint = mountpoint
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.first = self.now()
        self.samples = [self.first]

    def now(self) -> Sample:
        return sample(self._pid, self._mountpoint)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ending.wait(INTERVAL):
            try:
                self.samples.append(self.now())
            except OSError:  # the mount has ended: whoever reads it tells
                return


def _tasks(mountpoint: Path) -> int | None:
    record = control.find(mountpoint)
    return None if record is None else control.ask_status(record).get("tasks")


def _field(pid: int, file: str, name: str) -> int:
    return int(Path(f"/proc/{pid}/{file}").read_text().partition(f"\n{name}:")[2].split()[0])


def _listed(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except OSError:
        return []
