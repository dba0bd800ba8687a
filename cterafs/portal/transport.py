"""One HTTP exchange with the portal. What httpx, ssl and anyio raise ends here, as this project's errors.

The client talks to one origin, and follows no redirect: so credentials cannot reach another host.
"""

from __future__ import annotations

import functools
import io
import ssl
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Self

import anyio
import httpx

from cterafs.errors import ConfigError, PortalConnectionError, PortalError, PortalTimeout, ProtocolError
from cterafs.threads import patiently

# Answers are bounded: a page of 2,000 entries is below 1 MB, and below 64 MiB with access lists of 32 KiB each.
MAX_BODY = 64 * 2**20
# Beyond the wait for its first byte, an answer has this long to arrive: 64 MiB at 2 Mbit/s. It ends a trickle, which
# the wait for each single read does not.
_BODY_SECONDS = 300.0

# X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH of openssl/x509_vfy.h.
_OF_ANOTHER_HOST = (62, 64)

# What foreign exceptions mean, the first that fits. Their own texts are not taken over: they can quote a header.
_MEANINGS: tuple[tuple[tuple[type[Exception], ...], type[PortalError], str], ...] = (
    ((httpx.TimeoutException, TimeoutError), PortalTimeout, "the portal did not answer in time"),
    ((httpx.ProxyError,), PortalConnectionError, "the proxy did not connect to the portal"),
    ((httpx.ConnectError,), PortalConnectionError, "cannot connect to the portal; check portal.url and the network"),
    (
        (httpx.ProtocolError, httpx.UnsupportedProtocol, httpx.InvalidURL),
        ProtocolError,
        "the portal does not speak HTTP as expected; check portal.url",
    ),
    (
        (httpx.DecodingError, httpx.TooManyRedirects, httpx.CookieConflict, httpx.StreamError),
        ProtocolError,
        "the portal's answer cannot be decoded",
    ),
    (
        (
            httpx.HTTPError,
            OSError,  # ssl.SSLError is one
            anyio.BrokenResourceError,
            anyio.ClosedResourceError,
            anyio.EndOfStream,
        ),
        PortalConnectionError,
        "the connection to the portal broke",
    ),
)
FOREIGN_ERRORS = tuple(kind for kinds, _, _ in _MEANINGS for kind in kinds)


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, read whole. Headers and body can hold secrets, so its `repr` has neither."""

    status: int
    headers: httpx.Headers = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def location(self) -> str | None:
        """Where it redirects to; None if it does not."""
        return self.headers.get("location", "") if 300 <= self.status < 400 else None


class Transport:
    """Connections to the portal at `url`.

    Args:
        url: the portal's, `https://tenant.ctera.com`; without a scheme it is https.
        verify_tls: False accepts any certificate.
        ca_file: trust these authorities instead of the system's.
        timeout: seconds to connect, and for an answer to begin.

    Raises:
        ConfigError: the URL is not one, or the file cannot be read.
    """

    def __init__(self, url: str, *, verify_tls: bool = True, ca_file: str | None = None, timeout: float = 30.0) -> None:
        self.url = base_url(url)
        self.timeout = timeout
        self._open = False
        self._client = httpx.AsyncClient(
            base_url=self.url,
            verify=tls_context(verify_tls=verify_tls, ca_file=ca_file),
            timeout=timeout,
            headers={"Accept-Encoding": "gzip"},
            follow_redirects=False,
            # The session keeps its cookies itself (see there): httpx must neither store nor send any.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        )

    async def send(
        self, method: str, path: str, *, headers: Mapping[str, str], content: bytes | None, patience: float = 0.0
    ) -> Answer:
        """Send a request and read the answer.

        Args:
            path: below the portal's URL.
            patience: seconds that the portal may stay silent beyond the usual timeout.

        Raises:
            PortalConnectionError: no connection, or it broke.
            PortalTimeout: no answer in time.
            ProtocolError: the answer is not HTTP, or longer than `MAX_BODY`.
        """
        if not self._open:
            raise RuntimeError("the client is not open: use it inside `async with`")
        silence = self.timeout + patience
        timeout = httpx.Timeout(self.timeout, read=silence)
        request = self._client.build_request(method, path, headers=headers, content=content, timeout=timeout)
        try:
            with anyio.fail_after(silence + _BODY_SECONDS):
                response = await patiently(functools.partial(self._client.send, request, stream=True))
                try:
                    body = await _read(response)
                finally:
                    await response.aclose()
        except PortalError:
            raise
        except FOREIGN_ERRORS as error:
            raise translated(error) from None
        return Answer(response.status_code, response.headers, body)

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        self._open = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self._open = False
        await self._client.aclose()


async def _read(response: httpx.Response) -> bytes:
    """The body, decoded.

    httpx's own decoding is left aside: it has no bound, and to leave its iterators early is an error under trio.
    """
    announced = response.headers.get("content-length", "")
    if len(announced) > 19 or (announced.isdecimal() and int(announced) > MAX_BODY):
        raise _too_long()
    body = io.BytesIO()  # which gives what it holds without a copy
    too_long = False
    try:
        async for piece in response.aiter_raw():
            body.write(piece)
            if body.tell() > MAX_BODY and not too_long:
                too_long = True
                await response.aclose()  # which makes the iteration fail
    except httpx.HTTPError as error:
        if not too_long and isinstance(error, httpx.RemoteProtocolError):
            raise PortalConnectionError("the portal's answer was cut off") from None
        if not too_long:
            raise
    if too_long:
        raise _too_long()
    return _decoded(body.getvalue(), response.headers.get("content-encoding", ""))


def _decoded(body: bytes, encoding: str) -> bytes:
    if encoding in {"", "identity"} or not body:
        return body
    if encoding != "gzip":
        raise ProtocolError("the portal's answer has an encoding that was not asked for")
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)  # 16: with the header and checksum of gzip
    try:
        plain = inflater.decompress(body, MAX_BODY + 1)
    except zlib.error:
        raise ProtocolError("the portal's answer cannot be decoded") from None
    if len(plain) > MAX_BODY:
        raise _too_long()
    if not inflater.eof:
        raise ProtocolError("the portal's answer cannot be decoded")
    return plain


def _too_long() -> ProtocolError:
    return ProtocolError(f"the portal's answer is longer than {MAX_BODY // 2**20} MiB")


def translated(error: Exception) -> PortalError:
    """The error of this project that `error`, one of `FOREIGN_ERRORS`, is."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _untrusted(cause)
    if isinstance(error, httpx.RemoteProtocolError) and str(error).startswith("Server disconnected"):
        return PortalConnectionError("the portal closed the connection without an answer")
    kind, message = next((kind, message) for kinds, kind, message in _MEANINGS if isinstance(error, kinds))
    return kind(message)


