"""Downloads in a real process, from a storage that does as it is told."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import trio
from scripted_server import Exchange
from told_storage import Store

from cterafs.direct.downloads import Downloads
from cterafs.direct.landing import Landing
from cterafs.direct.storage import Storage, tls_context
from cterafs.direct.transfer import Aborted
from cterafs.downloading import process as processes
from cterafs.downloading.arena import STATES
from cterafs.downloading.messages import Cancel, Done, Left, Ready, Told, encode
from cterafs.downloading.process import DownloadProcess
from cterafs.downloading.worker import Crew
from cterafs.errors import BlockError, BlockInfo, DownloadError
from cterafs.model import BlockMap, Chunk, Compression, Extent

SIZE = 300_000
PATIENCE = 60.0

Running = Callable[..., AbstractAsyncContextManager[DownloadProcess]]


def block(number: int) -> bytes:
    return bytes([number % 251]) * (SIZE - 1) + b"."


def listed(store: Store, count: int, url: str = "") -> tuple[BlockMap, list[Landing]]:
    extents = [Extent(number * SIZE, (number + 1) * SIZE) for number in range(count)]
    chunks = [Chunk(extent, url or f"{store.server.url}/{number}") for number, extent in enumerate(extents)]
    landings = [Landing(BlockInfo(7, None, extent.start, SIZE)) for extent in extents]
    return BlockMap(7, count * SIZE, tuple(chunks), None, Compression.NONE), landings


def number(exchange: Exchange) -> int:
    return int(exchange.path.strip("/"))


async def idle(process: DownloadProcess) -> None:
    """Until no thread of the process writes any more."""
    with trio.fail_after(PATIENCE):
        while process._jobs:
            await trio.lowlevel.checkpoint()
    assert len(process._states) == STATES


@pytest.mark.trio
async def test_blocks_land_in_memory_that_this_process_sees(store: Store, running: Running) -> None:
    store.script = lambda exchange: exchange.answer(block(number(exchange)))
    source, landings = listed(store, 70)
    async with running() as process:
        assert await process.land(source, landings)
        for index, landing in enumerate(landings):
            assert landing.complete
            assert landing.take() == block(index)
        await idle(process)
    assert landings[3].take() == block(3)  # for as long as somebody has it


@pytest.mark.trio
async def test_a_block_is_read_while_it_arrives(store: Store, running: Running) -> None:
    gate = threading.Event()

    def halves(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE + block(1)[: SIZE // 2])
        gate.wait(PATIENCE)
        exchange.send(block(1)[SIZE // 2 :])

    store.script = halves
    source, [landing] = listed(store, 1)
    half = trio.Event()
    landing.tell = half.set
    landing.await_bytes(SIZE // 2)
    async with running() as process, trio.open_nursery() as nursery:
        nursery.start_soon(process.land, source, [landing])
        with trio.fail_after(PATIENCE):
            await half.wait()
        assert landing.part(1000, SIZE // 2) == block(1)[1000 : SIZE // 2]
        assert landing.part(0, SIZE) is None
        assert not landing.complete
        gate.set()
    assert landing.take() == block(1)


@pytest.mark.trio
async def test_another_attempt_is_counted_and_ends_in_the_right_bytes(store: Store, running: Running) -> None:
    def first_wrong(exchange: Exchange) -> None:
        if store.server.exchanges[0] is exchange:
            exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE + b"x" * (SIZE // 2))
            exchange.reset()
        else:
            exchange.answer(block(5))

    store.script = first_wrong
    source, [landing] = listed(store, 1)
    async with running() as process:
        assert await process.land(source, [landing])
    assert landing.attempt == 2
    assert landing.take() == block(5)


@pytest.mark.parametrize(
    "answer",
    [
        lambda exchange: exchange.answer(b"", "403 Forbidden"),
        lambda exchange: exchange.answer(b"", "503 Service Unavailable", Retry_After="100"),
        lambda exchange: exchange.answer(b"too short"),
        lambda exchange: exchange.answer(block(0), Content_MD5="AAAAAAAAAAAAAAAAAAAAAA=="),
    ],
)
@pytest.mark.trio
async def test_errors_are_those_that_this_process_would_have_met(
    store: Store, running: Running, answer: Callable[[Exchange], None]
) -> None:
    store.script = answer
    source, landings = listed(store, 1)
    async with running() as process:
        with pytest.raises(BlockError) as there:
            await process.land(source, landings)
        await idle(process)
    assert not landings[0].complete
    tls = tls_context(True, None)
    async with Downloads(Storage("http://127.0.0.1", tls), workers=1, timeout=20) as downloads:
        with pytest.raises(BlockError) as here:
            await downloads.land(source, landings)
    assert type(there.value) is type(here.value)
    assert str(there.value) == str(here.value)
    assert there.value.block == here.value.block
    assert there.value.retry_after == here.value.retry_after
    if isinstance(there.value, DownloadError):
        assert there.value.status == here.value.status  # type: ignore[attr-defined]


@pytest.mark.trio
async def test_memory_of_what_failed_is_free_without_a_search_for_cycles(store: Store, running: Running) -> None:
    store.script = lambda exchange: exchange.answer(b"", "403 Forbidden")
    source, landings = listed(store, 3)
    gc.disable()
    try:
        async with running() as process:
            with pytest.raises(BlockError):
                await process.land(source, landings)
            await idle(process)
            assert len(process._segments._left) == len(process._segments._in_use) == 3
    finally:
        gc.enable()


@pytest.mark.trio
async def test_short_blocks_keep_no_page_each(store: Store, running: Running) -> None:
    store.script = lambda exchange: exchange.answer(b"short")
    landings = [Landing(BlockInfo(7, None, number * 5, 5)) for number in range(20)]
    chunks = [Chunk(landing.extent, f"{store.server.url}/{landing.block.offset}") for landing in landings]
    async with running() as process:
        assert await process.land(BlockMap(7, 100, tuple(chunks), None, Compression.NONE), landings)
        assert [landing.take() for landing in landings] == [b"short"] * 20
        await idle(process)
        assert len(process._segments._left) == len(process._segments._in_use) == 20


@pytest.mark.trio
async def test_what_a_killed_process_leaves_is_fetched_here(store: Store, running: Running) -> None:
    first = threading.Semaphore(0)

    def second_hangs(exchange: Exchange) -> None:
        if number(exchange) == 1 and len(store.server.exchanges) < 3:
            first.release()
            exchange.hang()
        else:
            exchange.answer(block(number(exchange)))

    store.script = second_hangs
    source, landings = listed(store, 3)
    async with running(workers=1) as process:
        results: list[bool] = []

        async def land() -> None:
            results.append(await process.land(source, landings))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(land)
            await trio.to_thread.run_sync(first.acquire)
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
        assert results == [False]
        assert [landing.complete for landing in landings] == [True, False, False]
        assert not await process.land(source, landings)
        async with Downloads(Storage("http://127.0.0.1", tls_context(True, None)), workers=1, timeout=20) as downloads:
            await downloads.land(source, landings)
    assert [landing.take() for landing in landings] == [block(0), block(1), block(2)]


@pytest.mark.trio
async def test_another_process_takes_the_place_of_one_that_ended(
    store: Store, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "RESTART", 0.0)
    store.script = lambda exchange: exchange.answer(block(number(exchange)))
    source, landings = listed(store, 1)
    async with running() as process:
        before, process.ready = process.pid, trio.Event()
        assert before is not None
        os.kill(before, signal.SIGKILL)
        with trio.fail_after(PATIENCE):
            await process.ready.wait()
        assert process.pid not in (None, before)
        assert await process.land(source, landings)
    assert landings[0].take() == block(0)


NONSENSE = """
import pathlib, socket, sys
begun = pathlib.Path({marker!r})
if not begun.exists():
    begun.touch()
    mount = socket.socket(fileno=int(sys.argv[1]))
    mount.send({packet!r})
    mount.recv(1 << 20)
    mount.recv(1)
    sys.exit()
