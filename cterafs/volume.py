"""The filesystem, with no kernel in it: what can be looked up, listed, opened and read, and what changes do to it.

Everything runs on one event loop; the tree's rows are read in worker threads, since a cold disk must not stop the
loop. A row that was read in a thread can be older than a change published meanwhile, so every such read looks at
`epoch` afterwards and starts again when it moved: an answer is never older than the last published change.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import trio
from cachetools import LRUCache

from cterafs.content.budget import Budget
from cterafs.content.cache import BlockCache
from cterafs.content.contents import Contents, RemoteFactory
from cterafs.content.readahead import ReadAhead
from cterafs.content.reader import Reader
from cterafs.content.siblings import Order, Question, Siblings
from cterafs.content.source import BlockSource
from cterafs.content.walkahead import WalkAhead
from cterafs.errors import (
    IsADirectory,
    NoAttribute,
    NotADirectory,
    NotFound,
    ObjectNotFoundError,
    StaleInode,
    VersionChangedError,
)
from cterafs.model import ROOT_INODE, Change, Dirent, Inode, Node
from cterafs.namespace.pages import Pages
from cterafs.namespace.references import References
from cterafs.namespace.store import Counts, Store
from cterafs.namespace.traversal import next_by_inode, next_by_name, next_in_tree
from cterafs.namespace.walk import SMALL, Walks, come_next
from cterafs.stats import Stats
from cterafs.threads import patiently

T = TypeVar("T")

NODES_IN_MEMORY = 20_000
"""Rows kept on the loop: about 10 MiB, and more than a shell, an editor and a backup job look at in turn."""

STORE_THREADS = 8
"""Threads that may read the tree at once; apart from those of downloads, which can all be busy or hung."""

ATTEMPTS = 8
"""Of a query that changes overtake each time; as many as that are a storm, which may last."""

THREAD_PATIENCE = 10.0
"""Seconds that a lookup waits for a thread where the system lets none be started."""

READ_DEADLINE_FACTOR = 4
"""A read may take this many times `direct.timeout`, which bounds the time without progress: storage that drips is
given up as well."""


@dataclass(frozen=True, slots=True)
class VolumeOptions:
    """Numbers of a volume: `readahead` in bytes, `timeout` in seconds."""

    readahead: int
    timeout: float


class Observer(Protocol):
    """Whoever caches answers of the volume, and has to be told of changes."""

    def push(self, changes: Sequence[Change], /) -> None:
        """These changes are published."""

    async def drained(self) -> None:
        """Returns when everything that was pushed has reached the caches."""


class Volume:
    """A read-only filesystem over the tree and the blocks.

    Args:
        remote: makes the storage side of a file.
        nursery: runs prefetches; it outlives every handle.
    """

    def __init__(
        self,
        store: Store,
        *,
        cache: BlockCache,
        remote: RemoteFactory,
        nursery: trio.Nursery,
        options: VolumeOptions,
        stats: Stats,
    ) -> None:
        self.stats = stats
        self.epoch = 0
        self.generation = store.generation  # tells this database's inode numbers from those of an earlier one
        self.observer: Observer | None = None
        self._store = store
        self._cache = cache
        self._nursery = nursery
        self._options = options
        self._budget = Budget(cache.memory.limit, options.readahead)
        self._limiter = trio.CapacityLimiter(STORE_THREADS)
        self._nodes: LRUCache[Inode, Node] = LRUCache(NODES_IN_MEMORY)
        self._ghosts: dict[Inode, Node] = {}
        self._references = References()
        self._walks = Walks()
        self._pages = Pages()
        self._contents = Contents(remote, cache, stats)
        self._walk_ahead = WalkAhead(
            Siblings(self._walks.parent),
            nursery,
            self._budget,
            cache.memory,
            find=self._following,
            fetch=self._contents.fetch,
        )
        self._readers: dict[int, tuple[Inode, Reader]] = {}
        self._handle_numbers = itertools.count(1)

    # --- names and attributes ---------------------------------------------------------------------------------------

    async def lookup(self, parent: Inode, name: str) -> Node:
        """The object that `parent` shows as `name`.

        Raises:
            NotFound: there is none.
        """
        node = await self._current(lambda: self._store.lookup(parent, name))
        if node is None:
            raise NotFound(f"no such name: {name!r}")
        self._nodes[node.inode] = node
        return node

    async def node(self, inode: Inode) -> Node:
        """The object with this inode, superseded ones included for as long as they are referenced.

        Raises:
            StaleInode: it is gone.
        """
        node = await self._live(inode) or self._ghosts.get(inode)
        if node is None:
            raise StaleInode(f"inode {inode} is gone")
        return node

    async def entries(self, directory: Inode, after: str | None, limit: int) -> list[Dirent]:
        """Up to `limit` entries of a directory in the order of their names, from behind the name `after`.

        All of a small one, where it was read ahead in a walk through the tree. A page that was asked for before is the
        same again as long as nothing in the directory changed, so the limit of a place should always be the same.

        `directory` was found to be one, by `parent`.
        """
        following = self._walks.visit(directory) if after is None else None
        kept = self._pages.get(directory, after)
        if kept is not None:
            entries = kept
        else:
            if following is not None:
                following = [inode for inode in following if inode not in self._pages]
            entries, listings = await self._current(lambda: self._read_ahead(directory, after, limit, following))
            self._pages.keep(directory, after, entries)
            for inode, listing in listings.items():
                if len(listing) <= SMALL:  # of a large one it may be only the beginning
                    self._pages.keep(inode, None, listing)
        self._walks.listed(directory, entries, more=after is not None)
        return entries

    def _read_ahead(
        self, directory: Inode, after: str | None, limit: int, following: Sequence[Inode] | None
    ) -> tuple[list[Dirent], dict[Inode, list[Dirent]]]:
        entries = self._store.entries(directory, after, limit)
        if following is None:
            return entries, {}
        return entries, come_next(entries, following, lambda inode: self._store.entries(inode, None, SMALL + 1))

    async def parent(self, directory: Inode) -> Inode:
        """The directory above this one.

        Raises:
            StaleInode, NotADirectory: there is no such directory.
        """
        return self._walks.parent(directory) or (await self.directory(directory)).parent or ROOT_INODE

    async def directory(self, inode: Inode) -> Node:
        """The same as `node`, for a directory.

        Raises:
            StaleInode, NotADirectory: there is no such directory.
        """
        node = await self.node(inode)
        if not node.is_dir:
            raise NotADirectory(f"{node.name!r} is a file")
        return node

    def attributes(self, node: Node) -> dict[str, bytes]:
        """The extended attributes of an object."""
        values = {
            "user.ctera.id": node.file_id,
            "user.ctera.guid": node.guid or None,
            "user.ctera.folder_id": node.folder_id,
            "user.ctera.gvsn": node.gvsn,
            "user.ctera.acl": node.acl,
            "user.ctera.name": node.wire_name,
        }
        return {
            name: str(value).encode("utf-8", "surrogatepass") for name, value in values.items() if value is not None
        }

    async def attribute(self, inode: Inode, name: str) -> bytes:
        """One extended attribute.

        Raises:
            NoAttribute: the object does not have it.
        """
        try:
            return self.attributes(await self.node(inode))[name]
        except KeyError:
            raise NoAttribute(f"no attribute {name!r}") from None

    async def counts(self) -> Counts:
        """How many objects there are, and their bytes."""
        return await self._current(lambda: self._store.counts)

    # --- references: what the kernel, or any other frontend, still knows ----------------------------------------------

    def acquire(self, inode: Inode) -> None:
        """The frontend was told of this inode once more."""
        self._references.add(inode)

    def acquire_all(self, inodes: Iterable[Inode]) -> None:
        """The frontend was told of each of these inodes once more."""
        self._references.add_all(inodes)

    def forget(self, inode: Inode, count: int) -> None:
        """The frontend dropped `count` of its references."""
        self._references.subtract(inode, count)
        if not self._in_use(inode):
            self._ghosts.pop(inode, None)

    def referenced(self, inode: Inode) -> bool:
        return inode == ROOT_INODE or inode in self._references

    # --- files ------------------------------------------------------------------------------------------------------

    async def open(self, inode: Inode) -> tuple[int, bool]:
        """Opens a file for reading; never waits for the network.

        Returns:
            A handle, and whether data that the frontend cached for this inode is still good.

        Raises:
            StaleInode: the inode is superseded; looking the name up again gives the new one.
            IsADirectory: not a file.
            DirectIOError: the portal has not told how to ask for its blocks.
        """
        node = await self._live(inode)
        if node is None:
            raise StaleInode(f"inode {inode} is superseded")
        if node.is_dir:
            raise IsADirectory(f"{node.name!r} is a directory")
        source, keep = self._contents.open(node)
        self._walk_ahead.opened(node)
        readahead = ReadAhead(source, self._cache, self._nursery, self._budget, self.stats)
        deadline = self._options.timeout * READ_DEADLINE_FACTOR
        handle = next(self._handle_numbers)
        self._readers[handle] = (inode, Reader(source, readahead, deadline, self.stats))
        self.stats.opens += 1
        return handle, keep

    def ready(self, handle: int, offset: int, size: int) -> bytes | memoryview | None:
        """As `read`, if nothing has to be waited for; otherwise None."""
        return self._readers[handle][1].ready(offset, size)

    async def read(self, handle: int, offset: int, size: int) -> bytes | memoryview:
        """Bytes of an open file; fewer than `size` only at its end.

        Raises:
            StaleInode: storage does not have the version that was opened any more.
            DirectIOError: they cannot be had.
        """
        inode, reader = self._readers[handle]
        try:
            return await reader.read(offset, size)
        except VersionChangedError:
            self._contents.changed(inode)
            raise
        except ObjectNotFoundError as error:  # a file that is open is not missing: the feed will tell what became of it
            raise StaleInode(f"storage no longer has the version that was opened: {error}") from None

    def close(self, handle: int) -> None:
        """Ends a handle."""
        inode, reader = self._readers.pop(handle)
        reader.close()
        ghost = inode in self._ghosts
        if self._contents.close(inode, superseded=ghost) and ghost and not self.referenced(inode):
            del self._ghosts[inode]

    def source(self, node: Node) -> BlockSource:
        """The blocks of a file, for who does not open it."""
        return self._contents.source(node)

    @property
    def open_files(self) -> int:
        return len(self._readers)

    async def _following(self, question: Question) -> Sequence[Node]:
        """The files that follow one in a walk."""
        following = next_by_inode if question.order is Order.INODE else next_by_name
        if question.deep:
            following = next_in_tree
        files = await self._current(lambda: following(self._store, question.after, question.count))
        for file in files:
            self._nodes[file.inode] = file
        return files

    # --- changes: what the follower tells ---------------------------------------------------------------------------

    def prepare(self, changes: Iterable[Change]) -> None:
        """These changes are about to be committed: objects that end stay known while somebody references them."""
        for change in changes:
            old = change.old
            if old is not None and (change.new is None or change.new.inode != old.inode) and self._in_use(old.inode):
                self._ghosts[old.inode] = old

    def publish(self, changes: Sequence[Change]) -> None:
        """These changes are committed: from now on, nothing older is answered."""
        self.prepare(changes)  # once more: a lookup during the commit may have found an object that has ended
        self.epoch += 1
        self._walks.forget(changes)
        self._pages.forget(changes)
        gone: list[Inode] = []
        for change in changes:
            for node in (change.old, change.new):
                if node is not None:
                    self._nodes.pop(node.inode, None)
            if change.old is not None:
                gone.append(change.old.inode)
                if change.new is None or change.new.inode != change.old.inode:
                    self._contents.forget(change.old.inode)
        self._walk_ahead.forget(gone)
        if self.observer is not None:
            self.observer.push(changes)

    async def settle(self) -> None:
        """Returns when the observer's caches hold nothing older than what was published."""
        if self.observer is not None:
            await self.observer.drained()

    def _in_use(self, inode: Inode) -> bool:
        return inode in self._references or inode in self._contents

    async def _live(self, inode: Inode) -> Node | None:
        node: Node | None = self._nodes.get(inode)
        if node is None:
            node = await self._current(lambda: self._store.get(inode))
            if node is not None:
                self._nodes[inode] = node
        return node

    async def _current(self, query: Callable[[], T]) -> T:
        """Runs a query in a thread until no change was published meanwhile."""
        for _ in range(ATTEMPTS):
            epoch = self.epoch
            asking = partial(trio.to_thread.run_sync, query, limiter=self._limiter)
            answer = await patiently(asking, THREAD_PATIENCE)
            if epoch == self.epoch:
                return answer
        return query()  # on the loop, where nothing is published meanwhile, and by now with its rows in memory
