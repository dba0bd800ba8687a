"""Puts what was read ahead into the kernel's page cache before a program asks for it.

A program then finds it there: no request, and no reply that is copied while it holds the interpreter's lock. Contents
never change under an inode, so the pages of one stay good for as long as there is anybody who could read them.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from functools import partial
from typing import NamedTuple

import pyfuse3
import trio

from cterafs.model import Inode
from cterafs.threads import patiently

log = logging.getLogger(__name__)

THREADS = 2
"""Copies at a time. A page that a program waits for is locked, and so holds up the thread that would fill it."""

WAITING = 16 << 20
"""Bytes that may wait for a thread: what does not fit is left to be asked for."""


class _Part(NamedTuple):
    inode: Inode
    offset: int
    data: memoryview


class Pages:
    """Bytes on their way into the page cache."""

    def __init__(self) -> None:
        self._queue: deque[_Part] = deque()
        self._waiting = 0
        self._pending: Counter[Inode] = Counter()
        self._work = trio.Event()
        self._news = trio.Event()
        self._stopped = False

    def fill(self, inode: Inode, offset: int, data: memoryview) -> bool:
        """These bytes of a file will be read soon. False where there is too much to do."""
        if self._stopped or self._waiting + len(data) > WAITING:
            return False
        self._queue.append(_Part(inode, offset, data))
        self._waiting += len(data)
        self._pending[inode] += 1
        self._work.set()
        return True

    async def settled(self, inode: Inode) -> None:
        """Returns when nothing of this inode is on its way any more; what waits is dropped."""
        for part in [part for part in self._queue if part.inode == inode]:
            self._queue.remove(part)
            self._done(part)
        while self._pending[inode]:
            await self._news.wait()

    async def run(self) -> None:
        """Copies until cancelled; what a thread is at is finished first, since the session must outlive it."""
        async with trio.open_nursery() as nursery:
            for _ in range(THREADS):
                nursery.start_soon(self._copy)

    def stop(self) -> None:
        """The connection is ending."""
        self._stopped = True
        self._queue.clear()

    async def _copy(self) -> None:
        while True:
            while not self._queue:
                if self._work.is_set():  # and not one of its own for each, of which `fill` would set the last
                    self._work = trio.Event()
                await self._work.wait()
            part = self._queue.popleft()
            try:
                await patiently(partial(trio.to_thread.run_sync, _store, part))
            finally:
                self._done(part)

    def _done(self, part: _Part) -> None:
        self._waiting -= len(part.data)
        self._pending[part.inode] -= 1
        if not self._pending[part.inode]:
            del self._pending[part.inode]
        self._news.set()
        self._news = trio.Event()


def _store(part: _Part) -> None:
    try:
        pyfuse3.notify_store(pyfuse3.InodeT(part.inode), part.offset, part.data)  # type: ignore[arg-type]  # any buffer
    except OSError as error:  # the kernel has forgotten the inode, or wants no more pages: it will ask
        log.debug("pages of inode %s were not taken: %s", part.inode, error)
