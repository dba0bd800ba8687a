"""The streamer: order, bounds, errors, and that nothing is left behind."""

from collections.abc import AsyncIterator

import anyio
import pytest
from anyio.lowlevel import checkpoint

from cterafs import errors
from cterafs.direct.streamer import Streamer
from cterafs.model import Chunk, Extent

pytestmark = pytest.mark.anyio
SIZE = 10


def chunks(count: int) -> list[Chunk]:
    return [Chunk(Extent(i * SIZE, (i + 1) * SIZE), f"url{i}", i + 1) for i in range(count)]


def content(chunk: Chunk) -> bytes:
    return bytes([chunk.extent.start // SIZE]) * SIZE


class Store:
    """Holds each fetch until the test releases it."""

    def __init__(self, *, hold: bool = True) -> None:
        self.hold = hold
        self.begun: list[int] = []
        self.cancelled: list[int] = []
        self._gates: dict[int, anyio.Event] = {}
        self._changed = anyio.Event()

    def gate(self, index: int) -> anyio.Event:
        return self._gates.setdefault(index, anyio.Event())

    async def fetch(self, chunk: Chunk) -> bytes:
        index = chunk.extent.start // SIZE
        self.begun.append(index)
        self._changed.set()
        try:
            if self.hold:
                await self.gate(index).wait()
        except BaseException:
            self.cancelled.append(index)
            raise
        return content(chunk)

    async def until_begun(self, count: int) -> None:
        while len(self.begun) < count:
            self._changed = anyio.Event()
            await self._changed.wait()


async def settle() -> None:
    """Lets every task run until it waits for something."""
    for _ in range(20):
        await checkpoint()


async def test_blocks_come_in_order_whatever_the_order_of_arrival() -> None:
    store = Store()
    async with Streamer(7, chunks(4), store.fetch, ahead=1000) as stream, anyio.create_task_group() as group:

        async def release() -> None:
            await store.until_begun(4)
            for index in (3, 1, 2, 0):
                store.gate(index).set()
                await settle()

        group.start_soon(release)
        got = [block async for block in stream]
    assert [(b.offset, b.number, b.data) for b in got] == [
        (i * SIZE, i + 1, content(c)) for i, c in enumerate(chunks(4))
    ]
    assert stream.offset == 40


async def test_blocks_come_as_they_arrive_where_order_does_not_matter() -> None:
    store = Store()
    got: list[int | None] = []
    async with Streamer(7, chunks(3), store.fetch, ahead=1000, ordered=False) as stream:
        for index in (2, 0, 1):
            store.gate(index).set()
            got.append((await anext(stream)).number)
        assert not stream._queue  # nothing that was delivered is held on to
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    assert got == [3, 1, 2]


async def test_no_more_than_so_many_bytes_are_ahead() -> None:
    store = Store(hold=False)
    async with Streamer(7, chunks(10), store.fetch, ahead=35) as stream:
        await anext(stream)
        await settle()
        assert len(store.begun) == 4  # one delivered, three waiting
        await anext(stream)
        await settle()
        assert len(store.begun) == 5


async def test_one_block_is_always_allowed() -> None:
    async with Streamer(7, chunks(3), Store(hold=False).fetch, ahead=1) as stream:
        assert len([block async for block in stream]) == 3


async def test_no_more_than_so_many_workers_run() -> None:
    store = Store()
    async with (
        Streamer(7, chunks(10), store.fetch, ahead=1000, workers=2) as stream,
        anyio.create_task_group() as group,
    ):

        async def first() -> None:
            await anext(stream)

        group.start_soon(first)
        await store.until_begun(2)
        await settle()
        assert sorted(store.begun) == [0, 1]
        store.gate(0).set()
        await store.until_begun(3)
        await settle()
        assert sorted(store.begun) == [0, 1, 2]
        await stream.aclose()


async def test_blocks_are_cut_to_what_is_wanted() -> None:
    async with Streamer(7, chunks(3), Store(hold=False).fetch, ahead=1000, wanted=Extent(5, 22)) as stream:
        got = [(block.offset, bytes(block.data)) async for block in stream]
    assert got == [(5, b"\0" * 5), (10, b"\1" * 10), (20, b"\2" * 2)]


async def test_an_error_tells_where_to_resume_and_cancels_the_rest() -> None:
    store = Store()

    async def fetch(chunk: Chunk) -> bytes:
        if chunk.number == 2:
            await store.until_begun(2)
            raise errors.DownloadTimeout(errors.BlockInfo(7, 2, 10, 10))
        store.gate(0).set()
        return await store.fetch(chunk)

    async with Streamer(7, chunks(4), fetch, ahead=1000, wanted=Extent(3, 40)) as stream:
        assert (await anext(stream)).offset == 3
        with pytest.raises(errors.StreamError) as caught:
            await anext(stream)
        assert (caught.value.offset, caught.value.file_id) == (10, 7)
        assert isinstance(caught.value.__cause__, errors.DownloadTimeout)
        assert sorted(store.cancelled) == [2, 3]
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_an_error_of_the_list_comes_after_the_blocks_before_it() -> None:
    class Broken:
        def __init__(self) -> None:
            self._good = iter(chunks(2))

        def __aiter__(self) -> "Broken":
            return self

        async def __anext__(self) -> Chunk:
            for chunk in self._good:
                return chunk
            raise errors.AuthorizationError(7)

    async with Streamer(7, Broken(), Store(hold=False).fetch, ahead=1) as stream:
        assert [(await anext(stream)).number, (await anext(stream)).number] == [1, 2]
        with pytest.raises(errors.StreamError):
            await anext(stream)


async def test_errors_are_as_they_are_where_order_does_not_matter() -> None:
    async def fetch(chunk: Chunk) -> bytes:
        raise errors.DownloadTimeout(errors.BlockInfo(7, 1, 0, 10))

    async with Streamer(7, chunks(1), fetch, ahead=1, ordered=False) as stream:
        with pytest.raises(errors.DownloadTimeout):
            await anext(stream)


async def test_a_bug_is_not_taken_for_an_error_of_the_stream() -> None:
    async def fetch(chunk: Chunk) -> bytes:
        raise KeyError("bug")

    async with Streamer(7, chunks(2), fetch, ahead=1000) as stream:
        with pytest.raises(KeyError, match="bug"):
            await anext(stream)


async def test_leaving_early_cancels_what_is_under_way() -> None:
    store = Store()
    async with Streamer(7, chunks(10), store.fetch, ahead=1000) as stream:
        store.gate(0).set()
        async for _ in stream:
            break
        await store.until_begun(10)
    assert sorted(store.cancelled) == list(range(1, 10))


async def test_an_exception_in_the_body_comes_out_as_it_is() -> None:
    store = Store()
    store.gate(0).set()

    async def body() -> None:
        async with Streamer(7, chunks(10), store.fetch, ahead=1000) as stream:
            await anext(stream)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await body()


async def test_a_cancelled_reader_can_go_on() -> None:
    store = Store()
    async with Streamer(7, chunks(2), store.fetch, ahead=1000) as stream:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await anext(stream)
        store.hold = False
        store.gate(0).set()
        store.gate(1).set()
        assert [block.number async for block in stream] == [1, 2]


async def test_the_end_of_its_tasks_is_not_the_end_of_the_file() -> None:
    store = Store()
    async with anyio.create_task_group() as group:
        stream = Streamer(7, chunks(3), store.fetch, ahead=1000, tasks=group)
        store.gate(0).set()
        assert (await anext(stream)).number == 1
        group.cancel_scope.cancel()
    with pytest.raises(errors.StreamError) as caught:
        await anext(stream)
    assert caught.value.offset == 10


async def test_without_tasks_it_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await anext(Streamer(7, chunks(1), Store().fetch, ahead=1000))


async def test_no_chunks() -> None:
    async with Streamer(7, [], Store().fetch, ahead=1000) as stream:
        assert [block async for block in stream] == []
        await stream.aclose()
        await stream.aclose()


async def test_the_list_is_drawn_as_needed() -> None:
    drawn: list[int] = []

    class Endless:
        def __aiter__(self) -> AsyncIterator[Chunk]:
            return self

        async def __anext__(self) -> Chunk:
            drawn.append(len(drawn))
            return Chunk(Extent(drawn[-1] * SIZE, len(drawn) * SIZE), "")

    async with Streamer(7, Endless(), Store(hold=False).fetch, ahead=50) as stream:
        await anext(stream)
        await settle()
    assert len(drawn) <= 7
