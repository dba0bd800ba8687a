"""As much of HTTP/1.1 as fetching a block takes, on a socket in a thread.

The standard library's client parses headers as if they were mail and copies the body: with blocks of 256 KiB it reaches
less than half of what a plain socket does.
"""

from __future__ import annotations

import functools
import select
import socket
from dataclasses import dataclass

from cterafs.direct.buffers import written
from cterafs.direct.transfer import Transfer

MAX_HEAD = 64 << 10
"""Bytes of status line and headers, or of one line in a chunked body. Servers commonly allow 8 to 16 KiB."""
RECEIVE = 64 << 10
FINAL = 200


class MalformedAnswer(Exception):
    """What came is not HTTP, or not what was announced; the text is one line without secrets."""


class Oversized(MalformedAnswer):
    """The body is larger than what was asked for can be."""


class CutShort(MalformedAnswer, ConnectionError):
    """The connection ended before the answer did."""


@dataclass(frozen=True, slots=True)
class Head:
    """Status and headers of an answer, names in lower case; of a repeated header the last."""

    version: str
    status: int
    headers: dict[str, str]

    @property
    def reusable(self) -> bool:
        connection = self.headers.get("connection", "").lower()
        return "close" not in connection if self.version == "HTTP/1.1" else connection == "keep-alive"


class Connection:
    """A socket with one answer at a time on it. Not thread-safe; `transfer` may be aborted from elsewhere."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.idle_since = 0.0
        self._rest = b""  # what was received beyond the part that was wanted

    def close(self) -> None:
        self.sock.close()

    def quiet(self) -> bool:
        """Whether nothing has come unasked: neither the connection's end nor bytes that no request was sent for."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return not self._rest and not poll.poll(0)

    def exchange(self, request: bytes, transfer: Transfer) -> Head:
        """Sends a request and reads up to the body.

        Raises:
            MalformedAnswer, OSError
        """
        self.sock.settimeout(transfer.patience)
        self.sock.sendall(request)
        head = self._head(transfer)
        while 100 <= head.status < FINAL and head.status != 101:
            head = self._head(transfer)
        return head

    def body(self, head: Head, limit: int, transfer: Transfer) -> tuple[bytes | bytearray, bool]:
        """The whole body, and whether the connection can be used again.

        Raises:
            Oversized: it has, or announces, more than `limit` bytes.
            MalformedAnswer, OSError
        """
        if "transfer-encoding" in head.headers:
            if head.headers["transfer-encoding"].lower() != "chunked":
                raise MalformedAnswer("an unknown transfer encoding")
            return self._chunked(limit, transfer), head.reusable
        announced = head.headers.get("content-length")
        if announced is None:
            return self._to_the_end(limit, transfer), False
        if not (announced.isascii() and announced.isdigit()):
            raise MalformedAnswer("a content length that is no number")
        if len(announced) > 19 or int(announced) > limit:
            raise Oversized(f"at least {announced[:20]} bytes announced")
        body = self._exactly(int(announced), transfer)
        return body, head.reusable

    def _head(self, transfer: Transfer) -> Head:
        text = self._until(b"\r\n\r\n", transfer)
        status, *lines = text.decode("latin-1").split("\r\n")
        version, _, rest = status.partition(" ")
        code = rest[:3]
        if version not in ("HTTP/1.0", "HTTP/1.1") or not (code.isascii() and code.isdigit() and len(code) == 3):
            raise MalformedAnswer("the answer is not HTTP/1.1")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        return Head(version, int(code), headers)

    def _until(self, end: bytes, transfer: Transfer) -> bytes:
        buffer = bytearray(self._rest)
        searched = 0
        while (found := buffer.find(end, searched)) < 0:
            if len(buffer) > MAX_HEAD:
                raise MalformedAnswer("a head of more than 64 KiB")
            searched = max(0, len(buffer) - len(end) + 1)
            received = self.sock.recv(RECEIVE)
            if not received:
                raise CutShort("the connection was closed before an answer")
            transfer.count(len(received))
            buffer += received
        self._rest = bytes(memoryview(buffer)[found + len(end) :])
        return bytes(memoryview(buffer)[:found])

    def _exactly(self, size: int, transfer: Transfer) -> bytes:
        return written(size, functools.partial(self._fill, transfer))

    def _fill(self, transfer: Transfer, view: memoryview) -> int:
        filled = min(len(view), len(self._rest))
        view[:filled] = self._rest[:filled]
        self._rest = self._rest[filled:]
        while filled < len(view):
            received = self.sock.recv_into(view[filled:])
            if not received:
                raise CutShort(f"the connection was closed after {filled} of {len(view)} bytes")
            transfer.count(received)
            filled += received
        return filled

    def _chunked(self, limit: int, transfer: Transfer) -> bytearray:
        body = bytearray()
        while True:
            size = self._chunk_size(transfer)
            if len(body) + size > limit:
                raise Oversized(f"more than {limit} bytes")
            if not size:
                break
            body += self._exactly(size, transfer)
            if self._until(b"\r\n", transfer):
                raise MalformedAnswer("a chunk does not end where it should")
        while self._until(b"\r\n", transfer):
            pass  # trailers
        return body

    def _chunk_size(self, transfer: Transfer) -> int:
        digits = self._until(b"\r\n", transfer).partition(b";")[0].strip()
        if not digits or len(digits) > 15 or digits.strip(b"0123456789abcdefABCDEF"):
            raise MalformedAnswer("a chunk size that is no number")
        return int(digits, 16)

    def _to_the_end(self, limit: int, transfer: Transfer) -> bytearray:
        body = bytearray(self._rest)
        self._rest = b""
        while received := self.sock.recv(RECEIVE):
            transfer.count(len(received))
            body += received
            if len(body) > limit:
                raise Oversized(f"more than {limit} bytes")
        return body
