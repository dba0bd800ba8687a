"""The client against servers on real sockets, under asyncio and trio."""

import base64
import gc
import gzip
import json
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import httpx
import pytest
from anyio import to_thread
from block_encoder import compress, encrypt, wrap
from scripted_server import Exchange, ScriptedServer

from cterafs import errors
from cterafs.direct import DirectIO, slots
from cterafs.direct import retry as retries
from cterafs.model import BlockMap, ByteRange, Chunk, Compression, Extent

pytestmark = pytest.mark.anyio
KEY = bytes(range(32))
SECRET = b"the secret access key"
ACCESS = "access-key-id"
SIZE = 1000


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_PAUSE", 0.001)


class World:
    """A portal and a storage of one file of five blocks.

    Attributes:
        portal, storage: hooks that may answer a request; True means that they did.
    """

    def __init__(self) -> None:
        self.plain = bytes(range(250)) * (5 * SIZE // 250)
        self.encrypted = True
        self.portal: Callable[[Exchange], bool] = lambda exchange: False
        self.storage: Callable[[Exchange], bool] = lambda exchange: False
        self.store: ScriptedServer
        self.server: ScriptedServer

    def list(self, exchange: Exchange) -> None:
        if self.portal(exchange):
            return
        chunks = [{"url": f"{self.store.url}/blocks/{i}?sig=presigned", "len": SIZE} for i in range(5)]
        body = {
            "encrypt_info": {"wrapped_key": wrap(KEY, SECRET), "data_encrypted": self.encrypted},
            "compression_type": "GZIP",
            "actual_blocks_range": {"file_size": 5 * SIZE, "range": "0-4999"},
            "chunks": chunks,
        }
        exchange.answer(json.dumps(body).encode())

    def block(self, exchange: Exchange) -> None:
        assert "authorization" not in exchange.head.lower()
        if not self.storage(exchange):
            exchange.answer(self.stored(int(exchange.path.partition("?")[0].rpartition("/")[2])))

    def stored(self, index: int) -> bytes:
        data = compress(self.plain[index * SIZE : (index + 1) * SIZE], "gzip")
        return encrypt(data, KEY) if self.encrypted else data

    def client(self, **options: Any) -> DirectIO:
        options = {"access_key_id": ACCESS, "secret_access_key": base64.b64encode(SECRET).decode(), **options}
        return DirectIO(self.server.url, **options)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    with ScriptedServer(made.block) as made.store, ScriptedServer(made.list) as made.server:
        yield made


def once(answer: Callable[[Exchange], None], times: int = 1) -> Callable[[Exchange], bool]:
    left = [times]

    def hook(exchange: Exchange) -> bool:
        left[0] -= 1
        if left[0] >= 0:
            answer(exchange)
        return left[0] >= 0

    return hook


def always(answer: Callable[[Exchange], None]) -> Callable[[Exchange], bool]:
    def hook(exchange: Exchange) -> bool:
        answer(exchange)
        return True

    return hook


def status(line: str, **headers: str) -> Callable[[Exchange], None]:
    return lambda exchange: exchange.answer(b"{}", line, **headers)


async def read(client: DirectIO, byte_range: ByteRange | None = None) -> bytes:
    return b"".join([bytes(block.data) async for block in client.streamer(7, byte_range)])


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


async def test_metadata_has_the_sdk_s_shape(world: World) -> None:
    async with world.client() as client:
        found = await client.metadata(7)
    assert found["chunks"][1] == {
        "number": 2,
        "offset": 1000,
        "length": 1000,
        "url": f"{world.store.url}/blocks/1?sig=presigned",
    }
    del found["chunks"]
    assert found == {
        "file_id": 7,
        "encrypted": True,
        "compressed": True,
        "encryption_key": base64.b64encode(KEY).decode(),
        "compression_library": "GZIP",
        "size": 5000,
    }


@pytest.mark.parametrize(
    ("line", "error", "attempts"),
    [
        ("400 Bad Request", errors.ObjectNotFoundError, 1),
        ("401 Unauthorized", errors.AuthorizationError, 1),
        ("403 Forbidden", errors.AuthorizationError, 1),
        ("422 Unprocessable", errors.UnsupportedStorageError, 1),
        ("500 Oops", errors.InvalidRequest, retries.ATTEMPTS),
        ("503 Busy", errors.InvalidRequest, retries.ATTEMPTS),
        ("429 Slow down", errors.InvalidRequest, retries.ATTEMPTS),
        ("404 Not Found", errors.InvalidRequest, retries.ATTEMPTS),
        ("302 Found", errors.InvalidRequest, retries.ATTEMPTS),
    ],
)
async def test_refusals_of_the_portal(
    world: World, line: str, error: type[errors.DirectIOAPIError], attempts: int
) -> None:
    world.portal = always(status(line, Location="/login.html"))
    async with world.client() as client:
        with pytest.raises(error, match=line[:3]) as caught:
            await client.block_map(7)
    assert type(caught.value) is error
    assert caught.value.file_id == 7
    assert len(world.server.exchanges) == attempts
    assert all(exchange.path == "/directio/7" for exchange in world.server.exchanges)


async def test_the_portal_may_recover(world: World) -> None:
    world.portal = once(Exchange.reset, 2)
    async with world.client() as client:
        assert (await client.block_map(7)).size == 5000


async def test_an_empty_list(world: World) -> None:
    world.portal = always(lambda exchange: exchange.answer(b'{"chunks":[]}'))
    async with world.client() as client:
        with pytest.raises(errors.BlocksNotFoundError):
            await client.block_map(7)
    assert len(world.server.exchanges) == 1


async def test_a_list_of_unknown_place_is_asked_for_whole(world: World) -> None:
    def old_portal(exchange: Exchange) -> None:
        part = "rangeStart" in exchange.path
        chunks = [{"url": f"{world.store.url}/blocks/{i}", "len": SIZE} for i in (range(2, 4) if part else range(5))]
        exchange.answer(json.dumps({"wrapped_key": wrap(KEY, SECRET), "chunks": chunks}).encode())

    world.portal = always(old_portal)
    async with world.client() as client:
        found = await client.block_map(7, Extent(2000, 4000))
        assert (found.size, len(found.chunks)) == (5000, 5)
        assert await client.fetch(found, found.chunks[2]) == world.plain[2000:3000]  # gzip, by its magic


async def test_no_connection_to_the_portal(world: World) -> None:
    async with DirectIO("http://127.0.0.1:1", "k") as client:
        with pytest.raises(errors.BlockListConnectionError):
            await client.block_map(7)


async def test_a_portal_that_hangs(world: World) -> None:
    world.portal = always(Exchange.hang)
    async with world.client(timeout=0.1) as client:
        with pytest.raises(errors.BlockListTimeout):
            await client.block_map(7)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ((b" " * 20_000, ""), "MiB"),
        ((gzip.compress(b" " * 20_000), "gzip"), "MiB"),
        ((gzip.compress(b" " * 20_000)[:-9], "gzip"), "cut short"),
        ((b"rubbish", "gzip"), "does not decompress"),
        ((b"{}", "br"), "encoding"),
    ],
)
async def test_an_answer_that_is_too_long_or_not_what_it_says(
    world: World, monkeypatch: pytest.MonkeyPatch, sent: tuple[bytes, str], reason: str
) -> None:
    monkeypatch.setattr("cterafs.direct.api.MAX_ANSWER", 20_000 if reason == "cut short" else 10_000)
    monkeypatch.setattr(retries, "ATTEMPTS", 1)
    body, encoding = sent
    world.portal = always(lambda exchange: exchange.answer(body, Content_Encoding=encoding or "identity"))
    async with world.client() as client:
        with pytest.raises(errors.InvalidRequest, match=reason):
            await client.block_map(7)


