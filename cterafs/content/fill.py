"""Brings whole files to the disk, past the memory that readers use."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import trio

from cterafs.content.disk import DiskCache
from cterafs.content.memory import BlockMemory, Plain
from cterafs.content.runs import IN_FLIGHT_FACTOR
from cterafs.content.source import BlockSource, origin
from cterafs.errors import BlockInfo, DirectIOError, DownloadTimeout, StateError
from cterafs.model import Chunk, Extent

WINDOW = 256 << 20
"""Bytes of a file whose blocks are looked up on the disk at once."""

MEMORY_SHARE = 4
"""What is on its way to the disk is at most this part of the memory."""

WORKERS_SHARE = 0.75
"""Of the downloads that may run at a time: a reader's block finds a free place."""


class DiskFill:
    """Brings blocks to the disk, a bounded number at a time whatever the number of files.

    Args:
        workers: downloads that may run at a time, those of readers included.
        deadline: seconds that one block may take, whatever happens.
    """

    def __init__(self, memory: BlockMemory, disk: DiskCache, *, workers: int, deadline: float) -> None:
        self.disk = disk
        self._memory = memory
        self._limit = memory.limit // MEMORY_SHARE
        self._under_way = 0  # bytes
        self._room = trio.Event()
        self._workers = max(1, int(workers * WORKERS_SHARE))
        self._places = trio.CapacityLimiter(self._workers)
        self._threads = trio.CapacityLimiter(self._workers)
        self._deadline = deadline

    async def file(self, source: BlockSource, done: Callable[[int, bool], None]) -> None:
        """Brings all of a file.

        Args:
            done: told of each block that is on the disk: its bytes, and whether it was downloaded for that.

        Raises:
            DirectIOError: it cannot be had, or does not fit.
            StateError: the disk does not take it.
            VersionChangedError: storage has another version.
        """
        position = 0
        while position < source.size:
            chunks = await source.chunks(Extent(position, min(position + WINDOW, source.size)))
            chunks = [chunk for chunk in chunks if chunk.extent.stop > position]
            missing = await self._missing(source, chunks)
            done(sum(len(chunk.extent) for chunk in chunks) - sum(len(chunk.extent) for chunk in missing), False)
            await self._bring(source, missing, done)
            position = chunks[-1].extent.stop

    async def _missing(self, source: BlockSource, chunks: Sequence[Chunk]) -> list[Chunk]:
        def look() -> list[Chunk]:
            return [chunk for chunk in chunks if not self.disk.has(source.key(chunk), len(chunk.extent), origin(chunk))]

        return await trio.to_thread.run_sync(look, abandon_on_cancel=True, limiter=self._threads)

    async def _bring(self, source: BlockSource, chunks: Sequence[Chunk], done: Callable[[int, bool], None]) -> None:
        """All of these; the first error ends the others, and is raised."""
        errors: list[Exception] = []
        waiting = iter(chunks)

        async def bring(scope: trio.CancelScope) -> None:
            try:
                await self._some(source, waiting, done)
            except (DirectIOError, StateError) as error:
                errors.append(error)
                scope.cancel()

        async with trio.open_nursery() as nursery:
            for _ in range(min(len(chunks), self._workers)):
                nursery.start_soon(bring, nursery.cancel_scope)
        if errors:
            raise errors[0]

    async def _some(self, source: BlockSource, waiting: Iterator[Chunk], done: Callable[[int, bool], None]) -> None:
        for chunk in waiting:
            data = self._memory.get(source.key(chunk))
            if data is not None:
                await self._keep(source, chunk, data)
            else:
                await self._download(source, chunk)
            done(len(chunk.extent), data is None)

    async def _download(self, source: BlockSource, chunk: Chunk) -> None:
        length = len(chunk.extent)
        async with self._places, self._share(source.file_id, length * IN_FLIGHT_FACTOR):
            try:
                with trio.fail_after(self._deadline):
                    await self._keep(source, chunk, await source.download(chunk))
            except trio.TooSlowError:
                info = BlockInfo.of(source.file_id, chunk)
                raise DownloadTimeout(info, f"not on the disk in {self._deadline:.0f} s") from None

    async def _keep(self, source: BlockSource, chunk: Chunk, data: Plain) -> None:
        keep = partial(self.disk.keep, source.key(chunk), data, origin(chunk))
        if await trio.to_thread.run_sync(keep, abandon_on_cancel=True, limiter=self._threads):
            return
        if self.disk.reason is not None:
            raise StateError(f"the disk cache cannot be used: {self.disk.reason}")
        raise DirectIOError(source.file_id, f"a block of {len(data)} bytes was not kept; is cache.disk large enough?")

    @asynccontextmanager
    async def _share(self, file_id: int, size: int) -> AsyncIterator[None]:
        """Room in the memory, for a while; not so much that readers would have to wait in a long line."""
        while self._under_way and self._under_way + size > self._limit:
            await self._room.wait()
        self._under_way += size
        try:
            await self._reserve(file_id, size)
            try:
                yield
            finally:
                self._memory.release(size)
        finally:
            self._under_way -= size
            self._room.set()
            self._room = trio.Event()

    async def _reserve(self, file_id: int, size: int) -> None:
        try:
            await self._memory.reserve(size)
        except ValueError:
            raise DirectIOError(file_id, f"a block needs {size} bytes in memory; raise cache.memory") from None
