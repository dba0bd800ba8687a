"""The bytes of versions that lie in files of the watched directory."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

from cterafs.demo.objects import ContentGone, Item

MAX_OPEN = 128
"""Files that are kept open, so that a version that was being read stays readable when a rename replaces it."""

Identity = tuple[int, int]
"""Device and inode number: what a file or directory keeps when it is renamed."""


class Stamp(NamedTuple):
    """What tells one content of a file from another."""

    device: int
    inode: int
    mtime_ns: int
    size: int

    @property
    def identity(self) -> Identity:
        return self.device, self.inode


def stamp(status: os.stat_result) -> Stamp:
    return Stamp(status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)


def identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino


class SourceFile:
    """One version: what a file contained while it had this stamp; `item` tells where it lies."""

    __slots__ = ("_files", "_stamp", "item")

    def __init__(self, files: OpenFiles, stamp: Stamp, item: Item | None = None) -> None:
        self._files = files
        self._stamp = stamp
        self.item = item

    @property
    def size(self) -> int:
        return self._stamp.size

    def read(self, offset: int, length: int) -> bytes:
        if self.item is None:
            raise ContentGone
        return self._files.read(self.item, self._stamp, offset, length)


class OpenFiles:
    """Reads files, and keeps the last ones open.

    Args:
        root: the directory in which the cloud folders lie.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._open: OrderedDict[Stamp, _Descriptor] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, item: Item, wanted: Stamp, offset: int, length: int) -> bytes:
        """Exactly these bytes of the file as it was at its stamp.

        Raises:
            ContentGone: it is another now, or none.
        """
        try:
            descriptor = self._get(item, wanted)
            data = descriptor.read(offset, length)
            unchanged = descriptor.stamp() == wanted  # looked at after reading: a write in between is noticed
        except OSError:
            raise ContentGone from None
        if not unchanged or len(data) != length:
            with self._lock:
                self._open.pop(wanted, None)
            raise ContentGone
        return data

    def close(self) -> None:
        with self._lock:
            self._open.clear()

    def _get(self, item: Item, wanted: Stamp) -> _Descriptor:
        with self._lock:
            if (descriptor := self._open.get(wanted)) is not None:
                self._open.move_to_end(wanted)
                return descriptor
        descriptor = _Descriptor(self._root / item.path)
        with self._lock:
            self._open[wanted] = descriptor
            if len(self._open) > MAX_OPEN:
                self._open.popitem(last=False)
        return descriptor


class _Descriptor:
    """An open file, closed with the last reference: another thread may still read when it leaves the table."""

    def __init__(self, path: Path) -> None:
        self._number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "_number"):
            os.close(self._number)

    def stamp(self) -> Stamp:
        return stamp(os.fstat(self._number))

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._number, length, offset)
