"""Lists of blocks: what the portal answers, and what comes of it."""

import base64
import gzip
import json
import socket
import ssl
import tracemalloc

import anyio
import pytest
from block_encoder import wrap
from direct_world import KEY, SECRET, SIZE, World, always, once, read, status
from scripted_server import Exchange

from cterafs import errors
from cterafs.direct import retry as retries
from cterafs.direct.client import DirectIO
from cterafs.model import Extent

pytestmark = pytest.mark.anyio


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
    world.portal = always(status(line, Location="/login.html", Retry_After="0"))
    async with world.client() as client:
        with pytest.raises(error, match=line[:3]) as caught:
            await client.block_map(7)
    assert type(caught.value) is error
    assert (caught.value.file_id, caught.value.retry_after) == (7, 0)
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


def bound(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """No answer may have more bytes than this."""
    for name in ("USUAL_ANSWER", "MAX_ANSWER"):
        monkeypatch.setattr(f"cterafs.direct.wire.{name}", limit)


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
    bound(monkeypatch, 20_000 if reason == "cut short" else 10_000)
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

    bound(monkeypatch, 100_000)
    monkeypatch.setattr(retries, "ATTEMPTS", 1)
    world.portal = always(endless)
    async with world.client() as client:
        with pytest.raises(errors.InvalidRequest, match="MiB"):
            await client.block_map(7)


async def test_a_compressed_answer_is_not_inflated_beyond_the_bound(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound(monkeypatch, 1 << 20)
    monkeypatch.setattr(retries, "ATTEMPTS", 1)
    bomb = gzip.compress(bytes(64 << 20))
    world.portal = always(lambda exchange: exchange.answer(bomb, Content_Encoding="gzip"))
    async with world.client() as client:
        tracemalloc.start()
        try:
            with pytest.raises(errors.InvalidRequest, match="MiB"):
                await client.block_map(7)
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
        finally:
            tracemalloc.stop()


async def test_a_compressed_answer(world: World) -> None:
    listed = json.dumps({"chunks": [{"url": "https://s/1", "len": 5}]}).encode()
    world.portal = always(lambda exchange: exchange.answer(gzip.compress(listed), Content_Encoding="gzip"))
    async with world.client() as client:
        assert (await client.block_map(7)).size == 5


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        (OSError("reason"), errors.BlockListConnectionError),
        (ConnectionResetError(104, "reason"), errors.BlockListConnectionError),
        (socket.gaierror(-2, "Name or service not known"), errors.BlockListConnectionError),
        (ssl.SSLCertVerificationError(1, "self-signed"), errors.BlockListConnectionError),
        (UnicodeError("label too long"), errors.BlockListConnectionError),
        (TimeoutError(), errors.BlockListTimeout),
    ],
)
async def test_every_error_of_a_connection_is_translated(
    world: World, problem: Exception, expected: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise problem

    monkeypatch.setattr(anyio, "connect_tcp", fail)
    monkeypatch.setattr(retries, "ATTEMPTS", 1)
    async with world.client() as client:
        with pytest.raises(expected):
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
