"""Histories of a portal: whatever can happen to a tree, and what has to be seen of it in the end.

`PortalHistory` is a state machine for hypothesis that changes the embedded portal's namespace. What happens between two
looks is told at once, in an order of chance: only what is told of one object stays in order. A subclass shows the tree
in its own way, and compares.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import NamedTuple, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from cterafs.demo.namespace import Namespace
from cterafs.demo.objects import Entry, Item
from cterafs.namespace.names import safe

T = TypeVar("T")

PICK = st.integers(0, 999)
"""Which of the objects that there are; it shrinks to the oldest."""

NAMES = st.sampled_from(["a", "b", "c.txt", "A", "a/b", "x" * 300])
SIZES = st.integers(0, 3)
LIES = st.sampled_from(["name", "parent", "type", "deleted"])


NOBODY = Item("nobody", "nobody", 1, None, True, 0, 0, 0)
"""Who is named as a parent, and never told of."""


class Seen(NamedTuple):
    """What can be seen of an object: enough to tell its versions apart."""

    guid: str
    is_dir: bool
    size: int
    file_id: int | None
    gvsn: str | None


class PortalHistory(RuleBasedStateMachine):
    """Changes to one portal.

    Attributes:
        contents: of every file that ever was, by its file id.
        untold: guids of what was deleted without a word.
        disturbed: guids of what was deleted, or said to be something else, since the last look: for their inodes.
    """

    def __init__(self, namespace: Namespace) -> None:
        super().__init__()
        self.namespace = namespace
        self.items: list[Item] = []
        self.contents: dict[int, bytes] = {}
        self.untold: set[str] = set()
        self.disturbed: set[str] = set()
        self._strays: dict[str, Item] = {}
        self._stray_number = 0
        self._round = ExitStack()
        self._seed = 0
        self._new(namespace.create_folder("first"))
        self._new(namespace.create_folder("second"))
        self._begin_round()

    # -- what happens

    @rule(above=PICK, name=NAMES)
    def make_directory(self, above: int, name: str) -> None:
        if (parent := self._directory(above)) and name not in parent.children:
            self._new(self.namespace.mkdir(parent, name))

    @rule(above=PICK, name=NAMES, size=SIZES)
    def create(self, above: int, name: str, size: int) -> None:
        if (parent := self._directory(above)) and name not in parent.children:
            self._create(parent, name, size)

    @rule(which=PICK, size=SIZES)
    def write(self, which: int, size: int) -> None:
        if item := self._choose(self._files(), which):
            self.namespace.write(item, self._content(size))
            self._note(item)

    @rule(which=PICK, acl=st.sampled_from(["D:", "D:P"]))
    def protect(self, which: int, acl: str) -> None:
        if item := self._choose(self._there(), which):
            item.hidden = False
            self.namespace.set_acl(item, acl)

    @rule(which=PICK, above=PICK, name=NAMES)
    def move(self, which: int, above: int, name: str) -> None:
        """A rename, where the directory is its own."""
        item, parent = self._choose(self._there(), which), self._directory(above)
        if item is None or parent is None or item.parent is None or item.folder_id != parent.folder_id:
            return
        if item not in parent.lineage() and name not in parent.children:
            item.hidden = False
            self.namespace.move(item, parent, name)

    @rule(which=PICK, other=PICK)
    def swap(self, which: int, other: int) -> None:
        """Two objects of any kind exchange their names."""
        one = self._choose(self._movable(), which)
        two = self._choose([item for item in self._movable() if one and item.parent is one.parent], other)
        if one is None or two is None or one is two:
            return
        names = one.name, two.name
        one.hidden = two.hidden = False
        self.namespace.rename(one, "between")
        self.namespace.rename(two, names[0])
        self.namespace.rename(one, names[1])

    @rule(which=PICK, told=st.booleans())
    def delete(self, which: int, told: bool) -> None:
        if item := self._choose(self._movable() * 4 + self._there(), which):  # seldom a cloud folder
            self._delete(item, told=told)

    @rule(which=PICK)
    def undelete(self, which: int) -> None:
        gone = [item for item in self.items if item.deleted and not (item.parent and item.parent.deleted)]
        item = self._choose(gone, which)
        if item and not (item.parent and item.name in item.parent.children):
            self.namespace.undelete(item)
            self.untold.difference_update(each.guid for each in item.subtree())

    @rule(which=PICK, size=SIZES)
    def replace(self, which: int, size: int) -> None:
        """A directory takes the place of a file, or a file that of a directory."""
        if item := self._choose(self._movable(), which):
            parent, name = item.parent, item.name
            assert parent is not None
            self._delete(item, told=False)
            if item.is_dir:
                self._create(parent, name, size)
            else:
                inside = self.namespace.mkdir(parent, name)
                self._new(inside)
                self._create(inside, "inside", size)

    @rule(which=PICK)
    def hide(self, which: int) -> None:
        """A directory that nobody was told of: only `ancestors` knows it."""
        parent = self._directory(which)
        if parent and "hidden" not in parent.children:
            with self.namespace.silence():
                hidden = self.namespace.mkdir(parent, "hidden")
            hidden.hidden = True
            self._new(hidden)
            self._create(hidden, "below", 1)

    @rule(which=PICK)
    def repeat(self, which: int) -> None:
        if item := self._choose(self.items, which):
            self.namespace.tell(item)
            if item.deleted and not item.hidden:
                self.untold.discard(item.guid)

    # -- what a confused portal says

    @rule(above=PICK, is_dir=st.booleans())
    def tell_of_a_stray(self, above: int, is_dir: bool) -> None:
        """An object that the portal's own tree does not have, in one that may not exist, or be a file or a stray."""
        self._stray_number += 1
        self._stray(self._stray_number, above, is_dir=is_dir)

    @precondition(lambda self: self._strays)
    @rule(which=PICK, above=PICK, is_dir=st.booleans())
    def move_a_stray(self, which: int, above: int, is_dir: bool) -> None:
        """Below anything, itself and its own children included."""
        self._stray(1 + which % self._stray_number, above, is_dir=is_dir)

    @rule(which=PICK, lie=LIES, above=PICK)
    def lie(self, which: int, lie: str, above: int) -> None:
        """Something untrue of an object, and then the truth."""
        item = self._choose([item for item in self.items if not item.hidden], which)
        if item is None:
            return
        match lie:
            case "name":
                untruth = replace(item, name="untrue")
            case "parent":
                untruth = replace(item, parent=self._anything(above))
            case "type":
                untruth = replace(item, is_dir=not item.is_dir)
            case _:
                untruth = replace(item, deleted=not item.deleted)
        self.namespace.tell(untruth, item)
        if lie in {"type", "deleted"}:
            self.disturbed.add(item.guid)
        if item.deleted:
            self.untold.discard(item.guid)

    # -- what has to be seen

    def expected(self) -> dict[str, Seen]:
        """What the portal's tree shows, by path; without hidden directories that nothing gives away."""
        strays: defaultdict[str, list[Item]] = defaultdict(list)
        for stray in self._strays.values():
            if stray.parent is not None:
                strays[stray.parent.guid].append(stray)
        tree: dict[str, Seen] = {}

        def show(path: str, item: Item) -> None:
            size, file_id = (item.version.size, item.version.file_id) if item.version else (0, None)
            tree[path] = Seen(item.guid, item.is_dir, size, file_id, str(item.gvsn))
            for stray in strays[item.guid] if item.is_dir else ():
                show(f"{path}/{stray.name}", stray)

        for item in self._there():
            if not item.hidden or any(not each.hidden or strays[each.guid] for each in item.subtree()):
                show("/" + "/".join(safe(above.name) for above in item.lineage()), item)
        return tree

    def may_be_seen(self, guid: str) -> bool:
        """A hidden directory that nothing gives away now may have been given away before."""
        return any(item.guid == guid and item.hidden for item in self.items)

    def list_again(self) -> None:
        """The portal rejects every cursor. Strays are in no listing."""
        self.end_round()
        self.namespace.feed.reset()
        self._strays.clear()
        for item in self.items:
            item.hidden = False
        self._begin_round()

    # -- rounds

    def tell(self, seed: int) -> None:
        """Tells of the round, in an order that `seed` decides, and begins another."""
        self._seed = seed
        self.end_round()
        self._begin_round()

    def end_round(self) -> None:
        self._round.close()

    def _begin_round(self) -> None:
        self._round.enter_context(self.namespace.batch(self._shuffled))

    def _shuffled(self, entries: list[Entry]) -> Iterable[Entry]:
        """Repeats some, and mixes those of different objects."""
        dice = random.Random(self._seed)
        by_guid: defaultdict[str, list[Entry]] = defaultdict(list)
        order = []
        for entry in entries:
            for _ in range(dice.choice([1, 1, 1, 2])):
                by_guid[entry.guid].append(entry)
                order.append(entry.guid)
        if self._seed:
            dice.shuffle(order)
        return [by_guid[guid].pop(0) for guid in order]

    # -- parts

    def _there(self) -> list[Item]:
        return [item for item in self.items if not item.deleted]

    def _files(self) -> list[Item]:
        return [item for item in self._there() if not item.is_dir]

    def _movable(self) -> list[Item]:
        return [item for item in self._there() if item.parent is not None]

    def _directory(self, which: int) -> Item | None:
        return self._choose([item for item in self._there() if item.is_dir], which)

    @staticmethod
    def _choose(among: Sequence[T], which: int) -> T | None:
        return among[which % len(among)] if among else None

    def _anything(self, which: int) -> Item:
        anything = [NOBODY, *self._strays.values(), *self.items]
        return anything[which % len(anything)]

    def _new(self, item: Item) -> Item:
        self.items.append(item)
        return item

    def _create(self, parent: Item, name: str, size: int) -> None:
        self._note(self._new(self.namespace.create(parent, name, self._content(size))))

    def _content(self, size: int) -> bytes:
        """No two of the same bytes, but for the empty ones."""
        return f"{len(self.contents):06}".encode() * size

    def _note(self, item: Item) -> None:
        self.contents[item.file.file_id] = item.file.content.read(0, item.file.size)

    def _delete(self, item: Item, *, told: bool) -> None:
        item.hidden = False
        self.namespace.tell_descendants = told
        self.namespace.delete(item)
        for each in item.subtree():
            self.disturbed.add(each.guid)
            if each is not item and (not told or each.hidden):
                self.untold.add(each.guid)

    def _stray(self, number: int, above: int, *, is_dir: bool) -> None:
        guid, parent = f"stray:{number}", self._anything(above)
        stray = Item(guid, f"stray {number}", parent.folder_id, parent, is_dir, number, 0, 0)
        self._strays[guid] = stray
        self.namespace.tell(stray)
        self.disturbed.add(guid)
