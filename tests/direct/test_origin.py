"""GET requests on the event loop: framing, connections that are kept, patience, TLS and proxies."""

from __future__ import annotations

import base64
import select
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import pytest
import trio
from scripted_server import Exchange, ScriptedServer
from trio.testing import MockClock

from cterafs.demo.certificates import make_certificate
from cterafs.direct.addresses import Endpoint, parse
from cterafs.direct.http1 import CutShort, MalformedAnswer, Oversized
from cterafs.direct.origin import Origin, Patience
from cterafs.direct.proxies import Proxy, proxy_for
from cterafs.direct.storage import tls_context
from cterafs.errors import ConfigError

BODY = bytes(range(256)) * 20
HEAD = b"HTTP/1.1 200 OK\r\n"
LENGTH = b"Content-Length: %d\r\n\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
LIMIT = 100_000

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def origin(url: str, tls: ssl.SSLContext | None = None) -> Origin:
    return Origin(parse(url).endpoint, tls or tls_context(True, None), "X-Key: secret\r\n")


async def get(asked: Origin, *, each: float = 5, whole: float = 20) -> bytes:
    head, body = await asked.get("/a?b=c", LIMIT, each, whole)
    assert head.status == 200
    return bytes(body)


def pieces(*parts: bytes, close: bool = False) -> Callable[[Exchange], None]:
    def script(exchange: Exchange) -> None:
        for part in parts:
            exchange.send(part)
        if close:
            exchange.close()

    return script


async def test_connections_are_kept_and_reused() -> None:
    with ScriptedServer(lambda exchange: exchange.answer(BODY)) as server:
        asked = origin(server.url)
        for _ in range(5):
            assert await get(asked) == BODY
        assert [exchange.connection for exchange in server.exchanges] == [1] * 5
        assert server.exchanges[0].path == "/a?b=c"
        assert server.exchanges[0].header("host") == urlsplit(server.url).netloc
        assert server.exchanges[0].header("x-key") == "secret"
        await asked.aclose()


async def test_many_at_a_time() -> None:
    with ScriptedServer(lambda exchange: exchange.answer(exchange.path.encode())) as server:
        asked, answers = origin(server.url), set[bytes]()

        async def one(number: int) -> None:
            answers.add(bytes((await asked.get(f"/{number}", LIMIT, 5, 20))[1]))

        async with anyio.create_task_group() as group:
            for number in range(100):
                group.start_soon(one, number)
        assert answers == {b"/%d" % number for number in range(100)}
        await asked.aclose()


@pytest.mark.parametrize("end", [Exchange.close, Exchange.reset])
@pytest.mark.parametrize("when", ["meanwhile", "upon the next request"])
async def test_a_kept_connection_that_was_closed_is_replaced(end: Callable[[Exchange], None], when: str) -> None:
    def script(exchange: Exchange) -> None:
        if when == "meanwhile" or len(server.exchanges) != 2:
            exchange.answer(BODY)
        if (len(server.exchanges) == 1) if when == "meanwhile" else (len(server.exchanges) == 2):
            end(exchange)

    with ScriptedServer(script) as server:
        asked = origin(server.url)
        assert await get(asked) == await get(asked) == BODY
        assert server.connections == 2
        await asked.aclose()


async def test_an_answer_that_breaks_off_on_a_kept_connection_is_a_failure() -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(HEAD + LENGTH + BODY[: 100 if len(server.exchanges) == 2 else None])
        if len(server.exchanges) == 2:
            exchange.close()

    with ScriptedServer(script) as server:
        asked = origin(server.url)
        assert await get(asked) == BODY
        with pytest.raises(CutShort):
            await get(asked)
        assert len(server.exchanges) == 2


@pytest.mark.parametrize("framing", ["content-length", "chunked"])
async def test_bytes_that_nobody_asked_for_are_no_answer(framing: str) -> None:
    body = CHUNKED + b"5\r\nright\r\n0\r\n\r\n" if framing == "chunked" else b"Content-Length: 5\r\n\r\nright"
    with ScriptedServer(pieces(HEAD + body + HEAD + b"Content-Length: 5\r\n\r\nwrong")) as server:
        asked = origin(server.url)
        for _ in range(3):
            assert await get(asked) == b"right"
        assert server.connections == 3
        await asked.aclose()