def _untrusted(error: ssl.SSLCertVerificationError) -> PortalConnectionError:
    advice = "check portal.url" if error.verify_code in _OF_ANOTHER_HOST else "set portal.ca_file to its authority"
    return PortalConnectionError(
        f"the portal's certificate is not trusted ({error.verify_message.rstrip('.')}); {advice}"
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """`error`, what it was made from, and so on: trio tells why a handshake failed only there."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def base_url(url: str) -> str:
    """`url` as the origin of requests, without a slash at its end.

    Raises:
        ConfigError: it is not an http or https URL, or holds more than an origin and a path.
    """
    text = url if "://" in url else f"https://{url}"
    try:
        parsed = httpx.URL(text.rstrip("/"))
    except httpx.InvalidURL:
        raise ConfigError("portal.url is not a URL; it looks like https://tenant.ctera.com") from None
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise ConfigError("portal.url is not an http or https URL; it looks like https://tenant.ctera.com")
    if parsed.userinfo or parsed.query or parsed.fragment:
        raise ConfigError("portal.url must not hold a user, a password, a query or a fragment")
    return str(parsed)


def tls_context(*, verify_tls: bool, ca_file: str | None) -> ssl.SSLContext:
    """What to trust: `ca_file` alone, or the system's authorities, or, unverified, anyone.

    Raises:
        ConfigError: `ca_file` cannot be read, or holds no certificate.
    """
    try:
        context = ssl.create_default_context(cafile=str(Path(ca_file).expanduser()) if ca_file else None)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(f"portal.ca_file: cannot use {ca_file}: {error.strerror or error}") from None
    if not verify_tls:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
