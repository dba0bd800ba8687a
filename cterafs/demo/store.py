"""The object store: blocks behind presigned URLs, on a listener of its own, as real storage is another host."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from cterafs.demo.encoder import boundaries, encode, object_name
from cterafs.demo.faults import Faults
from cterafs.demo.objects import ContentGone, Version

WORKERS = 4
"""Threads that read and encode blocks: the codecs release the GIL, and few machines that run a demo have more cores."""

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_BUCKET = re.compile(r"\d{8,18}")
_OBJECT = re.compile(r"[0-9a-f]{40}-(\d{1,12})")


class RangeNotSatisfiable(Exception):
    """No byte of the range exists."""


class Store:
    """Signs URLs of blocks, and serves them.

    Attributes:
        base_url: where the listener is reached; set when it is bound.
        ttl: how long a URL is valid, in seconds.
        checksums: send Content-MD5 with whole blocks.
        app: the ASGI application.
    """

    def __init__(self, find: Callable[[int], Version | None], faults: Faults, ttl: float) -> None:
        self.base_url = ""
        self.ttl = ttl
        self.checksums = False
        self._find = find
        self._faults = faults
        self._key = secrets.token_bytes(32)
        self._threads: ThreadPoolExecutor | None = None
        self.app = Starlette(routes=[Route("/blocks/{bucket}/{name}", self._get, methods=["GET"])])

    def open(self) -> None:
        """Get ready to serve."""
        self._threads = ThreadPoolExecutor(WORKERS, thread_name_prefix="store")

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown()

    def url(self, version: Version, index: int) -> str:
        """A presigned URL of one block, `index` counted from 0."""
        path = f"/blocks/{version.serial:08d}/{object_name(version.seed, index)}-{index}"
        expires = int(time.time() + self.ttl)
        return f"{self.base_url}{path}?Expires={expires}&Signature={self._sign(path, str(expires))}"

    def expire_urls(self) -> None:
        """Refuse all URLs that were issued until now, with 403, as when their time is over."""
        self._key = secrets.token_bytes(32)

    async def _get(self, request: Request) -> Response:
        return await self._faults.storage_request(request) or await self._answer(request)

    async def _answer(self, request: Request) -> Response:
        if "authorization" in request.headers or "cookie" in request.headers:
            self._faults.requests["credentials sent to storage"] += 1
            return PlainTextResponse("InvalidArgument: only the signature may authenticate", 400)
        if not self._authentic(request):
            return PlainTextResponse("AccessDenied: the signature is wrong, or it has expired", 403)
        found = self._locate(request.path_params["bucket"], request.path_params["name"])
        if found is None:
            return PlainTextResponse("NoSuchKey", 404)
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, self._read, *found, request.headers.get("range"))
        except ContentGone:
            return PlainTextResponse("NoSuchKey", 404)
        except RangeNotSatisfiable:
            return PlainTextResponse("InvalidRange", 416)

    def _sign(self, path: str, expires: str) -> str:
        return hmac.digest(self._key, f"{path} {expires}".encode(), "sha256").hex()

    def _authentic(self, request: Request) -> bool:
        expires = request.query_params.get("Expires", "")
        signature = request.query_params.get("Signature", "")
        expected = self._sign(request.url.path, expires)
        return hmac.compare_digest(signature.encode(), expected.encode()) and time.time() < int(expires)

    def _locate(self, bucket: str, name: str) -> tuple[Version, int] | None:
        """The version and the block that a path names; the signature vouches for its digits."""
        match = _OBJECT.fullmatch(name)
        version = self._find(int(bucket)) if _BUCKET.fullmatch(bucket) else None
        return (version, int(match[1])) if match and version else None

    def _read(self, version: Version, index: int, range_header: str | None) -> Response:
        offsets = boundaries(version.size, version.encoding, version.seed)
        if index >= len(offsets) - 1:
            raise ContentGone
        offset, length = offsets[index], offsets[index + 1] - offsets[index]
        headers = {"ETag": f'"{object_name(version.seed, index)}"', "Accept-Ranges": "bytes"}
        if version.encoding.plain:
            part = parse_range(range_header, length)
            start, stop, total = (part or (0, length)) + (length,)
            body = version.content.read(offset + start, stop - start)
        else:
            block = encode(version.content.read(offset, length), index, version.encoding, version.seed)
            part, total = parse_range(range_header, len(block)), len(block)
            start, stop = part or (0, total)
            body = block[start:stop] if part else block
        if part:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{total}"
        elif self.checksums:
            headers["Content-MD5"] = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        return Response(body, 206 if part else 200, headers, "application/octet-stream")


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The bytes that an HTTP Range header asks for, half-open; None for all of them, also where it cannot be read.

    Raises:
        RangeNotSatisfiable: it starts beyond the end.
    """
    match = _RANGE.fullmatch(header) if header else None
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if first:
        start, stop = int(first), min(int(last) + 1 if last else size, size)
        if last and int(last) < start:
            return None
    else:
        start, stop = max(0, size - int(last)), size
    if start >= size:
        raise RangeNotSatisfiable
    return start, stop