async def test_an_endless_answer_ends(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:  # until the client goes away
            exchange.send(b"3e8\r\n" + b" " * 1000 + b"\r\n")

    monkeypatch.setattr("cterafs.direct.api.MAX_ANSWER", 100_000)
    monkeypatch.setattr(retries, "ATTEMPTS", 1)
    world.portal = always(endless)
    async with world.client() as client:
        with pytest.raises(errors.InvalidRequest, match="MiB"):
            await client.block_map(7)


async def test_a_compressed_answer(world: World) -> None:
    listed = json.dumps({"chunks": [{"url": "https://s/1", "len": 5}]}).encode()
    world.portal = always(lambda exchange: exchange.answer(gzip.compress(listed), Content_Encoding="gzip"))
    async with world.client() as client:
        assert (await client.block_map(7)).size == 5


@pytest.mark.parametrize(
    "problem",
    [getattr(httpx, name) for name in httpx.__all__ if isinstance(getattr(httpx, name), type)
     and issubclass(getattr(httpx, name), httpx.RequestError)],
)  # fmt: skip
async def test_every_error_of_a_request_is_translated(
    world: World, problem: type[httpx.RequestError], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise problem("reason")

    monkeypatch.setattr(httpx.AsyncClient, "send", fail)
    monkeypatch.setattr(retries, "ATTEMPTS", 1)
    async with world.client() as client:
        with pytest.raises((errors.BlockListConnectionError, errors.BlockListTimeout)):
            await client.block_map(7)


async def test_a_token_alone_serves_what_is_not_encrypted(world: World) -> None:
    world.encrypted = False
    async with world.client(access_key_id=None, secret_access_key=None, bearer="token") as client:
        assert await read(client) == world.plain
        assert world.server.exchanges[0].header("authorization") == "Bearer token"
        world.encrypted = True
        with pytest.raises(errors.DecryptKeyError, match="bearer token alone"):
            await client.block_map(7)


async def test_a_wrong_secret(world: World) -> None:
    async with world.client(secret_access_key=base64.b64encode(b"wrong").decode()) as client:
        with pytest.raises(errors.StreamError) as caught:
            await read(client)
    assert isinstance(caught.value.__cause__, errors.DecryptKeyError)


def wrong_block(exchange: Exchange) -> None:
    exchange.answer(b"rubbish")


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
    world.storage = once(status("403 Expired"), 5)
    async with world.client() as client:
        assert await read(client) == world.plain


async def test_a_storage_that_hangs_is_a_timeout(world: World) -> None:
    world.storage = always(Exchange.hang)
    async with world.client(timeout=0.3) as client:
        found = await client.block_map(7)
        with pytest.raises(errors.DownloadTimeout):
            await client.fetch(found, found.chunks[0])
    assert len(world.store.exchanges) >= 2


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
        download = client._download

        def observed(*args: Any) -> bytes:
            try:
                return download(*args)
            finally:
                ended.release()

        monkeypatch.setattr(client, "_download", observed)
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
        monkeypatch.setattr(client._storage, "get", lambda *_: gate.wait(60))
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