"""


@pytest.mark.parametrize("packet", [b"\xff", encode(Told(99, 0)), encode(Done(99, None, left=True)), encode(Left(99))])
@pytest.mark.trio
async def test_one_that_says_what_makes_no_sense_is_replaced(
    store: Store, running: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, packet: bytes
) -> None:
    monkeypatch.setattr(processes, "RESTART", 0.0)
    said = NONSENSE.format(marker=str(tmp_path / "begun"), packet=packet)
    monkeypatch.setattr(processes, "BEGIN", said + processes.BEGIN)
    store.script = lambda exchange: exchange.answer(block(number(exchange)))
    source, landings = listed(store, 1)
    async with running() as process:
        assert await process.land(source, landings)
    assert (tmp_path / "begun").exists()


@pytest.mark.trio
async def test_memory_is_not_used_again_while_a_thread_may_write_there(store: Store, running: Running) -> None:
    store.script = Exchange.hang
    source, landings = listed(store, 4)
    async with running() as process:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(process.land, source, landings)
            await trio.to_thread.run_sync(store.server.hanging.acquire)
            assert process.pid is not None
            os.kill(process.pid, signal.SIGSTOP)
            nursery.cancel_scope.cancel()
        assert len(process._states) == STATES - 4
        assert not process._segments._left
        os.kill(process.pid, signal.SIGCONT)
        await idle(process)
        await trio.to_thread.run_sync(store.server.abandoned.acquire)


def test_who_leaves_late_tells_it_and_who_comes_late_is_turned_away() -> None:
    told = []
    crew = Crew(lambda: told.append("left"))
    with crew:
        with crew:
            assert not crew.dismiss()
            with pytest.raises(Aborted), crew:
                pass
        assert told == []
    assert told == ["left"]


def test_a_crew_that_has_left_before_the_end_tells_nothing() -> None:
    crew = Crew(lambda: pytest.fail("nobody was there any more"))
    with crew:
        pass
    assert crew.dismiss()


@pytest.mark.trio
async def test_that_the_last_thread_has_left_may_be_heard_before_the_end_of_the_job(
    store: Store, running: Running
) -> None:
    store.script = Exchange.hang
    source, landings = listed(store, 2)
    async with running() as process, trio.open_nursery() as nursery:
        nursery.start_soon(process.land, source, landings)
        await trio.to_thread.run_sync(store.server.hanging.acquire)
        [job] = process._jobs
        process._hear(Left(job))
        assert len(process._states) == STATES - 2
        process._hear(Done(job, None, left=False))
        assert len(process._states) == STATES


@pytest.mark.trio
async def test_blocks_behind_one_that_hangs_are_dropped(store: Store, running: Running) -> None:
    store.script = lambda exchange: exchange.hang() if number(exchange) == 0 else exchange.answer(block(1))
    source, landings = listed(store, 2)
    dropped = trio.Event()
    landings[1].tell = dropped.set
    async with running(workers=1) as process, trio.open_nursery() as nursery:
        nursery.start_soon(process.land, source, landings)
        with trio.fail_after(PATIENCE):
            await dropped.wait()
        assert landings[1].dropped
        assert not landings[0].dropped
        nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_any_number_of_jobs_waits_for_room_in_the_socket(store: Store, running: Running) -> None:
    store.script = lambda exchange: exchange.answer(b"x" * SIZE)
    jobs = [listed(store, 4, f"{store.server.url}/{number}?{'x' * 4000}") for number in range(40)]
    taken: list[bool] = []
    async with running() as process:

        async def land(source: BlockMap, landings: list[Landing]) -> None:
            taken.append(await process.land(source, landings))

        async with trio.open_nursery() as nursery:
            for source, landings in jobs:
                nursery.start_soon(land, source, landings)
        await idle(process)
    assert taken == [True] * 40


@pytest.mark.parametrize("length", [200_000, 250_000])  # more than a message has, and than a socket takes
@pytest.mark.trio
async def test_a_list_that_fits_into_no_packet_is_not_for_it(store: Store, running: Running, length: int) -> None:
    store.script = lambda exchange: exchange.answer(block(number(exchange)))
    source, landings = listed(store, 1, "http://127.0.0.1/" + "x" * length)
    async with running() as process:
        assert not await process.land(source, landings)
        await idle(process)
        assert await process.land(*listed(store, 1))


@pytest.mark.trio
async def test_signals_to_a_group_of_processes_do_not_end_it(store: Store, running: Running) -> None:
    store.script = lambda exchange: exchange.answer(block(number(exchange)))
    async with running() as process:
        assert process.pid is not None
        for sent in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(process.pid, sent)
            assert await process.land(*listed(store, 1))


@pytest.mark.trio
async def test_a_job_may_be_cancelled_when_it_is_over(store: Store, running: Running) -> None:
    store.script = lambda exchange: exchange.answer(block(number(exchange)))
    async with running() as process:
        assert process._socket is not None
        process._socket.send(encode(Cancel(1)))
        assert await process.land(*listed(store, 1))


UNENDING = """
import signal, socket, sys
mount = socket.socket(fileno=int(sys.argv[1]))
mount.send({packet!r})
signal.pause()
"""


@pytest.mark.trio
async def test_one_that_does_not_end_by_itself_is_killed(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "ENDING", 0.0)
    monkeypatch.setattr(processes, "BEGIN", UNENDING.format(packet=encode(Ready())))
    async with running() as process:
        assert process.pid is not None
        rescue = threading.Timer(PATIENCE, os.kill, (process.pid, signal.SIGTERM))
        rescue.start()
    in_time = rescue.is_alive()
    rescue.cancel()
    assert in_time


@pytest.mark.trio
async def test_nothing_is_left_of_it(store: Store, running: Running) -> None:
    def open_files() -> Sequence[str]:
        return os.listdir("/proc/self/fd")  # noqa: PTH208

    store.script = lambda exchange: exchange.answer(block(number(exchange)))
    before = len(open_files())
    async with running() as process:
        pid = process.pid
        assert await process.land(*listed(store, 2))
    assert len(open_files()) <= before + 1  # the server may still have the connection
    with pytest.raises(ProcessLookupError):
        os.kill(pid or 0, 0)
