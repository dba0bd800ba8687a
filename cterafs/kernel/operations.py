"""FUSE requests, translated: what they mean is the volume's business.

This is the one place where an exception becomes an errno. All answers may be cached by the kernel without a time
limit, since every change is pushed (`notify`).
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import stat
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import pyfuse3
from pyfuse3 import EntryAttributes, FileHandleT, FileInfo, FileNameT, FUSEError, InodeT, ReaddirToken, RequestContext

from cterafs.errors import CteraError, FilesystemError, NotFound
from cterafs.kernel.dentries import Negatives
from cterafs.kernel.listing import Listings
from cterafs.model import Dirent, Inode, Node
from cterafs.volume import Volume

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

FOREVER = 2.0**31
"""Seconds that the kernel may keep names and attributes: 68 years, safe in 32 bits."""

SECTOR = 512
"""Bytes per unit of st_blocks, whatever the block size (POSIX)."""

STATFS_BLOCK = 4096
"""Bytes per unit of statfs."""

MOST_BLOCKS = 2**63 // STATFS_BLOCK - 1
"""Of statfs: tools that multiply them by the size of a block stay within 63 bits, whatever sizes the portal tells."""

DOTS = 2
"""Entries of every listing that the kernel takes no reference for: "." and ".."."""

WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_TRUNC | os.O_APPEND | os.O_CREAT


@dataclass(frozen=True, slots=True)
class Presentation:
    """How objects look: their owner, and the permission bits that are taken away."""

    uid: int
    gid: int
    umask: int


def answers(operation: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Turns what an operation raises into the errno that the kernel gets."""

    @functools.wraps(operation)
    async def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await operation(*args, **kwargs)
        except Exception as error:
            operations: Any = args[0]
            raise operations.failed(operation.__name__, error) from None

    return run


async def _refuse_to_write(*request: object) -> None:
    raise FUSEError(errno.EROFS)


