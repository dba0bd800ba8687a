"""Disk caches for tests, and blocks to put into them."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from cterafs.config import Reserve
from cterafs.content.blockcodec import BlockCodec
from cterafs.content.blockstore import Bounds
from cterafs.content.disk import DiskCache
from cterafs.content.memory import BlockKey

SIZE = 20_000
COST = 5 * 4096 + 512
"""What a block of SIZE random bytes takes."""


def open_cache(
    directory: Path, limit: int = 1 << 30, scope: str = "portal", codec: BlockCodec | None = None, **options: int
) -> DiskCache:
    return DiskCache(directory, scope, Bounds(limit, Reserve()), codec or BlockCodec(), **options)


def block(seed: int) -> bytes:
    """Bytes that no compression shrinks."""
    return random.Random(seed).randbytes(SIZE)


def key(number: int) -> BlockKey:
    return BlockKey(7, "v1", number * SIZE)


def origin(number: int) -> str:
    return f"bucket/{number}"


def put(cache: DiskCache, *numbers: int) -> None:
    """Blocks as a reader leaves them."""
    for number in numbers:
        cache.offer(key(number), block(number), origin(number))
        cache.flush()


def get(cache: DiskCache, number: int) -> bytes | None:
    return cache.get(key(number), SIZE, origin(number))


def there(cache: DiskCache, numbers: range) -> list[int]:
    """Those that are on the disk; asking for them does not count as using them."""
    index = cache._store._index
    found = []
    with index.reading() as db:
        for number in numbers:
            query = "SELECT 1 FROM places WHERE file_id = 7 AND offset = ?"
            if db.execute(query, (key(number).offset,)).fetchone():
                found.append(number)
    return found


def files(directory: Path) -> list[Path]:
    """The files of blocks."""
    return sorted(path for path in directory.glob("??/*") if path.is_file())


def index_of(directory: Path) -> Path:
    """The index in use."""
    return sorted(directory.glob("index-*.db"))[-1]


@contextmanager
def slow(directory: Path) -> Iterator[None]:
    """The writing thread waits for a lock, as it would for a slow disk."""
    with closing(sqlite3.connect(index_of(directory), isolation_level=None)) as neighbour:
        neighbour.execute("BEGIN IMMEDIATE")
        yield
