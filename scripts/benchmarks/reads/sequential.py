"""Cold sequential reads of one large file."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from functools import partial

from benchmarks.machine import MIB
from benchmarks.reads.peers import RCLONE_FLAGS, curl, rclone_cold, sdk
from benchmarks.reads.setting import KIB, PLAIN, Contender, Setting, best, encoding, ratios, read_all, speeds
from cterafs.demo.objects import Item

SDK_WORKERS = (8, 20)
"""Parallel downloads: one tells little, and no more than 20 have been recommended."""

BLOCKS = {
    "plain 256 KiB": encoding(256 * KIB),
    "plain 4 MiB": encoding(4 * MIB),
    "Snappy+AES 256 KiB": encoding(256 * KIB, packed=True),
    "Snappy+AES 4 MiB": encoding(4 * MIB, packed=True),
}


def run(setting: Setting) -> None:
    _run(setting, "", tls=False)


def run_tls(setting: Setting) -> None:
    _run(setting, ", TLS", tls=True)


def _run(setting: Setting, suffix: str, *, tls: bool) -> None:
    items = {blocks: setting.create(blocks, setting.size, how) for blocks, how in BLOCKS.items()}
    setting.store.put_file(PLAIN, items["plain 4 MiB"].file)
    setting.serve(tls=tls)
    flags = _best_rclone(setting, tls)
    over_sdk: list[list[float]] = []
    for blocks, item in items.items():
        what = f"cold sequential, {blocks}{suffix}"
        samples = _samples(setting, item, flags, tls)
        for name, seconds in samples.items():
            setting.report.add(f"{what}: {name}", "MiB/s", speeds(setting.size, seconds))
        ours = samples["cterafs"]
        over_sdk.append(ratios(ours, best(*(samples[f"SDK, {workers} workers"] for workers in SDK_WORKERS))))
        setting.report.add(f"{what}: over the SDK", "", over_sdk[-1], at_least=1)
        if "rclone" in samples:
            setting.report.add(f"{what}: over rclone", "", ratios(ours, samples["rclone"]), at_least=1.5)
        target = (0.7 if tls else 0.5) if blocks == "plain 4 MiB" else None
        setting.report.add(f"{what}: over curl", "", ratios(ours, samples["curl"]), at_least=target)
    mean = math.exp(statistics.mean(math.log(statistics.median(each)) for each in over_sdk))
    means = [statistics.geometric_mean(each) for each in zip(*over_sdk, strict=True)]
    setting.report.add(f"cold sequential{suffix}: geometric mean over the SDK", "", means, value=mean, at_least=1.6)


def _samples(setting: Setting, item: Item, flags: Sequence[str], tls: bool) -> dict[str, list[float]]:
    with setting.mount() as mount:
        contenders: dict[str, Contender] = {
            "cterafs": lambda: read_all(setting.restart(mount, item)),
            "curl": lambda: curl(setting, setting.urls(item)),
        }
        for workers in SDK_WORKERS:
            contenders[f"SDK, {workers} workers"] = partial(sdk, setting, item, workers)
        if item.file.encoding.plain:
            contenders["rclone"] = lambda: rclone_cold(setting, PLAIN, flags, tls=tls)
        return setting.compare(contenders)


def _best_rclone(setting: Setting, tls: bool) -> Sequence[str]:
    """The flags with which it is fastest here, of two tries each."""
    tries = {
        name: min(rclone_cold(setting, PLAIN, flags, tls=tls) for _ in range(2)) for name, flags in RCLONE_FLAGS.items()
    }
    for name, seconds in tries.items():
        print(f"rclone, {name}: {setting.size / MIB / seconds:,.0f} MiB/s")
    return RCLONE_FLAGS[min(tries, key=tries.__getitem__)]
