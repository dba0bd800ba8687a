"""A directory of blocks: the index and the files, changed together and within bounds.

Files go before rows that lead to them, and rows are only ever written by who holds the index's write lock. So a crash
leaves a file that no row leads to, or a row without its file; both are found by `tidy`, and neither by a reader.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from cterafs.config.values import Reserve
from cterafs.content import blockfiles, blockindex, eviction
from cterafs.content.blockcodec import BlockCodec, DamagedBlock
from cterafs.content.blockfiles import BlockFiles
from cterafs.content.blockindex import BlockIndex, Place


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much disk blocks may take: `limit` bytes, as long as `keep_free` stays free of the file system."""

    limit: int
    keep_free: Reserve


@dataclass(frozen=True, slots=True)
class Found:
    """A block that should be on the disk; `data` is None where it is not, or is damaged."""

    digest: bytes
    data: bytes | None


@dataclass(slots=True)
class Encoded:
    """A block as it is written. A `wanted` one is proven from the start."""

    place: Place
    digest: bytes
    stored: bytes | memoryview = field(repr=False)
    wanted: bool = False

    @classmethod
    def of(cls, codec: BlockCodec, place: Place, data: bytes | memoryview, *, wanted: bool = False) -> Self:
        digest = codec.digest(data)
        return cls(place, digest, codec.encode(data, digest), wanted)


class BlockStore:
    """Blocks in `directory`. All methods raise `DamagedIndex`, `BusyIndex`, and OSError for what the disk refuses.

    Any thread may read. One thread writes; processes take turns.
    """

    def __init__(self, directory: Path, bounds: Bounds, codec: BlockCodec, *, is_first: bool) -> None:
        """`is_first` tells whether to begin anew where the blocks there are of the other kind, encrypted or not."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._bounds = bounds
        self._files = BlockFiles(directory, codec)
        self._index = BlockIndex.open(directory, codec, is_first=is_first)

    @property
    def is_current(self) -> bool:
        """Whether the directory has no other index by now."""
        return self._index.is_current

    @property
    def is_new(self) -> bool:
        """Whether the index was made just now: every file there may be is without an entry."""
        return self._index.is_new

    def close(self) -> None:
        """Not while a method of the writing thread runs."""
        self._index.close()

    def set_aside(self) -> None:
        """Closes it for good, and makes room for a new index; the damaged one is kept, but only the last."""
        self._index.set_aside()

    def used(self) -> int:
        """Bytes of disk that the blocks take."""
        return self._index.used()

    def capacity(self) -> int:
        """Bytes of disk that the blocks may take now, those that are there included."""
        with self._index.reading() as db:
            return max(0, self._allowed(db))

    def read(self, place: Place) -> Found | None:
        """The block that belongs there, verified; None if there is none."""
        digest = self._index.find(place)
        if digest is None:
            return None
        try:
            return Found(digest, self._files.read(digest, place.length))
        except (DamagedBlock, FileNotFoundError):
            return Found(digest, None)

    def locate(self, place: Place) -> bytes | None:
        """The digest of the block that belongs there, if there is a file for it."""
        digest = self._index.find(place)
        return digest if digest is not None and self._files.has(digest) else None

    def places(self, scope: str, file_id: int, version: str, most: int) -> list[Place]:
        """Where the blocks of one version of a file belong, in order; nothing if they are more than `most`."""
        return self._index.places(scope, file_id, version, most)

    # --- for the writing thread ---------------------------------------------------------------------------------------

    def write(self, blocks: Collection[Encoded]) -> list[bool]:
        """Adds blocks; others make room for them. Tells of each whether it is there now.

        Where the disk refuses one, those before it are there.
        """
        kept: list[bool] = []
        refused: OSError | None = None
        with self._index.writing() as db:
            allowed = self._allowed(db)
            try:
                for block in blocks:
                    kept.append(self._add(db, block, allowed))
            except OSError as error:
                refused = error
        if refused is not None:
            raise refused
        return kept

    def forget(self, scope: str, file_id: int, version: str) -> None:
        """Nothing is known of this version of a file any more."""
        with self._index.writing() as db:
            blockindex.forget(db, scope, file_id, version)

    def note(self, touched: Iterable[bytes], bad: Collection[bytes]) -> None:
        """Blocks that were asked for, and blocks that were found missing or damaged, which are dropped."""
        with self._index.writing() as db:
            eviction.touch(db, touched)
            blockindex.drop(db, bad)
            for digest in bad:
                self._files.remove(digest)

    def shrink(self) -> None:
        """Keeps the bounds, where others have filled the disk."""
        with self._index.writing() as db:
            self._make_room(db, 0, self._allowed(db))

    def tidy(self, number: int) -> None:
        """Removes what a crash has left in one of the directories of blocks, and counts anew after the last one."""
        with self._index.writing() as db:
            files, entries = set(self._files.tidy(number)), blockindex.beginning_with(db, number)
            blockindex.drop(db, entries - files)
            for digest in files - entries:
                self._files.remove(digest)
            if number == blockfiles.DIRECTORIES - 1:
                eviction.recount(db)

    def _add(self, db: sqlite3.Connection, block: Encoded, allowed: int) -> bool:
        number = blockindex.number(db, block.digest)
        if number is not None and not self._files.has(block.digest):
            eviction.drop(db, number)
            number = None
        if number is None:
            cost = blockfiles.cost(len(block.stored))
            if cost > allowed:
                return False
            self._make_room(db, cost, allowed)
            self._files.write(block.digest, block.stored)
            number = eviction.enter(db, block.digest, cost, proven=block.wanted)
        elif block.wanted:
            eviction.touch(db, (block.digest,))
        self._index.lead(db, block.place, number, block.digest)
        return True

    def _make_room(self, db: sqlite3.Connection, need: int, allowed: int) -> None:
        for digest in eviction.make_room(db, need, allowed):
            self._files.remove(digest)

    def _allowed(self, db: sqlite3.Connection) -> int:
        """Bytes that blocks may take now, in sum."""
        free, total = self._files.space()
        return min(self._bounds.limit, eviction.used(db) + free - self._bounds.keep_free.of(total))
