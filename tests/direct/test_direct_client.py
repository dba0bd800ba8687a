"""The client against servers on real sockets, under asyncio and trio."""

import base64
import gc
import logging
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from anyio import to_thread
from direct_world import ACCESS, KEY, SECRET, World, always, once, read, status, wrong_block
from scripted_server import Exchange

from cterafs import errors
from cterafs.direct import retry as retries
from cterafs.direct import slots
from cterafs.direct.client import DirectIO
from cterafs.model import BlockMap, ByteRange, Chunk, Compression, Extent

pytestmark = pytest.mark.anyio


async def test_a_stream(world: World) -> None:
    async with world.client() as client:
        assert await read(client) == world.plain
    assert world.server.exchanges[0].header("authorization") == f"Bearer {ACCESS}"
    assert world.server.exchanges[0].path.startswith("/directio/7?rangeStart=0&rangeEnd=")


async def test_blocks(world: World) -> None:
    async with world.client() as client:
        blocks = [block async for block in client.blocks(7, max_workers=2)]
    assert sorted(block.number or 0 for block in blocks) == [1, 2, 3, 4, 5]
    assert all(block.data == world.plain[block.offset : block.offset + block.length] for block in blocks)


@pytest.mark.parametrize(
    "byte_range", [ByteRange(0, 0), ByteRange(999, 1000), ByteRange(1500), ByteRange(4999), ByteRange(10, 99999)]
)
async def test_ranges_include_their_end(world: World, byte_range: ByteRange) -> None:
    async with world.client() as client:
        stop = None if byte_range.end is None else byte_range.end + 1
        assert await read(client, byte_range) == world.plain[byte_range.start : stop]


@pytest.mark.parametrize("start", [5000, 5001, 10**15, 2**63 - 1, 2**70])
async def test_a_range_beyond_the_end_yields_nothing(world: World, start: int) -> None:
    async with world.client() as client:
        assert await read(client, ByteRange(start)) == b""


@pytest.mark.parametrize(
    "failure", [Exchange.reset, wrong_block, status("500 Oops"), status("429 Wait", Retry_After="0")]
)
async def test_a_block_that_fails_is_fetched_again(world: World, failure: Callable[[Exchange], None]) -> None:
    world.storage = once(failure, 2)
    async with world.client() as client:
        assert await read(client) == world.plain


@pytest.mark.parametrize(
    ("failure", "error", "attempts"),
    [
        (wrong_block, errors.DecryptBlockError, retries.ATTEMPTS),
        (status("503 Busy"), errors.DownloadError, retries.ATTEMPTS),
        (status("403 Expired"), errors.DownloadError, 1),
        (status("404 Gone"), errors.DownloadError, 1),
        (Exchange.reset, errors.DownloadConnectionError, retries.ATTEMPTS),
    ],
)
async def test_a_block_that_fails_for_good(
    world: World, failure: Callable[[Exchange], None], error: type[errors.BlockError], attempts: int
) -> None:
    world.storage = always(failure)
    async with world.client() as client:
        found = await client.block_map(7)
        with pytest.raises(error) as caught:
            await client.fetch(found, found.chunks[1])
    assert caught.value.block == errors.BlockInfo(7, 2, 1000, 1000)
    assert len(world.store.exchanges) == attempts


async def test_a_stream_that_breaks_resumes(world: World) -> None:
    world.storage = lambda exchange: exchange.path.startswith("/blocks/3") and always(wrong_block)(exchange)
    got = b""
    async with world.client() as client:
        stream = client.streamer(7)
        for _ in range(3):
            got += (await anext(stream)).data
        with pytest.raises(errors.StreamError) as caught:
            await anext(stream)
        assert caught.value.offset == len(got) == 3000
        world.storage = lambda exchange: False
        assert got + await read(client, ByteRange(caught.value.offset)) == world.plain


async def test_expired_urls_are_renewed_while_streaming(world: World) -> None:
    refused: set[str] = set()

    def expired(exchange: Exchange) -> bool:
        """Each block's first URL, however soon the first of them is renewed."""
        if exchange.path in refused:
            return False
        refused.add(exchange.path)
        status("403 Expired")(exchange)
        return True

    world.storage = expired
    async with world.client() as client:
        assert await read(client) == world.plain
    assert len(refused) == 5


async def test_a_storage_that_hangs_is_a_timeout(world: World) -> None:
    world.storage = always(Exchange.hang)
    async with world.client(timeout=0.3) as client:
        found = await client.block_map(7)
        with pytest.raises(errors.DownloadTimeout):
            await client.fetch(found, found.chunks[0])
    assert len(world.store.exchanges) >= 2


async def test_progress_buys_time(world: World) -> None:
    """Each attempt gets on before it hangs, so the deadline never comes, but the attempts end."""

    def get_on(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + bytes(20_000))
        exchange.hang()

    world.storage = always(get_on)
    chunk = Chunk(Extent(0, 100_000), f"{world.store.url}/blocks/x")
    async with world.client(timeout=0.3) as client:
        with pytest.raises(errors.DownloadTimeout):
            await client.fetch(BlockMap(7, 100_000, (chunk,), None, None), chunk)
    assert len(world.store.exchanges) == retries.ATTEMPTS


