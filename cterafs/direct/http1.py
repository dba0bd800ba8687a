"""As much of HTTP/1.1 as fetching a block takes, on a socket in a thread.

The standard library's client parses headers as if they were mail and copies the body: with blocks of 256 KiB it reaches
less than half of what a plain socket does.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from cterafs.direct.buffers import written
from cterafs.direct.transfer import Transfer
from cterafs.model import Extent

MAX_HEAD = 64 << 10
"""Bytes of status line and headers, or of one line in a chunked body. Servers commonly allow 8 to 16 KiB."""
MAX_INTERIM = 16
"""Answers before the one that counts: there is hardly ever one, and each of them starts the wait anew."""
MAX_TRAILERS = 100
"""Lines after the last chunk."""
RECEIVE = 2048
"""Bytes asked for where a head is expected: whole heads, and little of the body, which would have to be copied."""
LEAST, MOST = 256 << 10, 2 << 20
"""Bytes received at a time, so that others see how far it is: more while they come at once, since each time costs both
the system and the interpreter some 10 us."""
AT_ONCE = 256 << 20
"""Bytes a second at which they do: those of one time come within 8 ms."""
PAUSE = struct.pack("@ll", 0, 200_000)
"""0.2 s as a `struct timeval`: a call on a plain socket returns after so long, with what has come or without."""
PIECE = 64 << 10
"""Bytes read at a time of a body whose size is not told."""
SWITCHING, FINAL = 101, 200


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
    def interim(self) -> bool:
        """Whether another one follows."""
        return 100 <= self.status < FINAL and self.status != SWITCHING

    @property
    def reusable(self) -> bool:
        connection = self.headers.get("connection", "").lower()
        return "close" not in connection if self.version == "HTTP/1.1" else connection == "keep-alive"


def object_size(head: Head, asked: Extent) -> int:
    """Bytes of all the object that a 206 is a part of; the part has to be `asked`, neither more nor less.

    Raises:
        MalformedAnswer: it is another part, or the head does not say which.
    """
    unit, _, rest = head.headers.get("content-range", "").partition(" ")
    span, _, total = rest.partition("/")
    if unit != "bytes" or span != f"{asked.start}-{asked.stop - 1}":
        raise MalformedAnswer("another range than was asked for")
    if not (total.isascii() and total.isdigit() and len(total) <= 19):
        raise MalformedAnswer("a range of an object of unknown size")
    return int(total)


def parse_head(text: bytes | bytearray) -> Head:
    """What stands before the empty line that ends a head.

    Raises:
        MalformedAnswer: it is no head.
    """
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


def parse_chunk_size(line: bytes | bytearray) -> int:
    """Bytes of a chunk, by the line before it.

    Raises:
        MalformedAnswer: it does not tell.
    """
    digits = line.partition(b";")[0].strip()
    if not digits or len(digits) > 15 or digits.strip(b"0123456789abcdefABCDEF"):
        raise MalformedAnswer("a chunk size that is no number")
    return int(digits, 16)


class Connection:
    """A socket with one answer at a time on it. Not thread-safe; `transfer` may be aborted from elsewhere."""

    def __init__(self, sock: socket.socket) -> None:
        """`sock` is connected."""
        self.sock = sock
        self.idle_since = 0.0
        self._rest: bytes | bytearray = b""  # what was received beyond the part that was wanted
        self._piece = LEAST  # bytes that are received at a time
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        if not isinstance(sock, ssl.SSLSocket):
            # Python's own timeouts make every call two, and the interpreter's lock change hands as often; the kernel's
            # can go with MSG_WAITALL, which makes one call of many.
            sock.settimeout(None)
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                sock.setsockopt(socket.SOL_SOCKET, option, PAUSE)

    def close(self) -> None:
        self.sock.close()

    def quiet(self) -> bool:
        """Whether nothing has come unasked: neither the connection's end nor bytes that no request was sent for."""
        return not self._rest and not self._poll.poll(0)

    def exchange(self, request: bytes, transfer: Transfer) -> Head:
        """Sends a request and reads up to the body.

        Raises:
            MalformedAnswer, OSError
        """
        if isinstance(self.sock, ssl.SSLSocket):
            self.sock.settimeout(transfer.patience)
        self.sock.sendall(request)
        # Who sends a request is taken for somebody who talks, and the kernel puts off what it acknowledges by 40 ms:
        # storage that has filled the window waits for that, one in ten times that a block of 4 MiB comes by loopback.
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        sent = time.monotonic()
        head = self._head(transfer)
        transfer.waited = time.monotonic() - sent
        for _ in range(MAX_INTERIM):
            if not head.interim:
                return head
            head = self._head(transfer)
        raise MalformedAnswer("one interim answer after the other")

    def body(self, head: Head, limit: int, transfer: Transfer) -> Body:
        """What follows the head, to be read before anything else.

        Raises:
            Oversized: it announces more than `limit` bytes.
            MalformedAnswer
        """
        if "transfer-encoding" in head.headers:
            if head.headers["transfer-encoding"].lower() != "chunked":
                raise MalformedAnswer("an unknown transfer encoding")
            return ChunkedBody(self, head, limit, transfer)
        announced = head.headers.get("content-length")
        if announced is None:
            return EndlessBody(self, head, limit, transfer)
        if not (announced.isascii() and announced.isdigit()):
            raise MalformedAnswer("a content length that is no number")
        if len(announced) > 19 or int(announced) > limit:
            raise Oversized(f"at least {announced[:20]} bytes announced")
        return SizedBody(self, head, int(announced), transfer)

    def receive(self, view: memoryview, transfer: Transfer) -> int:
        """Puts what has come into `view`, waiting for at least one byte; 0 at the connection's end.

        Raises:
            OSError
        """
        if self._rest:
            transfer.count(0)
            count = min(len(view), len(self._rest))
            view[:count] = self._rest[:count]
            self._rest = self._rest[count:]
            return count
        began = time.monotonic()
        if isinstance(self.sock, ssl.SSLSocket):
            count = _records(self.sock, view[: self._piece], transfer.patience)
        else:
            count = self._wait_for_all(view[: self._piece], transfer)
        transfer.count(count)
        if count >= LEAST:
            at_once = (time.monotonic() - began) * AT_ONCE < count
            self._piece = min(2 * self._piece, MOST) if at_once else LEAST
        return count

    def _wait_for_all(self, view: memoryview, transfer: Transfer) -> int:
        while True:
            try:
                return self.sock.recv_into(view, 0, socket.MSG_WAITALL)
            except BlockingIOError:
                transfer.count(0)

    def line(self, transfer: Transfer) -> bytes | bytearray:
        """Up to the next line end, which is left out.

        Raises:
            MalformedAnswer, OSError
        """
        return self._until(b"\r\n", transfer)

    def _head(self, transfer: Transfer) -> Head:
        return parse_head(self._until(b"\r\n\r\n", transfer))

    def _until(self, end: bytes, transfer: Transfer) -> bytes | bytearray:
        buffer = self._rest
        searched = 0
        while (found := buffer.find(end, searched)) < 0:
            if len(buffer) > MAX_HEAD:
                raise MalformedAnswer("a head of more than 64 KiB")
            searched = max(0, len(buffer) - len(end) + 1)
            try:
                received = self.sock.recv(RECEIVE)
            except BlockingIOError:
                transfer.count(0)
                continue
            if not received:
                raise CutShort("the connection was closed before an answer")
            transfer.count(len(received))
            if isinstance(buffer, bytearray):
                buffer += received
            else:  # nearly always all that has to come
                buffer = bytearray(buffer + received) if buffer else received
        self._rest = buffer[found + len(end) :]
        return buffer[:found]


