"""The portal's end of Direct IO: `GET /directio/{file_id}`."""

from __future__ import annotations

import ssl
import zlib

import httpx

from cterafs import __version__, errors
from cterafs.direct.addresses import Endpoint
from cterafs.direct.http1 import Head, MalformedAnswer, Oversized
from cterafs.direct.origin import OK, Origin
from cterafs.direct.retry import retry_after
from cterafs.model import Extent

LONGEST = 10
"""A whole answer may take this many times the timeout: 512 MiB at 1.7 MB/s with the default of 30 s."""


class BlockListAPI:
    """Asks the portal for lists of blocks, once each. Redirects are not followed: they lead to a login page.

    Raises:
        errors.ConfigError: the proxy that the environment names cannot be used.
    """

    def __init__(self, url: str, bearer: str, tls: ssl.SSLContext, timeout: float) -> None:
        parts = httpx.URL(url)
        secure = parts.scheme == "https"
        self._path = parts.raw_path.partition(b"?")[0].decode("ascii").rstrip("/")
        self._timeout = timeout
        self._origin = Origin(
            Endpoint(secure, parts.raw_host.decode("ascii"), parts.port or (443 if secure else 80)),
            tls,
            f"Authorization: Bearer {bearer}\r\nAccept: application/json\r\nAccept-Encoding: gzip\r\n"
            f"User-Agent: cterafs/{__version__}\r\n",
        )

    async def aclose(self) -> None:
        await self._origin.aclose()

    async def ask(self, file_id: int, extent: Extent | None, patience: float, limit: int) -> bytes | bytearray:
        """The body of the answer. `rangeEnd` is the last byte that is wanted: portals differ on including it.

        Args:
            patience: seconds to wait for a connection, and for each part of the answer.
            limit: bytes that it may have.

        Raises:
            http1.Oversized: it has more.
            errors.DirectIOAPIError
        """
        query = "" if extent is None else f"?rangeStart={extent.start}&rangeEnd={extent.stop - 1}"
        try:
            head, body = await self._origin.get(
                f"{self._path}/directio/{file_id}{query}", limit, patience, LONGEST * self._timeout
            )
        except Oversized:
            raise
        except TimeoutError:
            raise errors.BlockListTimeout(file_id) from None
        except (OSError, MalformedAnswer) as error:  # the resolver's and TLS's errors are OSErrors as well
            reason = error.strerror if isinstance(error, OSError) else None
            raise errors.BlockListConnectionError(file_id, reason or str(error) or type(error).__name__) from None
        if head.status != OK:
            raise _refusal(file_id, head)
        return _decoded(head.headers.get("content-encoding", "identity"), body, file_id, limit)


def _decoded(encoding: str, body: bytearray, file_id: int, limit: int) -> bytes | bytearray:
    if encoding == "identity":
        return body
    if encoding != "gzip":
        raise errors.InvalidRequest(file_id, "the answer has an encoding that was not asked for")
    stream = zlib.decompressobj(wbits=31)  # a gzip header and trailer
    try:
        plain = stream.decompress(body, limit + 1)
    except zlib.error:
        raise errors.InvalidRequest(file_id, "the answer does not decompress") from None
    if len(plain) > limit:
        raise Oversized(f"more than {limit} bytes")
    if not stream.eof:
        raise errors.InvalidRequest(file_id, "the answer is cut short")
    return plain


def _refusal(file_id: int, head: Head) -> errors.DirectIOAPIError:
    known: dict[int, type[errors.DirectIOAPIError]] = {
        400: errors.ObjectNotFoundError,
        401: errors.AuthorizationError,
        403: errors.AuthorizationError,
        422: errors.UnsupportedStorageError,
    }
    error = known.get(head.status, errors.InvalidRequest)(file_id, f"HTTP {head.status}")
    error.retry_after = retry_after(head.headers.get("retry-after"))
    return error
