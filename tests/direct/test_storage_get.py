"""One GET from storage, on real sockets, with all that servers and networks do."""

import base64
import hashlib
import itertools
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
from block_encoder import block
from scripted_server import Exchange, ScriptedServer
from whole_blocks import BODY, PATIENCE, PORTAL, aborted_in_the_middle, get, whole

from cterafs import errors
from cterafs.direct import http1
from cterafs.direct import transfer as transfers
from cterafs.direct.storage import Answer, Storage, tls_context
from cterafs.direct.transfer import Aborted, Transfer

HEAD = b"HTTP/1.1 200 OK\r\n"
LENGTH = b"Content-Length: %d\r\n\r\n" % len(BODY)
LENGTH_5 = b"Content-Length: 5\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def storage() -> Iterator[Storage]:
    store = Storage(PORTAL, tls_context(True, None))
    yield store
    store.close()


def test_a_block(storage: Storage) -> None:
    with ScriptedServer(lambda exchange: exchange.answer(BODY)) as server:
        assert get(storage, server) == BODY
        [exchange] = server.exchanges
        assert exchange.path == "/blocks/1?sig=secret"
        assert exchange.header("host") == f"127.0.0.1:{server.port}"
        assert exchange.header("authorization") is None
        assert exchange.header("cookie") is None
        storage.close()


def test_connections_are_kept_and_reused(storage: Storage) -> None:
    with ScriptedServer(lambda exchange: exchange.answer(BODY)) as server:
        for _ in range(5):
            get(storage, server)
        assert [exchange.connection for exchange in server.exchanges] == [1] * 5
        storage.close()


def test_a_kept_connection_that_was_closed_meanwhile_is_replaced_at_once(storage: Storage) -> None:
    def script(exchange: Exchange) -> None:
        exchange.answer(BODY)
        if exchange.connection < 3:
            exchange.reset() if exchange.connection == 1 else exchange.close()

    with ScriptedServer(script) as server:
        for _ in range(4):
            assert get(storage, server) == BODY
        assert server.connections == 3
        storage.close()


@pytest.mark.parametrize("end", [Exchange.close, Exchange.reset])
def test_a_kept_connection_that_is_closed_upon_the_next_request_is_replaced_too(
    storage: Storage, end: Callable[[Exchange], None]
) -> None:
    def script(exchange: Exchange) -> None:
        if len(server.exchanges) == 2:
            end(exchange)
        else:
            exchange.answer(BODY)

    with ScriptedServer(script) as server:
        assert get(storage, server) == get(storage, server) == BODY
        assert [exchange.connection for exchange in server.exchanges] == [1, 1, 2]
        storage.close()


def test_an_answer_that_breaks_off_on_a_kept_connection_is_a_failure(storage: Storage) -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(HEAD + LENGTH + BODY[: 100 if len(server.exchanges) == 2 else None])
        if len(server.exchanges) == 2:
            exchange.close()

    with ScriptedServer(script) as server:
        assert get(storage, server) == BODY
        with pytest.raises(errors.DownloadConnectionError, match="too early"):
            get(storage, server)
        assert len(server.exchanges) == 2


@pytest.mark.parametrize("framing", ["content-length", "chunked"])
def test_bytes_that_nobody_asked_for_are_no_answer(storage: Storage, framing: str) -> None:
    def script(exchange: Exchange) -> None:
        body = LENGTH_5 + b"right" if framing != "chunked" else CHUNKED + b"5\r\nright\r\n0\r\n\r\n"
        exchange.send(HEAD + body + HEAD + LENGTH_5 + b"wrong")

    with ScriptedServer(script) as server:
        for _ in range(3):
            assert storage.get(server.url + "/", block(5), Transfer(PATIENCE), whole) == b"right"
        assert server.connections == 3
        storage.close()


@pytest.mark.parametrize("header", ["Connection: close", "Connection: Close"])
def test_a_connection_that_is_to_be_closed_is_not_kept(storage: Storage, header: str) -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(f"HTTP/1.1 200 OK\r\n{header}\r\nContent-Length: {len(BODY)}\r\n\r\n".encode() + BODY)

    with ScriptedServer(script) as server:
        assert get(storage, server) == get(storage, server) == BODY
        assert server.connections == 2


def pieces(*parts: bytes, close: bool = False) -> Callable[[Exchange], None]:
    def script(exchange: Exchange) -> None:
        for part in parts:
            exchange.send(part)
        if close:
            exchange.close()

    return script


