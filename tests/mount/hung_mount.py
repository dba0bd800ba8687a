"""A mount that tells the kernel of a name while that waits for it: `hung_mount.py MOUNTPOINT DIRECTORY`.

It answers no lookup. As soon as one has come, it takes back a name in the same directory, for which the kernel waits.
`DIRECTORY` is that of its control socket. Prints a line when it has mounted.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import Any

import pyfuse3
import trio

from cterafs import control
from cterafs.kernel import session


class Operations(pyfuse3.Operations):
    def __init__(self) -> None:
        super().__init__()
        self.asked = trio.Event()

    async def getattr(self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = inode
        entry.st_mode = stat.S_IFDIR | 0o755
        entry.st_uid, entry.st_gid = os.getuid(), os.getgid()
        return entry

    async def lookup(self, parent_inode: pyfuse3.InodeT, name: pyfuse3.FileNameT, ctx: pyfuse3.RequestContext) -> Any:
        self.asked.set()
        await trio.sleep_forever()

    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        return pyfuse3.StatvfsData()


class Notifier:
    def __init__(self, asked: trio.Event) -> None:
        self._asked = asked

    async def run(self) -> None:
        await self._asked.wait()
        await trio.to_thread.run_sync(pyfuse3.invalidate_entry, pyfuse3.ROOT_INODE, b"another")

    def stop(self) -> None: ...


async def main(mountpoint: Path, directory: Path) -> None:
    operations: Any = Operations()
    notifier: Any = Notifier(operations.asked)
    async with control.serve(mountpoint, directory, {}):
        await session.serve(
            operations, notifier, mountpoint, {"subtype=cterafs"}, ready=lambda: print("mounted", flush=True)
        )


trio.run(main, Path(sys.argv[1]), Path(sys.argv[2]))
