"""Reads of what the mount's memory holds, beside the simplest filesystem that serves from memory."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.machine import MIB, forget_pages, placed
from benchmarks.mounts import Mount, foreign
from benchmarks.reads.setting import KIB, PLAIN, Setting, encoding, ratios, read_all, reader, speeds
from cterafs.demo.objects import Item

SHARE = 4
"""The file is this part of a large one: 256 MiB, so that it fits into the 512 MiB of memory that are the default."""

PASSES = 4
"""Sequential reads that make one sample: one takes a tenth of a second."""

SMALL_READS = 20_000
"""In each round, of 4 KiB each: about a second."""

PLACES = {"a CPU each": True, "on one CPU": False}
"""Where reader and filesystem are: the scheduler does the one or the other."""

BLOCK_SIZES = {"256 KiB": 256 * KIB, "4 MiB": 4 * MIB}


def run(setting: Setting) -> None:
    size = setting.size // SHARE
    setting.serve(tls=False)
    path = setting.scratch / "memory"
    command = [sys.executable, "-m", "benchmarks.reads.memory_filesystem", str(size), str(path)]
    with foreign(command, path) as process:
        for name, block_size in BLOCK_SIZES.items():
            item = setting.create(f"warm, {name}", size, encoding(block_size))
            with setting.mount() as mount:
                _compare(setting, mount, item, _Peer(path / PLAIN, process.pid), f"blocks of {name}")
        _page_cache(setting, size, path / PLAIN)


@dataclass(frozen=True, slots=True)
class _Peer:
    file: Path
    pid: int


def _compare(setting: Setting, mount: Mount, item: Item, peer: _Peer, blocks: str) -> None:
    ours = setting.restart(mount, item)
    read_all(ours)
    before = mount.status()["reads"]
    samples = setting.compare({"cterafs": partial(_sequential, ours), "peer": partial(_sequential, peer.file)})
    small = {}
    for where, apart in PLACES.items():
        with placed(mount.pid, peer.pid, apart=apart):
            small[where] = setting.compare({"cterafs": partial(_random, ours), "peer": partial(_random, peer.file)})
    after = mount.status()["reads"]
    if after["downloaded_bytes"] > before["downloaded_bytes"]:
        print(f"warm, {blocks}: {after['downloaded_bytes'] - before['downloaded_bytes']:,} bytes were not in memory")
    asked = setting.rounds * (PASSES * item.file.size + len(PLACES) * SMALL_READS * 4 * KIB)
    if after["bytes"] - before["bytes"] < asked:
        raise RuntimeError("the kernel answered from its own cache")
    what = f"warm sequential, {blocks}"
    setting.report.add(f"{what}: cterafs", "MiB/s", speeds(item.file.size, samples["cterafs"]))
    setting.report.add(f"{what}: simplest filesystem", "MiB/s", speeds(item.file.size, samples["peer"]))
    setting.report.add(
        f"{what}: over the simplest filesystem", "", ratios(samples["cterafs"], samples["peer"]), at_least=0.8
    )
    for where, each in small.items():
        what = f"warm 4 KiB random, {blocks}, {where}"
        setting.report.add(f"{what}: cterafs", "1/s", [SMALL_READS / seconds for seconds in each["cterafs"]])
        setting.report.add(f"{what}: simplest filesystem", "1/s", [SMALL_READS / seconds for seconds in each["peer"]])
        setting.report.add(
            f"{what}: over the simplest filesystem", "", ratios(each["cterafs"], each["peer"]), at_least=0.8
        )


def _sequential(path: Path) -> float:
    took = 0.0
    for _ in range(PASSES):
        forget_pages(path)
        took += read_all(path)
    return took / PASSES


def _random(path: Path) -> float:
    return reader("random_direct", path, SMALL_READS).seconds


def _page_cache(setting: Setting, size: int, peer: Path) -> None:
    """What was read before is the kernel's own: nobody is asked."""
    item = setting.create("warm, 4 MiB", size, encoding(4 * MIB))
    local = setting.store.put_file("local", item.file)
    with setting.mount() as mount:
        files = {"cterafs": setting.restart(mount, item), "simplest filesystem": peer, "local file": local}
        for path in files.values():
            read_all(path)
        samples = setting.compare({who: partial(read_all, path) for who, path in files.items()})
    for who, seconds in samples.items():
        setting.report.add(f"read again: {who}", "MiB/s", speeds(size, seconds))
    for who in ("simplest filesystem", "local file"):
        setting.report.add(f"read again: over {who}", "", ratios(samples["cterafs"], samples[who]))
