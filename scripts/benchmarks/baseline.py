"""The simplest filesystem that can serve the entries of a computed namespace: dictionaries in memory, and pyfuse3.

What listing costs above this is cterafs's own. Run as `baseline.py SHAPE MOUNTPOINT`.
"""

from __future__ import annotations

import errno
import stat
import sys
from array import array
from collections.abc import Sequence

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileHandleT, FileNameT, FUSEError, InodeT, ReaddirToken, RequestContext

from cterafs.demo.synthetic.shape import Shape
from cterafs.demo.synthetic.tree import SyntheticNamespace

FOREVER = 2.0**31
FIRST = 1  # the mount's root; an object's inode number is its own and one more


class Baseline(pyfuse3.Operations):
    def __init__(self, namespace: SyntheticNamespace) -> None:
        super().__init__()
        self._first_file = namespace.plan.files.start
        self._sizes = array("q", [0]) * (namespace.plan.total + 1)
        self._children: dict[int, dict[bytes, int]] = {}
        place: int | None = 0
        number = 0
        while place is not None:
            page, place = namespace.part(place, 2000, ())
            for entry in page:
                number += 1
                self._sizes[number] = entry.size or 0
                self._children.setdefault(namespace.plan.parent(number), {})[entry.name.encode()] = number
        self._open: dict[int, list[tuple[bytes, int]]] = {}

    def _entry(self, number: int) -> EntryAttributes:
        entry = EntryAttributes()
        entry.st_ino = InodeT(number + FIRST)
        entry.st_mode = stat.S_IFDIR | 0o555 if number < self._first_file else stat.S_IFREG | 0o444
        entry.st_nlink = 1
        entry.st_size = self._sizes[number]
        entry.entry_timeout = entry.attr_timeout = FOREVER
        return entry

    async def lookup(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> EntryAttributes:
        number = self._children.get(parent_inode - FIRST, {}).get(name)
        if number is None:
            raise FUSEError(errno.ENOENT)
        return self._entry(number)

    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        return self._entry(inode - FIRST)

    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        handle = len(self._open) + 1
        self._open[handle] = list(self._children.get(inode - FIRST, {}).items())
        return FileHandleT(handle)

    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        entries = self._open[fh]
        for position in range(start_id, len(entries)):
            name, number = entries[position]
            if not pyfuse3.readdir_reply(token, FileNameT(name), self._entry(number), position + 1):
                return

    async def releasedir(self, fh: FileHandleT) -> None:
        self._open[fh] = []

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        pass


def main(shape: str, mountpoint: str) -> None:
    namespace = SyntheticNamespace(Shape.parse(shape))
    if namespace.plan.shape.order != "tree":
        raise SystemExit("numbers are taken from the order of the listing: ORDER must be tree")
    pyfuse3.init(Baseline(namespace), mountpoint, {*pyfuse3.default_options, "fsname=baseline"})
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close()


main(*sys.argv[1:])
