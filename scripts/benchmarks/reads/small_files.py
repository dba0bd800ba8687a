"""Many small files by a program that takes one after the other, over a network with a delay."""

from __future__ import annotations

import http.client
import time
from urllib.parse import urlsplit

from benchmarks.machine import MIB, timed
from benchmarks.reads.content import Text
from benchmarks.reads.link import Link
from benchmarks.reads.setting import KIB, Setting, encoding
from cterafs.demo.objects import Item

FILES = 10_000
QUICK_FILES = 2_000
"""With large files of less than the full size."""

SIZE = 8 * KIB
DELAY = 0.010
LONG_ENOUGH = 120.0
"""Seconds of measuring: what waits for most of its time varies little."""

SAMPLE = 100
"""Files that the plain loop reads, to tell what all of them would take it."""


def run(setting: Setting) -> None:
    count = FILES if setting.size >= 1024 * MIB else QUICK_FILES
    items = setting.create_directory("small", [f"{n:05d}" for n in range(count)], lambda: Text(SIZE), encoding(4 * MIB))
    with Link(setting, delay=DELAY) as link, setting.mount() as mount:

        def tar() -> float:
            path = setting.restart(mount, items[-1], *link.options)
            return timed(["tar", "-cf", "-", "-C", path.parent, "."])

        contenders = {"tar": tar, "loop": lambda: _loop(setting, link, items[:: count // SAMPLE])}
        samples = setting.compare(contenders, LONG_ENOUGH)
    loop = [seconds / SAMPLE * count for seconds in samples["loop"]]
    what = f"tar of {count:,} files of 8 KiB, {DELAY * 1000:.0f} ms a request"
    setting.report.add(what, "s", samples["tar"])
    setting.report.add(f"{what}: one request at a time", "s", loop)
    gains = [slow / fast for slow, fast in zip(loop, samples["tar"], strict=True)]
    setting.report.add(f"{what}: over one request at a time", "", gains, at_least=10)


def _loop(setting: Setting, link: Link, items: list[Item]) -> float:
    """A list and a block for each file, over two connections that stay open."""
    portal = http.client.HTTPConnection(urlsplit(link.portal_url).netloc)
    storage = http.client.HTTPConnection(urlsplit(link.storage_url).netloc)
    headers = {"Authorization": f"Bearer {setting.portal.access_key_id}"}
    began = time.perf_counter()
    for item in items:
        portal.request("GET", f"/directio/{item.file.file_id}", headers=headers)
        portal.getresponse().read()
        address = urlsplit(setting.portal.store.url(item.file, 0))
        storage.request("GET", f"{address.path}?{address.query}")
        storage.getresponse().read()
    took = time.perf_counter() - began
    portal.close()
    storage.close()
    return took
