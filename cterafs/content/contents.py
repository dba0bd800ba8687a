"""The contents that are known by their inodes: those of open files, and of some that were or will be."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple, Protocol

import trio
from cachetools import LRUCache

from cterafs.content.cache import BlockCache
from cterafs.content.source import BlockSource, Remote
from cterafs.direct.remote import Fingerprint
from cterafs.errors import StaleInode, VersionChangedError
from cterafs.model import Extent, Inode, Node
from cterafs.stats import Stats

IDLE = 32 << 10
"""Blocks whose places are kept after the last close, and before the first open of a file that is fetched ahead: some
20 MiB, 8 files of 1 GiB in blocks of 256 KiB. Reading one of these again asks the portal nothing."""

SMALLEST = 32
"""Blocks that a list counts for at least: 1,024 small files."""

FINGERPRINTS = 50_000
"""Files whose version is still known when their list of blocks is not: about 20 MiB. The kernel may keep the pages of
these between two opens, since a renewed list tells whether they are still good."""


class RemoteFactory(Protocol):
    """Makes the storage side of one version of a file."""

    def __call__(self, file_id: int, size: int, fingerprint: Fingerprint, /) -> Remote: ...


class _Known(NamedTuple):
    """What is remembered of a file after its last close; it is `spoiled` if what was read of it is not all good."""

    fingerprint: Fingerprint
    spoiled: bool


class _Content:
    """What the handles of one inode share; it is `spoiled` if what was read since its last open is not all good."""

    def __init__(self, source: BlockSource) -> None:
        self.source = source
        self.handles = 0
        self.changed = False
        self.spoiled = False

    def weight(self) -> int:
        """Blocks that it counts for while nobody has it open."""
        return max(SMALLEST, self.source.listed)


class Contents:
    """Each inode's content, made once however many handles there are."""

    def __init__(self, remote: RemoteFactory, cache: BlockCache, stats: Stats) -> None:
        self._remote = remote
        self._stats = stats
        self._cache = cache
        self._open: dict[Inode, _Content] = {}
        self._idle: LRUCache[Inode, _Content] = LRUCache(IDLE, getsizeof=_Content.weight)
        self._known: LRUCache[Inode, _Known] = LRUCache(FINGERPRINTS)

    def __contains__(self, inode: Inode) -> bool:
        """Whether it is open."""
        return inode in self._open

    def open(self, node: Node) -> tuple[BlockSource, bool]:
        """The blocks of a file for one more handle, and whether what was read of it before is still good.

        Where storage turned out to hold something else than what this inode stood for (its list of blocks changed
        and no event told of it yet), old handles keep failing; when they are closed, the inode starts anew.

        Raises:
            StaleInode: that is so.
            DirectIOError: the portal has not told how to ask for its blocks.
        """
        content = self._open.get(node.inode)
        if content is not None:
            if content.changed:
                raise StaleInode(f"{node.name!r} was replaced in storage while it is open")
            good = not content.spoiled
        else:
            content, known = self._idle.pop(node.inode, None), self._known.pop(node.inode, None)
            if content is not None and content.changed:
                content.source.forget()
                content = known = None
            if content is None:
                content = self._new(node, known)
            self._open[node.inode] = content
            good = known is not None and not known.spoiled
        content.handles += 1
        content.spoiled = False  # whoever is told so drops what was read
        return content.source, good

    def close(self, inode: Inode, *, superseded: bool) -> bool:
        """One handle less; the content of an inode that is `superseded` is dropped with its last one.

        Returns:
            Whether that was the last one.
        """
        content = self._open[inode]
        content.handles -= 1
        if content.handles:
            return False
        del self._open[inode]
        content.source.rest()  # what it weighs is looked at now, and only now
        if not superseded:
            if content.weight() <= IDLE:
                self._idle[inode] = content
            self._known[inode] = _Known(content.source.fingerprint, content.spoiled)
        return True

    def changed(self, inode: Inode) -> None:
        """Storage turned out to hold something else than what this inode, if it is open, stood for."""
        content = self._open.get(inode)
        if content is not None:
            content.changed = True

    def forget(self, inode: Inode) -> None:
        """This inode is superseded; who has it open keeps it."""
        self._idle.pop(inode, None)
        self._known.pop(inode, None)

    def source(self, node: Node) -> BlockSource:
        """The blocks of a file, for who does not open it. What was remembered of others is not displaced."""
        content = self._open.get(node.inode) or self._idle.get(node.inode)
        return (content or self._new(node, self._known.get(node.inode))).source

    async def fetch(self, node: Node) -> None:
        """Brings all of a file that nobody has open into the cache, and its list of blocks into memory.

        Raises:
            DirectIOError: it cannot be had; who opens the file will meet that.
        """
        await trio.lowlevel.checkpoint_if_cancelled()  # it may be superseded since this task was started
        if node.inode in self._open:
            return
        content = self._idle.get(node.inode)
        if content is None:
            content = self._idle[node.inode] = self._new(node, self._known.get(node.inode))
        source = content.source
        try:
            run = source.fetch(await source.chunks(Extent(0, node.size)))
            self._stats.prefetched += len(run.flights)
            with run:
                await run.ended.wait()
            if run.error is not None:
                raise run.error.with_traceback(None)
        except VersionChangedError:
            content.changed = True
            raise

    def _new(self, node: Node, known: _Known | None) -> _Content:
        remote = self._remote(node.file_id or 0, node.size, known.fingerprint if known is not None else ())
        return _Content(BlockSource(node, remote, self._cache, partial(self._spoil, node.inode)))

    def _spoil(self, inode: Inode) -> None:
        """Bytes were read of a download that was not good: the next open shall not find them in the kernel. The last
        close may have been before that."""
        content, known = self._open.get(inode), self._known.get(inode)
        if content is not None:
            content.spoiled = True
        elif known is not None:
            self._known[inode] = known._replace(spoiled=True)
