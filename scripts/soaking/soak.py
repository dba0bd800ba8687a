"""One soak: a portal, a mount, readers, changes and faults, and at the end what is left of them."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks.mounts import Mount

from cterafs.demo.encoder import Codec, Encoding
from cterafs.demo.server import EmbeddedPortal
from soaking.content import EPOCH, MIB
from soaking.crew import Crew
from soaking.faults import Schedule
from soaking.ledger import Ledger
from soaking.tree import Tree
from soaking.watch import Sample, Watch

READERS = 6
TIMEOUT = 2.0
"""Seconds without progress that the mount is given: much less than by default, so that more happens."""

URL_TTL = 45.0
"""Seconds that the addresses of blocks are valid: the mount renews them half a minute before."""

DEADLINE = 4 * TIMEOUT + 5.0
"""Seconds that a read may take: four times the timeout, as cterafs(7) says, and what a busy machine adds."""

GRACE = TIMEOUT + 3.0
"""Seconds in which a read may still fail for a fault that has ended: what it had asked for, and the memory of that."""

CALM = GRACE + 3.0

MEMORY = 64 * MIB
DISK = 96 * MIB
"""Limits of the caches: less than there is to read."""

MARGIN = 256 * MIB
"""Bytes of memory beside the cache's limit: 76 MiB of three empty processes, 64 MiB of free memory that two of them
keep (`process.KEPT_FREE`), 16 MiB that the arena does (`arena.KEPT_PART`), and blocks on their way to the disk."""

WARM_UP = 120.0
"""Seconds after which the caches are full, and memory has to stay what it is."""

GROWTH = 32 * MIB
"""Bytes that the second half of the time after that may take more than the first, in the median."""

SETTLING = 90.0
"""Seconds for the mount to come to rest, or to catch up: a feed that failed is asked again after half a minute."""

CHANGE_INTERVAL = 0.05

SPARE = 16
"""Threads and tasks that there may be more than at first: threads that have nothing to do stay for 10 s."""

TRIES = 3
"""Reads of a block that needs all of the memory: a busy machine may be too slow for one."""

KEPT_OPEN = 40
"""Descriptors that the mount keeps for later: of two databases, for 8 readers each, which have two files."""

IDLE_CONNECTIONS = 80
"""Sockets that the mount keeps for later."""


class Soak:
    """Args:
    seconds: of load.
    """

    def __init__(self, seconds: float, seed: int, scratch: Path) -> None:
        self._seconds = seconds
        self._seed = seed
        self._scratch = scratch
        self.samples: list[Sample] = []
        self.tree: Tree

    def run(self) -> None:
        """Raises:
        subprocess.CalledProcessError, OSError: it could not be mounted.
        """
        with EmbeddedPortal(url_ttl=URL_TTL) as portal:
            self.schedule = Schedule(portal, self._seed)
            self.ledger = Ledger(self.schedule.spans, self.schedule.damages, GRACE)
            self._portal = portal
            self.tree = Tree(portal.namespace, self._seed, min(1.0, self._seconds / 60))
            mount = Mount(portal, self._scratch / "mount")
            try:
                mount.start(
                    "-o",
                    f"cache.memory={MEMORY},cache.disk={DISK},cache.keep_free=0,direct.timeout={TIMEOUT}s,log.level=warning",
                )
                with Watch(mount.pid, mount.path) as watch:
                    self.samples = watch.samples
                    self._load(mount.path)
                    self._come_to_rest(watch, mount.path)
            finally:
                self._unmount(mount)
        self._judge_memory()

    def _load(self, root: Path) -> None:
        """Readers, changes and faults; then only readers, who have to be right about everything."""
        crew, ending = Crew(root, self.ledger, DEADLINE), threading.Event()
        changing = threading.Thread(target=self._change, args=[ending], daemon=True)
        changing.start()
        crew.start(READERS, self._seed)
        try:
            self.schedule.run(self._seconds, CALM, ending)
            ending.wait(GRACE)
        finally:
            ending.set()
            changing.join()
            crew.stop()
        self._compare(root)
        crew.read_all()

    def _change(self, ending: threading.Event) -> None:
        while not ending.wait(CHANGE_INTERVAL):
            self.tree.change()

    def _compare(self, root: Path) -> None:
        """The mount shows what the portal holds, once it has caught up."""
        if not self._portal.inventory.feed.wait_until_followed(SETTLING):
            self.ledger.complain(f"the mount did not catch up in {SETTLING:.0f} s")
            return
        found = subprocess.run(
            ["find", root, "-type", "f", "-printf", "%s %T@ %P\n"], stdout=subprocess.PIPE, text=True, check=False
        )
        shown = {}
        for line in found.stdout.splitlines():
            size, time_, path = line.split(" ", 2)
            seconds, _, fraction = time_.partition(".")
            shown[path] = (int(size), int(seconds) * 10**9 + int(fraction[:9].ljust(9, "0")))
        expected = self.tree.expected()
        for path in sorted(shown.keys() | expected.keys()):
            if shown.get(path) != expected.get(path):
                self.ledger.complain(
                    f"listing: {path} is shown as {_told(shown.get(path))}, but is {_told(expected.get(path))}"
                )

    def _come_to_rest(self, watch: Watch, root: Path) -> None:
        """Nothing is left of all that was done."""
        self._read_with_the_whole_budget(root)
        first = watch.first
        limits: dict[str, tuple[int, Callable[[Sample], int]]] = {
            "threads": (first.threads + SPARE, lambda now: now.threads),
            "descriptors": (first.descriptors + KEPT_OPEN, lambda now: now.descriptors),
            "sockets": (first.sockets + IDLE_CONNECTIONS, lambda now: now.sockets),
            "processes": (first.processes, lambda now: now.processes),
            "zombies": (0, lambda now: now.zombies),
            "tasks": ((first.tasks or 0) + SPARE, lambda now: now.tasks or 0),
        }
        deadline = time.monotonic() + SETTLING
        while True:
            now = watch.now()
            leaks = {what: of(now) for what, (limit, of) in limits.items() if of(now) > limit}
            if not leaks or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        for what, count in leaks.items():
            self.ledger.complain(f"leak: {count} {what}, where {limits[what][0]} are allowed")

    def _read_with_the_whole_budget(self, root: Path) -> None:
        """A block that needs all of the memory while it is under way can be read if nothing else holds any of it."""
        content = _Zeros(MEMORY // 2)
        encoding = Encoding(block_size=content.size, codec=Codec.NONE, encrypted=False)
        self._portal.namespace.create(self._portal.namespace.find("Stable"), "large block", content, encoding=encoding)
        self._portal.inventory.feed.wait_until_followed(SETTLING)
        for _ in range(TRIES):
            done = subprocess.run(
                ["cmp", "-n", str(content.size), root / "Stable/large block", "/dev/zero"],
                stderr=subprocess.PIPE, text=True, check=False,
            )  # fmt: skip
            if not done.returncode:
                return
        self.ledger.complain(f"leak: no read can have all of the memory: {done.stderr.strip()}")

    def _unmount(self, mount: Mount) -> None:
        try:
            mount.stop()
        except subprocess.CalledProcessError:
            self.ledger.complain("it could not be unmounted")
            subprocess.run(["umount", "-l", mount.path], check=False)
        for file in (self._scratch / "mount/state").glob("*/mount.log"):
            log = file.read_text(errors="replace")
            with contextlib.suppress(ValueError):
                self.ledger.complain("log: " + log[log.index("Traceback") :][:2000])

    def _judge_memory(self) -> None:
        memory = [sample.memory for sample in self.samples]
        if max(memory) > MEMORY + MARGIN:
            self.ledger.complain(f"memory: {max(memory) / MIB:.0f} MiB with a limit of {MEMORY / MIB:.0f} MiB")
        warm = [sample.memory for sample in self.samples if sample.at > self.samples[0].at + WARM_UP]
        before, after = warm[: len(warm) // 2], warm[len(warm) // 2 :]
        if before and median(after) > median(before) + GROWTH:
            self.ledger.complain(f"memory: grew from {median(before) / MIB:.0f} to {median(after) / MIB:.0f} MiB")


class _Zeros:
    def __init__(self, size: int) -> None:
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        return bytes(min(length, self.size - offset))


def _told(attributes: tuple[int, int] | None) -> str:
    return "missing" if attributes is None else f"{attributes[0]} bytes of version {attributes[1] // 1000 - EPOCH}"
