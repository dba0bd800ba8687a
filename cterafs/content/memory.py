"""Blocks in memory, and the one budget that bounds them.

Bytes are counted from the moment that a download may start (`reserve`) to the moment that the block is evicted, so that
any number of readers together stay within the budget.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable

import msgspec
import trio

Plain = bytes | memoryview
"""A block's plaintext. Memory that another process wrote is free again when the last view of it is gone."""


class BlockKey(msgspec.Struct, frozen=True, gc=False):
    """Names a block's plaintext for as long as it exists.

    Never a URL, which is renewed, nor a block's number, which a partial list of blocks does not know.
    """

    file_id: int
    version: str
    offset: int


class BlockMemory:
    """An LRU of blocks with a limit in bytes, which downloads that are under way count against.

    Args:
        limit: bytes, for cached and reserved blocks together.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._blocks: OrderedDict[BlockKey, Plain] = OrderedDict()  # the one used last at the end
        self._cached = 0
        self._reserved = 0
        self._queue: deque[tuple[int, trio.Event]] = deque()

    @property
    def used(self) -> int:
        """Bytes that are cached or reserved."""
        return self._cached + self._reserved

    @property
    def contended(self) -> bool:
        """Somebody waits for room, or half the budget is reserved: not the time for speculative downloads."""
        return bool(self._queue) or self._reserved * 2 > self.limit

    def get(self, key: BlockKey) -> Plain | None:
        data = self._blocks.get(key)
        if data is not None:
            self._blocks.move_to_end(key)
        return data

    def __contains__(self, key: BlockKey) -> bool:
        return key in self._blocks

    async def reserve(self, size: int) -> None:
        """Waits until `size` more bytes fit, evicting cached blocks; first come, first served.

        Every reservation ends in `store` or `release`, and every download has a deadline, so this wait ends too.

        Raises:
            ValueError: more than the whole budget.
        """
        if size > self.limit:
            raise ValueError(f"{size} bytes can never fit into {self.limit}")
        if self._queue or self._reserved + size > self.limit:
            await self._wait_for_turn(size)
        else:
            self._reserved += size
            self._balance()

    async def _wait_for_turn(self, size: int) -> None:
        granted = trio.Event()
        entry = (size, granted)
        self._queue.append(entry)
        try:
            await granted.wait()
        except trio.Cancelled:
            if granted.is_set():
                self.release(size)
            else:
                self._queue.remove(entry)
                self._balance()
            raise

    def release(self, size: int) -> None:
        """Gives a reservation back."""
        self._reserved -= size
        self._balance()

    def store(self, key: BlockKey, data: Plain, reserved: int) -> None:
        """Turns a reservation of `reserved` bytes into a cached block."""
        self._reserved -= reserved
        if self._reserved + len(data) <= self.limit:
            self._take_out(key)
            self._blocks[key] = data
            self._cached += len(data)
        self._balance()

    def drop(self, keys: Iterable[BlockKey]) -> None:
        """Drops those of these blocks that are here."""
        for key in keys:
            self._take_out(key)
        self._balance()

    def forget(self, file_id: int, version: str) -> None:
        """Drops every block of one version of a file."""
        for key in [key for key in self._blocks if key.file_id == file_id and key.version == version]:
            self._take_out(key)

    def _take_out(self, key: BlockKey) -> None:
        data = self._blocks.pop(key, None)
        if data is not None:
            self._cached -= len(data)

    def _balance(self) -> None:
        """There may be room for who waits, or too little for what is here."""
        while self._queue and self._reserved + self._queue[0][0] <= self.limit:
            size, granted = self._queue.popleft()
            self._reserved += size
            granted.set()
        while self._blocks and self._cached + self._reserved > self.limit:
            self._cached -= len(self._blocks.popitem(last=False)[1])