@pytest.mark.parametrize(
    "script",
    [
        pieces(HEAD, LENGTH, BODY[:1], BODY[1:]),
        pieces(b"HTTP/1.1 100 Continue\r\n\r\n", HEAD + LENGTH + BODY),
        pieces(b"HTTP/1.1 200\r\n" + LENGTH + BODY),
        pieces(HEAD + b"Connection: Close\r\n" + LENGTH + BODY),
        pieces(HEAD + CHUNKED, b"%x;e=1\r\n" % len(BODY), BODY + b"\r\n0\r\nT: 1\r\n\r\n"),
        pieces(HEAD + CHUNKED + b"1\r\n" + BODY[:1], b"\r\n%X\r\n" % (len(BODY) - 1), BODY[1:], b"\r\n0\r\n\r\n"),
        pieces(HEAD + b"\r\n", BODY, close=True),
        pieces(b"HTTP/1.0 200 OK\r\n\r\n" + BODY, close=True),
        pieces(HEAD + b"content-LENGTH :%d \r\n\r\n" % len(BODY) + BODY),
    ],
)
async def test_all_framings(script: Callable[[Exchange], None]) -> None:
    with ScriptedServer(script) as server:
        asked = origin(server.url)
        assert await get(asked) == await get(asked) == BODY
        await asked.aclose()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", CutShort),
        (HEAD, CutShort),
        (HEAD + LENGTH + BODY[:-1], CutShort),
        (HEAD + CHUNKED + b"5\r\nab", CutShort),
        (b"SSH-2.0-OpenSSH\r\n\r\n", MalformedAnswer),
        (b"HTTP/1.1 2x0 OK\r\n\r\n", MalformedAnswer),
        (b"HTTP/2 200\r\n\r\n", MalformedAnswer),
        (b"\xff\xfe\r\n\r\n", MalformedAnswer),
        (HEAD + b"Content-Length: -5\r\n\r\n", MalformedAnswer),
        (HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", Oversized),
        (HEAD + b"Content-Length: 200000\r\n\r\n", Oversized),
        (HEAD + b"\r\n" + bytes(200_000), Oversized),
        (HEAD + CHUNKED + b"fffffff\r\n", Oversized),
        (HEAD + CHUNKED + b"ffffffffffffffffff\r\n", MalformedAnswer),
        (HEAD + CHUNKED + b"-1\r\n", MalformedAnswer),
        (HEAD + CHUNKED + b"\r\n", MalformedAnswer),
        (HEAD + CHUNKED + b"2\r\nabc\r\n", MalformedAnswer),
        (HEAD + b"Transfer-Encoding: zstd\r\n\r\n", MalformedAnswer),
        (HEAD + b"X: " + b"x" * 200_000, MalformedAnswer),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, MalformedAnswer),  # for ever, as far as anyone knows
        (HEAD + CHUNKED + b"0\r\n" + b"T: 1\r\n" * 1000, MalformedAnswer),
        (HEAD + CHUNKED + (b"1;" + b"x" * 10_000 + b"\r\na\r\n") * 100, Oversized),
    ],
)
async def test_nonsense_is_a_typed_error(answer: bytes, error: type[Exception]) -> None:
    with ScriptedServer(pieces(answer, close=True)) as server, pytest.raises(error) as caught:
        await get(origin(server.url))
    assert type(caught.value) is error


async def test_a_redirect_is_an_answer_like_any_other_and_its_body_is_not_read() -> None:
    with ScriptedServer(lambda exchange: exchange.answer(bytes(10**6), "302 Found", Location="/login")) as server:
        head, body = await origin(server.url).get("/a", LIMIT, 5, 20)
        assert (head.status, head.headers["location"], body) == (302, "/login", b"")


@pytest.mark.parametrize("sent", [b"", HEAD + LENGTH + BODY[:100]])
async def test_no_progress_is_a_timeout(sent: bytes) -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(sent)
        exchange.hang()

    with ScriptedServer(script) as server:
        with pytest.raises(TimeoutError):
            await get(origin(server.url), each=0.1)
        assert server.abandoned.acquire(timeout=10)  # nothing is left of it


async def test_of_many_connections_that_went_silent_only_one_is_waited_for() -> None:
    together = threading.Barrier(4)

    def script(exchange: Exchange) -> None:
        if len(server.exchanges) > together.parties and exchange.connection <= together.parties:
            exchange.hang()
            return
        if exchange.connection <= together.parties:
            together.wait(10)
        exchange.answer(BODY)

    with ScriptedServer(script) as server:
        asked = origin(server.url)
        async with anyio.create_task_group() as group:
            for _ in range(together.parties):
                group.start_soon(get, asked)
        with pytest.raises(TimeoutError):
            await get(asked, each=0.1)
        assert await get(asked) == BODY
        assert server.connections == together.parties + 1
        await asked.aclose()


async def test_an_answer_that_never_comes_to_its_end_is_a_timeout_as_well() -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(HEAD + b"Content-Length: %d\r\n\r\n" % LIMIT)
        while not exchange.gone(0.01):
            exchange.send(b"x")

    with ScriptedServer(script) as server, pytest.raises(TimeoutError):
        await get(origin(server.url), whole=0.2)


@pytest.mark.parametrize(("pauses", "ends"), [((4, 4, 4, 6), 17), ((4, 4, 4, 4, 4, 4), 20)])
def test_each_part_has_its_time_and_all_of_it_has_more(pauses: tuple[float, ...], ends: float) -> None:
    async def play() -> float:
        patience, begun = Patience(5, 20), anyio.current_time()
        with patience.scope:
            for pause in pauses:
                await anyio.sleep(pause)
                patience.progressed()
        assert patience.scope.cancelled_caught
        return anyio.current_time() - begun

    assert trio.run(play, clock=MockClock(autojump_threshold=0)) == pytest.approx(ends)


