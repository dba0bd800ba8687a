"""How many downloads run at once, and how one that hangs stands aside."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio

from cterafs.direct.transfer import Transfer

STALLED = 0.25
"""Seconds without progress after which a download no longer counts: others may start in its place."""
HUNG = 2.0
"""Seconds without progress after which what waits behind a download should go elsewhere. The first byte of distant
storage can take half a second; to give a run up for that would end all read-ahead."""
TICK = 0.1
"""Seconds between two looks at the downloads under way."""
GRACE = 1.0
"""Seconds beyond its patience after which a download is taken for stuck where no timeout reaches: in the resolver."""


@dataclass(eq=False, slots=True)
class _Download:
    transfer: Transfer
    hung: Callable[[], None]
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    counts: bool = True
    told: bool = False


class Slots:
    """At most `limit` downloads that get on; any number that hang, so that they hold up nobody else."""

    def __init__(self, limit: Callable[[], int]) -> None:
        self._limit = limit
        self._running = 0
        self._waiting: deque[anyio.Event] = deque()
        self._downloads: set[_Download] = set()
        self._busy = anyio.Event()

    @asynccontextmanager
    async def transfer(self, patience: float, hung: Callable[[], None] = lambda: None) -> AsyncIterator[Transfer]:
        """Waits for a slot. Leaving the block aborts the transfer if it still runs, so its thread is free at once.

        Args:
            patience: of the transfer.
            hung: called once, when it has hung for `HUNG` seconds.

        Raises:
            TimeoutError: it has been stuck for longer than `patience` seconds.
        """
        await self._acquire()
        download = _Download(Transfer(patience), hung)
        self._downloads.add(download)
        self._busy.set()
        try:
            with download.scope:
                yield download.transfer
        finally:
            self._downloads.discard(download)
            download.transfer.abort()
            self._give_up(download)
        if download.scope.cancelled_caught:
            raise TimeoutError("stuck")

    @property
    def wanted(self) -> bool:
        """Somebody waits for one."""
        return bool(self._waiting)

    async def _acquire(self) -> None:
        if not self._waiting and self._running < self._limit():
            self._running += 1
            return
        admitted = anyio.Event()
        self._waiting.append(admitted)
        try:
            await admitted.wait()
        except BaseException:
            if admitted.is_set():
                self._release()
            else:
                self._waiting.remove(admitted)
            raise

    def _release(self) -> None:
        self._running -= 1
        while self._waiting and self._running < self._limit():
            self._running += 1
            self._waiting.popleft().set()

    async def watch(self) -> None:
        """Frees the slots of downloads that hang. Runs for ever."""
        while True:
            await self._busy.wait()
            while self._downloads:
                await anyio.sleep(TICK)
                for download in tuple(self._downloads):
                    self._look_at(download)
            self._busy = anyio.Event()

    def _look_at(self, download: _Download) -> None:
        idle = download.transfer.idle()
        if idle >= STALLED:
            self._give_up(download)
        if idle >= HUNG and not download.told:
            download.told = True
            download.hung()
        if idle >= download.transfer.patience + GRACE:
            download.scope.cancel()

    def _give_up(self, download: _Download) -> None:
        if download.counts:
            download.counts = False
            self._release()