def _records(sock: ssl.SSLSocket, view: memoryview, patience: float) -> int:
    """As many records of TLS as have come, waiting for the first. The library gives one at a time, of 16 KiB at most;
    to have each go all the way up takes a third of the processor time of blocks of 256 KiB."""
    # not `recv_into`, which is this and 1 us more, 65,536 times a GiB
    read = cast(Callable[[int, memoryview], int], sock.read)
    filled = read(len(view), view)
    if not 0 < filled < len(view):
        return filled
    sock.settimeout(0)
    try:
        while filled < len(view) and (count := read(len(view), view[filled:])):
            filled += count
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError):  # for the latter, the next call waits
        pass
    sock.settimeout(patience)
    return filled


class Body:
    """The body of an answer, as it comes. Whoever reads it reads it to its end, or closes the connection.

    Attributes:
        size: bytes in all, where the head tells it.
        reusable: the connection can be used again, once all is read.
    """

    def __init__(self, connection: Connection, head: Head, size: int | None, transfer: Transfer) -> None:
        self.size = size
        self.reusable = head.reusable
        self._connection = connection
        self._transfer = transfer

    def readinto(self, view: memoryview) -> int:
        """Puts what has come into `view`, waiting for at least one byte; 0 at the end.

        Raises:
            MalformedAnswer, OSError
        """
        raise NotImplementedError

    def readall(self) -> bytes | bytearray:
        """The rest, at once.

        Raises:
            MalformedAnswer, OSError
        """
        body = bytearray()
        piece = memoryview(bytearray(PIECE))
        while count := self.readinto(piece):
            body += piece[:count]
        return body


