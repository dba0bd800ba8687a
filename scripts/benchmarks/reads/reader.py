"""Reads a file in one of several ways, and prints what it waited and how many bytes it looked at, as JSON.

A process of its own, so that nothing else that the benchmark does keeps it waiting. Run as `reader.py MODE PATH
ARGUMENT...`.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

LENGTH = 4096
"""Bytes of a small read: a page."""

SEED = 11


def first(path: str, offset: int, length: int) -> int:
    """One read at `offset`, of a file that is opened for it."""
    file = os.open(path, os.O_RDONLY)
    return len(os.pread(file, length, offset))


def random_preads(path: str, count: int) -> int:
    file = os.open(path, os.O_RDONLY)
    return sum(len(os.pread(file, LENGTH, offset)) for offset in _offsets(path, count))


def random_direct(path: str, count: int) -> int:
    """Past the kernel's cache."""
    file = os.open(path, os.O_RDONLY | os.O_DIRECT)
    buffer = mmap.mmap(-1, LENGTH)  # O_DIRECT wants it aligned
    return sum(os.preadv(file, [buffer], offset) for offset in _offsets(path, count))


def random_pages(path: str, count: int) -> int:
    """A byte of each page is touched, which counts as all of it."""
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory:
        for offset in _offsets(path, count):
            memory[offset]
    return count * LENGTH


MODES: dict[str, Callable[..., int]] = {
    each.__name__: each for each in (first, random_preads, random_direct, random_pages)
}


def _offsets(path: str, count: int) -> list[int]:
    source = random.Random(SEED)
    return [page * LENGTH for page in source.choices(range(Path(path).stat().st_size // LENGTH), k=count)]


def main(mode: str, path: str, *arguments: str) -> None:
    Path(path).stat()  # looking it up is not reading
    began = time.perf_counter()
    read = MODES[mode](path, *map(int, arguments))
    print(json.dumps({"seconds": time.perf_counter() - began, "bytes": read}))


main(*sys.argv[1:])
