"""A range of a block from storage, on real sockets: only what was asked for is taken."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest
from block_encoder import block
from scripted_server import Exchange, ScriptedServer

from cterafs import errors
from cterafs.direct import storage as storages
from cterafs.direct.storage import Part, Storage, tls_context
from cterafs.direct.transfer import Transfer
from cterafs.model import Extent

BODY = bytes(range(256)) * 40
PART = Extent(1000, 3000)
RANGE = f"bytes 1000-2999/{len(BODY)}"
PATIENCE = 10.0  # far longer than anything here takes


@pytest.fixture
def storage() -> Iterator[Storage]:
    store = Storage("http://127.0.0.1:1", tls_context(True, None))
    yield store
    store.close()


def get(storage: Storage, server: ScriptedServer) -> Part | None:
    return storage.get_part(server.url + "/blocks/1?sig=secret", block(len(BODY)), PART, Transfer(PATIENCE))


def partial(exchange: Exchange, body: bytes = BODY[1000:3000], **headers: str) -> None:
    exchange.answer(body, "206 Partial Content", **headers)


def test_a_range(storage: Storage) -> None:
    with ScriptedServer(lambda exchange: partial(exchange, Content_Range=RANGE)) as server:
        for _ in range(3):
            assert get(storage, server) == Part(BODY[1000:3000], len(BODY))
        assert {exchange.header("range") for exchange in server.exchanges} == {"bytes=1000-2999"}
        assert server.connections == 1
        storage.close()


def test_checksums_of_the_whole_object_are_ignored(storage: Storage) -> None:
    wrong = base64.b64encode(bytes(16)).decode()
    with ScriptedServer(lambda exchange: partial(exchange, Content_Range=RANGE, Content_MD5=wrong)) as server:
        assert get(storage, server) == Part(BODY[1000:3000], len(BODY))
        storage.close()


def test_a_chunked_range(storage: Storage) -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 206 Partial Content\r\nTransfer-Encoding: chunked\r\n")
        exchange.send(f"Content-Range: {RANGE}\r\n\r\n7d0\r\n".encode() + BODY[1000:3000] + b"\r\n0\r\n\r\n")

    with ScriptedServer(script) as server:
        assert get(storage, server) == Part(BODY[1000:3000], len(BODY))
        storage.close()


@pytest.mark.parametrize(
    "said",
    [
        "bytes 0-1999/10240",
        "bytes 1000-2998/10240",
        "bytes 1000-3000/10240",
        "bytes 01000-2999/10240",
        "bytes 1000-2999/*",
        "bytes 1000-2999/-1",
        "bytes 1000-2999/\u00b2",
        "bytes 1000-2999",
        "bytes */10240",
        "items 1000-2999/10240",
        "",
        None,
    ],
)
def test_another_range_is_an_error(storage: Storage, said: str | None) -> None:
    def script(exchange: Exchange) -> None:
        headers = f"Content-Range: {said}\r\n" if said is not None else ""
        exchange.send(f"HTTP/1.1 206 Partial Content\r\n{headers}Content-Length: 2000\r\n\r\n".encode("latin-1"))
        exchange.send(BODY[1000:3000])

    with ScriptedServer(script) as server:
        for _ in range(2):
            with pytest.raises(errors.DownloadError, match="range"):
                get(storage, server)
        assert server.connections == 2  # nothing that was left on the first can be taken for the next answer
        storage.close()


@pytest.mark.parametrize(
    ("body", "error"),
    [(BODY[1000:2999], errors.DownloadError), (b"", errors.DownloadError), (BODY[1000:3001], errors.BlockError)],
)
def test_a_body_of_another_length_is_an_error(storage: Storage, body: bytes, error: type[errors.BlockError]) -> None:
    with ScriptedServer(lambda exchange: partial(exchange, body, Content_Range=RANGE)) as server:
        with pytest.raises(error):
            get(storage, server)
        storage.close()


def test_a_body_that_breaks_off_is_an_error(storage: Storage) -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 206 Partial Content\r\nContent-Length: 2000\r\n")
        exchange.send(f"Content-Range: {RANGE}\r\n\r\n".encode() + BODY[1000:2000])
        exchange.close()

    with ScriptedServer(script) as server:
        with pytest.raises(errors.DownloadConnectionError, match="too early"):
            get(storage, server)
        storage.close()


def test_storage_without_ranges_is_not_asked_for_them_again(storage: Storage) -> None:
    with (
        ScriptedServer(lambda exchange: exchange.answer(BODY)) as without,
        ScriptedServer(lambda exchange: partial(exchange, Content_Range=RANGE)) as other,
    ):
        for _ in range(3):
            assert get(storage, without) is None
            assert get(storage, other) is not None
        assert len(without.exchanges) == 1
        whole = storage.get(f"{without.url}/", block(len(BODY)), Transfer(PATIENCE), lambda answer: answer.readall())
        assert whole == BODY
        assert without.connections == 2  # the body that was not wanted is not read
        storage.close()


def test_what_storage_does_not_know_now_it_may_know_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storages, "WITHOUT_RANGES", 0.0)
    storage = Storage("http://127.0.0.1:1", tls_context(True, None))
    with ScriptedServer(lambda exchange: exchange.answer(BODY)) as server:
        for _ in range(2):
            assert get(storage, server) is None
        assert len(server.exchanges) == 2
        storage.close()


def test_a_range_that_the_object_has_not_is_none(storage: Storage) -> None:
    with ScriptedServer(lambda exchange: exchange.answer(b"", "416 Range Not Satisfiable")) as server:
        for _ in range(2):
            assert get(storage, server) is None
        assert len(server.exchanges) == 2  # another block may have it
        storage.close()


@pytest.mark.parametrize("status", ["403 Expired", "404 Gone", "500 Oops", "204 No Content"])
def test_what_else_storage_answers(storage: Storage, status: str) -> None:
    with ScriptedServer(lambda exchange: exchange.answer(b"", status)) as server:
        with pytest.raises(errors.DownloadError) as caught:
            get(storage, server)
        assert caught.value.status == int(status[:3])
        storage.close()


def test_a_range_where_a_redirect_leads(storage: Storage) -> None:
    def script(exchange: Exchange) -> None:
        if exchange.path.startswith("/blocks"):
            exchange.answer(b"", "307 Elsewhere", Location="/there")
        else:
            partial(exchange, Content_Range=RANGE)

    with ScriptedServer(script) as server:
        assert get(storage, server) == Part(BODY[1000:3000], len(BODY))
        assert [exchange.header("range") for exchange in server.exchanges] == ["bytes=1000-2999"] * 2
        storage.close()
