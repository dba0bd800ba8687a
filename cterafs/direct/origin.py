"""GET requests to one host, on the event loop, over connections that are kept alive.

For the portal's short answers: an HTTP library for every case takes 1 ms of the interpreter for each, four times what
the rest of reading a small file takes.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSStream

from cterafs.direct.addresses import Endpoint
from cterafs.direct.http1 import (
    MAX_INTERIM,
    MAX_TRAILERS,
    CutShort,
    Head,
    MalformedAnswer,
    Oversized,
    parse_chunk_size,
    parse_head,
)
from cterafs.direct.proxies import Proxy, proxy_for

CONNECTIONS = 256
"""As many as there can be downloads: answers that hang must not hold up the others."""
MAX_IDLE = 64
"""Connections kept for later: as many as there are files fetched ahead in a walk."""
IDLE_SECONDS = 30.0
"""nginx closes after 75 s, some load balancers after 60 s."""
MAX_HEAD = 64 << 10
"""Bytes of status line and headers, or of one line in a chunked body. Servers commonly allow 8 to 16 KiB."""
RECEIVE = 64 << 10
OK = 200


class Patience:
    """How long an exchange may take: so many seconds for each part of it, and so many for all of it."""

    def __init__(self, each: float, whole: float) -> None:
        self.scope = anyio.CancelScope()
        self._each = each
        self._end = anyio.current_time() + whole
        self.progressed()

    def progressed(self) -> None:
        """There is more of the answer."""
        self.scope.deadline = min(anyio.current_time() + self._each, self._end)


class _Connection:
    """A stream with one answer at a time on it."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream
        self.idle_since = 0.0
        self.received = False
        self._socket: socket.socket = stream.extra(SocketAttribute.raw_socket)  # noqa: S610  # not of Django
        self._rest = bytearray()  # what was received beyond the part that was wanted

    def quiet(self) -> bool:
        """Whether nothing has come unasked: neither the connection's end nor bytes that no request was sent for."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return not self._rest and not poll.poll(0)

    async def head(self, patience: Patience) -> Head:
        """Status and headers, of a final answer."""
        for _ in range(1 + MAX_INTERIM):
            head = parse_head(await self._until(b"\r\n\r\n", patience))
            if not head.interim:
                return head
        raise MalformedAnswer("one interim answer after the other")

    async def body(self, head: Head, limit: int, patience: Patience) -> tuple[bytearray, bool]:
        """All that follows, and whether the connection can be used again."""
        if "transfer-encoding" in head.headers:
            if head.headers["transfer-encoding"].lower() != "chunked":
                raise MalformedAnswer("an unknown transfer encoding")
            return await self._chunked(limit, patience), head.reusable
        announced = head.headers.get("content-length")
        if announced is None:
            return await self._to_the_end(limit, patience), False
        if not (announced.isascii() and announced.isdigit()):
            raise MalformedAnswer("a content length that is no number")
        if len(announced) > 19 or int(announced) > limit:
            raise Oversized(f"at least {announced[:20]} bytes announced")
        return await self._exactly(int(announced), patience), head.reusable

    async def _more(self, patience: Patience) -> None:
        try:
            self._rest += await self.stream.receive(RECEIVE)
        except anyio.EndOfStream:
            raise CutShort("the connection was closed before the answer ended") from None
        self.received = True
        patience.progressed()

    async def _until(self, end: bytes, patience: Patience) -> bytearray:
        searched = 0
        while (found := self._rest.find(end, searched)) < 0:
            if len(self._rest) > MAX_HEAD:
                raise MalformedAnswer("a head of more than 64 KiB")
            searched = max(0, len(self._rest) - len(end) + 1)
            await self._more(patience)
        part = self._rest[:found]
        del self._rest[: found + len(end)]
        return part

    async def _exactly(self, size: int, patience: Patience) -> bytearray:
        while len(self._rest) < size:
            await self._more(patience)
        if len(self._rest) == size:  # not copied: a list of blocks may have hundreds of megabytes
            part, self._rest = self._rest, bytearray()
            return part
        part = self._rest[:size]
        del self._rest[:size]
        return part

    async def _chunked(self, limit: int, patience: Patience) -> bytearray:
        body, lines = bytearray(), limit + MAX_HEAD
        while size := parse_chunk_size(line := await self._until(b"\r\n", patience)):
            lines -= len(line)
            if len(body) + size > limit or lines < 0:
                raise Oversized(f"more than {limit} bytes")
            body += await self._exactly(size, patience)
            if await self._until(b"\r\n", patience):
                raise MalformedAnswer("a chunk does not end where it should")
        for _ in range(MAX_TRAILERS):
            if not await self._until(b"\r\n", patience):
                return body
        raise MalformedAnswer("more after the last chunk than there can be")

    async def _to_the_end(self, limit: int, patience: Patience) -> bytearray:
        try:
            while len(self._rest) <= limit:
                await self._more(patience)
        except CutShort:
            body, self._rest = self._rest, bytearray()
            return body
        raise Oversized(f"more than {limit} bytes")


class Origin:
    """The host of a URL. Redirects are not followed; a proxy is used if the environment names one.

    Raises:
        ConfigError: that proxy cannot be used.
    """

    def __init__(self, endpoint: Endpoint, tls: ssl.SSLContext, headers: str) -> None:
        """`headers`: those of every request, a line each; they may be secret."""
        self._endpoint = endpoint
        self._tls = tls
        self._proxy = proxy_for(endpoint)
        self._prefix = ""
        self._headers = f"Host: {endpoint.authority}\r\n{headers}"
        if self._proxy is not None and not endpoint.secure:
            self._prefix = f"http://{endpoint.authority}"
            self._headers += self._proxy.authorization
        self._free = anyio.Semaphore(CONNECTIONS, fast_acquire=True)
        self._idle: list[_Connection] = []  # the one used last at the end: the most likely to be alive still

    async def aclose(self) -> None:
        """Closes what is idle."""
        idle, self._idle = self._idle, []
        for connection in idle:
            await anyio.aclose_forcefully(connection.stream)

    async def get(self, target: str, limit: int, each: float, whole: float) -> tuple[Head, bytearray]:
        """The answer to a request; its body only where the status is 200.

        Args:
            target: path and query.
            limit: bytes that the body may have.
            each, whole: seconds that each part of the answer, and all of it, may take.

        Raises:
            TimeoutError
            Oversized, MalformedAnswer
            OSError: also of TLS.
        """
        request = f"GET {self._prefix}{target} HTTP/1.1\r\n{self._headers}\r\n".encode("ascii")
        patience = Patience(each, whole)
        connection = None
        with patience.scope:
            async with self._free:
                while connection := await self._reuse():
                    try:
                        return await self._exchange(connection, request, limit, patience)
                    except ConnectionError:
                        if connection.received:
                            raise
                        # the server had closed it meanwhile, which is no failure
                return await self._exchange(await self._connect(patience), request, limit, patience)
        if connection is not None and not connection.received:
            await self.aclose()  # a network that came back without its connections: the others that were kept are dead
        raise TimeoutError("no answer in time")

    async def _exchange(
        self, connection: _Connection, request: bytes, limit: int, patience: Patience
    ) -> tuple[Head, bytearray]:
        kept = False
        connection.received = False
        try:
            with _translated():
                await connection.stream.send(request)
                head = await connection.head(patience)
                body, kept = bytearray(), False
                if head.status == OK:
                    body, kept = await connection.body(head, limit, patience)
        finally:
            if kept and len(self._idle) < MAX_IDLE:
                connection.idle_since = time.monotonic()
                self._idle.append(connection)
            else:
                await _close(connection.stream)
        return head, body

    async def _reuse(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.quiet() and time.monotonic() - connection.idle_since < IDLE_SECONDS:
                return connection
            await _close(connection.stream)
        return None

    async def _connect(self, patience: Patience) -> _Connection:
        here, proxy = self._endpoint, self._proxy
        with _translated():
            stream = await _opened(here if proxy is None else proxy.endpoint, self._tls)
            if proxy is None or not here.secure:
                return _Connection(stream)
            try:
                await self._tunnel(stream, proxy, patience)
                return _Connection(await _secured(stream, here, self._tls))
            except BaseException:
                await _close(stream)
                raise

    async def _tunnel(self, stream: ByteStream, proxy: Proxy, patience: Patience) -> None:
        host = f"[{self._endpoint.host}]" if ":" in self._endpoint.host else self._endpoint.host
        address = f"{host}:{self._endpoint.port}"
        request = f"CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n{proxy.authorization}\r\n"
        await stream.send(request.encode("ascii"))
        head = await _Connection(stream).head(patience)
        if head.status != OK:
            raise ConnectionError(f"the proxy answered {head.status}")


async def _opened(endpoint: Endpoint, tls: ssl.SSLContext) -> ByteStream:
    try:
        stream = await anyio.connect_tcp(endpoint.host, endpoint.port)
    except UnicodeError:  # a label of more than 63 letters
        raise OSError("not a valid host name") from None
    return await _secured(stream, endpoint, tls) if endpoint.secure else stream


async def _secured(stream: ByteStream, endpoint: Endpoint, tls: ssl.SSLContext) -> ByteStream:
    try:
        return await TLSStream.wrap(stream, hostname=endpoint.host, ssl_context=tls, standard_compatible=False)
    except BaseException:
        await _close(stream)
        raise


async def _close(stream: ByteStream) -> None:
    with anyio.CancelScope(shield=True):  # it only closes a socket
        await anyio.aclose_forcefully(stream)


@contextmanager
def _translated() -> Iterator[None]:
    """What a stream raises, as OSError."""
    try:
        yield
    except (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream) as error:
        cause = error.__cause__
        raise ConnectionError(str(cause) if isinstance(cause, OSError) else "the connection was lost") from None
