"""The types that every layer speaks. Immutable, and without any I/O.

Byte positions are half-open inside cterafs (`Extent`); the SDK's and HTTP's ranges include their end and are converted
at the edge (`ByteRange`). All times are integers, in nanoseconds since 1970-01-01 UTC. All sizes are in bytes.
"""

from __future__ import annotations

import bisect
import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NewType

import msgspec

Inode = NewType("Inode", int)
Cursor = NewType("Cursor", str)
"""Opaque, issued by the portal; it belongs to the folder ids that it was issued for."""

ROOT_INODE = Inode(1)
"""The root of the mount: FUSE fixes the number."""


class Extent(msgspec.Struct, frozen=True, order=True, gc=False):
    """The bytes from `start` up to, not including, `stop`."""

    start: int
    stop: int

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def intersect(self, other: Extent) -> Extent:
        """The bytes that both have; empty (`len` 0) where they do not meet."""
        start = max(self.start, other.start)
        return Extent(start, max(start, min(self.stop, other.stop)))

    def contains(self, other: Extent) -> bool:
        return self.start <= other.start and other.stop <= self.stop


@dataclass(frozen=True, slots=True)
class ByteRange:
    """The bytes from `start` to `end`, both included; `end` None is the end of the file. As in CTERA's SDK.

    Raises:
        ValueError: `start` is negative, or `end` lies before `start`.
    """

    start: int = 0
    end: int | None = None

    def __post_init__(self) -> None:
        if self.start < 0:
            raise ValueError(f"a byte range cannot start at {self.start}")
        if self.end is not None and self.end < self.start:
            raise ValueError(f"a byte range cannot end at {self.end}, before its start {self.start}")

    def extent(self, size: int) -> Extent:
        """The part of this range that a file of `size` bytes has; empty where it lies beyond the end."""
        start = min(self.start, size)
        stop = size if self.end is None else min(self.end + 1, size)
        return Extent(start, max(start, stop))


class Compression(enum.Enum):
    """How a file's blocks are compressed, by the name that the portal uses."""

    NONE = "NONE"
    SNAPPY = "SNAPPY"
    GZIP = "GZIP"
    LZ4 = "LZ4"  # ours: no portal is known to send it


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """One block in a file's list of blocks.

    Attributes:
        extent: where its plaintext lies in the file.
        url: presigned, so a secret: whoever has it can read the block. Its path is stable, its query the signature.
        number: counted from 1; None in a partial list, which cannot know it.
    """

    extent: Extent
    url: str
    number: int | None = None

    def __repr__(self) -> str:  # the URL carries a signature: it must not reach a log
        return f"Chunk({self.extent.start}..{self.extent.stop}, number={self.number})"


@dataclass(frozen=True, slots=True, repr=False)
class BlockMap:
    """Where the bytes of a file, or of a part of it, lie in storage.

    Attributes:
        file_id: the file, as Direct IO knows it.
        size: of the whole file.
        chunks: in the order of the file, without gaps.
        key: the data key; None where blocks are not encrypted.
        compression: None where the portal does not say: then it is told from the block's first bytes.
    """

    file_id: int
    size: int
    chunks: tuple[Chunk, ...]
    key: bytes | None
    compression: Compression | None

    @property
    def extent(self) -> Extent:
        """What the chunks cover."""
        if not self.chunks:
            return Extent(0, 0)
        return Extent(self.chunks[0].extent.start, self.chunks[-1].extent.stop)

    def of(self, chunks: tuple[Chunk, ...]) -> BlockMap:
        """The list of these blocks only."""
        return BlockMap(self.file_id, self.size, chunks, self.key, self.compression)

    def span(self, wanted: Extent) -> Sequence[Chunk]:
        """The chunks that hold any byte of `wanted`, in order."""
        if wanted.stop <= wanted.start or not self.chunks:
            return ()
        chunks, start, stop = self.chunks, wanted.start, wanted.stop
        begin = chunks[0].extent
        length = (begin.stop - begin.start) or 1  # most files have blocks of one size
        first, last = (start - begin.start) // length, (stop - 1 - begin.start) // length
        if first >= 0 and last < len(chunks):
            one, other = chunks[first].extent, chunks[last].extent
            if one.start <= start < one.stop and other.start < stop <= other.stop:
                return chunks[first : last + 1]
        first = bisect.bisect_right(chunks, start, key=lambda chunk: chunk.extent.stop)
        last = bisect.bisect_left(chunks, stop, key=lambda chunk: chunk.extent.start)
        return chunks[first:last]

    def __repr__(self) -> str:  # never the key
        return f"BlockMap(file_id={self.file_id}, size={self.size}, extent={self.extent}, chunks={len(self.chunks)})"


@dataclass(frozen=True, slots=True)
class Block:
    """A block's plaintext, or the part of it that was asked for.

    Attributes:
        offset: of `data` in the file.
        number: of the block, from 1; None where only a part of the list is known.
    """

    file_id: int
    offset: int
    data: bytes | memoryview
    number: int | None = None

    @property
    def length(self) -> int:
        return len(self.data)

    def __repr__(self) -> str:
        return f"Block(file_id={self.file_id}, offset={self.offset}, length={self.length})"


class Event(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One entry of the Notification Service: what the portal says of an object now.

    Attributes:
        guid: identifies the object for as long as it lives, through renames and moves.
        parent_guid: None for a cloud folder's root.
        folder_id: the cloud folder it lies in, if told.
        file_id: what Direct IO calls the file.
        gvsn: version, as text, whatever the portal's type was.
        acl: SDDL text.
        mtime_ns: the file's own timestamp; where it is not told, the portal's.
        ctime_ns: when the portal changed it; where that is not told, the file's own timestamp.
    """

    guid: str
    name: str
    is_dir: bool
    deleted: bool = False
    folder_id: int | None = None
    parent_guid: str | None = None
    file_id: int | None = None
    size: int = 0
    gvsn: str | None = None
    acl: str | None = None
    mtime_ns: int | None = None
    ctime_ns: int | None = None
    virtual_portal_id: str | None = None


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """One answer of `list`. `skipped` counts the entries that could not be understood."""

    events: list[Event]
    cursor: Cursor
    has_more: bool
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class FolderInfo:
    """A cloud folder, as the portal's administration knows it. `owner` is a user name, None where unknown."""

    folder_id: int
    name: str
    owner: str | None = None


class Node(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One object of the tree, as the mount shows it.

    Attributes:
        inode: names this content: new content is a new inode.
        parent: the directory it lies in.
        name: as shown, safe for the kernel and unique in its directory.
        wire_name: as the portal has it.
    """

    inode: Inode
    parent: Inode
    name: str
    wire_name: str
    is_dir: bool
    guid: str = ""
    folder_id: int | None = None
    file_id: int | None = None
    size: int = 0
    gvsn: str | None = None
    acl: str | None = None
    mtime_ns: int = 0
    ctime_ns: int = 0


class Dirent(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What a listing shows of an object; much cheaper to make than a `Node`. `is_dir` is 1 for a directory, else 0."""

    inode: Inode
    name: str
    is_dir: int
    size: int
    mtime_ns: int
    ctime_ns: int


class Change(msgspec.Struct, frozen=True, gc=False):
    """What applying events did to one object that was, or is, visible.

    `old` None: it appeared. `new` None: it disappeared. Both: `old.inode != new.inode` is new content, another
    `parent` or `name` is a move, anything else is a change of attributes.
    """

    old: Node | None
    new: Node | None
