"""The portal's end of Direct IO: `GET /directio/{file_id}`."""

from __future__ import annotations

import ssl
import zlib

import anyio
import httpx

from cterafs import __version__, errors
from cterafs.direct.retry import retry_after
from cterafs.direct.wire import MAX_ANSWER
from cterafs.model import Extent

OK = 200
CONNECTIONS = 256
"""As many as there can be downloads: lists that hang must not hold up the others."""
LONGEST = 10
"""A whole answer may take this many times the timeout: 512 MiB at 1.7 MB/s with the default of 30 s."""


class BlockListAPI:
    """Asks the portal for lists of blocks, once each. Redirects are not followed: they lead to a login page."""

    def __init__(self, url: str, bearer: str, tls: ssl.SSLContext, timeout: float) -> None:
        self._url = url.rstrip("/")
        self._timeout = timeout
        self._http = httpx.AsyncClient(
            verify=tls,
            headers={
                "Authorization": f"Bearer {bearer}",
                "Accept": "application/json",
                "Accept-Encoding": "gzip",
                "User-Agent": f"cterafs/{__version__}",
            },
            limits=httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=32),
        )

    async def aclose(self) -> None:
        await self._http.aclose()

    async def ask(self, file_id: int, extent: Extent | None, patience: float) -> bytes | bytearray:
        """The body of the answer. `rangeEnd` is the last byte that is wanted: portals differ on including it.

        Args:
            patience: seconds to wait for a connection, and for each part of the answer.

        Raises:
            errors.DirectIOAPIError
        """
        params = {} if extent is None else {"rangeStart": extent.start, "rangeEnd": extent.stop - 1}
        request = self._http.build_request("GET", f"{self._url}/directio/{file_id}", params=params, timeout=patience)
        try:
            with anyio.fail_after(LONGEST * self._timeout):
                response = await self._http.send(request, stream=True)
                try:
                    if response.status_code != OK:
                        raise _refusal(file_id, response)
                    return await _body(file_id, response)
                finally:
                    with anyio.CancelScope(shield=True):
                        await response.aclose()
        except (httpx.TimeoutException, TimeoutError):
            raise errors.BlockListTimeout(file_id) from None
        except httpx.HTTPError as error:
            raise errors.BlockListConnectionError(file_id, str(error) or type(error).__name__) from None


async def _body(file_id: int, response: httpx.Response) -> bytes | bytearray:
    """The JSON. It is inflated here, since httpx sets no bound to that."""
    body = bytearray()
    try:
        async for piece in response.aiter_raw():
            body += piece
            if len(body) > MAX_ANSWER and not response.is_closed:
                await response.aclose()  # which makes the iteration fail: to leave it early is an error under trio
    except httpx.HTTPError:
        if len(body) <= MAX_ANSWER:
            raise
    if len(body) > MAX_ANSWER:
        raise _too_long(file_id)
    encoding = response.headers.get("content-encoding", "identity")
    if encoding == "identity":
        return body
    if encoding != "gzip":
        raise errors.InvalidRequest(file_id, "the answer has an encoding that was not asked for")
    return _inflated(body, file_id)


def _inflated(body: bytearray, file_id: int) -> bytes:
    stream = zlib.decompressobj(wbits=31)  # a gzip header and trailer
    try:
        plain = stream.decompress(body, MAX_ANSWER + 1)
    except zlib.error:
        raise errors.InvalidRequest(file_id, "the answer does not decompress") from None
    if len(plain) > MAX_ANSWER:
        raise _too_long(file_id)
    if not stream.eof:
        raise errors.InvalidRequest(file_id, "the answer is cut short")
    return plain


def _too_long(file_id: int) -> errors.InvalidRequest:
    return errors.InvalidRequest(file_id, f"the list of blocks has more than {MAX_ANSWER >> 20} MiB")


def _refusal(file_id: int, response: httpx.Response) -> errors.DirectIOAPIError:
    status = response.status_code
    known: dict[int, type[errors.DirectIOAPIError]] = {
        400: errors.ObjectNotFoundError,
        401: errors.AuthorizationError,
        403: errors.AuthorizationError,
        422: errors.UnsupportedStorageError,
    }
    error = known.get(status, errors.InvalidRequest)(file_id, f"HTTP {status}")
    error.retry_after = retry_after(response.headers.get("retry-after"))
    return error
