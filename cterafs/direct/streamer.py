"""The ordered, cancellable prefetch of a sequence of blocks."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import anyio
from anyio.abc import TaskGroup

from cterafs import errors
from cterafs.direct.flight import Spawner
from cterafs.model import Block, Chunk, Extent

EVERYTHING = Extent(0, 2**63 - 1)


@dataclass(eq=False, slots=True)
class _Item:
    """A block under way (neither), there (`data`), or failed (`error`)."""

    chunk: Chunk | None
    data: bytes | memoryview | None = None
    error: Exception | None = None

    @property
    def settled(self) -> bool:
        return self.data is not None or self.error is not None


class Streamer:
    """Fetches blocks ahead of its one reader, who gets them by `async for`.

    Tasks live in `tasks`, or, where that is None, in the `async with` that the streamer then has to be used by. They
    end with the last block, an error, `aclose()`, the end of `async with`, or with `tasks`. Who may leave the loop
    early should use `async with` (or `aclosing`): what was fetched ahead is otherwise held until `tasks` ends.
    """

    def __init__(
        self,
        file_id: int,
        chunks: Iterable[Chunk] | AsyncIterable[Chunk],
        fetch: Callable[[Chunk], Awaitable[bytes | memoryview]],
        *,
        ahead: int,
        wanted: Extent = EVERYTHING,
        workers: int | None = None,
        ordered: bool = True,
        tasks: Spawner | None = None,
    ) -> None:
        """Starts nothing yet.

        Args:
            chunks: those to fetch, in the order of the file; drawn as needed. Not an async generator.
            ahead: bytes that may be under way or waiting for the reader. One block may always be.
            wanted: the first and the last block are cut to it.
            workers: blocks that may be under way.
            ordered: False delivers blocks as they come, and passes errors on as they are.
        """
        self._file_id = file_id
        self._chunks = chunks if isinstance(chunks, AsyncIterable) else _Plain(chunks)
        self._fetch = fetch
        self._ahead = ahead
        self._wanted = wanted
        self._workers = workers
        self._ordered = ordered
        self._tasks = tasks
        self._own: TaskGroup | None = None
        self._offset = wanted.start
        self._queue: deque[_Item] = deque()  # in the order of the file; not used where order does not matter
        self._ready: deque[_Item] = deque()
        self._outstanding = 0  # bytes under way or waiting
        self._running = 0
        self._started = self._drawn = self._closed = False
        self._scope = anyio.CancelScope()
        self._news = anyio.Event()  # for the reader
        self._room = anyio.Event()  # for the task that draws chunks
        self._ended = anyio.Event()

    @property
    def offset(self) -> int:
        """The first byte that was not delivered."""
        return self._offset

    async def __aenter__(self) -> Self:
        if self._tasks is None:
            self._own = anyio.create_task_group()
            await self._own.__aenter__()
            self._tasks = self._own
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
        if self._own is not None:
            # not told of `error`: it would come back wrapped in a group
            await self._own.__aexit__(None, None, None)

    def __aiter__(self) -> AsyncIterator[Block]:
        return self

    async def __anext__(self) -> Block:
        """The next block.

        Raises:
            errors.StreamError: `.offset` is the first byte that was not delivered; its cause tells why.
            errors.DirectIOError: instead, where blocks come in any order.
        """
        self._start()
        while not self._ready:
            if self._closed or (self._drawn and not self._running):
                raise StopAsyncIteration
            self._news = anyio.Event()
            await self._news.wait()
        return await self._deliver(self._ready.popleft())

    async def aclose(self) -> None:
        """Cancels what is under way and waits until it has ended. Harmless when repeated."""
        self._closed = True
        self._scope.cancel()
        self._queue.clear()
        self._ready.clear()
        if self._started:
            with anyio.CancelScope(shield=True):  # brief: what runs has just been cancelled
                await self._ended.wait()

    def _start(self) -> None:
        if self._started or self._closed:
            return
        if self._tasks is None:
            raise RuntimeError("use `async with` with this streamer, or give it tasks")
        self._tasks.start_soon(self._run)
        self._started = True

    async def _run(self) -> None:
        try:
            with self._scope:
                async with anyio.create_task_group() as fetching:
                    await self._draw(fetching)
        finally:
            if not self._closed and (self._running or not self._drawn):
                # `tasks` was cancelled: the reader must not take that for the end of the file
                self._ready.append(_Item(None, error=errors.DirectIOError(self._file_id, "the client was closed")))
            self._drawn = True
            self._ended.set()
            self._news.set()

    async def _draw(self, fetching: TaskGroup) -> None:
        try:
            async for chunk in self._chunks:
                await self._until_room(len(chunk.extent))
                item = _Item(chunk)
                if self._ordered:
                    self._queue.append(item)
                self._outstanding += len(chunk.extent)
                self._running += 1
                fetching.start_soon(self._get, item, chunk)
        except Exception as error:  # handed to the reader
            last = _Item(None, error=error)
            if self._ordered:
                self._queue.append(last)
            self._settle(last)
        self._drawn = True
        self._news.set()

    async def _until_room(self, length: int) -> None:
        while (self._outstanding and self._outstanding + length > self._ahead) or self._running == self._workers:
            self._room = anyio.Event()
            await self._room.wait()

    async def _get(self, item: _Item, chunk: Chunk) -> None:
        try:
            item.data = await self._fetch(chunk)
        except Exception as error:  # handed to the reader
            item.error = error
        self._running -= 1
        self._settle(item)

    def _settle(self, item: _Item) -> None:
        if self._ordered:
            while self._queue and self._queue[0].settled:
                self._ready.append(self._queue.popleft())
        else:
            self._ready.append(item)
        self._news.set()
        self._room.set()

    async def _deliver(self, item: _Item) -> Block:
        if item.error is not None or item.chunk is None or item.data is None:
            await self.aclose()
            raise self._failure(item.error)
        extent = item.chunk.extent
        part = extent.intersect(self._wanted)
        data: bytes | memoryview = item.data
        if part != extent:
            data = memoryview(item.data)[part.start - extent.start : part.stop - extent.start]
        self._outstanding -= len(extent)
        self._room.set()
        self._offset = part.stop
        return Block(self._file_id, part.start, data, item.chunk.number)

    def _failure(self, error: Exception | None) -> Exception:
        if self._ordered and isinstance(error, errors.DirectIOError):
            failure = errors.StreamError(self._file_id, self._offset, str(error))
            failure.__cause__ = error
            return failure
        return error or RuntimeError("a block neither arrived nor failed")


class _Plain:
    """An iterator as an asynchronous one; not a generator, which cancelling would leave to the garbage collector."""

    def __init__(self, chunks: Iterable[Chunk]) -> None:
        self._chunks = iter(chunks)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        for chunk in self._chunks:
            return chunk
        raise StopAsyncIteration
