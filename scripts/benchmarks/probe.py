"""Reads a little of one file every few milliseconds, past the kernel's cache, until its standard input is closed.

A process of its own, so that nothing else that is measured from keeps it waiting. Prints the milliseconds of each read
as a JSON array.
"""

from __future__ import annotations

import json
import mmap
import os
import select
import sys
import time

PAUSE = 0.005
LENGTH = 4096


def main(path: str) -> None:
    file = os.open(path, os.O_RDONLY | os.O_DIRECT)
    buffer = mmap.mmap(-1, LENGTH)  # O_DIRECT wants it aligned
    os.preadv(file, [buffer], 0)  # from now on the block is in the mount's cache
    print("ready", flush=True)
    delays: list[float] = []
    while True:
        began = time.perf_counter()
        os.preadv(file, [buffer], 0)
        delays.append((time.perf_counter() - began) * 1000)
        if select.select([sys.stdin], [], [], PAUSE)[0]:
            break
    print(json.dumps(delays))


main(sys.argv[1])
