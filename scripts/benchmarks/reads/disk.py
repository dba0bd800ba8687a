"""Reads of what the cache on disk holds, by a mount whose memory is empty."""

from __future__ import annotations

from benchmarks.machine import MIB
from benchmarks.mounts import Mount
from benchmarks.reads.setting import Setting, encoding, ratios, read_all, speeds
from cterafs.demo.objects import Item

PASSES = 3
"""Reads in which the disk has to get all of a file: it may be filled with less haste than the reader has."""

LEFT_OVER = 0.05
"""The part of a file that may still come from storage then."""


def run(setting: Setting) -> None:
    setting.serve(tls=False)
    for name, packed in (("plain", False), ("Snappy+AES", True)):
        item = setting.create(f"{name} 4 MiB", setting.size, encoding(4 * MIB, packed=packed))
        with setting.mount() as cached, setting.mount() as uncached:
            _compare(setting, cached, uncached, item, f"cache on disk, {name} 4 MiB")


def _compare(setting: Setting, cached: Mount, uncached: Mount, item: Item, what: str) -> None:
    options = (f"cache.disk={4 * setting.size}", f"cache.directory={cached.home / 'cache'}", "cache.keep_free=0")
    for _ in range(PASSES):
        read_all(setting.restart(cached, item, *options))
    setting.store.sent()
    read_all(setting.restart(cached, item, *options))
    stored = setting.store.sent().bytes
    if stored > LEFT_OVER * setting.size:
        setting.report.miss(what, f"{stored // MIB:,} MiB came from storage once more")
        return
    samples = setting.compare(
        {
            "disk": lambda: read_all(setting.restart(cached, item, *options)),
            "network": lambda: read_all(setting.restart(uncached, item)),
        }
    )
    for name, seconds in samples.items():
        setting.report.add(f"{what}: from the {name}", "MiB/s", speeds(setting.size, seconds))
    setting.report.add(f"{what}: over the network", "", ratios(samples["disk"], samples["network"]), at_least=1)
