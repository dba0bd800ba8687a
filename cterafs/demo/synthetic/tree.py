"""A synthetic namespace: computed objects, and those that were changed since."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from cterafs.demo.accounts import FIRST_UID
from cterafs.demo.encoder import Encoding
from cterafs.demo.feed import Feed
from cterafs.demo.inventory import UnknownObject
from cterafs.demo.objects import Entry, Version, timestamp
from cterafs.demo.synthetic import traits
from cterafs.demo.synthetic.noise import Noise, NoiseContent
from cterafs.demo.synthetic.shape import Plan, Shape

FIRST_FILE_ID = 4_900_000_000
"""File ids of this size have been seen on real portals."""

FILE_BITS = 28
"""Of a file id, that count the files of one shape; the ones above tell shapes apart."""

CHANGED = 1 << 50
"""File ids from here on belong to versions that were made by a change."""

RETIRED = 100_000
"""Versions that are kept when newer ones have replaced them or their files are deleted, so that readers can end."""


@dataclass(frozen=True, slots=True)
class SyntheticFolder:
    """A cloud folder; `owner` is a user's uid."""

    id: int
    name: str
    owner: int | None


@dataclass(slots=True)
class _Changed:
    """What a file is now that is not, or no longer, as it is computed."""

    number: int
    name: str
    parent: int
    file_id: int
    size: int
    gvsn: int
    modified: str
    written: str
    deleted: bool = False


