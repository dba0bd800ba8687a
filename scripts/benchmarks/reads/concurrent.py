"""Many readers at once: how they share, and what they cost in memory."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.machine import MIB, peak, private
from benchmarks.reads.content import Text
from benchmarks.reads.setting import Setting, encoding, ratios, read_all, speeds

READERS = 8
TIMES = 3
"""The ratio of a round varies by a sixth either way, as it depends on which of a dozen programs meet on a processor."""

MANY = 64
MEMORY = 256 * MIB
"""The cache's limit while many read: a quarter of what they read, so that it is full soon."""

FILE_OF_MANY = 16 * MIB


def run(setting: Setting) -> None:
    """Eight readers of eight files, and one reader of a file that is as large as all of them."""
    setting.serve(tls=False)
    size = setting.size // READERS
    one = setting.create("plain 4 MiB", setting.size, encoding(4 * MIB))
    files = setting.create_all(
        [f"one of {READERS}, {n}" for n in range(READERS)], lambda: Text(size), encoding(4 * MIB)
    )
    fairness = []
    with setting.mount() as mount:

        def together() -> float:
            setting.restart(mount, files[-1])
            seconds = _read_together([mount.path / file.path for file in files])
            fairness.append(min(seconds) / max(seconds))
            return max(seconds)

        contenders = {"one": lambda: read_all(setting.restart(mount, one)), "all": together}
        samples = setting.compare(contenders, times=TIMES)
    setting.report.add(f"{READERS} readers: sum", "MiB/s", speeds(setting.size, samples["all"]))
    setting.report.add(f"{READERS} readers: one alone", "MiB/s", speeds(setting.size, samples["one"]))
    setting.report.add(f"{READERS} readers: sum over one", "", ratios(samples["all"], samples["one"]), at_least=0.9)
    setting.report.add(f"{READERS} readers: slowest over fastest", "", fairness, at_least=0.5)


def run_memory(setting: Setting) -> None:
    setting.serve(tls=False)
    for name, packed in (("plain", False), ("Snappy+AES", True)):
        files = setting.create_all(
            [f"{name}, one of {MANY}, {n}" for n in range(MANY)],
            lambda: Text(FILE_OF_MANY),
            encoding(4 * MIB, packed=packed),
        )
        peaks = []
        with setting.mount() as mount:
            for _ in range(min(setting.rounds, 3)):  # it hardly varies
                setting.restart(mount, files[-1], f"cache.memory={MEMORY}")
                empty = peak(mount.pid)
                _read_together([mount.path / file.path for file in files])
                both = peak(mount.pid) + private(mount.status()["download_pid"])
                peaks.append((both - MEMORY) / MIB)
        setting.report.add(f"{MANY} readers, {name} 4 MiB: memory before", "MiB", [empty / MIB])
        setting.report.add(f"{MANY} readers, {name} 4 MiB: peak over cache.memory", "MiB", peaks, at_most=200)


def _read_together(paths: Sequence[Path]) -> list[float]:
    """Seconds of each of these readers, which begin at once."""
    with ThreadPoolExecutor(len(paths)) as threads:
        return list(threads.map(read_all, paths))