@pytest.mark.parametrize(
    "script",
    [
        pieces(HEAD, LENGTH, BODY[:1], BODY[1:]),
        pieces(b"HTTP/1.1 100 Continue\r\n\r\n", HEAD + LENGTH + BODY),
        pieces(b"HTTP/1.1 200\r\n" + LENGTH + BODY),
        pieces(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"%x;e=1\r\n" % len(BODY),
               BODY + b"\r\n0\r\nT: 1\r\n\r\n"),
        pieces(HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n" + BODY[:1], b"\r\n%X\r\n" % (len(BODY) - 1), BODY[1:],
               b"\r\n0\r\n\r\n"),
        pieces(HEAD + b"\r\n", BODY, close=True),
        pieces(b"HTTP/1.0 200 OK\r\n\r\n" + BODY, close=True),
        pieces(HEAD + b"content-LENGTH :%d \r\n\r\n" % len(BODY) + BODY),
    ],
)  # fmt: skip
def test_all_framings(storage: Storage, script: Callable[[Exchange], None]) -> None:
    with ScriptedServer(script) as server:
        assert get(storage, server) == BODY
        assert get(storage, server) == BODY
        storage.close()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", errors.DownloadConnectionError),
        (HEAD, errors.DownloadConnectionError),
        (HEAD + LENGTH + BODY[:-1], errors.DownloadConnectionError),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab", errors.DownloadConnectionError),
        (b"SSH-2.0-OpenSSH\r\n\r\n", errors.DownloadError),
        (b"HTTP/1.1 2x0 OK\r\n\r\n", errors.DownloadError),
        (b"HTTP/2 200\r\n\r\n", errors.DownloadError),
        (b"\xff\xfe\r\n\r\n", errors.DownloadError),
        (HEAD + b"Content-Length: -5\r\n\r\n", errors.DownloadError),
        (HEAD + b"Content-Length: 1e3\r\n\r\n", errors.DownloadError),
        (HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", errors.BlockValidationException),
        (HEAD + b"Content-Length: 200000\r\n\r\n", errors.BlockValidationException),
        (HEAD + b"\r\n" + bytes(200_000), errors.BlockValidationException),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffffff\r\n", errors.BlockValidationException),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n", errors.DownloadError),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n", errors.DownloadError),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n\r\n", errors.DownloadError),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n", errors.DownloadError),
        (HEAD + b"Transfer-Encoding: zstd\r\n\r\n", errors.DownloadError),
        (HEAD + b"X: " + b"x" * 100_000, errors.DownloadError),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, errors.DownloadError),  # for ever, as far as anyone knows
        (HEAD + CHUNKED + b"0\r\n" + b"T: 1\r\n" * 1000, errors.DownloadError),
        (HEAD + CHUNKED + (b"1;" + b"x" * 10_000 + b"\r\na\r\n") * 100, errors.BlockValidationException),
    ],
)
def test_nonsense_is_a_typed_error(storage: Storage, answer: bytes, error: type[errors.BlockError]) -> None:
    with ScriptedServer(pieces(answer, close=True)) as server, pytest.raises(error) as caught:
        get(storage, server)
    assert type(caught.value) is error
    assert caught.value.block == block(len(BODY))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("status", ["403 Forbidden", "404 Gone", "500 Oops", "206 Partial", "304 Not Modified"])
def test_statuses(storage: Storage, status: str) -> None:
    with ScriptedServer(lambda exchange: exchange.answer(b"<xml>", status, Retry_After="7")) as server:
        with pytest.raises(errors.DownloadError, match=status[:3]) as caught:
            get(storage, server)
        assert (caught.value.status, caught.value.retry_after) == (int(status[:3]), 7.0)


def test_a_refused_connection(storage: Storage) -> None:
    with ScriptedServer(lambda exchange: None) as server:
        pass
    with pytest.raises(errors.DownloadConnectionError, match=r"127\.0\.0\.1"):
        get(storage, server)


def test_a_reset_connection(storage: Storage) -> None:
    with ScriptedServer(Exchange.reset) as server, pytest.raises(errors.DownloadConnectionError):
        get(storage, server)


def test_a_name_that_is_none(storage: Storage) -> None:
    for name in ("x" * 64 + ".example", "nowhere.invalid"):
        with pytest.raises(errors.BlockError, match=r"storage|not a valid|Name|resolution|known"):
            storage.get(f"http://{name}/", block(1), Transfer(PATIENCE), whole)


