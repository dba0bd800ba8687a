"""Blocks under way: each a flight of its own, in the run that it is fetched with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec
import trio

from cterafs.content.memory import BlockKey, Plain
from cterafs.direct.landing import Landing
from cterafs.errors import BlockInfo, CteraError

IN_FLIGHT_FACTOR = 2
"""A block under way may hold its stored form and its plaintext at once."""

Land = Callable[[Sequence[Landing]], Awaitable[None]]
"""Fetches blocks into their landings, in their order (`RemoteFile.land`)."""


class Wanted(msgspec.Struct, frozen=True):
    """A block that is asked for.

    Attributes:
        origin: what storage calls it, without what is signed anew; only the disk asks for it.
        spoil: called when bytes of it were read while it arrived, and then it turned out to be wrong or never ended.
    """

    key: BlockKey
    block: BlockInfo
    origin: str
    spoil: Callable[[], None] = lambda: None

    @property
    def need(self) -> int:
        """Bytes of memory that it may take while it is under way."""
        return self.block.length * IN_FLIGHT_FACTOR


class Flight:
    """One block on its way."""

    __slots__ = ("_data", "_error", "_news", "_read", "ended", "landing", "run", "wanted")

    def __init__(self, run: Run, wanted: Wanted) -> None:
        self.run = run
        self.wanted = wanted
        self.landing = Landing(wanted.block)
        self.ended = False
        self._news: trio.Event | None = None  # where somebody waits
        self._read: int | None = None  # the attempt that the first bytes came from which were read before its end
        self._data: Plain | None = None
        self._error: Exception | None = None

    async def part(self, start: int, stop: int) -> memoryview | None:
        """Those bytes of the block, as soon as they can be read; None if it has to be asked for anew.

        Raises:
            DirectIOError: they cannot be had.
        """
        with self.run:
            while not self.ended:
                self.landing.await_bytes(stop)
                attempt, part = self.landing.attempt, self.landing.part(start, stop)
                if part is not None:
                    self._read = self._read or attempt
                    return part
                if self._news is None:
                    self._news = trio.Event()
                await self._news.wait()
        if self._error is not None:
            raise self._error.with_traceback(None)
        return None if self._data is None else memoryview(self._data)[start:stop]

    def tell(self) -> None:
        """Wakes those who wait: there is more of it."""
        if self._news is not None:
            self._news.set()
            self._news = None

    def end(self, data: Plain | None, error: Exception | None) -> None:
        """It arrived, or failed, or (neither) was given up."""
        self.ended, self._data, self._error = True, data, error
        if self._read is not None and (self._read != self.landing.attempt or data is None):
            self.wanted.spoil()
        self.landing.tell = None  # which leads back here: as a cycle, all of it would stay until the next collection
        self.tell()


class Run:
    """Blocks that are fetched together, in their order.

    Whoever needs it says so by `with`. If the last of these is cancelled, it is, too.

    Attributes:
        flights: its blocks; none, once it has ended.
        error: why it could not fetch them all.
    """

    def __init__(self, land: Land) -> None:
        self.flights: list[Flight] = []
        self.ended = trio.Event()
        self.error: CteraError | None = None
        self.scope = trio.CancelScope()
        self.land = land
        self.reserved = 0
        self._users = 0

    def __enter__(self) -> None:
        self._users += 1

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._users -= 1
        if kind is not None:
            self.abandon()

    def abandon(self) -> None:
        """Cancels it, unless somebody needs it."""
        if not self._users:
            self.scope.cancel()

    @property
    def need(self) -> int:
        """Bytes of memory that what is still to come may take."""
        return sum(flight.wanted.need for flight in self.flights if not flight.ended)
