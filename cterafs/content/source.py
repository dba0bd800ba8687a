"""The blocks of one version of one file, through the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import trio

from cterafs.content.adjacent import joined
from cterafs.content.blockindex import Place
from cterafs.content.cache import BlockCache
from cterafs.content.memory import BlockKey, Plain
from cterafs.content.runs import Run, Wanted
from cterafs.direct.landing import Landing
from cterafs.direct.presigned import stable_path
from cterafs.direct.remote import Fingerprint
from cterafs.errors import BlockInfo, DirectIOError, VersionChangedError
from cterafs.model import BlockMap, Chunk, Extent, Node

RUN = 16 << 20
"""Bytes of a run at most. Each costs some 0.5 ms of both processes, as much as four blocks of 256 KiB: a cold read of
those is 1.2 times as fast with runs of 16 MiB as with runs of 4 MiB, and with blocks of 4 MiB 1.1 times. How many
downloads work on it, `direct.pace` knows."""
PARALLEL = 2
"""Runs that the blocks of a lone reader are spread over before any of them is made longer, so that a window is not all
of one run. Those of several readers are under way together anyway: as one run each, eight of them are 1.07 times as
fast with blocks of 256 KiB."""


class Remote(Protocol):
    """The blocks of one version of one file in storage (`cterafs.direct.remote.RemoteFile`)."""

    @property
    def fingerprint(self) -> Fingerprint:
        """What tells this version from another; an object made with it notices that storage changed."""

    @property
    def listed(self) -> int:
        """Chunks that are in memory."""

    async def chunks(self, extent: Extent) -> Sequence[Chunk]:
        """The chunks that cover `extent`, in order."""

    def known(self, extent: Extent) -> Sequence[Chunk]:
        """The same, if all of them can be told at once; otherwise none."""

    def rest(self) -> None:
        """Nobody has it open any more: lists that are still to come are not kept, unless it is read again."""

    async def land(self, landings: Sequence[Landing]) -> None:
        """Fetches blocks, in their order."""

    async def read(self, chunk: Chunk) -> Plain:
        """The plaintext of one of them."""

    async def read_part(self, chunk: Chunk, extent: Extent) -> bytes | None:
        """Those bytes of one of them, and no more; None if it has to be read whole."""


class BlockSource:
    """What all the handles of one inode share: its list of blocks, and its place in the cache.

    Args:
        node: the file; its inode names this content, so the size is the one that every reader was told.
        spoil: called when bytes were read of a download that turned out to be wrong, or never ended.
    """

    def __init__(self, node: Node, remote: Remote, cache: BlockCache, spoil: Callable[[], None] = lambda: None) -> None:
        if node.file_id is None and node.size:
            raise DirectIOError(None, f"the portal gave no file id for {node.wire_name!r}")
        self.file_id = node.file_id or 0  # an empty file has no blocks that anybody would ask for
        self.size = node.size
        self._version = f"{node.gvsn}:{node.size}:{node.mtime_ns}"
        self._remote = remote
        self._cache = cache
        self._spoil = spoil
        self._stored: BlockMap | None = None  # where the disk has it; no blocks, unless it has all; None: not asked yet
        self._looking = trio.Lock()

    async def chunks(self, extent: Extent) -> Sequence[Chunk]:
        """The chunks that hold `extent`.

        Raises:
            DirectIOError: the list cannot be had, or does not cover the file.
        """
        if self._stored is None:
            await self._look_up()
        chunks = self._span(extent) or await self._remote.chunks(extent)
        if not chunks or chunks[0].extent.start > extent.start or chunks[-1].extent.stop < extent.stop:
            raise DirectIOError(
                self.file_id, f"the list of blocks does not cover bytes {extent.start} to {extent.stop}"
            )
        return chunks

    def known(self, extent: Extent) -> Sequence[Chunk]:
        """The chunks that hold `extent`, if that can be told at once; otherwise none."""
        return self._span(extent) or self._remote.known(extent)

    def ready(self, chunks: Sequence[Chunk], extent: Extent) -> bytes | memoryview | None:
        """What these blocks, if any, have of `extent`; None if one of them is not in memory."""
        parts = []
        for chunk in chunks:
            data = self._cache.get(self.key(chunk))
            if data is None:
                return None
            parts.append(_cut(memoryview(data), chunk, extent))
        self._cache.count_hits(len(parts))
        return joined(parts) if parts else None

    async def read(self, chunk: Chunk, extent: Extent) -> memoryview:
        """What a block has of `extent`, from memory or from storage, as soon as that much of it can be read.

        Raises:
            DirectIOError: it cannot be had.
        """
        part = chunk.extent.intersect(extent)
        start = chunk.extent.start
        return await self._cache.read(self._wanted(chunk), part.start - start, part.stop - start, self._land)

    def rent(self, chunk: Chunk, extent: Extent) -> bool:
        """Whether who needs `extent` only should ask for no more of a block. To be asked once for each `read_part`."""
        return self._cache.rent(self._wanted(chunk), len(chunk.extent.intersect(extent)))

    async def read_part(self, chunk: Chunk, extent: Extent) -> bytes | memoryview:
        """As `read`, but without the rest of the block, if that can be.

        Raises:
            DirectIOError: it cannot be had.
        """
        part = chunk.extent.intersect(extent)

        async def fetch() -> bytes | None:
            await self._confirm(chunk.extent)
            return await self._remote.read_part(chunk, part)

        data = await self._cache.read_part(self._wanted(chunk), len(part), fetch)
        return await self.read(chunk, extent) if data is None else data

    def batches(self, chunks: Sequence[Chunk], *, alone: bool) -> list[Sequence[Chunk]]:
        """Those of `chunks` that are neither in memory nor under way, in parts that are worth a `fetch` each.

        Args:
            alone: nobody else reads.
        """
        missing = [chunk for chunk in chunks if not self.cached(chunk)]
        longest, position = len(missing) // (PARALLEL if alone else 1), 0
        batches: list[Sequence[Chunk]] = []
        while position < len(missing):
            count = max(1, min(longest, RUN // len(missing[position].extent)))
            batches.append(missing[position : position + count])
            position += count
        return batches

    def fetch(self, chunks: Sequence[Chunk]) -> Run:
        """Begins to fetch those of `chunks` that are neither in memory nor under way, in their order."""
        return self._cache.fetch(map(self._wanted, chunks), self._land)

    async def download(self, chunk: Chunk) -> Plain:
        """A block's plaintext from storage, for who leaves the caches as they are."""
        await self._confirm(chunk.extent)
        return await self._remote.read(chunk)

    @property
    def fingerprint(self) -> Fingerprint:
        """What is known of this version, for who opens the file again later."""
        return self._remote.fingerprint

    @property
    def listed(self) -> int:
        """Blocks whose places are in memory."""
        return self._remote.listed + (len(self._stored.chunks) if self._stored is not None else 0)

    def rest(self) -> None:
        """Nobody has the file open any more."""
        self._remote.rest()

    def cached(self, chunk: Chunk) -> bool:
        """In memory, or on its way."""
        return self.key(chunk) in self._cache

    def drop(self, extent: Extent, *, downwards: bool) -> None:
        """Nobody will ask soon for these bytes, nor for those that a reader came through before them: blocks that end
        here, or begin here if it goes downwards, need no memory."""
        chunks = self.known(extent)
        if downwards:
            passed = [chunk for chunk in chunks if chunk.extent.start >= extent.start]
        else:
            passed = [chunk for chunk in chunks if chunk.extent.stop <= extent.stop]
        self._cache.drop([self.key(chunk) for chunk in passed])

    def forget(self) -> None:
        """Drops the cached blocks: storage turned out to hold another version."""
        self._cache.forget(self.file_id, self._version)
        if self._cache.disk is not None:
            self._cache.disk.forget(self.file_id, self._version)

    def key(self, chunk: Chunk) -> BlockKey:
        """What names the block in the caches."""
        return BlockKey(self.file_id, self._version, chunk.extent.start)

    async def _look_up(self) -> None:
        """Once, before a list is asked for: a version that is all on the disk is read without the portal."""
        async with self._looking:
            if self._stored is None:
                places = await self._cache.on_disk(self.file_id, self._version) if self.size else ()
                chunks = [_stored(place) for place in places]
                self._stored = BlockMap(self.file_id, self.size, _covering(chunks, self.size), None, None)

    def _span(self, extent: Extent) -> Sequence[Chunk]:
        return self._stored.span(extent) if self._stored is not None and self._stored.chunks else ()

    async def _land(self, landings: Sequence[Landing]) -> None:
        if self._stored is not None and self._stored.chunks:
            for landing in landings:
                await self._confirm(landing.extent)
        await self._remote.land(landings)

    async def _confirm(self, extent: Extent) -> None:
        """What is not on the disk any more has to be of the same version as what is."""
        stored = [(chunk.extent, origin(chunk)) for chunk in self._span(extent)]
        if stored and stored != [(chunk.extent, origin(chunk)) for chunk in await self._remote.chunks(extent)]:
            raise VersionChangedError(self.file_id, "storage has other blocks than those that are on the disk")

    def _wanted(self, chunk: Chunk) -> Wanted:
        named = "" if self._cache.disk is None else origin(chunk)
        return Wanted(self.key(chunk), BlockInfo.of(self.file_id, chunk), named, self._spoil)


def _stored(place: Place) -> Chunk:
    """A chunk of the same origin; from its address nothing can be fetched."""
    return Chunk(Extent(place.key.offset, place.key.offset + place.length), f"disk:///{place.origin}")


def _covering(chunks: Sequence[Chunk], size: int) -> tuple[Chunk, ...]:
    """The chunks, if they are all that a file of `size` bytes has."""
    position = 0
    for chunk in chunks:
        if chunk.extent.start != position:
            return ()
        position = chunk.extent.stop
    return tuple(chunks) if position == size else ()


def _cut(data: memoryview, chunk: Chunk, wanted: Extent) -> memoryview:
    """The part of a block that was asked for, not copied."""
    start = chunk.extent.start
    return data[max(0, wanted.start - start) : wanted.stop - start]


def origin(chunk: Chunk) -> str:
    """What storage calls the block, without what is signed anew: another version's block has another one."""
    return stable_path(chunk.url)
