"""The portal's tree of cloud folders, directories and files, and everything that can happen to it.

Each change is told to the feed. Tests change the tree directly; the watched directory does it through the same methods.
"""

from __future__ import annotations

import contextlib
import hmac
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from cterafs.demo.encoder import Encoding
from cterafs.demo.feed import Feed
from cterafs.demo.inventory import Refused, UnknownObject
from cterafs.demo.objects import Content, Entry, Item, MemoryContent, Version, describe

FIRST_FILE_ID = 4_900_000_000
"""File ids of this size have been seen on real portals."""

Order = Callable[[list[Entry]], Iterable[Entry]]


@dataclass(frozen=True, slots=True)
class Folder:
    """A cloud folder as the administration knows it; `owner` is a user's uid."""

    id: int
    root: Item
    owner: int | None

    @property
    def name(self) -> str:
        return self.root.name


class _Listing:
    """Lists what exists of `objects`, which the namespace shares: all that ever existed, in the order of listing."""

    def __init__(self, objects: Sequence[Item]) -> None:
        self._objects = objects

    def part(self, start: int, limit: int, folders: Sequence[int]) -> tuple[list[Entry], int | None]:
        found: list[Entry] = []
        for index in range(start, len(self._objects)):
            if len(found) == limit:
                return found, index
            item = self._objects[index]
            if not (item.deleted or item.hidden) and (not folders or item.folder_id in folders):
                found.append(describe(item))
        return found, None


