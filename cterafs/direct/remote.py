"""The blocks of one version of one file."""

from __future__ import annotations

import functools
import hashlib
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from cterafs import errors
from cterafs.direct.flight import Flight, Spawner
from cterafs.direct.landing import Landing
from cterafs.direct.presigned import lifetime, stable_path
from cterafs.errors import BlockInfo
from cterafs.model import BlockMap, Chunk, Compression, Extent

WHOLE = 1 << 30
"""Bytes. The list of a file up to this size is fetched as a whole: 4,096 blocks of 256 KiB, 3 MB in memory, 2 MB of
JSON."""
PART = 32 << 20
"""Bytes. Of such a file, if it is larger than this, the list of the aligned part that is read first comes before the
whole: 128 blocks of 256 KiB come 0.1 s earlier than 4,096, and while those are read, the others come."""
WINDOW = 256 << 20
"""Bytes. The lists of files that are larger than `WHOLE` are fetched by windows that begin at multiples of this: 0.5 MB
of JSON for blocks of 256 KiB, so that the first byte of a seek does not wait for more."""
WINDOWS = 4
"""Windows that are kept: as much as of a file whose list is kept whole, so a file costs no more for being large."""
RENEW_AHEAD = 30.0
"""Seconds before URLs expire that they are renewed: a download that is asked for now may have to wait its turn."""
EXPIRED, GONE = 403, 404


class BlockSource(Protocol):
    """What `RemoteFile` needs of `DirectIO`."""

    @property
    def tasks(self) -> Spawner: ...
    async def block_map(self, file_id: int, extent: Extent | None = None) -> BlockMap: ...
    async def land(self, block_map: BlockMap, landings: Sequence[Landing]) -> None: ...
    async def fetch_part(self, block_map: BlockMap, chunk: Chunk, extent: Extent) -> bytes | None: ...


Ask = Extent | None
"""The range that a list was asked for; None is the whole file."""
Fingerprint = tuple[tuple[Ask, bytes], ...]
"""A digest for each list of blocks that was seen."""


@dataclass(frozen=True, slots=True, eq=False)
class _Window:
    """A list of blocks, which lie in `extent`. `renew_at` is when to renew it, in seconds of the monotonic clock;
    infinite if unknown."""

    ask: Ask
    map: BlockMap
    renew_at: float
    extent: Extent

    def holds(self, position: int) -> bool:
        return self.extent.start <= position < self.extent.stop


