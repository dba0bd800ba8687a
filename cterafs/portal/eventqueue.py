"""The queue between the notification service and whoever handles its events, under asyncio and trio alike."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

import anyio
import anyio.lowlevel

T = TypeVar("T")


class EventQueue(Generic[T]):
    """A first-in-first-out queue that knows when everything taken from it has been handled, as `asyncio.Queue` does.

    Args:
        maxsize: `put` waits while this many items are queued; 0 is no limit.
    """

    def __init__(self, maxsize: int = 0) -> None:
        self._maxsize = maxsize
        self._items: deque[T] = deque()
        self._unfinished = 0
        self._changed: anyio.Event | None = None  # set, and replaced, whenever a waiter should look again

    def __len__(self) -> int:
        """Items that nobody has taken yet."""
        return len(self._items)

    async def put(self, item: T) -> None:
        """Append `item`, waiting for room."""
        await anyio.lowlevel.checkpoint()
        while 0 < self._maxsize <= len(self._items):
            await self._change()
        self._items.append(item)
        self._unfinished += 1
        self._wake()

    async def get(self) -> T:
        """Take the oldest item, waiting for one. `task_done` must follow once it has been handled."""
        await anyio.lowlevel.checkpoint()
        while not self._items:
            await self._change()
        item = self._items.popleft()
        self._wake()
        return item

    def task_done(self) -> None:
        """One item that was taken has been handled.

        Raises:
            ValueError: more often than there were items.
        """
        if self._unfinished <= 0:
            raise ValueError("task_done() called more often than there were items")
        self._unfinished -= 1
        self._wake()

    async def join(self) -> None:
        """Wait until every item that was put has been handled."""
        await anyio.lowlevel.checkpoint()
        while self._unfinished:
            await self._change()

    async def _change(self) -> None:
        if self._changed is None:
            self._changed = anyio.Event()
        await self._changed.wait()

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None
