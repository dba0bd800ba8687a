"""What the portal's namespace is made of: objects, their versions, and the entries that tell of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

import msgspec

from cterafs.demo.encoder import Encoding


class ContentGone(Exception):
    """The bytes of a version can no longer be had."""


class Content(Protocol):
    """Where the bytes of one version come from."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes of this version.

        Raises:
            ContentGone: the source holds another version now, or none.
        """


class MemoryContent:
    """A version in memory, until it is dropped."""

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self._data: bytes | None = data

    def read(self, offset: int, length: int) -> bytes:
        if self._data is None:
            raise ContentGone
        return self._data[offset : offset + length]

    def drop(self) -> None:
        """Forget the bytes, as storage forgets a version that was purged."""
        self._data = None


@dataclass(slots=True, eq=False)
class Version:
    """One content of a file.

    Attributes:
        serial: counts versions, from 1; names the version in block URLs.
        file_id: what Direct IO calls it.
        seed: what keys, names and lengths of blocks are derived from.
    """

    serial: int
    file_id: int
    gvsn: int
    content: Content
    encoding: Encoding
    seed: bytes

    @property
    def size(self) -> int:
        return self.content.size


@dataclass(slots=True, eq=False)
class Item:
    """A file, a directory or a cloud folder's root (which has no parent).

    Attributes:
        version: of a file; None for directories.
        hidden: left out of listings and events; only `ancestors` tells of it.
        directio_status: what Direct IO answers for this file, instead of blocks.
    """

    guid: str
    name: str
    folder_id: int
    parent: Item | None
    is_dir: bool
    gvsn: int
    mtime_ns: int
    ctime_ns: int
    version: Version | None = None
    acl: str | None = None
    deleted: bool = False
    hidden: bool = False
    directio_status: int | None = None
    children: dict[str, Item] = field(default_factory=dict)

    @property
    def file(self) -> Version:
        """The present version of what is known to be a file."""
        if self.version is None:
            raise IsADirectoryError(self.path)
        return self.version

    @property
    def path(self) -> str:
        """From the cloud folder's name on, without a leading slash."""
        return "/".join(item.name for item in self.lineage())

    def lineage(self) -> list[Item]:
        """From the cloud folder's root to this object."""
        chain: list[Item] = []
        item: Item | None = self
        while item is not None:
            chain.append(item)
            item = item.parent
        return chain[::-1]

    def subtree(self) -> Iterator[Item]:
        """This object and all below it, parents first."""
        pending = [self]
        while pending:
            item = pending.pop()
            yield item
            pending.extend(item.children.values())


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What `list` and `ancestors` say of an object; the fields are the portal's."""

    type: str
    guid: str
    deleted: bool
    name: str
    folder_id: int
    id: int | None = None
    size: int | None = None
    parent_guid: str | None = None
    gvsn: str | None = None
    acl: str | None = None
    portal_modified_date: str | None = None
    file_timestamp: str | None = None


def describe(item: Item) -> Entry:
    """The entry that tells what `item` is now."""
    return Entry(
        type="folder" if item.is_dir else "file",
        guid=item.guid,
        deleted=item.deleted,
        name=item.name,
        folder_id=item.folder_id,
        id=item.version.file_id if item.version else None,
        size=item.version.size if item.version else None,
        parent_guid=item.parent.guid if item.parent else None,
        gvsn=str(item.gvsn),
        acl=item.acl,
        portal_modified_date=timestamp(item.ctime_ns),
        file_timestamp=timestamp(item.mtime_ns),
    )


def timestamp(nanoseconds: int) -> str:
    """ISO 8601 in UTC, with microseconds; what lies outside the years that it can write is moved to their limits."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    seconds = min(max(seconds, -62_135_596_800), 253_402_300_799)  # the years 1 and 9999
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
