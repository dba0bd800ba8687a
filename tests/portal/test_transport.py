from __future__ import annotations

import gzip
import inspect
import socket
import ssl
import subprocess
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from cterafs.errors import ConfigError, PortalConnectionError, PortalError, PortalTimeout, ProtocolError
from cterafs.portal import transport
from cterafs.portal.transport import FOREIGN_ERRORS, Transport, base_url, translated

pytestmark = pytest.mark.anyio

HTTPX_ERRORS = sorted(
    {kind for _, kind in inspect.getmembers(httpx, inspect.isclass) if issubclass(kind, Exception)},
    key=lambda kind: kind.__name__,
)


def made(kind: type[Exception], text: str) -> Exception:
    """An exception of `kind`, whatever its constructor asks for."""
    error = kind.__new__(kind)
    Exception.__init__(error, text)
    return error


def test_httpx_is_as_it_was_known() -> None:
    assert len(HTTPX_ERRORS) >= 25


@pytest.mark.parametrize("kind", [*HTTPX_ERRORS, ssl.SSLError, OSError, anyio.EndOfStream, anyio.ClosedResourceError,
                                  anyio.BrokenResourceError, TimeoutError])  # fmt: skip
def test_every_foreign_error_has_a_meaning(kind: type[Exception]) -> None:
    assert issubclass(kind, FOREIGN_ERRORS)
    error = translated(made(kind, "Authorization: Bearer s3cret"))
    assert isinstance(error, PortalError)
    assert "s3cret" not in str(error)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (httpx.ConnectError, PortalConnectionError),
        (httpx.ReadError, PortalConnectionError),
        (httpx.ProxyError, PortalConnectionError),
        (httpx.ConnectTimeout, PortalTimeout),
        (httpx.PoolTimeout, PortalTimeout),
        (httpx.RemoteProtocolError, ProtocolError),
        (httpx.DecodingError, ProtocolError),
        (httpx.InvalidURL, ProtocolError),
    ],
)
def test_the_meaning_of(kind: type[Exception], expected: type[PortalError]) -> None:
    assert type(translated(made(kind, ""))) is expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("https://tenant.ctera.com", "https://tenant.ctera.com"),
        ("https://tenant.ctera.com/", "https://tenant.ctera.com"),
        ("tenant.ctera.com", "https://tenant.ctera.com"),
        ("10.0.0.1:8443", "https://10.0.0.1:8443"),
        ("http://[::1]:80/behind/a/proxy/", "http://[::1]/behind/a/proxy"),
    ],
)
def test_urls(given: str, expected: str) -> None:
    assert base_url(given) == expected


@pytest.mark.parametrize(
    "given",
    [
        "",
        "https://",
        "ftp://x",
        "https://user:s3cret@host",
        "https://host?q=s3cret",
        "https://host#f",
        "https://h:x",
    ],
)
def test_what_is_not_a_portals_url(given: str) -> None:
    with pytest.raises(ConfigError, match=r"portal\.url") as caught:
        base_url(given)
    assert "s3cret" not in str(caught.value)


def test_an_unreadable_ca_file_is_an_error_of_the_configuration(tmp_path: Path) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate")
    for path in (junk, tmp_path / "absent.pem"):
        with pytest.raises(ConfigError, match=r"portal\.ca_file"):
            Transport("https://localhost", ca_file=str(path))


async def get(url: str, **options: Any) -> transport.Answer:
    async with Transport(url, **options) as client:
        return await client.send("GET", "/x", headers={}, content=None)


async def test_not_used_before_it_is_open() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await Transport("http://localhost").send("GET", "/x", headers={}, content=None)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", PortalConnectionError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ncut", PortalConnectionError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ncut", PortalConnectionError),
        (b"220 mail.example.com ESMTP\r\n\r\n", ProtocolError),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 7\r\n\r\nnot zip", ProtocolError),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b", ProtocolError),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 2\r\n\r\nbr", ProtocolError),
    ],
    ids=["closed", "cut off", "chunk cut off", "not HTTP", "not gzip", "gzip cut off", "not asked for"],
)
async def test_broken_answers(portal_server: Any, reply: Any, raw: bytes, expected: type[PortalError]) -> None:
    portal_server.on("/x", reply(raw=raw))
    with pytest.raises(PortalError) as caught:
        await get(portal_server.url)
    assert type(caught.value) is expected
    assert caught.value.__context__ is None or caught.value.__suppress_context__