async def test_hung_downloads_hold_up_nobody(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty hang, with four slots; the one that does not is read all the same, long before any of them fails."""

    def hang(exchange: Exchange) -> bool:
        if exchange.path.startswith("/blocks/0"):
            exchange.hang()
            return True
        return False

    world.storage = hang
    monkeypatch.setattr(slots, "STALLED", 0.05)
    monkeypatch.setattr(slots, "TICK", 0.01)
    async with world.client(workers=4, timeout=600) as client:
        found = await client.block_map(7)
        async with anyio.create_task_group() as hung:
            for _ in range(40):
                hung.start_soon(client.fetch, found, found.chunks[0])
            with anyio.fail_after(100):
                await to_thread.run_sync(lambda: [world.store.hanging.acquire() for _ in range(4)])
                assert await client.fetch(found, found.chunks[1]) == world.plain[1000:2000]
            hung.cancel_scope.cancel()


async def test_a_download_that_gets_on_keeps_its_slot(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "STALLED", 3600.0)
    gate = threading.Event()
    world.storage = lambda exchange: not gate.wait(60)
    async with world.client(workers=2) as client:
        found = await client.block_map(7)
        async with anyio.create_task_group() as group:
            for chunk in found.chunks:
                group.start_soon(client.fetch, found, chunk)
            await to_thread.run_sync(lambda: [world.store.begun.acquire() for _ in range(2)])
            await anyio.wait_all_tasks_blocked()
            assert not world.store.begun.acquire(blocking=False)
            gate.set()
    assert len(world.store.exchanges) == 5


async def test_a_cancelled_download_frees_its_thread_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.storage = always(Exchange.hang)
    ended = threading.Semaphore(0)
    async with world.client(timeout=600) as client:
        found = await client.block_map(7)
        download = client._downloads._download

        def observed(*args: Any) -> bytes:
            try:
                return download(*args)
            finally:
                ended.release()

        monkeypatch.setattr(client._downloads, "_download", observed)
        async with anyio.create_task_group() as group:
            for chunk in found.chunks:
                group.start_soon(client.fetch, found, chunk)
            await to_thread.run_sync(lambda: [world.store.hanging.acquire() for _ in range(5)])
            group.cancel_scope.cancel()
        with anyio.fail_after(100):
            await to_thread.run_sync(lambda: [world.store.abandoned.acquire() for _ in range(5)])
            await to_thread.run_sync(lambda: [ended.acquire() for _ in range(5)])


async def test_a_download_stuck_where_no_timeout_reaches_ends(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a resolver that hangs."""
    gate = threading.Event()
    monkeypatch.setattr(slots, "GRACE", 0.0)
    monkeypatch.setattr(slots, "TICK", 0.01)
    async with world.client(timeout=0.3) as client:
        found = await client.block_map(7)
        monkeypatch.setattr(client._downloads._storage, "get", lambda *_: gate.wait(60))
        try:
            with pytest.raises(errors.DownloadTimeout, match="stuck"):
                await client.fetch(found, found.chunks[0])
        finally:
            gate.set()


async def test_leaving_the_client_ends_its_streams(world: World) -> None:
    world.storage = lambda exchange: not exchange.path.startswith("/blocks/0") and always(Exchange.hang)(exchange)
    async with world.client(timeout=600) as client:
        stream = client.streamer(7)
        async for block in stream:
            assert block.number == 1
            break
        await to_thread.run_sync(lambda: [world.store.hanging.acquire() for _ in range(4)])
    with pytest.raises(errors.StreamError, match="closed"):
        await anext(stream)
    with anyio.fail_after(100):
        await to_thread.run_sync(lambda: [world.store.abandoned.acquire() for _ in range(4)])


async def test_an_exception_of_the_body_comes_out_as_it_is(world: World) -> None:
    async def body() -> None:
        async with world.client() as client:
            await client.block_map(7)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await body()


async def test_a_client_that_is_not_open_says_so(world: World) -> None:
    client = world.client()
    with pytest.raises(RuntimeError, match="async with"):
        await client.block_map(7)
    with pytest.raises(RuntimeError, match="async with"):
        client.streamer(7)


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("ftp://portal", {}),
        ("portal.example.com", {}),
        ("https://:443", {}),
        ("https://h:99999", {}),
        ("https://h", {"access_key_id": None}),
        ("https://h", {"access_key_id": "line\nend"}),
        ("https://h", {"bearer": "töken"}),
        ("https://h", {"ca_file": "/nonexistent"}),
    ],
)
async def test_what_cannot_be_used_is_a_configuration_error(url: str, options: dict[str, Any]) -> None:
    with pytest.raises(errors.ConfigError) as caught:
        DirectIO(url, **{"access_key_id": "k", **options})
    assert "töken" not in str(caught.value)


async def test_secrets_are_in_no_repr_and_no_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    world.storage = once(wrong_block)
    async with world.client() as client:
        found = await client.block_map(7)
        await client.fetch(found, found.chunks[0])
        seen = repr([client, found, found.chunks]) + caplog.text
    for secret in (ACCESS, SECRET.decode(), base64.b64encode(SECRET).decode(), "presigned", repr(KEY)[2:30]):
        assert secret not in seen


async def test_an_unencrypted_uncompressed_block(world: World) -> None:
    world.storage = always(lambda exchange: exchange.answer(b"plain"))
    chunk = Chunk(Extent(0, 5), f"{world.store.url}/blocks/x")
    async with world.client() as client:
        got = await client.fetch(BlockMap(7, 5, (chunk,), None, Compression.NONE), chunk)
    assert got == b"plain"
    assert type(got) is bytes
    gc.collect()  # nothing that was left open warns
