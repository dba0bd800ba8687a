"""What all cases share: a portal, its store, the files in both, and the options of the run."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import MIB, timed
from benchmarks.mounts import Mount
from benchmarks.reads.content import Text
from benchmarks.reads.store import ObjectStore
from benchmarks.report import Report
from cterafs.demo.encoder import Codec, Encoding
from cterafs.demo.objects import Content, Item
from cterafs.demo.server import EmbeddedPortal

KIB = 1 << 10
PLAIN = "plain"
"""The file that the store also has as it is."""

PATIENCE = 60.0
"""Seconds for a mount to hear of a file."""

FOLDER = "Bench"


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reader had to wait for, and how much it looked at."""

    seconds: float
    bytes: int


Contender = Callable[[], float]
"""Gets ready, and gives the seconds that its part took."""


def encoding(block_size: int, *, packed: bool = False) -> Encoding:
    """Blocks as they are, or compressed and encrypted."""
    return Encoding(block_size, Codec.SNAPPY if packed else Codec.NONE, encrypted=packed)


@dataclass
class Setting:
    """One run.

    Attributes:
        scratch: on the disk, removed at the end.
        size: bytes of a file that is read from end to end.
    """

    portal: EmbeddedPortal
    store: ObjectStore
    scratch: Path
    rounds: int
    size: int
    report: Report

    def __post_init__(self) -> None:
        self._folder = self.portal.namespace.create_folder(FOLDER)
        self._mounts = 0

    def create(self, name: str, size: int, encoding: Encoding) -> Item:
        """A file of the portal's, with its blocks in the store; the one of this name, if a case before has made it."""
        return self.create_all([name], lambda: Text(size), encoding)[0]

    def create_all(self, names: Sequence[str], content: Callable[[], Content], encoding: Encoding) -> list[Item]:
        """Files with contents of their own."""
        return self._create(self._folder, names, content, encoding)

    def create_directory(
        self, name: str, names: Sequence[str], content: Callable[[], Content], encoding: Encoding
    ) -> list[Item]:
        """The same, in a directory of their own."""
        directory = self._folder.children.get(name) or self.portal.namespace.mkdir(self._folder, name)
        return self._create(directory, names, content, encoding)

    def _create(
        self, parent: Item, names: Sequence[str], content: Callable[[], Content], encoding: Encoding
    ) -> list[Item]:
        known, namespace = parent.children, self.portal.namespace
        with namespace.batch():
            new = [namespace.create(parent, name, content(), encoding=encoding) for name in names if name not in known]
        self.store.put_blocks([item.file for item in new])
        return [known[name] for name in names]

    @contextmanager
    def mount(self) -> Iterator[Mount]:
        """A mount that is not started yet, but will be stopped."""
        self._mounts += 1
        mount = Mount(self.portal, self.scratch / f"mount-{self._mounts}")
        try:
            yield mount
        finally:
            try:
                mount.stop()
            except subprocess.CalledProcessError:  # somebody still reads: nothing may stay behind all the same
                subprocess.run(["fusermount3", "-u", "-z", mount.path], check=False)

    def serve(self, *, tls: bool) -> None:
        """Let lists of blocks name the store by http or https from now on."""
        self.portal.store.base_url = self.store.base_url(tls)

    def urls(self, item: Item) -> list[str]:
        """Of all blocks, as a list of now names them."""
        version = item.file
        return [
            self.portal.store.url(version, index) for index in range(-(-version.size // version.encoding.block_size))
        ]

    def restart(self, mount: Mount, item: Item, *options: str) -> Path:
        """Mount anew, with nothing in memory and no page in the kernel; where `item` is."""
        mount.stop()
        mount.start("-o", ",".join([f"direct.ca_file={self.store.ca_file}", *options]))
        path = mount.path / item.path
        deadline = time.monotonic() + PATIENCE
        while not path.exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{path} does not appear")
            time.sleep(0.01)
        return path

    def compare(
        self, contenders: Mapping[str, Contender], patience: float = math.inf, times: int = 1
    ) -> dict[str, list[float]]:
        """What each gave, in turn, and every other round in the opposite order: what else the machine does, and what
        one leaves behind for the next, meets all alike.

        Args:
            patience: seconds after which no further round begins.
            times: how many times as many rounds as others get, for what varies more from one to the next.
        """
        samples: dict[str, list[float]] = {name: [] for name in contenders}
        began = time.monotonic()
        for number in range(times * self.rounds):
            if time.monotonic() - began > patience:
                break
            for name in list(contenders)[:: -1 if number % 2 else 1]:
                samples[name].append(contenders[name]())
        return samples


def read_all(path: Path) -> float:
    """Seconds of a sequential read by an ordinary program."""
    return timed(["dd", f"if={path}", "of=/dev/null", "bs=1M", "status=none"])


def speeds(size: int, seconds: list[float]) -> list[float]:
    """MiB/s."""
    return [size / MIB / each for each in seconds]


def ratios(ours: list[float], theirs: list[float]) -> list[float]:
    """How many times faster we were, by the seconds of each round."""
    return [their / our for our, their in zip(ours, theirs, strict=True)]


def best(*samples: list[float]) -> list[float]:
    """The fewest seconds of each round."""
    return [min(round_) for round_ in zip(*samples, strict=True)]


def reader(mode: str, path: Path, *arguments: int) -> Reading:
    """What a process of its own (see the module `reader`) does with a file."""
    command = [sys.executable, "-m", "benchmarks.reads.reader", mode, str(path), *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return Reading(**json.loads(done.stdout))
