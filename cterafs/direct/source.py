"""Bytes that come piece by piece: from a socket, out of a cipher."""

from __future__ import annotations

from typing import Protocol

PIECE = 64 << 10


class Source(Protocol):
    """Bytes in their order, each read once."""

    def readinto(self, view: memoryview, /) -> int:
        """Puts what has come into `view`, which has room, waiting for at least one byte; 0 at the end."""


def readall(source: Source, limit: int) -> bytearray:
    """The rest, at once; more than `limit` bytes if there are more, but not all of them."""
    data = bytearray()
    piece = memoryview(bytearray(PIECE))
    while len(data) <= limit and (count := source.readinto(piece)):
        data += piece[:count]
    return data


class After:
    """Bytes that were read already, and what follows them."""

    def __init__(self, read: bytes | memoryview, rest: Source | None = None) -> None:
        self._read = memoryview(read)
        self._rest = rest

    def readinto(self, view: memoryview, /) -> int:
        if not self._read:
            return self._rest.readinto(view) if self._rest is not None else 0
        count = min(len(view), len(self._read))
        view[:count] = self._read[:count]
        self._read = self._read[count:]
        return count