class Operations(pyfuse3.Operations):
    """The handlers that pyfuse3 calls."""

    supports_dot_lookup = True
    enable_writeback_cache = False

    def __init__(self, volume: Volume, presentation: Presentation) -> None:
        super().__init__()
        self.volume = volume
        self.negatives = Negatives()
        self._listings = Listings(volume)
        self._presentation = presentation
        self._file_mode = (stat.S_IFREG | 0o444) & ~presentation.umask
        self._directory_mode = (stat.S_IFDIR | 0o555) & ~presentation.umask
        self._scratch = (self._blank(is_dir=False), self._blank(is_dir=True))

    def failed(self, operation: str, error: Exception) -> FUSEError:
        """What the kernel is told of an exception. It is logged, unless it is an answer like any other."""
        if isinstance(error, FUSEError):
            return error
        if isinstance(error, FilesystemError):
            return FUSEError(error.code)
        if isinstance(error, CteraError):
            if not error.reported:
                error.reported = True
                self.volume.stats.failed(error)
                log.warning("%s: %s", operation, error)
            return FUSEError(error.code)
        self.volume.stats.failed(error)
        log.error("%s failed unexpectedly", operation, exc_info=error)
        return FUSEError(errno.EIO)

    # --- names ------------------------------------------------------------------------------------------------------

    @answers
    async def lookup(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> EntryAttributes:
        parent = Inode(parent_inode)
        if name in (b".", b".."):
            node = await self.volume.node(parent)
            if name == b"..":
                node = await self.volume.node(node.parent)
        else:
            try:
                node = await self.volume.lookup(parent, name.decode())
            except UnicodeDecodeError:  # every name that is shown is UTF-8
                return self._absent(parent, name)
            except NotFound:
                return self._absent(parent, name)
        self.volume.acquire(node.inode)
        return self._entry(node)

    def _absent(self, parent: Inode, name: bytes) -> EntryAttributes:
        entry = EntryAttributes()
        entry.st_ino = InodeT(0)
        entry.entry_timeout = FOREVER if self.negatives.add(parent, name) else 0
        return entry

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        for inode, count in inode_list:
            self.volume.forget(Inode(inode), count)
            if not self.volume.referenced(Inode(inode)):
                self.negatives.drop(Inode(inode))

    @answers
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        return self._entry(await self.volume.node(Inode(inode)))

    def _blank(self, *, is_dir: bool) -> EntryAttributes:
        """What all files, or all directories, have in common."""
        entry = EntryAttributes()
        entry.generation = self.volume.generation
        entry.entry_timeout = entry.attr_timeout = FOREVER
        entry.st_nlink = 1  # of a directory: "unknown", so that find counts no sub-directories
        entry.st_uid, entry.st_gid = self._presentation.uid, self._presentation.gid
        entry.st_mode = self._directory_mode if is_dir else self._file_mode
        entry.st_size = entry.st_blocks = 0
        return entry

    def _entry(self, node: Node) -> EntryAttributes:
        return self._describe(node, self._blank(is_dir=node.is_dir))

    def _describe(self, node: Node | Dirent, entry: EntryAttributes) -> EntryAttributes:
        """Fills in what differs from object to object. Half the work of a listing, so it does no more than it must."""
        entry.st_ino = InodeT(node.inode)
        if not node.is_dir:
            entry.st_size, entry.st_blocks = node.size, (node.size + 511) // SECTOR
        entry.st_mtime_ns = entry.st_atime_ns = node.mtime_ns
        entry.st_ctime_ns = node.ctime_ns
        return entry

    # --- directories ------------------------------------------------------------------------------------------------

    @answers
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        return FileHandleT(await self._listings.open(Inode(inode)))

    @answers
    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        # Of one page, which was read at once: a change that is published between two pages could not be taken back in
        # the kernel, which does not know the first one yet. Two sets of attributes serve all, since nothing waits here.
        entries = await self._listings.page(fh, start_id)
        scratch, describe, reply = self._scratch, self._describe, pyfuse3.readdir_reply
        given = start_id
        for position, entry in enumerate(entries, start_id + 1):
            if not reply(token, entry.name.encode(), describe(entry, scratch[entry.is_dir]), position):
                break
            given = position
        self.volume.acquire_all([entry.inode for entry in entries[max(0, DOTS - start_id) : given - start_id]])

    async def releasedir(self, fh: FileHandleT) -> None:
        self._listings.close(fh)

    # --- files ------------------------------------------------------------------------------------------------------

    @answers
    async def open(self, inode: InodeT, flags: int, ctx: RequestContext) -> FileInfo:
        if flags & WRITE_FLAGS:
            raise FUSEError(errno.EROFS)
        handle, keep_cache = await self.volume.open(Inode(inode))
        return FileInfo(fh=FileHandleT(handle), keep_cache=keep_cache)

    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes | memoryview:  # type: ignore[override]  # any buffer will do
        try:  # not by `answers`, which would be one more coroutine for each 4 KiB of a random read
            data = self.volume.ready(fh, off, size)
            return await self.volume.read(fh, off, size) if data is None else data
        except Exception as error:
            raise self.failed("read", error) from None

    async def release(self, fh: FileHandleT) -> None:
        self.volume.close(fh)

    # --- the rest ---------------------------------------------------------------------------------------------------

    @answers
    async def statfs(self, ctx: RequestContext) -> pyfuse3.StatvfsData:
        counts = await self.volume.counts()
        answer = pyfuse3.StatvfsData()
        answer.f_bsize = answer.f_frsize = STATFS_BLOCK
        answer.f_blocks = min(-(-counts.bytes // STATFS_BLOCK), MOST_BLOCKS)
        answer.f_bfree = answer.f_bavail = 0
        answer.f_files = counts.files + counts.directories
        answer.f_ffree = answer.f_favail = 0
        answer.f_namemax = 255
        return answer

    @answers
    async def access(self, inode: InodeT, mode: int, ctx: RequestContext) -> bool:
        if mode & os.W_OK:
            raise FUSEError(errno.EROFS)
        node = await self.volume.node(Inode(inode))
        return node.is_dir or not mode & os.X_OK

    @answers
    async def getxattr(self, inode: InodeT, name: bytes, ctx: RequestContext) -> bytes:
        if not name.startswith(b"user."):
            # Not "no such attribute": ls asks for a security context and for ACLs once per device if it hears this.
            raise FUSEError(errno.ENOTSUP)
        return await self.volume.attribute(Inode(inode), name.decode("utf-8", "replace"))

    @answers
    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> list[bytes]:
        return [name.encode() for name in self.volume.attributes(await self.volume.node(Inode(inode)))]


WRITES = (
    "create", "link", "mkdir", "mknod", "removexattr", "rename", "rmdir", "setattr", "setxattr", "symlink", "unlink",
    "write",
)  # fmt: skip
for _name in WRITES:
    setattr(Operations, _name, _refuse_to_write)
