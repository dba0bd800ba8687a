"""What waits to be done to the disk, in the order in which it is done."""

from __future__ import annotations

import weakref
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple

from cterafs.content.blockcodec import BlockCodec
from cterafs.content.blockindex import Place
from cterafs.content.blockstore import Encoded

BATCH = 8 << 20
"""Bytes written per transaction, at most: some 10 ms, for which other processes wait, and what a crash may leave."""

TOUCHED = 10_000
"""Blocks asked for that are noted at once, whatever the time: 1 MiB."""


@dataclass(eq=False, slots=True)
class Item:
    """A block on its way to the disk; `kept` is for who waits."""

    place: Place
    data: bytes | memoryview
    encoded: Encoded | None = None
    kept: Future[bool] | None = None

    def encode(self, codec: BlockCodec) -> Encoded:
        """As it is written."""
        if self.encoded is None:
            self.encoded = Encoded.of(codec, self.place, self.data, wanted=self.kept is not None)
        return self.encoded

    def settle(self, *, kept: bool) -> None:
        """Tells who waits whether it is on the disk."""
        if self.kept is not None and not self.kept.done():
            self.kept.set_result(kept)


class Loan(NamedTuple):
    """A block that takes no memory while it waits: it is there as long as others keep it."""

    place: Place
    data: weakref.ref[memoryview]


@dataclass(slots=True)
class Work:
    """What the writing thread has to do.

    Attributes:
        loans: will be items when there is nothing else to write.
        touched, bad: digests of blocks that were asked for, and of those that were found missing or damaged.
        forgotten: files and versions.
        flushes: of those who wait until all items are done.
    """

    items: deque[Item] = field(default_factory=deque)
    loans: deque[Loan] = field(default_factory=deque)
    touched: set[bytes] = field(default_factory=set)
    bad: set[bytes] = field(default_factory=set)
    forgotten: list[tuple[int, str]] = field(default_factory=list)
    flushes: list[Future[None]] = field(default_factory=list)

    @property
    def is_urgent(self) -> bool:
        """It should be done now."""
        return bool(self.items or self.bad or self.forgotten or self.flushes) or len(self.touched) >= TOUCHED

    @property
    def size(self) -> int:
        """Bytes of its blocks."""
        return sum(len(item.data) for item in self.items)

    def forget(self, file_id: int, version: str) -> None:
        """Nothing is to be known of this version of a file any more."""
        self.forgotten.append((file_id, version))
        self.loans = deque(
            loan for loan in self.loans if (loan.place.key.file_id, loan.place.key.version) != (file_id, version)
        )

    def take(self) -> Work:
        """The next batch. Who waits for everything is in the last one."""
        batch, size = Work(touched=self.touched, bad=self.bad, forgotten=self.forgotten), 0
        self.touched, self.bad, self.forgotten = set(), set(), []
        while self.items and (not size or size + len(self.items[0].data) <= BATCH):
            batch.items.append(self.items.popleft())
            size += len(batch.items[-1].data)
        if not self.items:
            batch.flushes, self.flushes = self.flushes, []
        return batch

    def end(self) -> None:
        """Nobody has to wait for this any more: what was not kept by now never will be."""
        for item in self.items:
            item.settle(kept=False)
        for flush in self.flushes:
            flush.set_result(None)
