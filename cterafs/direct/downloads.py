"""Downloads of blocks: in threads, as many at a time as are of use, and again where they fail."""

from __future__ import annotations

import contextlib
import functools
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self, TypeVar

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup

from cterafs import errors
from cterafs.direct import codec, parts
from cterafs.direct.flight import Spawner
from cterafs.direct.landing import Landing
from cterafs.direct.pace import Pace
from cterafs.direct.retry import TRIES, Patience
from cterafs.direct.slots import Slots
from cterafs.direct.storage import Storage
from cterafs.direct.transfer import Transfer
from cterafs.errors import BlockInfo
from cterafs.model import BlockMap, Chunk, Extent
from cterafs.threads import patiently

T = TypeVar("T")

THREADS = 256
"""Downloads at most, those included that hang and so have no slot."""
REPEATABLE = frozenset({408, 429})
TURN = 4 << 20
"""Bytes after which a thread makes room where others wait for a slot: a job can have four times as many."""
TO_FINISH = 1.0
"""Seconds that the others who work on a job have for the block that each of them is at, where one has failed. Of those
that are not stuck, most take less, and who waits for the one that failed waits no longer than that."""
NOBODY = contextlib.nullcontext()
"""A crew that need not be known."""


class Downloads:
    """Gets blocks out of the object store, under asyncio and trio. To be used by `async with`.

    Args:
        storage: closed at the end.
        workers: downloads at a time.
        timeout: seconds without progress after which a block has failed, over all attempts.
    """

    def __init__(self, storage: Storage, *, workers: int, timeout: float) -> None:
        self._storage = storage
        self._timeout = timeout
        self._pace = Pace(workers)
        self._slots = Slots(lambda: self._pace.useful)
        self._group: TaskGroup | None = None

    async def __aenter__(self) -> Self:
        self.threads = anyio.CapacityLimiter(THREADS)
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(self._slots.watch)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        group, self._group = self._group, None
        if group is not None:
            group.cancel_scope.cancel()
            # not told of `error`: it would come back wrapped in a group
            await group.__aexit__(None, None, None)
        self._storage.close()

    @property
    def tasks(self) -> Spawner:
        """Tasks which end with it."""
        return self.require_open()

    def require_open(self) -> TaskGroup:
        """Raises:
        RuntimeError: outside of `async with`.
        """
        if self._group is None:
            raise RuntimeError("use `async with DirectIO(...)`")
        return self._group

    async def land(
        self,
        block_map: BlockMap,
        landings: Sequence[Landing],
        crew: AbstractContextManager[object] = NOBODY,
    ) -> None:
        """Fetches blocks of one list into their landings, in their order; those that are `dropped` are left out.

        One after the other, or where storage takes its time to answer, several at once. Where one hangs, those that
        nobody is at yet are dropped, so that somebody else can fetch them. Where one fails, those are not tried.

        Args:
            crew: entered by each thread that works on them; one that was given up may be there for longer than this.

        Raises:
            errors.BlockError: after the retries, for one that cannot be had; not retried is a `DownloadError` whose
                `status` says that it is of no use.
        """
        pile = deque(landing for landing in landings if landing.pending)
        hands = [_Hand(pile) for _ in range(min(len(pile), self._pace.hands))]
        if len(hands) == 1:
            await self._work(block_map, hands[0], crew)
        elif hands:
            await self._work_together(block_map, hands, crew)

    async def fetch_part(self, block_map: BlockMap, chunk: Chunk, extent: Extent) -> bytes | None:
        """The bytes `extent` of the file, which lie in one block of a file that is not compressed, without the rest.

        Returns:
            None where storage gives no ranges of it, so that the whole block has to be fetched.

        Raises:
            errors.BlockError: as `land` does.
        """
        block = BlockInfo.of(block_map.file_id, chunk)
        part = Extent(extent.start - chunk.extent.start, extent.stop - chunk.extent.start)

        def download(transfer: Transfer) -> bytes | None:
            get = functools.partial(self._storage.get_part, chunk.url, block, transfer=transfer)
            return parts.read(get, block, part, block_map.key)

        patience = Patience(self._timeout)
        while True:
            try:
                return await self._attempt(download, lambda: block, patience)
            except errors.BlockError as error:
                await _after(error, patience)

    async def _work_together(
        self, block_map: BlockMap, hands: Sequence[_Hand], crew: AbstractContextManager[object]
    ) -> None:
        failures: list[Exception] = []

        async def work(hand: _Hand) -> None:
            try:
                await self._work(block_map, hand, crew)
            except Exception as error:  # raised below: not in a group, and only the first
                failures.append(error)
                hand.leave_the_rest()
                group.cancel_scope.deadline = anyio.current_time() + TO_FINISH

        async with anyio.create_task_group() as group:
            for hand in hands:
                group.start_soon(work, hand)
        if failures:
            raise failures[0]

    async def _work(self, block_map: BlockMap, hand: _Hand, crew: AbstractContextManager[object]) -> None:
        """Until nothing is left, in as many trips to a thread as it takes."""
        patience = Patience(self._timeout)
        while first := hand.take():
            download = functools.partial(self._download, block_map, hand, crew)
            try:
                await self._attempt(download, hand.at, patience, hung=hand.drop_the_rest)
            except errors.BlockError as error:
                if hand.take() is not first:
                    patience = Patience(self._timeout)  # another block, another patience
                await _after(error, patience)
            else:
                patience = Patience(self._timeout)

    async def _attempt(
        self,
        download: Callable[[Transfer], T],
        current: Callable[[], BlockInfo],
        patience: Patience,
        hung: Callable[[], None] = lambda: None,
    ) -> T:
        """Runs `download` in a thread and a slot. `current` tells which block it is at."""
        self.require_open()
        try:
            async with self._slots.transfer(min(self._timeout / TRIES, patience.left()), hung) as transfer:
                try:
                    run = functools.partial(to_thread.run_sync, abandon_on_cancel=True, limiter=self.threads)
                    return await patiently(functools.partial(run, download, transfer))
                finally:
                    if transfer.got_on:
                        patience.progressed(transfer.idle())
        except errors.BlockError:
            raise
        except TimeoutError:
            raise errors.DownloadTimeout(current(), "stuck") from None

    def _download(
        self,
        block_map: BlockMap,
        hand: _Hand,
        crew: AbstractContextManager[object],
        transfer: Transfer,
    ) -> None:
        filled = 0
        with crew:
            while landing := transfer.unless_aborted(hand.take):
                self._fill(block_map, landing, transfer)
                filled += landing.block.length
                if filled >= TURN and self._slots.wanted:
                    return

    def _fill(self, block_map: BlockMap, landing: Landing, transfer: Transfer) -> None:
        began = time.thread_time()
        [chunk] = block_map.span(landing.extent)
        decode = functools.partial(codec.land, landing=landing, key=block_map.key, how=block_map.compression)
        self._storage.get(chunk.url, landing.block, transfer, decode)
        landing.verify()
        landing.finish()
        self._pace.observe(transfer.waited, time.thread_time() - began)