class Namespace:
    """All that the portal holds, in memory: an `Inventory` that can be changed in every way.

    Attributes:
        encoding: of the versions that are made from now on.
        keep_file_ids: new content keeps the file id, and only `gvsn` tells the versions apart.
        tell_descendants: deleting a directory tells of each object below it too.
    """

    def __init__(self, encoding: Encoding | None = None) -> None:
        self.encoding = encoding or Encoding()
        self.keep_file_ids = False
        self.tell_descendants = True
        self._silent = False
        self.lock = threading.RLock()
        self._folders: dict[int, Folder] = {}
        self._objects: list[Item] = []
        self.feed = Feed(_Listing(self._objects), self.lock)
        self._by_guid: dict[str, Item] = {}
        self._versions: list[Version] = []
        self._owners: dict[int, tuple[Item, Version]] = {}
        self._batch: list[Entry] | None = None
        # Another portal, or this one started again, must not use an id for another content: clients keep caches.
        self._uuid = uuid.uuid4()
        self._secret = secrets.token_bytes(32)
        self._next_file_id = FIRST_FILE_ID + secrets.randbelow(1 << 20) * 1_000_000
        self._gvsn = 0

    # Looking

    @property
    def folders(self) -> list[Folder]:
        """The cloud folders that are not deleted."""
        with self.lock:
            return [folder for folder in self._folders.values() if not folder.root.deleted]

    def find(self, path: str) -> Item:
        """The object at `folder/directory/name`.

        Raises:
            UnknownObject: there is none.
        """
        first, *rest = path.strip("/").split("/")
        with self.lock:
            item = next((folder.root for folder in self.folders if folder.name == first), None)
            for name in rest:
                item = item.children.get(name) if item else None
            if item is None:
                raise UnknownObject(path)
            return item

    def exists(self, path: str) -> bool:
        try:
            self.find(path)
        except UnknownObject:
            return False
        return True

    def ancestors(self, folder_id: int, guid: str) -> list[Entry]:
        """From the cloud folder's root to the object.

        Raises:
            UnknownObject: it does not exist in this folder.
        """
        with self.lock:
            item = self._by_guid.get(guid)
            if item is None or item.deleted or item.folder_id != folder_id:
                raise UnknownObject(guid)
            return [describe(ancestor) for ancestor in item.lineage()]

    def by_file_id(self, file_id: int) -> Version:
        """The version that Direct IO means.

        Raises:
            UnknownObject: there is none, or its file is deleted.
            Refused: the file is marked so.
        """
        with self.lock:
            item, version = self._owners.get(file_id, (None, None))
            if item is None or version is None or item.deleted:
                raise UnknownObject(file_id)
            if item.directio_status is not None:
                raise Refused(item.directio_status)
            return version

    def version(self, serial: int) -> Version | None:
        """The version that block URLs call `serial`, also when a newer one has replaced it."""
        return self._versions[serial - 1] if 0 < serial <= len(self._versions) else None

    # Making

    def create_folder(self, name: str, owner: int | None = None) -> Item:
        """A cloud folder. Two may have the same name, with different owners."""
        with self.lock:
            number = len(self._objects) + 1
            root = self._add(Item(self._guid(), name, number, None, True, self._step(), _now(), _now()))
            self._folders[number] = Folder(number, root, owner)
            self._tell(root)
            return root

    def mkdir(self, parent: Item, name: str, mtime_ns: int | None = None) -> Item:
        with self.lock:
            item = self._new(parent, name, is_dir=True, mtime_ns=mtime_ns)
            self._tell(item)
            return item

    def create(
        self,
        parent: Item,
        name: str,
        content: bytes | Content = b"",
        *,
        mtime_ns: int | None = None,
        encoding: Encoding | None = None,
    ) -> Item:
        """A file; `encoding` instead of the namespace's, for this version."""
        with self.lock:
            item = self._new(parent, name, is_dir=False, mtime_ns=mtime_ns)
            self._set_content(item, content, encoding)
            self._tell(item)
            return item

    # Changing

    def write(
        self, item: Item, content: bytes | Content, *, mtime_ns: int | None = None, encoding: Encoding | None = None
    ) -> None:
        """New content: a new version of the same object."""
        with self.lock:
            item.mtime_ns = _now() if mtime_ns is None else mtime_ns
            item.ctime_ns = _now()
            item.gvsn = self._step()
            self._set_content(item, content, encoding)
            self._tell(item)

    def set_acl(self, item: Item, acl: str) -> None:
        """Another access list (SDDL text): an attribute, not new content."""
        with self.lock:
            item.acl = acl
            item.ctime_ns = _now()
            self._tell(item)

    def rename(self, item: Item, name: str) -> None:
        self.move(item, item.parent, name)

    def move(self, item: Item, parent: Item | None, name: str | None = None) -> None:
        """To another directory of the same cloud folder, or another name, or both. Only a root has no parent.

        Raises:
            FileExistsError: the name is taken.
            ValueError: across cloud folders, or into itself.
        """
        with self.lock:
            if (parent is None) != (item.parent is None) or (parent and parent.folder_id != item.folder_id):
                raise ValueError("objects move within their cloud folder")
            if parent and item in parent.lineage():
                raise ValueError("a directory cannot be moved into itself")
            self.detach(item)
            item.name, item.parent, item.ctime_ns = name or item.name, parent, _now()
            self._attach(item)
            self._tell(item)

    def delete(self, item: Item) -> None:
        """Delete an object with all below it."""
        with self.lock:
            self.detach(item)
            gone = list(item.subtree())
            for each in gone:
                each.deleted, each.ctime_ns = True, _now()
            self._tell(*(gone if self.tell_descendants else [item]))

    def undelete(self, item: Item) -> None:
        """Bring an object back with all that was deleted with it.

        Raises:
            FileExistsError: its name is taken.
            UnknownObject: its directory is still deleted.
        """
        with self.lock:
            if item.parent is not None and item.parent.deleted:
                raise UnknownObject(item.parent.path)
            self._attach(item)
            back = list(item.subtree())
            for each in back:
                each.deleted, each.ctime_ns = False, _now()
            self._tell(*back)

    def detach(self, item: Item) -> None:
        """Free an object's name without telling anybody; to be followed by `move` or `delete`."""
        with self.lock:
            if item.parent is not None and item.parent.children.get(item.name) is item:
                del item.parent.children[item.name]

    # Choosing what is told, and how

    def tell(self, *items: Item) -> None:
        """Repeat what these objects are now, as the portal may do at any time."""
        with self.lock:
            self._tell(*items)

    @contextlib.contextmanager
    def batch(self, order: Order = list) -> Iterator[None]:
        """Tell of the changes that are made inside at once, in an order of choice (which may also drop or repeat)."""
        with self.lock:
            if self._batch is not None:
                raise RuntimeError("a batch is open already")
            self._batch = []
        try:
            yield
        finally:
            with self.lock:
                entries, self._batch = self._batch, None
                if entries:
                    self.feed.publish(order(entries))

    @contextlib.contextmanager
    def silence(self) -> Iterator[None]:
        """Do not tell of the changes that are made inside: nobody has listed anything yet."""
        self._silent = True
        try:
            yield
        finally:
            self._silent = False

    def sort_listing(self, key: Callable[[Item], object]) -> None:
        """List the objects in another order than they were made in; not while somebody lists them."""
        with self.lock:
            self._objects.sort(key=key)  # type: ignore[arg-type]  # whatever can be compared

    def _tell(self, *items: Item) -> None:
        if self._silent:
            return
        entries = [describe(item) for item in items if not item.hidden]
        if self._batch is not None:
            self._batch += entries
        else:
            self.feed.publish(entries)

    # Parts

    def _new(self, parent: Item, name: str, *, is_dir: bool, mtime_ns: int | None) -> Item:
        if parent.deleted or not parent.is_dir:
            raise UnknownObject(parent.path)
        mtime = _now() if mtime_ns is None else mtime_ns
        item = Item(self._guid(), name, parent.folder_id, parent, is_dir, self._step(), mtime, _now())
        self._attach(item)
        return self._add(item)

    def _add(self, item: Item) -> Item:
        self._objects.append(item)
        self._by_guid[item.guid] = item
        return item

    def _attach(self, item: Item) -> None:
        if item.parent is None:
            return
        if item.name in item.parent.children:
            raise FileExistsError(item.path)
        item.parent.children[item.name] = item

    def _set_content(self, item: Item, content: bytes | Content, encoding: Encoding | None) -> None:
        serial = len(self._versions) + 1
        if item.version is not None and self.keep_file_ids:
            file_id = item.version.file_id
        else:
            file_id, self._next_file_id = self._next_file_id, self._next_file_id + 1
        source = MemoryContent(content) if isinstance(content, bytes) else content
        seed = hmac.digest(self._secret, str(serial).encode(), "sha256")
        item.version = Version(serial, file_id, item.gvsn, source, encoding or self.encoding, seed)
        self._versions.append(item.version)
        self._owners[file_id] = (item, item.version)

    def _guid(self) -> str:
        return f"{self._uuid}:{len(self._objects) + 1}"

    def _step(self) -> int:
        self._gvsn += 1
        return self._gvsn


def _now() -> int:
    return time.time_ns()
