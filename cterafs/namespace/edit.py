"""One transaction's work on `entry`: which rows are touched, what becomes of them, and what that changes in the mount.

The tree is a function of the last event of each object, so a page is first reduced to that, and the order of events of
different objects never matters. An edit goes through three steps:

1. `load` brings the rows that the events name, and `renumber` gives new inode numbers to those whose content is new.
2. `put` and `remove` say, in memory, what each object shall be. A directory that is deleted, or named as a parent
   before it is told of, is a row without a place, so that its children keep a row to hang below.
3. `naming.settle` decides the names, then `write` writes the rows and tells the difference.

A file with new content keeps its row, and is another version of it. A directory that becomes a file, or the other way,
moves to a new row and takes its children along without a Change for each: the Change of the parent, whose old inode is
gone, covers them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Container, Iterable, Iterator
from copy import copy
from typing import Final

import msgspec

from cterafs.model import Change, Event, Node
from cterafs.namespace.guid import guid_key, guid_text, owner_key
from cterafs.namespace.known import Known
from cterafs.namespace.names import safe
from cterafs.namespace.rows import (
    COLUMNS,
    MARKS,
    Described,
    Row,
    described,
    kind_of,
    node,
    parameters,
    read,
    stored,
)
from cterafs.namespace.schema import (
    CLOUD_FOLDER,
    DETACHED,
    DIRECTORY,
    FILE,
    LAST_VERSION,
    ROOT,
    ROW_BITS,
    ROWS,
    SYNTHETIC,
    UNKNOWN,
)

_NOWHERE: Final = 0  # the parent of a file that names none: no row has this number
_BATCH: Final = 200  # parameters in one query: fewer make more queries, more are not faster

_FIELDS: Final = Row.__struct_fields__[1:]  # as the columns are called; the first is the inode number
_SET: Final = [f"{field} = {mark}" for field, mark in zip(_FIELDS, MARKS[1:], strict=True)]
_INSERT: Final = (
    f"INSERT INTO entry (id, version, {', '.join(_FIELDS)})"
    f" VALUES (?1 & {ROWS}, ?1 >> {ROW_BITS}, {', '.join(MARKS[1:])})"
)
_UPDATE: Final = (  # but for the guid, which stays: so its index is not looked at
    f"UPDATE entry SET version = ?1 >> {ROW_BITS}, {', '.join(_SET[1:])} WHERE id = ?1 & {ROWS}"
)
_NEXT_FOLDER: Final = "SELECT min(folder_id) FROM entry WHERE parent = ? AND folder_id > ?"
_PRUNE: Final = (
    f"DELETE FROM entry WHERE id = ?1 AND kind <= {DETACHED}"
    " AND NOT EXISTS (SELECT 1 FROM entry AS below WHERE below.parent = ?1)"
)


class Item(msgspec.Struct, gc=False):
    """A row that an edit touches.

    Attributes:
        old: as the database has it, None where it has none.
        new: as it shall be.
        before: what the mount saw of it, where `old` no longer tells because the row was renumbered.
    """

    old: Row | None
    new: Row
    before: Node | None = None


class Totals(msgspec.Struct):
    """What the state's counters have to be changed by."""

    files: int = 0
    directories: int = 0
    bytes: int = 0
    orphans: int = 0

    def add(self, row: Row, sign: int) -> None:
        if row.kind == FILE:
            self.files += sign
            self.bytes += sign * row.size
        elif row.kind in {DIRECTORY, CLOUD_FOLDER}:
            self.directories += sign
        elif row.kind <= DETACHED:
            self.orphans += sign


