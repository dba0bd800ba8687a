"""GET of a block, or of a part of it, by its presigned URL: synchronous, for worker threads.

Connections are kept alive. Nothing of the portal's (credentials, cookies) is ever sent, and proxies are not used.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar
from urllib.parse import urlsplit

from cachetools import TTLCache

from cterafs import __version__, errors
from cterafs.direct.addresses import Endpoint, HostPolicy, Refused, Target, parse
from cterafs.direct.checksums import Checksums
from cterafs.direct.codec import stored_limit
from cterafs.direct.http1 import Body, Connection, CutShort, Head, MalformedAnswer, Oversized, object_size
from cterafs.direct.retry import retry_after
from cterafs.direct.transfer import Transfer
from cterafs.errors import BlockInfo
from cterafs.model import Extent

T = TypeVar("T")

MAX_REDIRECTS = 3
MAX_IDLE = 64
"""Connections kept for later, over all hosts: a few more than workers, whatever hosts a portal names."""
IDLE_SECONDS = 30.0
"""nginx closes after 75 s, some load balancers after 60 s, S3 sooner: an older one is not worth trying."""
WITHOUT_RANGES = 600.0
"""Seconds for which storage that knows no ranges is asked for none: a proxy in front of it may be replaced by one that
does, and to find out costs one answer that is thrown away."""
OK, PARTIAL, UNSATISFIABLE = 200, 206, 416
REDIRECTS = frozenset({301, 302, 303, 307, 308})


def tls_context(verify: bool, ca_file: str | None, option: str = "ca_file") -> ssl.SSLContext:
    """The system's authorities, and those in `ca_file`, which `option` names.

    Raises:
        errors.ConfigError: the file cannot be used.
    """
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if ca_file:
        try:
            context.load_verify_locations(ca_file)
        except OSError as error:  # ssl.SSLError is one
            reason = "it holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
            raise errors.ConfigError(f"{option}: cannot use {ca_file}: {reason}") from None
    return context


class Answer(Protocol):
    """A block as storage sends it, to be read once, to its end.

    Attributes:
        size: bytes in all; None where storage does not tell before the end.
    """

    size: int | None

    def readinto(self, view: memoryview, /) -> int:
        """Puts what has come into `view`, waiting for at least one byte; 0 at the end."""

    def readall(self) -> bytes | bytearray:
        """The rest, at once."""


class _Checked:
    """An answer that came with checksums."""

    def __init__(self, body: Body, checksums: Checksums) -> None:
        self.size = body.size
        self._checksums = checksums
        self._body = body

    def readinto(self, view: memoryview, /) -> int:
        count = self._body.readinto(view)
        self._checksums.update(view[:count])
        return count

    def readall(self) -> bytes | bytearray:
        rest = self._body.readall()
        self._checksums.update(rest)
        return rest


class _Want(NamedTuple, Generic[T]):
    """What to do with a body of at most `limit` bytes, which is the `part` of the object, or all of it."""

    limit: int
    take: Callable[[Answer], T]
    part: Extent | None = None


class _Taken(NamedTuple, Generic[T]):
    """What was made of an answer; `wrong` names the checksum that is not the body's.

    Attributes:
        total: bytes of the object that it is a part of; None where it is all of it.
    """

    result: T
    wrong: str | None
    total: int | None


@dataclass(frozen=True, slots=True)
class Part:
    """A range of what storage holds of a block, and how many bytes that has in all."""

    data: bytes
    total: int


class Storage:
    """The object stores that a portal's block lists name. Thread-safe."""

    def __init__(self, portal_url: str, tls: ssl.SSLContext, hosts: Collection[str] = ()) -> None:
        self._policy = HostPolicy(hosts, urlsplit(portal_url).hostname or "")
        self._tls = tls
        self._idle: OrderedDict[Connection, Endpoint] = OrderedDict()  # the longest idle first
        self._without_ranges: TTLCache[Endpoint, bool] = TTLCache(MAX_IDLE, WITHOUT_RANGES)
        self._lock = threading.Lock()

    def get(self, url: str, block: BlockInfo, transfer: Transfer, take: Callable[[Answer], T]) -> T:
        """What `take` makes of what storage holds of a block: not yet decrypted.

        `take` has to read it to its end; what it returns is kept back until the checksums were found to be right.

        Raises:
            errors.DownloadTimeout, errors.DownloadConnectionError
            errors.DownloadError: storage refused, or answered nonsense; with `.status`.
            errors.BlockValidationException: the answer is too large, or its checksum is wrong.
            transfer.Aborted: upon `transfer.abort()`, or any of the others.
        """
        target = _target(url, block)
        head, taken = self._follow(target, block, _Want(stored_limit(block.length), take), transfer)
        if taken is None:
            raise _failure(block, head)
        if taken.wrong:
            raise errors.BlockValidationException(block, f"{taken.wrong} is of other bytes")
        return taken.result

    def get_part(self, url: str, block: BlockInfo, part: Extent, transfer: Transfer) -> Part | None:
        """A range of what storage holds of a block; None where it holds no such range, or knows no ranges.

        Raises:
            as `get` does. Checksums are not verified: those that come with a range are of the whole object.
        """
        target = _target(url, block)
        with self._lock:
            if target.endpoint in self._without_ranges:
                return None
        want = _Want(len(part), lambda answer: bytes(answer.readall()), part)
        head, taken = self._follow(target, block, want, transfer)
        if taken is not None and taken.total is not None:
            if len(taken.result) != len(part):
                raise errors.DownloadError(block, f"{len(taken.result)} bytes of a range of {len(part)}")
            return Part(taken.result, taken.total)
        if head.status == OK:
            with self._lock:
                self._without_ranges[target.endpoint] = True
        elif head.status != UNSATISFIABLE:
            raise _failure(block, head)
        return None

    def close(self) -> None:
        """Closes what is idle; downloads that are under way go on."""
        with self._lock:
            idle, self._idle = self._idle, OrderedDict()
        for connection in idle:
            connection.close()

    def _follow(
        self, target: Target, block: BlockInfo, want: _Want[T], transfer: Transfer
    ) -> tuple[Head, _Taken[T] | None]:
        """The answer, wherever redirects lead."""
        try:
            for _ in range(1 + MAX_REDIRECTS):
                head, taken = self._fetch(target, want, transfer)
                if head.status not in REDIRECTS:
                    break
                target = target.redirected(head.headers.get("location", ""))
        except errors.BlockError:  # of the block's decoding, and an OSError like others that are met here
            raise
        except (OSError, MalformedAnswer, Refused) as error:
            raise _translated(error, block, f"{target.endpoint.host}: ") from None
        return head, taken

    def _fetch(self, target: Target, want: _Want[T], transfer: Transfer) -> tuple[Head, _Taken[T] | None]:
        while connection := self._reuse(target.endpoint):
            before = transfer.received
            try:
                return self._converse(connection, target, want, transfer)
            except ConnectionError:
                if transfer.received > before:
                    raise
                # the server had closed it meanwhile, which is no failure
            except TimeoutError:
                if transfer.received == before:
                    self._forget(target.endpoint)
                raise
        return self._converse(self._connect(target.endpoint, transfer), target, want, transfer)

    def _converse(
        self, connection: Connection, target: Target, want: _Want[T], transfer: Transfer
    ) -> tuple[Head, _Taken[T] | None]:
        part = want.part
        ranged = f"Range: bytes={part.start}-{part.stop - 1}\r\n" if part else ""
        request = (
            f"GET {target.path} HTTP/1.1\r\nHost: {target.endpoint.authority}\r\n"
            f"User-Agent: cterafs/{__version__}\r\nAccept: */*\r\nAccept-Encoding: identity\r\n{ranged}\r\n"
        ).encode("ascii")
        taken = None
        reusable = False  # what an error says may be long, and is not needed
        try:
            transfer.attach(connection.sock)
            head = connection.exchange(request, transfer)
            if head.status == (PARTIAL if part else OK):
                total = object_size(head, part) if part else None
                body = connection.body(head, want.limit, transfer)
                checksums = Checksums(head.headers)
                result = want.take(_Checked(body, checksums) if checksums else body)
                taken = _Taken(result, checksums.mismatch(), total)
                reusable = body.reusable
            transfer.detach()
        except BaseException:
            transfer.forget()
            connection.close()
            raise
        if reusable:
            self._keep(connection, target.endpoint)
        else:
            connection.close()
        return head, taken

    def _connect(self, endpoint: Endpoint, transfer: Transfer) -> Connection:
        failure: OSError | None = None
        for family, address in self._policy.addresses(endpoint):
            transfer.count(0)
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.settimeout(transfer.patience)
                transfer.attach(sock)
                sock.connect(address)
                if endpoint.secure:
                    sock = self._tls.wrap_socket(sock, server_hostname=endpoint.host, do_handshake_on_connect=False)
                    transfer.attach(sock)
                    sock.do_handshake()
                return Connection(sock)
            except OSError as error:
                transfer.forget()
                sock.close()
                failure = error
            except BaseException:
                transfer.forget()
                sock.close()
                raise
        raise failure or OSError("no address")

    def _reuse(self, endpoint: Endpoint) -> Connection | None:
        """The connection to `endpoint` that was used last: the most likely to be alive still."""
        while connection := self._take(endpoint):
            if connection.quiet() and time.monotonic() - connection.idle_since < IDLE_SECONDS:
                return connection
            connection.close()
        return None

    def _take(self, endpoint: Endpoint) -> Connection | None:
        with self._lock:
            for connection in reversed(self._idle):
                if self._idle[connection] == endpoint:
                    del self._idle[connection]
                    return connection
        return None

    def _forget(self, endpoint: Endpoint) -> None:
        """The network came back without its connections: the others that were kept are dead as well."""
        while connection := self._take(endpoint):
            connection.close()

    def _keep(self, connection: Connection, endpoint: Endpoint) -> None:
        connection.idle_since = time.monotonic()
        with self._lock:
            self._idle[connection] = endpoint
            surplus = self._idle.popitem(last=False)[0] if len(self._idle) > MAX_IDLE else None
        if surplus:
            surplus.close()


