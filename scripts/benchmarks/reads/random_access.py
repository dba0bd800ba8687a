"""Small reads in large blocks: what comes over the wire for what was asked."""

from __future__ import annotations

from benchmarks.machine import MIB
from benchmarks.reads.setting import Setting, encoding, reader

READS = 400
"""For each way: more than the 256 blocks of the full-sized file, so that some blocks are met twice."""

WAYS = {"4 KiB pread": "random_preads", "4 KiB O_DIRECT": "random_direct", "page touched by mmap": "random_pages"}


def run(setting: Setting) -> None:
    setting.serve(tls=False)
    item = setting.create("plain 4 MiB", setting.size, encoding(4 * MIB))
    for way, mode in WAYS.items():
        over_asked, asked_over_read, delays = [], [], []
        with setting.mount() as mount:
            for _ in range(min(setting.rounds, 3)):  # the offsets are the same each time: it hardly varies
                path = setting.restart(mount, item)
                setting.store.sent()
                reading = reader(mode, path, READS)
                asked = mount.status()["reads"]["bytes"]
                mount.stop()
                over_asked.append(setting.store.sent().bytes / asked)
                asked_over_read.append(asked / reading.bytes)
                delays.append(reading.seconds / READS * 1000)
        setting.report.add(f"random {way}: sent over asked by the kernel", "", over_asked, at_most=2)
        setting.report.add(f"random {way}: asked by the kernel over read", "", asked_over_read)
        setting.report.add(f"random {way}: cold", "ms", delays)
