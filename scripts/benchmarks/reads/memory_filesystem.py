"""The simplest filesystem that can serve one file from memory, by pyfuse3: what FUSE itself costs.

Run as `memory_filesystem.py SIZE MOUNTPOINT`; the file is called `plain`.
"""

from __future__ import annotations

import errno
import stat
import sys

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileHandleT, FileInfo, FileNameT, FUSEError, InodeT, RequestContext

from benchmarks.reads.content import Text

FOREVER = 2.0**31
FILE = InodeT(2)
NAME = FileNameT(b"plain")


class MemoryFilesystem(pyfuse3.Operations):
    def __init__(self, size: int) -> None:
        super().__init__()
        self._data = Text(size).read(0, size)

    async def lookup(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> EntryAttributes:
        if name != NAME:
            raise FUSEError(errno.ENOENT)
        return await self.getattr(FILE, ctx)

    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        entry = EntryAttributes()
        entry.st_ino = inode
        entry.st_mode = stat.S_IFREG | 0o444 if inode == FILE else stat.S_IFDIR | 0o555
        entry.st_size = len(self._data) if inode == FILE else 0
        entry.entry_timeout = entry.attr_timeout = FOREVER
        return entry

    async def open(self, inode: InodeT, flags: int, ctx: RequestContext) -> FileInfo:
        return FileInfo(fh=FileHandleT(inode), keep_cache=True)

    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        return self._data[off : off + size]


def main(size: str, mountpoint: str) -> None:
    pyfuse3.init(MemoryFilesystem(int(size)), mountpoint, {*pyfuse3.default_options, "fsname=memory"})
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close()


main(*sys.argv[1:])