def _target(url: str, block: BlockInfo) -> Target:
    try:
        return parse(url)
    except Refused as error:
        raise errors.StorageRefusedError(block, str(error)) from None


def _failure(block: BlockInfo, head: Head) -> errors.DownloadError:
    failure = errors.DownloadError(block, f"HTTP {head.status}", head.status)
    failure.retry_after = retry_after(head.headers.get("retry-after"))
    return failure


def _translated(error: OSError | MalformedAnswer | Refused, block: BlockInfo, host: str) -> errors.BlockError:
    """The one map from what a connection raises to the errors of a block. None of the texts has a URL in it."""
    translated: errors.BlockError
    match error:
        case Oversized():
            translated = errors.BlockValidationException(block, host + str(error))
        case CutShort():
            translated = errors.DownloadConnectionError(block, host + str(error))
        case Refused():
            translated = errors.StorageRefusedError(block, str(error))
        case MalformedAnswer():
            translated = errors.DownloadError(block, host + str(error))
        case TimeoutError():
            translated = errors.DownloadTimeout(block, f"{host}no progress")
        case ssl.SSLCertVerificationError():
            translated = errors.StorageUntrustedError(block, host + error.verify_message)
        case _:  # the resolver's and TLS's are OSErrors as well
            translated = errors.DownloadConnectionError(block, host + (error.strerror or str(error)))
    return translated
