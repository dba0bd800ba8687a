"""A process that reads a mount in every way and compares each byte, until its standard input is closed.

It prints lines of JSON: now and then how much it did, and at once what was not as it should be (`Incident`). A process
of its own, for a page fault holds the interpreter's lock, and the portal could never answer it.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from soaking.content import KIB, MIB, Version, key_of
from soaking.tree import CHANGING, STABLE

REPORT_INTERVAL = 0.5
SLOW = 10.0
"""Seconds for what never waits for the network; far more than it takes, for the machine is busy."""

ALARM = 0.005
"""Seconds between two signals that interrupt system calls, in every second process."""

HELD = 8
"""Files that stay open, while they change."""

MADV_POPULATE_READ = 22
"""Of madvise(2): touches pages as a program would, but tells of an error where that would die of SIGBUS."""

PIECE = 4 * KIB
"""Bytes that are told to be wrong together: far fewer than a block has."""

SIZES = (1, 100, 4 * KIB, 64 * KIB, 128 * KIB, MIB)
DIRECT_SIZE = 128 * KIB


@dataclass(frozen=True, slots=True)
class Incident:
    """What was not as it should be.

    Attributes:
        kind: "error", "bytes" (they are wrong), "version" (of a handle, or its size, changed) or "late".
        what: the operation.
        began, ended: by the monotonic clock, which all processes share.
        opened: when the file was opened, by the same clock.
        key, offset, length: of the version, and what was read of it.
    """

    kind: str
    what: str
    path: str
    began: float
    ended: float
    opened: float = 0.0
    errno: int = 0
    key: int = 0
    offset: int = 0
    length: int = 0


class Handle:
    """An open file, and what it has to hold."""

    def __init__(self, path: str, flags: int) -> None:
        self.path = path
        self.opened = time.monotonic()
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
        self.stat = os.fstat(self.fd)
        self.version = Version(key_of(self.stat))
        self.position = 0

    def close(self) -> None:
        os.close(self.fd)


class Reader:
    """Args:
    deadline: seconds that one read may take, whatever happens.
    """

    def __init__(self, root: Path, seed: int, deadline: float) -> None:
        self._root = root
        self._chance = random.Random(seed)
        self._deadline = deadline
        self._done: Counter[str] = Counter()
        self._bytes = 0
        self._reported = time.monotonic()
        self._held: list[Handle] = []
        self._buffer = memoryview(mmap.mmap(-1, MIB))  # aligned, as O_DIRECT wants it

    def run(self) -> None:
        operations: dict[Callable[[], None], int] = {
            self._sequential: 6,
            self._random: 6,
            self._direct: 5,
            self._mapped: 4,
            self._small_files: 4,
            self._listing: 4,
            self._look: 4,
            self._open_and_close: 3,
            self._hold: 6,
            self._cancelled: 2,
        }
        while not select.select([0], [], [], 0)[0]:
            with contextlib.suppress(OSError):  # told already
                self._chance.choices(list(operations), list(operations.values()))[0]()
            if time.monotonic() - self._reported > REPORT_INTERVAL:
                self.report()
        while self._held:
            self._held.pop().close()
        self.report()

    def read_all(self) -> None:
        """Every file from end to end, through the page cache and past it."""
        pending = [self._root]
        while pending:
            for entry in self._list(pending.pop()):
                if entry.is_dir():
                    pending.append(Path(entry.path))
                    continue
                for flags in (0, os.O_DIRECT):
                    with contextlib.suppress(OSError), self._opened(flags, entry.path) as handle:
                        self._read_through(handle, "direct read" if flags else "read")
        self.report()

    def report(self) -> None:
        self._reported = time.monotonic()
        print(json.dumps({"done": self._done, "bytes": self._bytes}), flush=True)
        self._done.clear()
        self._bytes = 0

    # --- ways to read -------------------------------------------------------------------------------------------------

    def _sequential(self) -> None:
        with self._opened() as handle:
            size = self._chance.choice(SIZES[3:])
            for _ in range(self._chance.choice((4, 32))):
                if not self._read_on(handle, size):
                    return

    def _random(self) -> None:
        with self._opened() as handle:
            for _ in range(self._chance.choice((4, 32))):
                self._pread(handle, self._place(handle), self._chance.choice(SIZES))

    def _direct(self) -> None:
        with self._opened(os.O_DIRECT) as handle:
            for _ in range(8):
                offset = self._place(handle) // (4 * KIB) * (4 * KIB)
                size = self._chance.choice((4 * KIB, DIRECT_SIZE, MIB))
                with self._watched("direct read", handle, offset, self._deadline) as began:
                    count = os.preadv(handle.fd, [self._buffer[:size]], offset)
                self._check(handle, offset, size, bytes(self._buffer[:count]), what="direct read", began=began)

    def _mapped(self) -> None:
        with self._opened() as handle:
            if not handle.version.size:
                return
            with mmap.mmap(handle.fd, 0, prot=mmap.PROT_READ) as mapping:
                for _ in range(8):
                    start = self._place(handle) // mmap.PAGESIZE * mmap.PAGESIZE
                    stop = min(start + self._chance.choice((1, 16)) * mmap.PAGESIZE, handle.version.size)
                    with self._watched("mmap", handle, start, self._deadline) as began:
                        mapping.madvise(MADV_POPULATE_READ, start, stop - start)
                    self._check(handle, start, stop - start, mapping[start:stop], what="mmap", began=began)

    def _small_files(self) -> None:
        names = self._list(self._root / STABLE / "small")
        first = self._chance.randrange(len(names))
        for entry in names[first : first + 20]:
            with self._opened(path=entry.path) as handle:
                self._pread(handle, 0, handle.version.size + 1)

    def _hold(self) -> None:
        """A bit of a file that was opened long ago."""
        if len(self._held) < HELD:
            self._held.append(self._open(self._some_file(CHANGING), 0))
        handle = self._chance.choice(self._held)
        try:
            more = self._read_on(handle, self._chance.choice(SIZES))
            self._confirm(handle)
        except OSError:
            more = False
        if not more:
            self._held.remove(handle)
            handle.close()

    def _cancelled(self) -> None:
        """A program that is killed while it reads."""
        path = self._some_file()
        with subprocess.Popen(["cat", path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as program:
            with contextlib.suppress(subprocess.TimeoutExpired):
                program.wait(self._chance.uniform(0.0, 0.2))
            program.kill()
        self._done["cancelled read"] += 1

    # --- the rest -----------------------------------------------------------------------------------------------------

    def _listing(self) -> None:
        pending = [self._root / CHANGING]
        while pending:
            for entry in self._list(pending.pop()):
                if entry.is_dir():
                    pending.append(Path(entry.path))
                else:
                    with self._watched("stat", entry.path):
                        stat = entry.stat()
                    if stat.st_size != Version(key_of(stat)).size:
                        self._tell("version", "stat", entry.path, time.monotonic())

    def _look(self) -> None:
        with self._watched("statfs", str(self._root)):
            os.statvfs(self._root)
        path = self._root / STABLE / f"missing {self._chance.random()}"
        with contextlib.suppress(FileNotFoundError), self._watched("stat", str(path), expected=FileNotFoundError):
            path.stat()

    def _open_and_close(self) -> None:
        for _ in range(10):
            with self._opened():
                pass

    # --- parts --------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _opened(self, flags: int = 0, path: str | None = None) -> Iterator[Handle]:
        handle = self._open(path or self._some_file(), flags)
        try:
            yield handle
            self._confirm(handle)
        finally:
            handle.close()

    def _open(self, path: str, flags: int) -> Handle:
        with self._watched("open", path):
            handle = Handle(path, flags)
        if handle.stat.st_size != handle.version.size:
            self._tell("version", "open", path, time.monotonic(), handle)
        return handle

    def _confirm(self, handle: Handle) -> None:
        """It is what it was."""
        with self._watched("stat", handle):
            stat = os.fstat(handle.fd)
        if (stat.st_size, stat.st_mtime_ns) != (handle.stat.st_size, handle.stat.st_mtime_ns):
            self._tell("version", "stat", handle.path, time.monotonic(), handle)

    def _read_through(self, handle: Handle, what: str) -> None:
        for offset in range(0, handle.version.size, MIB):
            with self._watched(what, handle, offset, self._deadline) as began:
                count = os.preadv(handle.fd, [self._buffer], offset)
            self._check(handle, offset, MIB, bytes(self._buffer[:count]), what=what, began=began)

    def _read_on(self, handle: Handle, size: int) -> bool:
        """Whether there may be more."""
        count = self._pread(handle, handle.position, size)
        handle.position += count
        return bool(count)

    def _pread(self, handle: Handle, offset: int, size: int) -> int:
        with self._watched("read", handle, offset, self._deadline) as began:
            data = os.pread(handle.fd, size, offset)
        self._check(handle, offset, size, data, what="read", began=began)
        return len(data)

    def _check(self, handle: Handle, offset: int, size: int, data: bytes, *, what: str, began: float) -> None:
        """A read may be cut short where an error follows, but not be empty before the end."""
        self._bytes += len(data)
        expected = handle.version.read(offset, size)
        if expected and not data:
            self._tell("bytes", what, handle.path, began, handle, offset=offset)
        if data == expected[: len(data)]:
            return
        for start in range(0, len(data), PIECE):
            if (piece := data[start : start + PIECE]) != expected[start : start + len(piece)]:
                self._tell("bytes", what, handle.path, began, handle, offset=offset + start, length=len(piece))

    def _place(self, handle: Handle) -> int:
        return self._chance.randrange(max(1, handle.version.size))

    def _some_file(self, folder: str = "") -> str:
        """Found by going down at random; an empty directory is left again."""
        directory = self._root / (folder or self._chance.choice((STABLE, STABLE, CHANGING)))
        while True:
            entries = self._list(directory)
            if not entries:
                directory = directory.parent
                continue
            entry = self._chance.choice(entries)
            if not entry.is_dir():
                return entry.path
            directory = Path(entry.path)

    def _list(self, directory: Path) -> list[os.DirEntry[str]]:
        with self._watched("list", str(directory)), os.scandir(directory) as entries:
            return list(entries)

    @contextlib.contextmanager
    def _watched(
        self,
        what: str,
        at: Handle | str,
        offset: int = 0,
        limit: float = SLOW,
        expected: type[OSError] | tuple[type[OSError], ...] = (),
    ) -> Iterator[float]:
        """Counts an operation, and tells how it failed and whether it took too long."""
        path, handle = (at.path, at) if isinstance(at, Handle) else (at, None)
        began = time.monotonic()
        try:
            yield began
        except expected:
            raise
        except OSError as error:
            self._tell("error", what, path, began, handle, offset=offset, errno=error.errno or 0)
            raise
        finally:
            self._done[what] += 1
            if time.monotonic() - began > limit:
                self._tell("late", what, path, began, handle, offset=offset)

    def _tell(
        self,
        kind: str,
        what: str,
        path: str,
        began: float,
        handle: Handle | None = None,
        *,
        offset: int = 0,
        length: int = 0,
        errno: int = 0,
    ) -> None:
        key, opened = (handle.version.key, handle.opened) if handle else (0, began)
        where = str(Path(path).relative_to(self._root))
        incident = Incident(kind, what, where, began, time.monotonic(), opened, errno, key, offset, length)
        print(json.dumps({"incident": asdict(incident)}), flush=True)


def main() -> None:
    mode, root, seed, deadline = sys.argv[1:]
    reader = Reader(Path(root), int(seed), float(deadline))
    if mode == "all":
        reader.read_all()
        return
    if int(seed) % 2:
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, ALARM, ALARM)
    reader.run()
    signal.setitimer(signal.ITIMER_REAL, 0)  # a signal that comes while the interpreter ends would kill it


if __name__ == "__main__":
    main()
