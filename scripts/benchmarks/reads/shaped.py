"""Reads over links as people have them."""

from __future__ import annotations

import subprocess

from benchmarks.machine import MIB
from benchmarks.reads.link import Link
from benchmarks.reads.peers import curl
from benchmarks.reads.setting import KIB, Setting, encoding, ratios, read_all, reader, speeds

LINKS = {"100 Mbit/s, 20 ms": (100e6, 0.020, 16), "1 Gbit/s, 5 ms": (1e9, 0.005, 4)}
"""Bits per second, a round trip's seconds, and which part of a large file is read: 64 and 256 MiB, some seconds."""

FIRST = 64 * KIB


def run(setting: Setting) -> None:
    """From end to end."""
    for name in LINKS:
        _run(setting, name)


def _run(setting: Setting, name: str) -> None:
    bits, delay, part = LINKS[name]
    size = setting.size // part
    item = setting.create(f"over {name.replace('/', ' ')}", size, encoding(4 * MIB))
    with Link(setting, bits=bits, delay=delay) as link, setting.mount() as mount:
        samples = setting.compare(
            {
                "cterafs": lambda: read_all(setting.restart(mount, item, *link.options)),
                "curl": lambda: curl(setting, setting.urls(item)),
            }
        )
    for who, seconds in samples.items():
        setting.report.add(f"cold sequential over {name}: {who}", "MiB/s", speeds(size, seconds))
    setting.report.add(f"cold sequential over {name}: over curl", "", ratios(samples["cterafs"], samples["curl"]))


def run_first(setting: Setting) -> None:
    """The first bytes of a block, which are all that is asked for."""
    name, (bits, delay, part) = next(iter(LINKS.items()))
    item = setting.create(f"over {name.replace('/', ' ')}", setting.size // part, encoding(4 * MIB))
    with Link(setting, bits=bits, delay=delay) as link, setting.mount() as mount:
        samples = setting.compare(
            {
                "cterafs": lambda: reader("first", setting.restart(mount, item, *link.options), 0, FIRST).seconds,
                "curl": lambda: _first_by_curl(setting, link, setting.urls(item)[0], item.file.file_id),
            }
        )
    for who, seconds in samples.items():
        setting.report.add(f"first 64 KiB over {name}: {who}", "ms", [each * 1000 for each in seconds])
    over = [ours / theirs for ours, theirs in zip(samples["cterafs"], samples["curl"], strict=True)]
    setting.report.add(f"first 64 KiB over {name}: over curl", "", over, at_most=1.5)


def _first_by_curl(setting: Setting, link: Link, url: str, file_id: int) -> float:
    """Seconds of getting the list, and then just these bytes; not of starting curl."""
    listing = f"{link.portal_url}/directio/{file_id}"
    token = f"Authorization: Bearer {setting.portal.access_key_id}"
    silent = ["--no-progress-meter", "-f", "-o", "/dev/null", "-w", "%{time_total}\n"]
    command = ["curl", *silent, "-H", token, listing, "--next", *silent, "-r", f"0-{FIRST - 1}", url]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return sum(map(float, done.stdout.split()))