class SyntheticNamespace:
    """All that the portal holds, an `Inventory`. Objects are named by their numbers; see `Plan`.

    Directories never change. Names are taken as they are given: two files of a directory may end up with one name.

    Args:
        owner: of the cloud folders, a user's uid.

    Attributes:
        plan: what exists before any change.
    """

    def __init__(self, shape: Shape, encoding: Encoding | None = None, owner: int = FIRST_UID) -> None:
        self.plan = Plan(shape)
        self.lock = threading.RLock()
        self.feed = Feed(self, self.lock)
        self._encoding = encoding or Encoding()
        self._owner = owner
        identity = hashlib.sha256(repr(replace(shape, rate=0)).encode()).digest()
        self._uuid = str(uuid.UUID(bytes=identity[:16], version=4))
        self._key = identity[16:]
        self._seed = shape.seed
        self._noise = Noise(shape.seed)
        self._sizes = traits.size_table(shape.size)
        self._first_file_id = FIRST_FILE_ID + (int.from_bytes(identity[:2]) << FILE_BITS)
        # This portal started again must not use an id for another content: clients keep caches.
        self._next_file_id = CHANGED + (secrets.randbits(20) << FILE_BITS)
        self._changed: dict[int, _Changed] = {}
        self._versions: dict[int, _Changed | int] = {}  # by file id: the file, or the size of a superseded version
        self._retired: deque[int] = deque()
        self._next_number = self.plan.total + 1
        self._batch: list[Entry] | None = None

    # Looking

    @property
    def folders(self) -> Sequence[SyntheticFolder]:
        return [SyntheticFolder(root, self._directory_name(root), self._owner) for root in self.plan.roots]

    def part(self, start: int, limit: int, folders: Sequence[int]) -> tuple[list[Entry], int | None]:
        """For the feed: the listing from a place on."""
        found: list[Entry] = []
        plan, changed = self.plan, self._changed
        for position in range(start, self._next_number - 1):
            if len(found) == limit:
                return found, position
            number = plan.at(position) if position < plan.total else position + 1
            if folders and self._folder(number) not in folders:
                continue
            if number in changed or number > plan.total:
                now = changed.get(number)
                if now is not None and not now.deleted:
                    found.append(self._describe_changed(now))
            else:
                found.append(self._describe(number))
        return found, None

    def entry(self, number: int) -> Entry:
        """What the portal tells of an object.

        Raises:
            UnknownObject: there is none.
        """
        with self.lock:
            now = self._changed.get(number)
            if now is not None:
                return self._describe_changed(now)
        if not 0 < number <= self.plan.total:
            raise UnknownObject(number)
        return self._describe(number)

    def path(self, number: int) -> str:
        """From the cloud folder's name on, without a leading slash."""
        return "/".join(self.entry(each).name for each in self._lineage(number))

    def ancestors(self, folder_id: int, guid: str) -> list[Entry]:
        prefix, _, digits = guid.rpartition(":")
        if prefix != self._uuid or not (digits.isascii() and digits.isdecimal() and len(digits) <= 18):
            raise UnknownObject(guid)
        with self.lock:
            entries = [self.entry(number) for number in self._lineage(int(digits))]
        if not entries or entries[-1].deleted or entries[-1].folder_id != folder_id:
            raise UnknownObject(guid)
        return entries

    def by_file_id(self, file_id: int) -> Version:
        with self.lock:
            changed = self._versions.get(file_id)
            if isinstance(changed, _Changed) and changed.deleted:
                raise UnknownObject(file_id)
            computed = self._changed.get(self._number(file_id))
            if computed is not None and computed.deleted:
                raise UnknownObject(file_id)
        version = self.version(file_id)
        if version is None:
            raise UnknownObject(file_id)
        return version

    def version(self, serial: int) -> Version | None:
        """A version's serial number is its file id."""
        with self.lock:
            changed = self._versions.get(serial)
        if changed is not None:
            size = changed if isinstance(changed, int) else changed.size
        elif (number := self._number(serial)) in self.plan.files:
            size = self._size(number)
        else:
            return None
        content = NoiseContent(self._noise, serial, size)
        seed = hmac.digest(self._key, str(serial).encode(), "sha256")
        return Version(serial, serial, 1, content, self._encoding, seed)

    # Changing

    def create(self, parent: int, name: str, size: int) -> int:
        """A file in a directory or a cloud folder's root; gives its number.

        Raises:
            UnknownObject: there is no such directory.
        """
        with self.lock:
            if not 0 < parent < self.plan.files.start:
                raise UnknownObject(parent)
            now = _now()
            file = _Changed(self._next_number, name, parent, 0, 0, 0, now, now)
            self._next_number += 1
            self._changed[file.number] = file
            self._set_content(file, size)
            self._tell(file)
            return file.number

    def write(self, number: int, size: int) -> None:
        """New content: a new version of the same file.

        Raises (as `move` and `delete`):
            UnknownObject: there is no such file.
        """
        with self.lock:
            file = self._file(number)
            self._retire(file.file_id, file.size)
            self._set_content(file, size)
            file.modified = file.written = _now()
            self._tell(file)

    def move(self, number: int, parent: int, name: str) -> None:
        """To another directory of the same cloud folder, or another name, or both.

        Raises:
            ValueError: across cloud folders.
        """
        with self.lock:
            file = self._file(number)
            if parent >= self.plan.files.start or self.plan.folder(parent) != self._folder(number):
                raise ValueError("files move within their cloud folder")
            file.parent, file.name, file.modified = parent, name, _now()
            self._tell(file)

    def delete(self, number: int) -> None:
        with self.lock:
            file = self._file(number)
            file.deleted, file.modified = True, _now()
            self._tell(file)
            if number > self.plan.total:  # what was computed must be known to be deleted, what was made is forgotten
                self._retire(file.file_id, file)
                del self._changed[number]

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """Tell of the changes that are made inside at once; one batch at a time."""
        with self.lock:
            self._batch = []
            try:
                yield
            finally:
                entries, self._batch = self._batch, None
                if entries:
                    self.feed.publish(entries)

    # Parts

    def _tell(self, file: _Changed) -> None:
        entry = self._describe_changed(file)
        if self._batch is None:
            self.feed.publish([entry])
        else:
            self._batch.append(entry)

    def _file(self, number: int) -> _Changed:
        """The file, ready to be changed."""
        file = self._changed.get(number)
        if file is None:
            if number not in self.plan.files:
                raise UnknownObject(number)
            bits = traits.draw(number, self._seed)
            written = traits.timestamp(bits)
            name = traits.file_name(bits, self.plan.token(number))
            file_id = self._first_file_id + number - self.plan.files.start
            file = _Changed(number, name, self.plan.parent(number), file_id, self._size(number), 1, written, written)
            self._changed[number] = file
        elif file.deleted:
            raise UnknownObject(number)
        return file

    def _set_content(self, file: _Changed, size: int) -> None:
        file.file_id, self._next_file_id = self._next_file_id, self._next_file_id + 1
        file.size = size
        file.gvsn += 1
        self._versions[file.file_id] = file

    def _retire(self, file_id: int, left: _Changed | int) -> None:
        """Keep what is left of a version for a while; one that is computed is always there."""
        if file_id not in self._versions:
            return
        self._versions[file_id] = left
        self._retired.append(file_id)
        if len(self._retired) > RETIRED:
            del self._versions[self._retired.popleft()]

    def _describe(self, number: int) -> Entry:
        plan = self.plan
        bits = traits.draw(number, self._seed)
        parent = plan.parent(number)
        moment = traits.timestamp(bits)
        if number >= plan.files.start:
            return Entry(
                type="file",
                guid=f"{self._uuid}:{number}",
                deleted=False,
                name=traits.file_name(bits, plan.token(number)),
                folder_id=plan.folder(parent),
                id=self._first_file_id + number - plan.files.start,
                size=self._sizes[traits.size_index(bits)],
                parent_guid=f"{self._uuid}:{parent}",
                gvsn="1",
                portal_modified_date=moment,
                file_timestamp=moment,
            )
        return Entry(
            type="folder",
            guid=f"{self._uuid}:{number}",
            deleted=False,
            name=self._directory_name(number),
            folder_id=plan.folder(number),
            parent_guid=f"{self._uuid}:{parent}" if parent else None,
            gvsn="1",
            acl=traits.acl(bits),
            portal_modified_date=moment,
            file_timestamp=moment,
        )

    def _describe_changed(self, file: _Changed) -> Entry:
        return Entry(
            type="file",
            guid=f"{self._uuid}:{file.number}",
            deleted=file.deleted,
            name=file.name,
            folder_id=self.plan.folder(file.parent),
            id=file.file_id,
            size=file.size,
            parent_guid=f"{self._uuid}:{file.parent}",
            gvsn=str(file.gvsn),
            portal_modified_date=file.modified,
            file_timestamp=file.written,
        )

    def _directory_name(self, number: int) -> str:
        plan = self.plan
        if number in plan.roots:
            return traits.folder_name(number - plan.roots.start)
        if number == plan.large_directory:
            return "All documents"
        return traits.directory_name(traits.draw(number, self._seed), plan.token(number))

    def _folder(self, number: int) -> int:
        now = self._changed.get(number)
        return self.plan.folder(now.parent if now is not None else number)

    def _lineage(self, number: int) -> list[int]:
        now = self._changed.get(number)
        if now is None and not 0 < number <= self.plan.total:
            raise UnknownObject(number)
        chain = [number]
        number = now.parent if now is not None else self.plan.parent(number)
        while number:
            chain.append(number)
            number = self.plan.parent(number)
        return chain[::-1]

    def _number(self, file_id: int) -> int:
        """The file whose computed version has this file id, if there is one."""
        return file_id - self._first_file_id + self.plan.files.start

    def _size(self, number: int) -> int:
        return self._sizes[traits.size_index(traits.draw(number, self._seed))]


def _now() -> str:
    return timestamp(time.time_ns())
