"""What a handle reads through: one version of one file, from open to close."""

from __future__ import annotations

import contextlib

import trio

from cterafs.content.adjacent import joined
from cterafs.content.readahead import ReadAhead
from cterafs.content.source import BlockSource
from cterafs.errors import BlockError, BlockInfo, DirectIOError, DownloadTimeout
from cterafs.model import Chunk, Extent
from cterafs.stats import Stats

FAILURE_MEMORY = 2.0
"""Seconds. The kernel repeats a failed buffered read at once, with a smaller size; asking storage again would double
the time that the reader waits for its error."""


class Reader:
    """Serves the reads of one open file.

    Args:
        source: the blocks of the version that was opened.
        readahead: fetches what a sequential reader will ask for next.
        deadline: seconds that one read may take, whatever happens.
    """

    def __init__(self, source: BlockSource, readahead: ReadAhead, deadline: float, stats: Stats) -> None:
        self.source = source
        self._readahead = readahead
        self._deadline = deadline
        self._stats = stats
        self._failed_at = Extent(0, 0)
        self._failed_until = 0.0
        self._failure: DirectIOError | None = None

    def ready(self, offset: int, size: int) -> bytes | memoryview | None:
        """As `read`, if nothing has to be waited for; otherwise None."""
        wanted = Extent(offset, min(offset + size, self.source.size))
        if wanted.stop <= offset:
            return b""
        chunks = self.source.known(wanted)
        data = self.source.ready(chunks, wanted)
        if data is not None:
            self._readahead.found(wanted, chunks)
            self._count(data)
        return data

    async def read(self, offset: int, size: int) -> bytes | memoryview:
        """The bytes from `offset`: `size` of them, fewer only at the end of the file.

        Raises:
            DirectIOError: they cannot be had.
        """
        wanted = Extent(offset, offset + size).intersect(Extent(0, self.source.size))
        if not len(wanted):
            return b""
        self._raise_remembered(wanted)
        try:
            with trio.fail_after(self._deadline):
                data = await self._read(wanted)
        except trio.TooSlowError:
            info = BlockInfo(self.source.file_id, None, wanted.start, len(wanted))
            late = DownloadTimeout(info, f"no complete answer in {self._deadline:.0f} s")
            self._remember(late, wanted)
            raise late from None
        except DirectIOError as error:
            self._remember(error, wanted)
            raise
        self._count(data)
        return data

    def close(self) -> None:
        """Ends read-ahead; reads that are under way go on."""
        self._readahead.close()

    async def _read(self, wanted: Extent) -> bytes | memoryview:
        chunks = await self.source.chunks(wanted)
        random = self._readahead.observe(wanted, chunks)
        rented = [random and self.source.rent(chunk, wanted) for chunk in chunks]
        if len(chunks) == 1:
            return await self._read_of(chunks[0], wanted, rented[0])
        with contextlib.ExitStack() as needed:
            for chunk, part in zip(chunks, rented, strict=True):
                if not part:
                    needed.enter_context(self.source.fetch((chunk,)))
            # one part after the other, but there are seldom two: a random read is small, and parts are of large blocks
            parts = zip(chunks, rented, strict=True)
            return joined([memoryview(await self._read_of(chunk, wanted, part)) for chunk, part in parts])

    async def _read_of(self, chunk: Chunk, wanted: Extent, part: bool) -> bytes | memoryview:
        return await (self.source.read_part(chunk, wanted) if part else self.source.read(chunk, wanted))

    def _count(self, data: bytes | memoryview) -> None:
        self._stats.reads += 1
        self._stats.read_bytes += len(data)

    def _remember(self, error: DirectIOError, wanted: Extent) -> None:
        if isinstance(error, BlockError):  # only this block: the others may be had
            wanted = Extent(error.block.offset, error.block.offset + error.block.length)
        self._failure, self._failed_at = error, wanted
        self._failed_until = trio.current_time() + FAILURE_MEMORY

    def _raise_remembered(self, wanted: Extent) -> None:
        if self._failure is None:
            return
        if trio.current_time() >= self._failed_until:
            self._failure = None
        elif len(self._failed_at.intersect(wanted)):
            raise self._failure.with_traceback(None)
