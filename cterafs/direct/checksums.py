"""The checksums that storage may send with a block. Pure.

Only those that the standard library computes, and only those of the whole object: S3's checksums of objects that were
uploaded in parts (`...-3`, or `x-amz-checksum-type: COMPOSITE`) are not of the bytes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from collections.abc import Callable, Mapping


def _md5(data: bytes | bytearray) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


_DIGESTS: dict[str, tuple[int, Callable[[bytes | bytearray], bytes]]] = {
    "content-md5": (16, _md5),  # Azure Blob, and HTTP/1.1 as it once was
    "x-ms-blob-content-md5": (16, _md5),  # Azure Blob
    "x-amz-checksum-crc32": (4, lambda data: zlib.crc32(data).to_bytes(4, "big")),
    "x-amz-checksum-sha1": (20, lambda data: hashlib.sha1(data, usedforsecurity=False).digest()),
    "x-amz-checksum-sha256": (32, lambda data: hashlib.sha256(data).digest()),
}


def mismatch(headers: Mapping[str, str], body: bytes | bytearray) -> str | None:
    """The name of a header whose checksum is not that of `body`; None if there is none.

    A value that is no checksum at all says nothing about the body, and is ignored.
    """
    if headers.get("x-amz-checksum-type", "").upper() == "COMPOSITE":
        headers = {name: value for name, value in headers.items() if not name.startswith("x-amz-checksum-")}
    for name, (size, digest) in _DIGESTS.items():
        expected = _decoded(headers.get(name))
        if expected is not None and len(expected) == size and digest(body) != expected:
            return name
    return None


def _decoded(value: str | None) -> bytes | None:
    try:
        return base64.b64decode(value, validate=True) if value else None
    except (binascii.Error, ValueError):
        return None
