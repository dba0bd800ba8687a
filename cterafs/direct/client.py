"""The client of CTERA Direct IO: blocks straight from the object store, under asyncio and trio."""

from __future__ import annotations

import base64
from collections.abc import Collection, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import anyio
from anyio import to_thread

from cterafs import errors
from cterafs.direct import wire
from cterafs.direct.api import BlockListAPI
from cterafs.direct.cipher import unwrap_key
from cterafs.direct.downloads import Downloads
from cterafs.direct.flight import Spawner
from cterafs.direct.http1 import Oversized
from cterafs.direct.landing import Landing
from cterafs.direct.remote import RemoteFile
from cterafs.direct.retry import TRIES, Patience
from cterafs.direct.storage import Storage, tls_context
from cterafs.direct.streamer import EVERYTHING, Streamer
from cterafs.errors import BlockInfo
from cterafs.model import BlockMap, ByteRange, Chunk, Compression, Extent
from cterafs.threads import patiently

LARGE = 64 << 10
"""Bytes of JSON that are decoded in a thread: 130 entries or more, 0.3 ms."""
AHEAD = 64 << 20
"""Bytes that a stream fetches ahead of its reader: 16 blocks of 4 MiB, one for each of the default workers."""


class DirectIO:
    """Lists, fetches and decodes the blocks of files. To be used by `async with`.

    Args:
        url: of the portal.
        access_key_id, secret_access_key: the key pair; the secret opens the data keys of encrypted files.
        bearer: a token instead of the access key. Without a secret it serves unencrypted data only.
        verify_tls, ca_file: how the portal's certificate is verified; authorities besides the system's.
        storage_verify_tls, storage_ca_file: the same for storage.
        storage_hosts: hosts that block URLs may name; none: any but link-local addresses, and loopback only where the
            portal is there too.
        workers: downloads at a time.
        timeout: seconds without progress after which a request has failed, over all its attempts.

    Raises:
        errors.ConfigError: an argument cannot be used.
    """

    def __init__(
        self,
        url: str,
        access_key_id: str | None = None,
        secret_access_key: str | None = None,
        *,
        bearer: str | None = None,
        verify_tls: bool = True,
        ca_file: str | None = None,
        storage_verify_tls: bool = True,
        storage_ca_file: str | None = None,
        storage_hosts: Collection[str] = (),
        workers: int = 16,
        timeout: float = 30.0,
    ) -> None:
        self._secret = secret_access_key
        self._timeout = timeout
        self._api = BlockListAPI(
            _portal_url(url),
            _token(bearer or access_key_id),
            tls_context(verify_tls, ca_file, "portal.ca_file"),
            timeout,
        )
        storage = Storage(url, tls_context(storage_verify_tls, storage_ca_file, "direct.ca_file"), storage_hosts)
        self._downloads = Downloads(storage, workers=workers, timeout=timeout)

    async def __aenter__(self) -> Self:
        await self._downloads.__aenter__()
        self._enormous = anyio.Lock()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._downloads.__aexit__(kind, error, trace)
        with anyio.CancelScope(shield=True):
            await self._api.aclose()

    @property
    def tasks(self) -> Spawner:
        """The client's own tasks, which end with it."""
        return self._downloads.tasks

    async def block_map(self, file_id: int, extent: Extent | None = None) -> BlockMap:
        """Where the bytes of a file, or of a range of it, lie. A portal may answer more than the range.

        Raises:
            errors.DirectIOAPIError, errors.DecryptKeyError
        """
        try:
            return await self._list(file_id, extent)
        except wire.Unplaced:
            return await self._list(file_id, None)

    async def fetch(self, block_map: BlockMap, chunk: Chunk) -> bytes:
        """The plaintext of a block, verified.

        Raises:
            errors.BlockError: after the retries; not retried is a `DownloadError` whose `status` says that it is of no
                use, so that who has the list can renew it.
        """
        landing = Landing(BlockInfo.of(block_map.file_id, chunk))
        await self.land(block_map, (landing,))
        return bytes(landing.take())

    async def land(self, block_map: BlockMap, landings: Sequence[Landing]) -> None:
        """Fetches blocks of one list into their landings, as `Downloads.land` does.

        Raises:
            errors.BlockError: as `fetch` does, for one that cannot be had.
        """
        await self._downloads.land(block_map, landings)

    async def fetch_part(self, block_map: BlockMap, chunk: Chunk, extent: Extent) -> bytes | None:
        """The bytes `extent` of the file, which lie in one block of a file that is not compressed, without the rest.

        Returns:
            None where storage gives no ranges of it, so that the whole block has to be fetched.

        Raises:
            errors.BlockError: as `fetch` does.
        """
        return await self._downloads.fetch_part(block_map, chunk, extent)

    def blocks(self, file_id: int, byte_range: ByteRange | None = None, max_workers: int | None = None) -> Streamer:
        """The blocks of a file, or of a range of it, in any order, cut to the range: `async for block in ...`.

        Args:
            max_workers: blocks under way at a time, besides the client's own limit.

        Raises, when iterated:
            errors.DirectIOError
        """
        return self._stream(file_id, byte_range, max_workers, ordered=False)

    def streamer(self, file_id: int, byte_range: ByteRange | None = None, max_workers: int | None = None) -> Streamer:
        """The same blocks in their order.

        Raises, when iterated:
            errors.StreamError: a stream that begins at its `offset` resumes.
        """
        return self._stream(file_id, byte_range, max_workers, ordered=True)

    async def metadata(self, file_id: int) -> dict[str, Any]:
        """What is known of a file's blocks, in the shape of the SDK's `metadata`.

        As there, it has secrets in it: `encryption_key`, in base64, and the presigned URLs.

        Raises:
            errors.DirectIOAPIError, errors.DecryptKeyError
        """
        found = await self.block_map(file_id)
        compression = None if found.compression in (None, Compression.NONE) else found.compression
        return {
            "file_id": found.file_id,
            "encrypted": found.key is not None,
            "compressed": found.compression is not Compression.NONE,
            "chunks": [
                {
                    "number": chunk.number,
                    "offset": chunk.extent.start,
                    "url": chunk.url,
                    "length": len(chunk.extent),
                }
                for chunk in found.chunks
            ],
            "encryption_key": base64.b64encode(found.key).decode() if found.key is not None else None,
            "compression_library": compression.value if compression is not None else None,
            "size": found.size,
        }

    async def _list(self, file_id: int, extent: Extent | None) -> BlockMap:
        try:
            return await self._list_of_any_length(file_id, extent)
        except errors.DirectIOError as error:
            # It is remembered for a while, and the answer, which may have hundreds of megabytes, would be with it.
            error.__context__ = None
            raise error.with_traceback(None) from None

    async def _list_of_any_length(self, file_id: int, extent: Extent | None) -> BlockMap:
        """Any number of usual ones at a time, and one enormous one."""
        try:
            return await self._list_up_to(wire.USUAL_ANSWER, file_id, extent)
        except Oversized:
            pass
        async with self._enormous:
            try:
                return await self._list_up_to(wire.MAX_ANSWER, file_id, extent)
            except Oversized:
                reason = f"the list of blocks has more than {wire.MAX_ANSWER >> 20} MiB"
                raise errors.InvalidRequest(file_id, reason) from None

    async def _list_up_to(self, limit: int, file_id: int, extent: Extent | None) -> BlockMap:
        answer = await self._ask(file_id, extent, limit)
        if len(answer) < LARGE:
            return self._described(answer, file_id, extent)
        describe = partial(self._described, answer, file_id, extent)
        return await patiently(partial(to_thread.run_sync, describe, limiter=self._downloads.threads))

    async def _ask(self, file_id: int, extent: Extent | None, size: int) -> bytes | bytearray:
        self._downloads.require_open()
        patience = Patience(self._timeout)
        limit = self._timeout / TRIES  # a lost connection shows soon; a slow portal gets all the rest
        while True:
            try:
                return await self._api.ask(file_id, extent, limit, size)
            except errors.DirectIOAPIError as error:
                await patience.after(error)
                limit = patience.left()

    def _described(self, answer: bytes | bytearray, file_id: int, extent: Extent | None) -> BlockMap:
        found = wire.parse(answer, file_id, extent)
        key = self._unwrapped(found.wrapped_key, file_id) if found.wrapped_key is not None else None
        return BlockMap(file_id, found.size, found.chunks, key, found.compression)

    def _unwrapped(self, wrapped: str, file_id: int) -> bytes:
        if self._secret is None:
            raise errors.DecryptKeyError(file_id, "the file is encrypted, and a bearer token alone opens no key")
        return unwrap_key(wrapped, self._secret, file_id)

    def _stream(self, file_id: int, byte_range: ByteRange | None, workers: int | None, *, ordered: bool) -> Streamer:
        asked = byte_range or ByteRange()
        wanted = asked.extent(EVERYTHING.stop)
        remote = RemoteFile(self, file_id)
        return Streamer(
            file_id,
            remote.walk(wanted),
            remote.read,
            ahead=AHEAD,
            wanted=wanted,
            workers=workers,
            ordered=ordered,
            tasks=self.tasks,
        )


def _portal_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise errors.ConfigError("portal.url is not an http or https URL")
    return url


def _token(token: str | None) -> str:
    if not token:
        raise errors.ConfigError("Direct IO needs direct.access_key_id or direct.bearer")
    if not all("!" <= letter <= "~" for letter in token):
        raise errors.ConfigError("direct.access_key_id or direct.bearer has characters that no key has")
    return token