async def test_who_is_cancelled_leaves_no_connection() -> None:
    with ScriptedServer(Exchange.hang) as server:
        async with anyio.create_task_group() as group:
            group.start_soon(get, origin(server.url))
            await anyio.to_thread.run_sync(server.hanging.acquire)
            group.cancel_scope.cancel()
        assert server.abandoned.acquire(timeout=10)


# --- TLS and proxies --------------------------------------------------------------------------------------------------


@pytest.fixture
def certified(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts of a server called localhost, and of a client that knows its authority."""
    certificate = make_certificate(tmp_path, "localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    return context, tls_context(True, str(certificate.ca))


async def test_tls_connections_are_verified_and_kept(certified: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    with ScriptedServer(lambda exchange: exchange.answer(BODY), certified[0]) as server:
        asked = origin(server.url, certified[1])
        for _ in range(5):
            assert await get(asked) == BODY
        assert server.connections == 1
        await asked.aclose()
        with pytest.raises(ssl.SSLCertVerificationError):
            await get(origin(server.url))
        with pytest.raises(ssl.SSLCertVerificationError):
            await get(origin(server.url.replace("localhost", "127.0.0.1"), certified[1]))


def tunnel(exchange: Exchange) -> None:
    """What a proxy does for https: from here on it only passes on."""
    host, _, port = exchange.path.rpartition(":")
    there, here = socket.create_connection((host, int(port))), exchange._sock
    exchange.answer(status="200 Connection established")
    ends = {here: there, there: here}
    while ends:
        for ready in select.select([here, there], [], [])[0]:
            data = ready.recv(65536)
            if not data:
                there.close()
                exchange.close()
                return
            ends[ready].sendall(data)


async def test_https_goes_through_a_tunnel_that_a_proxy_opens(
    certified: tuple[ssl.SSLContext, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        ScriptedServer(lambda exchange: exchange.answer(BODY), certified[0]) as server,
        ScriptedServer(tunnel) as proxy,
    ):
        monkeypatch.setenv("https_proxy", proxy.url.replace("://", "://user:p%40ss@"))
        asked = origin(server.url, certified[1])
        assert await get(asked) == await get(asked) == BODY
        (opened,) = proxy.exchanges
        assert opened.head.startswith(f"CONNECT localhost:{server.port} HTTP/1.1\r\n")
        assert opened.header("proxy-authorization") == "Basic " + base64.b64encode(b"user:p@ss").decode()
        assert opened.header("x-key") is None
        assert all(exchange.header("proxy-authorization") is None for exchange in server.exchanges)
        await asked.aclose()


async def test_a_proxy_may_be_reached_by_tls_itself(
    certified: tuple[ssl.SSLContext, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScriptedServer(lambda exchange: exchange.answer(exchange.path.encode()), certified[0]) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        asked = origin("http://portal.example", certified[1])
        assert await get(asked) == b"http://portal.example/a?b=c"
        await asked.aclose()


async def test_http_is_asked_of_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer(lambda exchange: exchange.answer(exchange.path.encode())) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("://", "://user@"))
        asked = origin("http://portal.example:8080")
        assert await get(asked) == b"http://portal.example:8080/a?b=c"
        assert proxy.exchanges[0].header("host") == "portal.example:8080"
        assert proxy.exchanges[0].header("proxy-authorization") == "Basic " + base64.b64encode(b"user:").decode()
        await asked.aclose()


async def test_a_proxy_that_refuses(
    certified: tuple[ssl.SSLContext, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScriptedServer(lambda exchange: exchange.answer(status="407 No")) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        with pytest.raises(ConnectionError, match="the proxy answered 407"):
            await get(origin("https://portal.example", certified[1]))


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"https_proxy": "http://proxy:3128"}, Endpoint(secure=False, host="proxy", port=3128)),
        ({"https_proxy": "proxy:3128"}, Endpoint(secure=False, host="proxy", port=3128)),
        ({"HTTPS_PROXY": "https://proxy"}, Endpoint(secure=True, host="proxy", port=443)),
        ({"all_proxy": "http://proxy"}, Endpoint(secure=False, host="proxy", port=80)),
        ({"http_proxy": "http://proxy"}, None),
        ({"https_proxy": "http://proxy", "no_proxy": "other, example.com"}, None),
        ({"https_proxy": "http://proxy", "NO_PROXY": "*"}, None),
        ({"https_proxy": "http://proxy", "no_proxy": "ample.com"}, Endpoint(secure=False, host="proxy", port=80)),
    ],
)
async def test_which_proxy(
    environment: dict[str, str], expected: Endpoint | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = proxy_for(Endpoint(secure=True, host="portal.example.com", port=443))
    assert (found and found.endpoint) == expected


@pytest.mark.parametrize("url", ["socks5://proxy:1080", "http://", "http://proxy:port", "http://[1"])
async def test_a_proxy_that_cannot_be_used(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", url)
    with pytest.raises(ConfigError, match="proxy"):
        origin("https://portal.example")


async def test_no_secret_in_a_repr() -> None:
    assert "c2VjcmV0" not in repr(Proxy(Endpoint(secure=True, host="proxy", port=1), "Basic c2VjcmV0"))