class Edit:
    """The rows that one transaction touches, by their guid keys.

    Attributes:
        next_id: the next row number to draw; the caller stores it again.
        first_id: numbers from here on are rows that this edit makes, so nothing in the database lies below them.
        totals: what the edit changed in the counts, after `write`.

    Args:
        known: what is known from earlier edits. This one keeps it true; whoever rolls it back forgets it.
    """

    def __init__(self, db: sqlite3.Connection, known: Known, *, next_id: int, layout: str) -> None:
        self.db: Final = db
        self._known: Final = known
        self._acls: Final = known.acls
        self._directories: Final = known.directories
        self.next_id = next_id
        self.first_id = next_id
        self.layout: Final = layout
        self.items: Final[dict[bytes, Item]] = {}
        self.totals: Final = Totals()
        self._told: Final[dict[bytes, Described]] = {}  # by the events
        self._guids: Final[dict[bytes, str]] = {}  # likewise: so that they need not be made of their keys again
        self._stale: Final = known.stale
        self._first_drawn: Final = next_id
        self._parent_keys: Final[dict[str, bytes]] = {}  # a page has few directories and many entries of each

    # -- step 1

    def parent_key(self, guid: str) -> bytes:
        key = self._parent_keys.get(guid)
        if key is None:
            key = self._parent_keys[guid] = guid_key(guid)
        return key

    def load(self, keys: Iterable[bytes], parents: Iterable[str] = ()) -> None:
        """Brings the rows that there are of these keys, and those of parents that are not known to be directories."""
        unknown = (key for key in map(self.parent_key, parents) if key not in self._directories)
        wanted = [key for key in dict.fromkeys((*keys, *unknown)) if key not in self.items]
        for part in _parts(wanted):
            marks = ", ".join("?" * len(part))
            self.add_rows(
                self.db.execute(f"SELECT {COLUMNS} FROM entry WHERE guid IN ({marks})", [*map(bytearray, part)])
            )

    def add_rows(self, found: Iterable[tuple[object, ...]]) -> list[Item]:
        """Takes rows of the database into the edit, as they are; those that it has are left as it has them."""
        added = []
        for values in found:
            old = read(values)
            if old.guid is not None and old.guid not in self.items:
                self.items[old.guid] = item = Item(old, copy(old))
                added.append(item)
        return added

    def renumber(self, events: Iterable[tuple[bytes, Event | None]]) -> None:
        """Gives new inode numbers to the objects whose content is another now; no event means a deletion."""
        moved: dict[int, int] = {}
        page = list(events)
        named = {event.parent_guid for _, event in page if event is not None}
        for key, event in page:
            if event is not None:
                self._guids[key] = event.guid
                self._told[key] = described(event)
            item = self.items.get(key)
            if item is None or item.old is None:
                continue
            old, new = item.old, item.new
            new.inode = self._end(key, old, named) if event is None else self._number(old, event, self._told[key])
            if new.id != old.id:
                item.before = self._node(old) if old.shown else None
                self._stale.add(old.id, old, None)
                moved[old.id] = new.id
        if not moved:
            return
        pairs = [(new, old) for old, new in moved.items()]
        self.db.executemany("UPDATE entry SET version = 0, id = ? WHERE id = ?", pairs)
        self.db.executemany("UPDATE entry SET parent = ? WHERE parent = ?", pairs)
        for item in self.items.values():
            if item.old is None:
                continue
            if item.old.id in moved:
                item.old.inode = item.new.inode
            if item.old.parent in moved:
                item.before = item.before or (self._node(item.old) if item.old.shown else None)
                item.old.parent = item.new.parent = moved[item.old.parent]
        self.first_id = self.next_id

    # -- step 2

    def put(self, key: bytes, event: Event) -> None:
        """The object is what the event says."""
        item = self.items.get(key)
        if item is None:
            item = self._new(key, UNKNOWN)
        new = item.new
        new.kind = kind_of(event)
        new.parent = self._parent(event)
        wanted = safe(event.name)
        if new.kind == CLOUD_FOLDER:
            new.wire = stored(event.name)  # the wanted name follows: `naming` compares it with the others'
        else:
            new.wire = stored(event.name) if wanted != event.name else None
            self.place(new, wanted)
        new.folder_id, new.file_id, new.size, new.gvsn, new.mtime_ns, new.ctime_ns = self._told[key]
        new.acl = self._acls.intern(self.db, event.acl)
        if event.parent_guid:
            self._mention(self.parent_key(event.parent_guid), new.folder_id, news=new != item.old)

    def remove(self, key: bytes) -> None:
        """The object is deleted; what names it as its parent stays below it, out of sight."""
        item = self.items.get(key)
        if item is not None:
            item.new = Row(item.new.inode, key, DETACHED)

    def give_up(self, key: bytes) -> None:
        """A directory that only what lies in it gives away is not where it was looked for.

        It is asked about next in another cloud folder that something in it names; after the last, no more for now.
        """
        item = self.items.get(key)
        if item is not None and item.new.kind == UNKNOWN:
            row = item.new
            folder_id = self.db.execute(_NEXT_FOLDER, (row.id, row.folder_id)).fetchone()[0]
            if folder_id is None:
                row.kind = DETACHED
            else:
                row.folder_id = folder_id

    def owner_directory(self, owner: str) -> int:
        """The row number of an owner's directory."""
        key = owner_key(owner)
        if key not in self.items:
            self.load([key])
        item = self.items.get(key) or self._new(key, SYNTHETIC)
        if item.new.kind != SYNTHETIC or item.new.parent is None:
            wanted = safe(owner)
            item.new = Row(item.new.inode, key, SYNTHETIC, parent=ROOT, name=wanted)
            item.new.wire = stored(owner) if wanted != owner else None
        return item.new.id

    @staticmethod
    def place(row: Row, wanted: str) -> None:
        """Gives a row the name it wants; `naming` looks whether another has it."""
        if row.wanted != wanted:
            row.name, row.want = wanted, None

    def _number(self, old: Row, event: Event, told: Described) -> int:
        """The inode number for what the event tells of: the same, that of another version, or of another row."""
        if not _new_content(old, event, told):
            return old.inode
        if old.kind == FILE and not event.is_dir and old.inode >> ROW_BITS < LAST_VERSION:
            return old.inode + (1 << ROW_BITS)
        return self._draw()

    def _end(self, key: bytes, old: Row, named: Container[str | None]) -> int:
        """The inode number for what is left of a deleted object. A file that something names as its parent keeps its
        row, but not the number of its content."""
        goes_on = old.kind == FILE and (guid_text(key) in named or self._has_children(old))
        return self._draw() if goes_on else old.inode

    def _has_children(self, row: Row) -> bool:
        sql = "SELECT EXISTS (SELECT 1 FROM entry WHERE parent = ?)"
        return bool(self.db.execute(sql, (row.id,)).fetchone()[0])

    def _parent(self, event: Event) -> int:
        if not event.parent_guid:
            return ROOT if event.is_dir else _NOWHERE
        key = self.parent_key(event.parent_guid)
        item = self.items.get(key)
        if item is None:
            directory = self._directories.get(key)
            return directory if directory is not None else self._new(key, UNKNOWN).new.id
        return item.new.id

    def _mention(self, key: bytes, folder_id: int | None, *, news: bool) -> None:
        """Something is told of what lies in this directory, and in this cloud folder, unless that is untrue."""
        item = self.items.get(key)
        if item is None:  # a directory that there is
            return
        row = item.new
        named = [one for one in (folder_id, row.folder_id) if one is not None]
        if row.kind == UNKNOWN:
            row.folder_id = min(named, default=None)  # `give_up` goes up from here
        elif row.kind == DETACHED and news:
            row.kind, row.folder_id = UNKNOWN, next(iter(named), None)

    def _new(self, key: bytes, kind: int) -> Item:
        self.items[key] = item = Item(None, Row(self._draw(), key, kind))
        return item

    def _draw(self) -> int:
        self.next_id += 1
        return self.next_id - 1

    # -- step 3

    def write(self) -> list[Change]:
        """Writes what differs; gives what the mount sees of it."""
        inserts, updates, changes = [], [], []
        pruned: set[int] = set()
        for key, item in self.items.items():
            old, new = item.old, item.new
            self._known.remember(key, new)
            if old is None:
                inserts.append(parameters(new))
            elif old != new:
                self.totals.add(old, -1)
                updates.append((new.inode, *parameters(new)[2:]))
                if old.parent is not None and old.parent != new.parent:
                    pruned.add(old.parent)
            elif item.before is None:
                continue
            else:
                self.totals.add(old, -1)
            self.totals.add(new, 1)
            self._stale.add(new.id, old if new.id < self._first_drawn else None, new)
            if new.kind <= DETACHED:
                pruned.add(new.id)
            before = item.before or (self._node(old) if old is not None and old.shown else None)
            after = self._node(new) if new.shown else None
            if before != after:
                changes.append(Change(before, after))
        self.db.executemany(_INSERT, inserts)
        self.db.executemany(_UPDATE, updates)
        self._stale.write(self.db)
        if pruned:
            self.totals.orphans -= self.db.executemany(_PRUNE, [(row,) for row in pruned]).rowcount
        return changes

    def _node(self, row: Row) -> Node:
        return node(row, self._acls.text(self.db, row.acl), self._guids.get(row.guid or b""))


def _parts(keys: list[bytes]) -> Iterator[list[bytes]]:
    for start in range(0, len(keys), _BATCH):
        yield keys[start : start + _BATCH]


def _new_content(old: Row, event: Event, told: Described) -> bool:
    """Whether the event tells of other content than the row's: what the inode number stands for.

    A row without a place has been a directory, if anything: it can become one again, but no file.
    """
    if not old.shown:
        return not event.is_dir
    if event.is_dir or old.kind != FILE:
        return event.is_dir != old.is_directory
    _, file_id, size, gvsn, mtime_ns, _ = told
    return size != old.size or file_id != old.file_id or gvsn != old.gvsn or mtime_ns != old.mtime_ns
