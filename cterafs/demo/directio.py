"""Direct IO's lists of blocks."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from cterafs.demo.accounts import Accounts, bearer
from cterafs.demo.encoder import boundaries, data_key, wrap_key
from cterafs.demo.faults import Faults
from cterafs.demo.inventory import Inventory, Refused, UnknownObject
from cterafs.demo.metadata import refuse
from cterafs.demo.objects import ContentGone, Version
from cterafs.demo.store import Store

CHUNKS_PER_PIECE = 1000
"""About 250 KB of JSON: a list is sent in pieces, for a large file's is hundreds of megabytes."""

MAX_DIGITS = 18
"""Of a number in a URL: what fits 64 bits."""


class DirectIO:
    """The route `/directio/{file_id}`.

    Attributes:
        old_shape: as portal 8.2: the wrapped key at the top, compression and range left out.
    """

    def __init__(self, accounts: Accounts, inventory: Inventory, store: Store, faults: Faults) -> None:
        self.old_shape = False
        self._accounts = accounts
        self._inventory = inventory
        self._store = store
        self._faults = faults

    @property
    def routes(self) -> list[BaseRoute]:
        return [Route("/directio/{file_id}", self._get, methods=["GET"])]

    async def _get(self, request: Request) -> Response:
        if fault := await self._faults.portal_request("directio", request):
            return fault
        token = bearer(request.headers.get("authorization"))
        if token is None or not self._accounts.may_read_blocks(token):
            return refuse(401, "access key or token refused")
        try:
            version = self._inventory.by_file_id(_number(request.path_params["file_id"]))
            first = _number(request.query_params.get("rangeStart", "0"))
            last = _number(request.query_params.get("rangeEnd", str(version.size)))
            await run_in_threadpool(version.content.read, 0, min(1, version.size))
        except (UnknownObject, ContentGone):
            return refuse(400, "no such file")
        except Refused as error:
            return refuse(error.status, "this file is marked so")
        except ValueError as error:
            return refuse(400, str(error))
        return StreamingResponse(self._block_list(version, first, last), media_type="application/json")

    def _block_list(self, version: Version, first: int, last: int) -> Iterator[bytes]:
        """The JSON, in pieces, with the blocks that hold the bytes from `first` to `last`, both included."""
        offsets = boundaries(version.size, version.encoding, version.seed)
        blocks = range(_block_at(offsets, first), min(_block_at(offsets, last) + 1, len(offsets) - 1))
        yield msgspec.json.encode(self._header(version, offsets, blocks))[:-1] + b',"chunks":['
        for start in range(blocks.start, blocks.stop, CHUNKS_PER_PIECE):
            piece = range(start, min(start + CHUNKS_PER_PIECE, blocks.stop))
            chunks = [{"url": self._store.url(version, i), "len": offsets[i + 1] - offsets[i]} for i in piece]
            yield (b"," if start > blocks.start else b"") + msgspec.json.encode(chunks)[1:-1]
        yield b"]}"

    def _header(self, version: Version, offsets: Sequence[int], blocks: range) -> dict[str, object]:
        """All of the answer but the chunks."""
        encrypted = version.encoding.encrypted
        key = wrap_key(data_key(version.seed), self._accounts.secret_access_key) if encrypted else None
        if self.old_shape:
            return {"wrapped_key": key}
        answer: dict[str, object] = {
            "encrypt_info": {"wrapped_key": key, "data_encrypted": encrypted},
            "compression_type": version.encoding.codec.wire,
        }
        if blocks:
            covered = f"{offsets[blocks.start]}-{offsets[blocks.stop] - 1}"
            answer["actual_blocks_range"] = {"file_size": version.size, "range": covered}
        return answer


def _block_at(offsets: Sequence[int], position: int) -> int:
    """The index of the block that holds the byte at `position`; beyond the end, the number of blocks."""
    return bisect.bisect_right(offsets, position) - 1


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS):
        raise ValueError("not a number that can be")
    return int(text)