async def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(PortalConnectionError):
        await get(f"http://127.0.0.1:{port}")


async def test_silence_is_a_timeout(portal_server: Any, reply: Any) -> None:
    over = threading.Event()

    def hang(_: object) -> Any:
        over.wait(10)
        return reply()

    portal_server.on("/x", hang)
    try:
        with pytest.raises(PortalTimeout):
            await get(portal_server.url, timeout=0.05)
    finally:
        over.set()


async def test_a_trickle_ends(portal_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_BODY_SECONDS", 0.0)
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def trickle() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                while not stop.wait(0.01):
                    connection.sendall(b".")

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            with pytest.raises(PortalTimeout):
                await get(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=0.2)
        finally:
            stop.set()
            thread.join()


@pytest.mark.parametrize("how", ["announced", "not announced", "encoded"])
async def test_an_endless_answer_is_not_read_whole(
    portal_server: Any, reply: Any, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(transport, "MAX_BODY", 2**20)
    body = bytes(2**21)
    replies = {
        "announced": reply(200, body),
        "not announced": reply(raw=b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body),
        "encoded": reply(200, gzip.compress(body), [("Content-Encoding", "gzip")]),
    }
    portal_server.on("/x", replies[how])
    with pytest.raises(ProtocolError, match="longer than 1 MiB"):
        await get(portal_server.url)


async def test_a_bomb_is_not_inflated(portal_server: Any, reply: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "MAX_BODY", 2**20)
    bomb = gzip.compress(b"\0" * 2**26)
    portal_server.on("/x", reply(200, bomb, [("Content-Encoding", "gzip")]))
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match="longer than 1 MiB"):
            await get(portal_server.url)
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()


async def test_cookies_are_left_to_the_session(portal_server: Any, reply: Any) -> None:
    portal_server.on("/x", reply(200, b"", [("Set-Cookie", "JSESSIONID=abc; Path=/")]))
    async with Transport(portal_server.url) as client:
        for _ in range(2):
            await client.send("GET", "/x", headers={}, content=None)
    assert ["cookie" in request.headers for request in portal_server.requests] == [False, False]


async def test_compressed_answers(portal_server: Any, reply: Any) -> None:
    portal_server.on("/x", reply(200, gzip.compress(b"plain"), [("Content-Encoding", "gzip")]))
    assert (await get(portal_server.url)).body == b"plain"


async def test_an_empty_answer_has_no_encoding(portal_server: Any, reply: Any) -> None:
    portal_server.on("/x", reply(302, b"", [("Content-Encoding", "gzip")]))
    assert (await get(portal_server.url)).body == b""


async def test_redirects_are_not_followed(portal_server: Any, reply: Any) -> None:
    portal_server.on("/x", reply(302, b"", [("Location", f"{portal_server.url}/elsewhere")]))
    answer = await get(portal_server.url)
    assert answer.location == f"{portal_server.url}/elsewhere"
    assert [request.path for request in portal_server.requests] == ["/x"]


async def test_answers_show_neither_headers_nor_body(portal_server: Any, reply: Any) -> None:
    portal_server.on("/x", reply(200, b"s3cret body", [("Set-Cookie", "JSESSIONID=s3cret")]))
    answer = await get(portal_server.url)
    assert answer.body == b"s3cret body"
    assert "s3cret" not in repr(answer)


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server for 127.0.0.1 with a certificate of its own: its URL, and the certificate."""
    directory = tmp_path_factory.mktemp("tls")
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=portal", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                try:
                    with context.wrap_socket(connection, server_side=True) as tls:
                        tls.recv(1000)
                        tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
                except OSError:  # a client that does not trust us
                    connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}", certificate
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


async def test_tls_is_verified(tls_server: tuple[str, Path]) -> None:
    url, certificate = tls_server
    with pytest.raises(PortalConnectionError, match=r"portal\.ca_file"):
        await get(url)
    assert (await get(url, ca_file=str(certificate))).body == b"ok"
    assert (await get(url, verify_tls=False)).body == b"ok"
