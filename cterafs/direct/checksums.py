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
from typing import Protocol

Buffer = bytes | bytearray | memoryview


class _Digest(Protocol):
    def update(self, data: Buffer, /) -> None: ...
    def digest(self) -> bytes: ...


class _CRC32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: Buffer, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


def _md5() -> _Digest:
    return hashlib.md5(usedforsecurity=False)


_DIGESTS: dict[str, tuple[int, Callable[[], _Digest]]] = {
    "content-md5": (16, _md5),  # Azure Blob, and HTTP/1.1 as it once was
    "x-ms-blob-content-md5": (16, _md5),  # Azure Blob
    "x-amz-checksum-crc32": (4, _CRC32),
    "x-amz-checksum-sha1": (20, lambda: hashlib.sha1(usedforsecurity=False)),
    "x-amz-checksum-sha256": (32, hashlib.sha256),
}


class Checksums:
    """Those that came with an answer; to be told of its body as it comes.

    A value that is no checksum at all says nothing about the body, and is ignored.
    """

    def __init__(self, headers: Mapping[str, str]) -> None:
        composite = headers.get("x-amz-checksum-type", "").upper() == "COMPOSITE"
        self._expected: list[tuple[str, bytes, _Digest]] = []
        for name, (size, digest) in _DIGESTS.items():
            if name not in headers or (composite and name.startswith("x-amz-checksum-")):
                continue
            expected = _decoded(headers[name])
            if expected is not None and len(expected) == size:
                self._expected.append((name, expected, digest()))

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._expected)

    def update(self, data: Buffer) -> None:
        for _, _, digest in self._expected:
            digest.update(data)

    def mismatch(self) -> str | None:
        """The name of a header whose checksum is not that of the body; None if there is none."""
        return next((name for name, expected, digest in self._expected if digest.digest() != expected), None)


def _decoded(value: str) -> bytes | None:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None
