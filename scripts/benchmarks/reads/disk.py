"""Reads of what the cache on disk holds, by a mount whose memory is empty."""

from __future__ import annotations

from benchmarks.machine import MIB
from benchmarks.mounts import Mount
from benchmarks.reads.setting import Setting, encoding, ratios, read_all, speeds
from cterafs.demo.objects import Item

FASTEST_LINK = 10e9 / 8
"""Bytes a second of 10 Gbit/s. By loopback, a network of this machine's own, it can be more."""

LEFT_OVER = 0.05
"""The part of a file that may still come from storage when the disk is said to hold it."""


def run(setting: Setting) -> None:
    setting.serve(tls=False)
    for name, packed in (("plain", False), ("Snappy+AES", True)):
        item = setting.create(f"{name} 4 MiB", setting.size, encoding(4 * MIB, packed=packed))
        with setting.mount() as cached, setting.mount() as uncached:
            _compare(setting, cached, uncached, item, f"cache on disk, {name} 4 MiB")


def _compare(setting: Setting, cached: Mount, uncached: Mount, item: Item, what: str) -> None:
    options = (f"cache.disk={4 * setting.size}", f"cache.directory={cached.home / 'cache'}", "cache.keep_free=0")
    cached.warm(setting.restart(cached, item, *options))  # a reader is faster than the disk is filled
    setting.store.sent()
    read_all(setting.restart(cached, item, *options))
    stored = setting.store.sent().bytes
    if stored > LEFT_OVER * setting.size:
        setting.report.miss(what, f"{stored // MIB:,} MiB came from storage once more")
        return

    def read(mount: Mount, *options: str, tls: bool) -> float:
        setting.serve(tls=tls)
        return read_all(setting.restart(mount, item, *options))

    samples = setting.compare(
        {
            "disk": lambda: read(cached, *options, tls=False),
            "network": lambda: read(uncached, tls=False),
            "network by TLS": lambda: read(uncached, tls=True),
        }
    )
    setting.serve(tls=False)
    disk = samples.pop("disk")
    setting.report.add(f"{what}: from the disk", "MiB/s", speeds(setting.size, disk))
    for name, seconds in samples.items():
        setting.report.add(f"{what}: from the {name}", "MiB/s", speeds(setting.size, seconds))
        link = [max(each, setting.size / FASTEST_LINK) for each in seconds]
        setting.report.add(f"{what}: over the {name}, of 10 Gbit/s at most", "", ratios(disk, link), at_least=1)