class RemoteFile:
    """One version of a file: it yields that version's bytes, or `errors.VersionChangedError` from then on.

    Lists of blocks are fetched as needed, shared by all readers, and renewed when their URLs expire. A renewed list
    that gives the file another size, or a block another path or length, is of another version.
    """

    def __init__(
        self, client: BlockSource, file_id: int, size: int | None = None, fingerprint: Fingerprint = ()
    ) -> None:
        """Fetches nothing yet.

        Args:
            size: of the version that is wanted, in bytes; None takes whatever version comes first.
            fingerprint: what an earlier object knew of that version.
        """
        self.file_id = file_id
        self._client = client
        self._size = size
        self._windows: OrderedDict[Ask, _Window] = OrderedDict()  # the one used last at the end
        self._digests: dict[Ask, bytes] = dict(
            fingerprint
        )  # of every list ever seen: what remains when its window is dropped
        self._flights: dict[Ask, Flight[_Window]] = {}
        self._changed: str | None = None
        self._resting = False

    @property
    def size(self) -> int | None:
        """In bytes; None until the first list has come, where it was not given."""
        return self._size

    @property
    def fingerprint(self) -> Fingerprint:
        """What tells this version from another, in some 16 bytes per list of blocks that was seen."""
        return tuple(self._digests.items())

    @property
    def listed(self) -> int:
        """Blocks of the lists that are in memory."""
        return sum(len(window.map.chunks) for window in self._windows.values())

    async def chunks(self, extent: Extent) -> Sequence[Chunk]:
        """The blocks that hold any byte of `extent`, in order; none where it lies beyond the end.

        Raises:
            errors.DirectIOAPIError, errors.DecryptKeyError: the list cannot be had.
            errors.VersionChangedError
        """
        if self._size is None:
            await self._window(0)
        position, stop = extent.start, min(extent.stop, self._size or 0)
        found: Sequence[Chunk] = ()
        while position < stop:
            part = (await self._window(position)).map.span(Extent(position, stop))
            found = (*found, *part) if found else part
            position = part[-1].extent.stop
        return found

    def rest(self) -> None:
        """Nobody reads it any more: lists that are still to come are not kept, unless somebody reads it again."""
        self._resting = True

    def walk(self, extent: Extent) -> Walk:
        """The same blocks, as an asynchronous iterator that fetches lists on the way."""
        return Walk(self, extent)

    def known(self, extent: Extent) -> Sequence[Chunk]:
        """The blocks that hold all of `extent`, if that can be told at once; otherwise none."""
        if self._changed is None:
            for window in reversed(self._windows.values()):
                if window.extent.contains(extent):
                    return window.map.span(extent)
        return ()

    async def read(self, chunk: Chunk) -> bytes | memoryview:
        """The plaintext of one of the file's blocks.

        Raises:
            as `land` does.
        """
        landing = Landing(BlockInfo.of(self.file_id, chunk))
        await self.land((landing,))
        return landing.take()

    async def land(self, landings: Sequence[Landing]) -> None:
        """Fetches blocks of the file in their order, by their present URLs, renewed once if storage refuses them.

        Those that are `dropped` on the way are left out.

        Raises:
            errors.BlockError: after the retries, for one that cannot be had.
            errors.DirectIOAPIError, errors.DecryptKeyError: the list cannot be had.
            errors.VersionChangedError: also where storage does not know the block any more.
        """
        refused: set[int] = set()
        stuck = -1  # how many were left when the list was renewed last
        while pending := [landing for landing in landings if landing.pending]:
            window = await self._window(pending[0].block.offset)
            run = [landing for landing in pending if window.holds(landing.block.offset)]
            chunks = tuple([self._present(window, landing.extent) for landing in run])
            try:
                await self._client.land(window.map.of(chunks), run)
            except errors.DownloadError as error:
                left = sum(landing.pending for landing in landings)
                # Several are asked for at once, so it need not be the same one that is refused first each time.
                again = left == stuck or error.block.offset in refused
                await self._renewed_upon(error, window, again=again)
                refused.add(error.block.offset)
                stuck = left

    async def read_part(self, chunk: Chunk, extent: Extent) -> bytes | None:
        """The bytes `extent` of the file, which lie in `chunk`, without the rest of that block.

        Returns:
            None if the block has to be read whole: it is or may be compressed, or storage gives no ranges of it.

        Raises:
            as `land` does.
        """
        again = False
        while True:
            window = await self._window(chunk.extent.start)
            if window.map.compression is not Compression.NONE:
                return None
            try:
                return await self._client.fetch_part(window.map, self._present(window, chunk.extent), extent)
            except errors.DownloadError as error:
                await self._renewed_upon(error, window, again=again)
                again = True

    def _present(self, window: _Window, extent: Extent) -> Chunk:
        """The block as the list has it now."""
        found = window.map.span(extent)
        if len(found) != 1 or found[0].extent != extent:
            self._fail("its blocks are cut differently")
        return found[0]

    async def _renewed_upon(self, error: errors.DownloadError, window: _Window, *, again: bool) -> None:
        """Renews the list if storage refused a block by its URL, and not `again`, with a list that was just renewed."""
        if error.status not in (EXPIRED, GONE):
            raise error
        if again:
            if error.status == GONE:
                self._fail("storage has the block no longer")
            raise error
        await self._renewed(window)

    async def _window(self, position: int) -> _Window:
        """The list that has the block of the byte at `position`, which the file has."""
        self._resting = False
        self._raise_changed()
        for window in reversed(self._windows.values()):
            if window.holds(position):
                self._windows.move_to_end(window.ask)
                return window if time.monotonic() < window.renew_at else await self._renewed_ahead(window)
        for ask in self._asks(position):
            try:
                window = await self._load(ask)
            except (errors.InvalidRequest, errors.BlocksNotFoundError):
                if ask is None or not self._listed_whole:
                    raise
                continue  # a portal that gives no part may give the whole
            if window.holds(position):
                if window.ask is not None and self._listed_whole and None not in self._windows:
                    self._fetch(None)
                return window
        raise errors.InvalidRequest(self.file_id, f"no block holds byte {position}")

    def _asks(self, position: int) -> Iterable[Ask]:
        """What to ask for. Should the aligned range come back without its last bytes, a second begins with them."""
        if self._listed_whole:
            start = position - position % PART
            part = Extent(start, min(start + PART, self._size or 0))
            # One part, and only as the first thing that is seen of the file: all that follows is of one list.
            seen = {*self._digests, *self._flights}
            if (self._size or 0) <= PART or None in self._digests or (seen and part not in seen):
                return (None,)
            return (part, None)
        start = position - position % WINDOW
        stop = start + WINDOW if self._size is None else min(start + WINDOW, self._size)
        return (Extent(start, stop),) if position == start else (Extent(start, stop), Extent(position, stop))

    @property
    def _listed_whole(self) -> bool:
        return self._size is not None and self._size <= WHOLE

    async def _renewed_ahead(self, window: _Window) -> _Window:
        try:
            return await self._renewed(window)
        except errors.DirectIOAPIError as error:
            if not error.retryable:
                raise
            return window  # the portal is away; the URLs may still be good

    async def _renewed(self, stale: _Window) -> _Window:
        """A list that is newer than `stale`: fetched now, unless another reader has done so."""
        current = self._windows.get(stale.ask)
        return current if current is not None and current is not stale else await self._load(stale.ask)

    async def _load(self, ask: Ask) -> _Window:
        return await self._fetch(ask).wait()

    def _fetch(self, ask: Ask) -> Flight[_Window]:
        flight = self._flights.get(ask)
        if flight is None:
            flight = Flight[_Window]()
            self._client.tasks.start_soon(self._fly, ask, flight)
            self._flights[ask] = flight
        return flight

    async def _fly(self, ask: Ask, flight: Flight[_Window]) -> None:
        try:
            await flight.run(functools.partial(self._list, ask))
        finally:
            del self._flights[ask]

    async def _list(self, ask: Ask) -> _Window:
        block_map = await self._client.block_map(self.file_id, ask)
        if block_map.extent == Extent(0, block_map.size):
            ask = None  # whatever was asked for
        elif ask is not None and self._listed_whole and not block_map.extent.contains(ask):
            raise errors.InvalidRequest(self.file_id, "the list of blocks does not cover the range that was asked for")
        self._verify(ask, block_map)
        seconds = lifetime(block_map.chunks[0].url, time.time()) if block_map.chunks else None
        renew_at = time.monotonic() + seconds - RENEW_AHEAD if seconds is not None else float("inf")
        window = _Window(ask, block_map, renew_at, block_map.extent)
        if self._resting:
            return window
        if ask is None:
            self._windows.clear()  # of parts, which it holds as well
        self._windows[ask] = window
        self._windows.move_to_end(ask)
        if len(self._windows) > WINDOWS:
            self._windows.popitem(last=False)
        return window

    def _verify(self, ask: Ask, block_map: BlockMap) -> None:
        self._raise_changed()
        if self._size is None:
            self._size = block_map.size
        if block_map.size != self._size:
            self._fail(f"it has {block_map.size} bytes now, not {self._size}")
        digest = _digest(block_map.chunks if ask is None else block_map.span(ask))
        if self._digests.setdefault(ask, digest) != digest:
            self._fail("its blocks are others now")
        for part, seen in self._digests.items() if ask is None else ():
            if part is not None and _digest(block_map.span(part)) != seen:
                self._fail("its blocks are others now")

    def _fail(self, reason: str) -> None:
        self._changed = reason
        self._windows.clear()
        self._raise_changed()

    def _raise_changed(self) -> None:
        if self._changed is not None:
            raise errors.VersionChangedError(self.file_id, self._changed)


class Walk:
    """The blocks of a range, one after the other. Not a generator, which has to be closed."""

    def __init__(self, file: RemoteFile, extent: Extent) -> None:
        self._file = file
        self._position = extent.start
        self._stop = extent.stop
        self._part: list[Chunk] = []  # the next one at the end

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        if not self._part:
            stop = min(self._stop, self._position - self._position % WINDOW + WINDOW)
            self._part = list(reversed(await self._file.chunks(Extent(self._position, stop))))
        if not self._part:
            raise StopAsyncIteration
        chunk = self._part.pop()
        self._position = chunk.extent.stop
        return chunk


def _digest(chunks: Iterable[Chunk]) -> bytes:
    """What a list has to say on each renewal: which block is where."""
    lines = (f"{chunk.extent.start} {chunk.extent.stop} {stable_path(chunk.url)}\n" for chunk in chunks)
    return hashlib.blake2b("".join(lines).encode("utf-8", "surrogatepass"), digest_size=16).digest()
