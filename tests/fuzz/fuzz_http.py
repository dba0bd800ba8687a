"""A fuzzer of HTTP answers: from storage, on a socket in a thread; and from the portal, on the event loop."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Coroutine
from typing import Any, TypeVar

import anyio
from fuzzing import Target, is_one_line

from cterafs.direct.http1 import Connection, Head, MalformedAnswer, object_size, parse_chunk_size
from cterafs.direct.origin import _Connection
from cterafs.direct.transfer import Transfer
from cterafs.model import Extent

T = TypeVar("T")
LIMIT = 6000
"""Bytes that a body may have: few, so that seeds and what becomes of them have more."""


class _Stream:
    """What came, for a client on the event loop, in pieces."""

    def __init__(self, data: bytes, step: int) -> None:
        self._data = data
        self._step = step

    def extra(self, _: object) -> None:
        """There is no socket."""

    async def receive(self, most: int) -> bytes:
        piece, self._data = self._data[: self._step], self._data[self._step :]
        if not piece:
            raise anyio.EndOfStream
        return piece


class _Patience:
    """Never at an end: what comes is there."""

    def progressed(self) -> None:
        """Nobody waits."""


def _connected() -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection by TCP, which `socket.socketpair` does not give."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        return ours, server.accept()[0]


def _from_storage(data: bytes, *, whole: bool) -> bytes | None:
    """The body; None where there is none to be had."""
    ours, theirs = _connected()
    with ours, theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        theirs.setblocking(False)
        sent = theirs.send(data) if data else 0
        assert sent == len(data), "it fits into the socket's buffer"
        theirs.shutdown(socket.SHUT_WR)
        connection, transfer = Connection(ours), Transfer(10.0)
        try:
            head = connection.exchange(b"", transfer)
            _range(head)
            body = connection.body(head, LIMIT, transfer)
            if whole:
                return bytes(body.readall())
            read, view = b"", memoryview(bytearray(50))
            while count := body.readinto(view):
                read += view[:count]
            return read
        except (MalformedAnswer, OSError) as error:
            return _refused(error)


def _range(head: Head) -> None:
    with contextlib.suppress(MalformedAnswer):
        assert object_size(head, Extent(0, 10)) < 10**19


def _refused(error: Exception) -> None:
    assert is_one_line(error)


def _from_portal(data: bytes, step: int) -> bytes | None:
    async def ask() -> bytes:
        connection = _Connection(_Stream(data, step))  # type: ignore[arg-type]
        head = await connection.head(_Patience())  # type: ignore[arg-type]
        body, _ = await connection.body(head, LIMIT, _Patience())  # type: ignore[arg-type]
        return bytes(body)

    try:
        return _finished(ask())
    except (MalformedAnswer, OSError) as error:
        return _refused(error)


def _finished(work: Coroutine[Any, Any, T]) -> T:
    """Runs what never waits."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("it waits")


def chunk_size(data: bytes) -> None:
    assert 0 <= parse_chunk_size(data) < 16**15


def answer(data: bytes) -> None:
    """All who read it see the same body."""
    body = _from_storage(data, whole=True)
    assert body is None or len(body) <= LIMIT
    assert _from_storage(data, whole=False) == body
    for step in (1 << 20, 13):
        assert _from_portal(data, step) == body


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
ANSWERS = (
    HEAD + b"Content-Length: 11\r\nConnection: keep-alive\r\n\r\nhello world",
    CHUNKED + b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nTrailer: 1\r\n\r\n",
    HEAD + b"Connection: close\r\n\r\nhello world",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 206 Partial\r\nContent-Range: bytes 0-9/100\r\nContent-Length: 10\r\n\r\n"
    + b"x" * 10,
    b"HTTP/1.0 403 Forbidden\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n",
    HEAD + b"X-Long: " + b"x" * 3000 + b"\r\nContent-Length: 5000\r\n\r\n" + b"y" * 5000,
)
LONG = b"y" * (LIMIT + 1)
TOO_LONG = (
    HEAD + b"Content-Length: %d\r\n\r\n" % len(LONG) + LONG,
    HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
    CHUNKED + b"%x\r\n" % len(LONG) + LONG + b"\r\n0\r\n\r\n",
    CHUNKED + (b"1;" + b"x" * 1000 + b"\r\ny\r\n") * 80 + b"0\r\n\r\n",
    HEAD + b"Connection: close\r\n\r\n" + LONG,
)
"""One for each limit of a body's length."""
WORDS = (
    b"\r\n\r\n",
    b"HTTP/1.1 ",
    b"Content-Length: ",
    b"Transfer-Encoding: chunked\r\n",
    b"ffffffffffffff\r\n",
    b"0\r\n",
)

TARGETS = (
    Target("answer", answer, (*ANSWERS, *TOO_LONG), (), WORDS),
    Target("chunk_size", chunk_size, (b"5", b" 1F;x=y", b"f" * 16), (MalformedAnswer,)),
)
