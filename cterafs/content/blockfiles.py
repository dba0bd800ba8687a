"""Decoded blocks as files, each named by the digest of its plaintext, so that none is ever taken for another.

Nothing is synced: what a crash has left half written does not have the digest that it is named by.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from cterafs.content.blockcodec import BlockCodec

DIRECTORIES = 256
"""Named by a digest's first byte: with a terabyte of blocks of 256 KiB, 16,000 files in each."""

PAGE = 4096
"""Bytes that file systems allot at a time."""

INDEX_SHARE = 512
"""Bytes of the index that a block takes: its rows are 180 bytes, and pages are two thirds full on average."""

_NAME = re.compile(r"[0-9a-f]{62}")
_UNFINISHED = ".new"


def cost(stored: int) -> int:
    """Bytes of disk that a file of `stored` bytes takes, with its share of the index."""
    return -(-stored // PAGE) * PAGE + INDEX_SHARE


class BlockFiles:
    """The files below `directory`. Any thread may read; only who holds the index's write lock may change anything."""

    def __init__(self, directory: Path, codec: BlockCodec) -> None:
        self._root = os.fspath(directory)  # paths are text here: they are on the way of each read
        self._codec = codec

    def read(self, digest: bytes, length: int) -> bytes:
        """The plaintext of a block, verified.

        Raises:
            DamagedBlock: the file holds something else.
            FileNotFoundError: there is none.
            OSError: it cannot be read.
        """
        handle = os.open(self._path(digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            stored = os.read(handle, min(os.fstat(handle).st_size, length + self._codec.overhead))
        finally:
            os.close(handle)
        return self._codec.decode(stored, digest, length)

    def has(self, digest: bytes) -> bool:
        """There is a file for this block; it may be damaged."""
        return os.path.exists(self._path(digest))  # noqa: PTH110

    def write(self, digest: bytes, stored: bytes | memoryview) -> None:
        """Puts a block in place; there is none of it, or all.

        Raises:
            OSError: the disk is full or failing; nothing is left behind.
        """
        path = self._path(digest)
        unfinished = path + _UNFINISHED
        try:
            handle = _create(unfinished)
        except FileNotFoundError:
            os.mkdir(self._directory(digest[0]), 0o700)  # noqa: PTH102
            handle = _create(unfinished)
        try:
            with os.fdopen(handle, "wb", buffering=0) as file:
                rest = memoryview(stored)
                while rest:
                    rest = rest[file.write(rest) :]
            os.rename(unfinished, path)  # noqa: PTH104
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(unfinished)  # noqa: PTH108
            raise

    def remove(self, digest: bytes) -> None:
        """Removes a block, if it is there.

        Raises:
            OSError
        """
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(digest))  # noqa: PTH108

    def tidy(self, number: int) -> Iterator[bytes]:
        """The digests of the blocks in one directory; what is unfinished there is removed.

        Raises:
            OSError
        """
        try:
            entries = os.scandir(self._directory(number))
        except FileNotFoundError:
            return
        with entries:
            for entry in entries:
                if _NAME.fullmatch(entry.name):
                    yield bytes([number]) + bytes.fromhex(entry.name)
                elif _NAME.fullmatch(entry.name.removesuffix(_UNFINISHED)):
                    os.unlink(entry.path)  # noqa: PTH108

    def space(self) -> tuple[int, int]:
        """Bytes of the file system: those that are free for us, and all.

        Raises:
            OSError
        """
        found = os.statvfs(self._root)
        return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize

    def _directory(self, number: int) -> str:
        return f"{self._root}/{number:02x}"

    def _path(self, digest: bytes) -> str:
        return f"{self._directory(digest[0])}/{digest[1:].hex()}"


def _create(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
