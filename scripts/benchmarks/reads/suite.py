"""The cases by name, and what they need around them."""

from __future__ import annotations

import shutil
import subprocess
import traceback
from collections.abc import Callable, Collection
from pathlib import Path

from benchmarks.machine import MIB, available_memory
from benchmarks.reads import concurrent, disk, media, random_access, sequential, shaped, small_files, warm
from benchmarks.reads.setting import Setting
from benchmarks.reads.store import ObjectStore
from benchmarks.report import Report
from cterafs.demo.server import EmbeddedPortal

CASES: dict[str, Callable[[Setting], None]] = {
    "sequential": sequential.run,
    "sequential-tls": sequential.run_tls,
    "warm": warm.run,
    "disk": disk.run,
    "readers": concurrent.run,
    "memory": concurrent.run_memory,
    "random": random_access.run,
    "media": media.run,
    "small-files": small_files.run,
    "links": shaped.run,
    "first-bytes": shaped.run_first,
}

SPACE = 16
"""Times the size of a large file that the store takes on the disk, and something to spare."""


def run(cases: Collection[str], rounds: int, size: int, scratch: Path, report: Report) -> None:
    """Measures, with files of `size` bytes where nothing else is said.

    Raises:
        OSError: the disk is too full.
    """
    free = shutil.disk_usage(scratch).free
    if free < SPACE * size:
        raise OSError(f"{scratch} has {free // MIB:,} MiB free, and {SPACE * size // MIB:,} MiB are needed")
    if available_memory() < SPACE * size // 2:
        print("memory is short: the store may have to read from the disk, which slows all peers down")
    with EmbeddedPortal() as portal, ObjectStore(scratch / "store") as store:
        setting = Setting(portal, store, scratch, rounds, size, report)
        for case in cases:
            print(f"\n{case}", flush=True)
            try:
                CASES[case](setting)
            except (subprocess.SubprocessError, OSError, RuntimeError) as error:  # the others can still be measured
                traceback.print_exc()
                report.miss(case, str(error))
