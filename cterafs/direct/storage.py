"""GET of a block by its presigned URL: synchronous, for worker threads, over connections that are kept alive.

Nothing of the portal's (credentials, cookies) is ever sent, and proxies are not used.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Iterator
from urllib.parse import urlsplit

from cterafs import __version__, errors
from cterafs.direct.addresses import Endpoint, HostPolicy, Refused, Target, parse
from cterafs.direct.checksums import mismatch
from cterafs.direct.codec import stored_limit
from cterafs.direct.http1 import Connection, CutShort, Head, MalformedAnswer, Oversized
from cterafs.direct.retry import retry_after
from cterafs.direct.transfer import Transfer
from cterafs.errors import BlockInfo

MAX_REDIRECTS = 3
MAX_IDLE = 64
"""Connections kept for later, over all hosts: a few more than workers, whatever hosts a portal names."""
IDLE_SECONDS = 30.0
"""nginx closes after 75 s, some load balancers after 60 s, S3 sooner: an older one is not worth trying."""
OK = 200
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


class Storage:
    """The object stores that a portal's block lists name. Thread-safe."""

    def __init__(self, portal_url: str, tls: ssl.SSLContext, hosts: Collection[str] = ()) -> None:
        self._policy = HostPolicy(hosts, urlsplit(portal_url).hostname or "")
        self._tls = tls
        self._idle: OrderedDict[Connection, Endpoint] = OrderedDict()  # the longest idle first
        self._lock = threading.Lock()

    def get(self, url: str, block: BlockInfo, transfer: Transfer) -> bytes | bytearray:
        """What storage holds of a block: not yet decrypted, but whole.

        Raises:
            errors.DownloadTimeout, errors.DownloadConnectionError
            errors.DownloadError: storage refused, or answered nonsense; with `.status`.
            errors.BlockValidationException: the answer is too large, or its checksum is wrong.
            transfer.Aborted: upon `transfer.abort()`, or any of the others.
        """
        with _translated(block):
            target = parse(url)
        with _translated(block, f"{target.endpoint.host}: "):
            for _ in range(1 + MAX_REDIRECTS):
                head, body = self._fetch(target, stored_limit(block.length), transfer)
                if head.status not in REDIRECTS:
                    break
                target = target.redirected(head.headers.get("location", ""))
        if head.status != OK:
            failure = errors.DownloadError(block, f"HTTP {head.status}", head.status)
            failure.retry_after = retry_after(head.headers.get("retry-after"))
            raise failure
        if wrong := mismatch(head.headers, body):
            raise errors.BlockValidationException(block, f"{wrong} is of other bytes")
        return body

    def close(self) -> None:
        """Closes what is idle; downloads that are under way go on."""
        with self._lock:
            idle, self._idle = self._idle, OrderedDict()
        for connection in idle:
            connection.close()

    def _fetch(self, target: Target, limit: int, transfer: Transfer) -> tuple[Head, bytes | bytearray]:
        request = (
            f"GET {target.path} HTTP/1.1\r\nHost: {target.endpoint.authority}\r\n"
            f"User-Agent: cterafs/{__version__}\r\nAccept: */*\r\nAccept-Encoding: identity\r\n\r\n"
        ).encode("ascii")
        endpoint = target.endpoint
        while connection := self._reuse(endpoint):
            before = transfer.received
            try:
                return self._converse(connection, endpoint, request, limit, transfer)
            except ConnectionError:
                if transfer.received > before:
                    raise
                # the server had closed it meanwhile, which is no failure
        return self._converse(self._connect(endpoint, transfer), endpoint, request, limit, transfer)

    def _converse(
        self, connection: Connection, endpoint: Endpoint, request: bytes, limit: int, transfer: Transfer
    ) -> tuple[Head, bytes | bytearray]:
        try:
            transfer.attach(connection.sock)
            head = connection.exchange(request, transfer)
            if head.status == OK:
                body, reusable = connection.body(head, limit, transfer)
            else:
                body, reusable = b"", False  # what an error says may be long, and is not needed
            transfer.detach()
        except BaseException:
            transfer.forget()
            connection.close()
            raise
        if reusable:
            self._keep(connection, endpoint)
        else:
            connection.close()
        return head, body

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

    def _keep(self, connection: Connection, endpoint: Endpoint) -> None:
        connection.idle_since = time.monotonic()
        with self._lock:
            self._idle[connection] = endpoint
            surplus = self._idle.popitem(last=False)[0] if len(self._idle) > MAX_IDLE else None
        if surplus:
            surplus.close()


@contextlib.contextmanager
def _translated(block: BlockInfo, host: str = "") -> Iterator[None]:
    """The one map from what a connection raises to the errors of a block. None of the texts has a URL in it."""
    try:
        yield
    except Oversized as error:
        raise errors.BlockValidationException(block, host + str(error)) from None
    except CutShort as error:
        raise errors.DownloadConnectionError(block, host + str(error)) from None
    except Refused as error:
        raise errors.StorageRefusedError(block, str(error)) from None
    except MalformedAnswer as error:
        raise errors.DownloadError(block, host + str(error)) from None
    except TimeoutError:
        raise errors.DownloadTimeout(block, f"{host}no progress") from None
    except ssl.SSLCertVerificationError as error:
        raise errors.StorageUntrustedError(block, host + error.verify_message) from None
    except OSError as error:  # the resolver's and TLS's are OSErrors as well
        raise errors.DownloadConnectionError(block, host + (error.strerror or str(error))) from None