def test_a_forbidden_address_is_not_contacted() -> None:
    with ScriptedServer(lambda exchange: exchange.answer(BODY)) as server:
        store = Storage("https://192.0.2.1", tls_context(True, None))
        with pytest.raises(errors.DownloadError, match="loopback"):
            get(store, server)
        assert not server.connections


def test_redirects_within_the_host(storage: Storage) -> None:
    def script(exchange: Exchange) -> None:
        step = int(exchange.path.rpartition("/")[2])
        exchange.answer(BODY) if step == 3 else exchange.answer(status="302 Found", Location=f"/hop/{step + 1}")

    with ScriptedServer(script) as server:
        assert get(storage, server, "/hop/0") == BODY
        with pytest.raises(errors.DownloadError, match="302"):
            get(storage, server, "/hop/-1")
        storage.close()


@pytest.mark.parametrize("location", ["http://localhost:{port}/", "ftp://127.0.0.1/", "http://[", "http://10.0.0.1/"])
def test_redirects_elsewhere_are_refused(storage: Storage, location: str) -> None:
    with ScriptedServer(
        lambda exchange: exchange.answer(status="307 Go", Location=location.format(port=server.port))
    ) as server:
        with pytest.raises(errors.DownloadError, match="redirect"):
            get(storage, server)
        assert len(server.exchanges) == 1


def test_checksums_are_verified(storage: Storage) -> None:
    digest = base64.b64encode(hashlib.md5(BODY).digest()).decode()
    with ScriptedServer(lambda exchange: exchange.answer(BODY, Content_MD5=digest)) as server:
        assert get(storage, server) == BODY
        server.script = lambda exchange: exchange.answer(BODY[::-1], Content_MD5=digest)
        with pytest.raises(errors.BlockValidationException, match="content-md5"):
            get(storage, server)
        storage.close()


@pytest.mark.parametrize("sent", [b"", HEAD, HEAD + LENGTH + BODY[:5000]], ids=["nothing", "head", "part"])
def test_no_progress_is_a_timeout(storage: Storage, sent: bytes) -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(sent)
        exchange.hang()

    with ScriptedServer(script) as server, pytest.raises(errors.DownloadTimeout):
        get(storage, server, patience=0.05)


def test_a_trickle_is_no_progress(storage: Storage) -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(HEAD + LENGTH)
        while True:  # until the client goes away
            exchange.send(b"x")

    with pytest.MonkeyPatch.context() as patch, ScriptedServer(script) as server:
        patch.setattr(transfers, "PROGRESS", len(BODY) + 1000)
        patch.setattr(http1, "LEAST", 100)
        clock = itertools.count()
        patch.setattr(transfers, "time", SimpleNamespace(monotonic=lambda: next(clock) / 100))
        with pytest.raises(errors.DownloadTimeout):
            get(storage, server, patience=1.0)


def test_an_abort_from_another_thread_ends_it_at_once(storage: Storage) -> None:
    with ScriptedServer(Exchange.hang) as server:
        failures = aborted_in_the_middle(storage, server)
        assert server.abandoned.acquire(timeout=PATIENCE)
    assert len(failures) == 1


def test_an_aborted_transfer_does_not_begin(storage: Storage) -> None:
    transfer = Transfer(PATIENCE)
    transfer.abort()
    with ScriptedServer(lambda exchange: exchange.answer(BODY)) as server:
        with pytest.raises(Aborted):
            storage.get(server.url + "/", block(len(BODY)), transfer, whole)
        assert not server.exchanges


@pytest.mark.parametrize(("seconds", "most"), [(0.0, http1.MOST), (1.0, http1.LEAST)])
def test_more_is_received_at_a_time_where_it_comes_at_once(storage: Storage, seconds: float, most: int) -> None:
    """`seconds` pass by each look at the clock."""
    body = bytes(16 << 20)
    counts: list[int] = []

    def take(answer: Answer) -> None:
        view = memoryview(bytearray(len(body)))
        while count := answer.readinto(view):
            counts.append(count)

    with pytest.MonkeyPatch.context() as patch, ScriptedServer(lambda exchange: exchange.answer(body)) as server:
        clock = itertools.count()
        patch.setattr(http1, "time", SimpleNamespace(monotonic=lambda: next(clock) * seconds))
        storage.get(server.url + "/", block(len(body)), Transfer(PATIENCE), take)
        storage.close()
    assert sum(counts) == len(body)
    assert max(counts) == most
