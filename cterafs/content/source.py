"""The blocks of one version of one file, through the cache."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Protocol

from cterafs.content.cache import BlockCache
from cterafs.content.memory import BlockKey
from cterafs.direct.presigned import stable_path
from cterafs.direct.remote import Fingerprint
from cterafs.errors import DirectIOError
from cterafs.model import Chunk, Extent, Node


class Remote(Protocol):
    """The blocks of one version of one file in storage (`cterafs.direct.RemoteFile`)."""

    @property
    def fingerprint(self) -> Fingerprint:
        """What tells this version from another; an object made with it notices that storage changed."""

    async def chunks(self, extent: Extent) -> Sequence[Chunk]:
        """The chunks that cover `extent`, in order."""

    async def read(self, chunk: Chunk) -> bytes:
        """The plaintext of one of them."""


class BlockSource:
    """What all the handles of one inode share: its list of blocks, and its place in the cache.

    Args:
        node: the file; its inode names this content, so the size is the one that every reader was told.
    """

    def __init__(self, node: Node, remote: Remote, cache: BlockCache) -> None:
        if node.file_id is None and node.size:
            raise DirectIOError(None, f"the portal gave no file id for {node.wire_name!r}")
        self.file_id = node.file_id or 0  # an empty file has no blocks that anybody would ask for
        self.size = node.size
        self._version = f"{node.gvsn}:{node.size}:{node.mtime_ns}"
        self._remote = remote
        self._cache = cache

    async def chunks(self, extent: Extent) -> Sequence[Chunk]:
        """The chunks that hold `extent`.

        Raises:
            DirectIOError: the list cannot be had, or does not cover the file.
        """
        chunks = await self._remote.chunks(extent)
        if not chunks or chunks[0].extent.start > extent.start or chunks[-1].extent.stop < extent.stop:
            raise DirectIOError(
                self.file_id, f"the list of blocks does not cover bytes {extent.start} to {extent.stop}"
            )
        return chunks

    async def block(self, chunk: Chunk) -> bytes:
        """A block's plaintext, from a cache or from storage."""
        fetch = partial(self._remote.read, chunk)
        return await self._cache.get(self.key(chunk), len(chunk.extent), fetch, origin(chunk))

    async def download(self, chunk: Chunk) -> bytes:
        """A block's plaintext from storage, for who leaves the caches as they are."""
        return await self._remote.read(chunk)

    @property
    def fingerprint(self) -> Fingerprint:
        """What is known of this version, for who opens the file again later."""
        return self._remote.fingerprint

    def cached(self, chunk: Chunk) -> bool:
        """In memory, or on its way."""
        return self.key(chunk) in self._cache

    def forget(self) -> None:
        """Drops the cached blocks: storage turned out to hold another version."""
        self._cache.memory.forget(self.file_id, self._version)

    def key(self, chunk: Chunk) -> BlockKey:
        """What names the block in the caches."""
        return BlockKey(self.file_id, self._version, chunk.extent.start)


def origin(chunk: Chunk) -> str:
    """What storage calls the block, without what is signed anew: another version's block has another one."""
    return stable_path(chunk.url)