def _final(status: int | None) -> bool:
    """Whether asking storage again the same way is of no use."""
    return status is not None and status < 500 and status not in REPEATABLE


async def _after(error: errors.BlockError, patience: Patience) -> None:
    """Waits until the next attempt is due, or raises `error` if there is none."""
    if isinstance(error, errors.DownloadError) and _final(error.status):
        raise error
    await patience.after(error)


class _Hand:
    """One of those that work on a job, and what it is at. Its threads follow one after the other."""

    def __init__(self, pile: deque[Landing]) -> None:
        """`pile`: what no hand is at yet; there is something. Shared by all that work on the job."""
        self._pile = pile
        self._current = pile.popleft()

    def at(self) -> BlockInfo:
        """The block that it took last."""
        return self._current.block

    def take(self) -> Landing | None:
        """What it is at, if that is not done; otherwise the next."""
        while not self._current.pending:
            try:
                self._current = self._pile.popleft()
            except IndexError:
                return None
        return self._current

    def leave_the_rest(self) -> None:
        """What nobody is at is left as it is."""
        self._pile.clear()

    def drop_the_rest(self) -> None:
        """It hangs: who wants what nobody is at shall not wait for it."""
        with contextlib.suppress(IndexError):  # others take from there meanwhile
            while True:
                self._pile.popleft().drop()
