"""What a large namespace costs: import, memory, listing, changes, and the index's size."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import MIB, cpu_seconds, forget_names, resident, timed
from benchmarks.mounts import Mount, baseline, mounted
from benchmarks.report import Report, percentile
from cterafs.demo.encoder import Codec, Encoding
from cterafs.demo.server import EmbeddedPortal
from cterafs.demo.synthetic.churn import Churn
from cterafs.demo.synthetic.shape import Shape
from cterafs.demo.synthetic.tree import SyntheticNamespace

PLAIN = Encoding(codec=Codec.NONE, encrypted=False)
PATIENCE = 600.0
"""Seconds to wait for anything that should come much sooner."""

ROUNDS = 5
OFTEN = 100_000
"""Up to so many files the whole tree is walked in each round; beyond, once: it takes minutes."""

CHANGES = 200
EVENTS = 5_000
"""In a second."""

LARGE_FILE = 1 << 30
PROBED_FILES = 300_000
"""Files of the import that is watched by a reader: it takes as long as a few hundred reads need."""

SAMPLED = 20_000
"""Entries whose names and ids are measured; the others are like them."""


def run(files: int, scratch: Path, report: Report) -> None:
    """Measures, at growing sizes up to `files`."""
    empty = _empty(scratch / "empty")
    for size in sorted({max(files // 100, 1_000), max(files // 10, 1_000)} - {files}):
        with _portal(size) as (portal, namespace), mounted(portal, scratch / f"import-{size}") as mount:
            _report_import(mount, namespace, empty, report)
    _delay_of_reads(min(files, PROBED_FILES), scratch / "probe", report)
    home = scratch / f"import-{files}"
    with _portal(files) as (portal, namespace), mounted(portal, home) as mount:
        _report_import(mount, namespace, empty, report)
        _memory(mount, "the import", empty, report)
        mount.stop()  # which brings all of the index into one file
        _database(mount, namespace, report)
        _restart(mount, report)
        timed(["find", mount.path])
        _memory(mount, "a full find", empty, report)
        _listing(mount, namespace, scratch / "baseline", report)
        _visibility(mount, namespace, report)
        _cost_of_events(mount, namespace, report)
        _reading_under_events(mount, namespace, report)


@contextmanager
def _portal(files: int) -> Iterator[tuple[EmbeddedPortal, SyntheticNamespace]]:
    namespace = SyntheticNamespace(Shape(files=files), PLAIN)
    with EmbeddedPortal(inventory=namespace) as portal:
        yield portal, namespace


@dataclass(frozen=True, slots=True)
class _Empty:
    """What a mount of next to nothing takes: seconds of CPU time, seconds by the clock, bytes of memory."""

    cpu: float
    clock: float
    memory: int


def _empty(home: Path) -> _Empty:
    with _portal(0) as (portal, _), mounted(portal, home) as mount:
        pid = mount.pid
        return _Empty(cpu_seconds(pid), mount.took, resident(pid))


def _report_import(mount: Mount, namespace: SyntheticNamespace, empty: _Empty, report: Report) -> None:
    """For a mount that was just imported."""
    total, files = namespace.plan.total, f"{namespace.plan.shape.files:,} files"
    cpu = max(cpu_seconds(mount.pid) - empty.cpu, 0.01)
    report.add(f"import of {files}, by CPU time", "entries/s", [total / cpu], at_least=50_000)
    report.add(f"import of {files}, by the clock", "entries/s", [total / max(mount.took - empty.clock, 0.01)])
    report.curves.setdefault("entries/s of CPU time", []).append((total, total / cpu))


# Reads while the import goes on


def _delay_of_reads(files: int, home: Path, report: Report) -> None:
    with _portal(files) as (portal, namespace), mounted(portal, home, "--no-wait") as mount:
        numbers = namespace.plan.files
        number = next(each for each in numbers if (namespace.entry(each).size or 0) >= MIB)
        file = mount.path / namespace.path(number)
        _wait_until(file.exists)
        with _probe(file) as importing:
            assert namespace.feed.wait_until_followed(PATIENCE)
        with _probe(file) as idle:
            time.sleep(3)
    report.add("cached read during the import, p99", "ms", importing, value=percentile(importing, 99), at_most=20)
    report.add("cached read with nothing else, p99", "ms", idle, value=percentile(idle, 99))


@contextmanager
def _probe(file: Path) -> Iterator[list[float]]:
    """Reads a file again and again meanwhile; the list holds the milliseconds of each read afterwards."""
    delays: list[float] = []
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.probe", str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield delays
        output, _ = process.communicate()
    delays += json.loads(output)


# Memory, and mounting again


def _memory(mount: Mount, occasion: str, empty: _Empty, report: Report) -> None:
    over = (resident(mount.pid) - empty.memory) / MIB
    report.add(f"memory after {occasion}, over an empty mount", "MiB", [over], at_most=300)


def _restart(mount: Mount, report: Report) -> None:
    starts = []
    for _ in range(3):
        mount.stop()
        starts.append(mount.start())
    report.add("mount of a known state", "s", starts, at_most=2)


# The index


def _database(mount: Mount, namespace: SyntheticNamespace, report: Report) -> None:
    plan = namespace.plan
    numbers = range(1, plan.total + 1, max(1, plan.total // SAMPLED))
    entries = [namespace.entry(number) for number in numbers]
    told = sum(len(each.name.encode()) + len(each.guid) + len(str(each.id or "")) for each in entries) / len(entries)
    held = mount.database / plan.total
    report.add("name, guid and file id of an entry, as text", "bytes", [told])
    report.add("index, per entry", "bytes", [held])
    report.add("index over names and ids", "", [held / told], at_most=4)


# Listing


def _listing(mount: Mount, namespace: SyntheticNamespace, path: Path, report: Report) -> None:
    shape = namespace.plan.shape
    large = namespace.path(namespace.plan.large_directory or 1)
    with baseline(f"FILES={shape.files}", path):
        commands = (
            (f"ls -f of {shape.largest:,} entries", ["ls", "-f"], large, ROUNDS),
            (f"ls -l of {shape.largest:,} entries", ["ls", "-l"], large, ROUNDS),
            ("find of everything", ["find"], ".", ROUNDS if shape.files <= OFTEN else 1),
        )
        for name, command, where, rounds in commands:
            ours, theirs = _compare(command, mount.path / where, path / where, rounds)
            for state, mine, other in zip(("cold", "warm"), ours, theirs, strict=True):
                if not mine:
                    print(f"{name}, {state}: only root can drop the kernel's caches; not measured")
                    continue
                ratios = [b / a for a, b in zip(mine, other, strict=True)]
                report.add(f"{name}, {state}", "s", mine)
                report.add(f"{name}, {state}, baseline", "s", other)
                report.add(f"{name}, {state}: speed over the baseline's", "", ratios, at_least=0.5)


Samples = tuple[list[float], list[float]]


def _compare(command: Sequence[str], ours: Path, theirs: Path, rounds: int) -> tuple[Samples, Samples]:
    """Seconds, cold and warm, taken in turn: what else the machine does meets both alike."""
    samples: dict[Path, Samples] = {ours: ([], []), theirs: ([], [])}
    for _ in range(rounds):
        for path, (cold, warm) in samples.items():
            if forget_names():
                cold.append(timed([*command, path]))
            else:
                timed([*command, path])
            warm.append(timed([*command, path]))
    return samples[ours], samples[theirs]


# Changes


def _visibility(mount: Mount, namespace: SyntheticNamespace, report: Report) -> None:
    """From a change in the portal, so with the long poll's own way, until a system call shows it."""
    delays = []
    for index in range(CHANGES // 4):
        for change, visible in _life(mount, namespace, index):
            assert namespace.feed.wait_until_followed(PATIENCE)
            visible()  # the kernel caches what is now
            began = time.perf_counter()
            change()
            _wait_until(visible)
            delays.append((time.perf_counter() - began) * 1000)
    report.add("change visible, p50", "ms", delays)
    report.add("change visible, p99", "ms", delays, value=percentile(delays, 99), at_most=100)


def _life(
    mount: Mount, namespace: SyntheticNamespace, index: int
) -> Iterator[tuple[Callable[[], object], Callable[[], bool]]]:
    """A file is made, written, renamed and deleted: each change, and whether it is visible."""
    folder = namespace.plan.roots[0]
    path = mount.path / namespace.path(folder)
    file, renamed = path / f"visible {index}", path / f"renamed {index}"
    made: list[int] = []
    yield lambda: made.append(namespace.create(folder, file.name, 100)), file.exists
    yield lambda: namespace.write(made[0], 200), lambda: file.stat().st_size == 200
    yield lambda: namespace.move(made[0], folder, renamed.name), renamed.exists
    yield lambda: namespace.delete(made[0]), lambda: not renamed.exists()


def _cost_of_events(mount: Mount, namespace: SyntheticNamespace, report: Report) -> None:
    """What the mount computes for each event: hardly touched by what else this machine does."""
    pid = mount.pid
    costs, lags = [], []
    for _ in range(ROUNDS):
        assert namespace.feed.wait_until_followed(PATIENCE)
        before = cpu_seconds(pid)
        with Churn(namespace, EVENTS) as churn:
            time.sleep(2)
        began = time.perf_counter()
        assert namespace.feed.wait_until_followed(PATIENCE)
        lags.append(time.perf_counter() - began)
        costs.append((cpu_seconds(pid) - before) / churn.changes * 1e6)
    report.add("CPU time of an event", "us", costs)
    report.add(f"seconds behind when 2 s of {EVENTS:,} events/s end", "s", lags)


def _reading_under_events(mount: Mount, namespace: SyntheticNamespace, report: Report) -> None:
    """The same read with no events, with events that nobody asks for (which cost the portal alike), and with ours."""
    elsewhere = SyntheticNamespace(namespace.plan.shape)
    speeds: dict[str, list[float]] = {"quiet": [], "elsewhere": [], "ours": []}
    rates = []
    for index in range(ROUNDS):
        for kind, samples in speeds.items():
            number = namespace.create(namespace.plan.roots[0], f"large {kind} {index}", LARGE_FILE)
            assert namespace.feed.wait_until_followed(PATIENCE)
            file = mount.path / namespace.path(number)
            read = ["dd", f"if={file}", "of=/dev/null", "bs=1M", "status=none"]
            if kind == "quiet":
                took = timed(read)
            else:
                with Churn(elsewhere if kind == "elsewhere" else namespace, EVENTS) as churn:
                    took = timed(read)
                    rates.append(churn.changes / took)
            samples.append(LARGE_FILE / MIB / took)
            namespace.delete(number)
    report.add("read of an uncached file, no events", "MiB/s", speeds["quiet"])
    report.add("events meanwhile", "events/s", rates)
    report.add("read with events for nobody", "MiB/s", speeds["elsewhere"])
    report.add("read with events applied", "MiB/s", speeds["ours"])
    ratios = [with_them / without for with_them, without in zip(speeds["ours"], speeds["quiet"], strict=True)]
    report.add("read with events applied, over without", "", ratios, at_least=0.8)
    own = [applied / ignored for applied, ignored in zip(speeds["ours"], speeds["elsewhere"], strict=True)]
    report.add("read with events applied, over events for nobody", "", own)


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("this does not come to an end")
        time.sleep(0.0005)  # a fraction of what is waited for