class SizedBody(Body):
    """`Content-Length` tells where it ends."""

    def __init__(self, connection: Connection, head: Head, size: int, transfer: Transfer) -> None:
        super().__init__(connection, head, size, transfer)
        self._left = size

    def readinto(self, view: memoryview) -> int:
        if not self._left:
            return 0
        count = self._connection.receive(view[: self._left] if len(view) > self._left else view, self._transfer)
        if not count:
            raise CutShort(f"the connection was closed {self._left} bytes too early")
        self._left -= count
        return count

    def readall(self) -> bytes:
        return written(self._left, self._fill)

    def _fill(self, view: memoryview) -> int:
        filled = 0
        while count := self.readinto(view[filled:]):
            filled += count
        return filled


class ChunkedBody(Body):
    """`Transfer-Encoding: chunked`. `limit` bounds what it may come to. The lines that tell the chunks' sizes can carry
    more than the chunks, so they are bounded as well."""

    def __init__(self, connection: Connection, head: Head, limit: int, transfer: Transfer) -> None:
        super().__init__(connection, head, None, transfer)
        self._limit = limit
        self._lines = limit + MAX_HEAD  # bytes that they may come to
        self._left = 0  # of the chunk that is being read
        self._begun = self._ended = False

    def readinto(self, view: memoryview) -> int:
        if self._ended or (not self._left and not self._next_chunk()):
            return 0
        count = self._connection.receive(view[: self._left], self._transfer)
        if not count:
            raise CutShort("the connection was closed within a chunk")
        self._left -= count
        return count

    def _next_chunk(self) -> int:
        if self._begun and self._connection.line(self._transfer):
            raise MalformedAnswer("a chunk does not end where it should")
        line = self._connection.line(self._transfer)
        self._begun, self._left = True, parse_chunk_size(line)
        self._limit -= self._left
        self._lines -= len(line)
        if self._limit < 0 or self._lines < 0:
            raise Oversized("more bytes than a block can have")
        if not self._left:
            self._ended = self._skip_trailers()
        return self._left

    def _skip_trailers(self) -> bool:
        for _ in range(MAX_TRAILERS):
            if not self._connection.line(self._transfer):
                return True
        raise MalformedAnswer("more after the last chunk than there can be")


class EndlessBody(Body):
    """It ends with the connection."""

    def __init__(self, connection: Connection, head: Head, limit: int, transfer: Transfer) -> None:
        super().__init__(connection, head, None, transfer)
        self.reusable = False
        self._limit = limit

    def readinto(self, view: memoryview) -> int:
        count = self._connection.receive(view, self._transfer)
        self._limit -= count
        if self._limit < 0:
            raise Oversized("more bytes than a block can have")
        return count
