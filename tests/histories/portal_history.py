"""Histories of a portal: whatever can happen to a tree, and what has to be seen of it in the end.

`PortalHistory` is a state machine for hypothesis that changes the embedded portal's namespace. What happens between two
looks is told at once, in an order of chance: only what is told of one object stays in order. A subclass shows the tree
in its own way, and compares.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import NamedTuple, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine

from cterafs.demo.namespace import Namespace
from cterafs.demo.objects import Entry, Item
from cterafs.namespace.guid import guid_key
from cterafs.namespace.names import distinct, safe

T = TypeVar("T")

PICK = st.integers(0, 999)
"""Which of the objects that there are; it shrinks to the oldest."""

SEED = st.integers(0, 9)
"""Of an order; 0 leaves things in order."""


class Action(NamedTuple):
    """Something that happens: to an object, with the help of another."""

    what: str
    which: int
    other: int
    name: str
    size: int
    flag: bool


WEIGHTS = {
    "make_directory": 1,
    "create": 3,
    "write": 2,
    "protect": 1,
    "move": 2,
    "swap": 1,
    "delete": 1,
    "undelete": 1,
    "replace": 1,
    "hide": 1,
    "repeat": 1,
    "stray": 2,
    "lie": 1,
}
"""What happens, and how often."""

ACTIONS = st.builds(
    Action,
    what=st.sampled_from([name for name, weight in WEIGHTS.items() for _ in range(weight)]),
    which=PICK,
    other=PICK,
    name=st.sampled_from(["a", "b", "c.txt", "A", "a/b", "x" * 300]),
    size=st.integers(0, 3),
    flag=st.booleans(),
)

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
        self._next_stray = 1
        self._round = ExitStack()
        self._seed = 0
        self._new(namespace.create_folder("first"))
        self._new(namespace.create_folder("second"))
        self._begin_round()

    def happen(self, actions: Sequence[Action]) -> None:
        """Nothing happens where there is nothing for it to happen to."""
        for action in actions:
            getattr(self, f"_{action.what}")(action)

    # -- what happens

    def _make_directory(self, do: Action) -> None:
        if (parent := self._directory(do.which)) and do.name not in parent.children:
            self._new(self.namespace.mkdir(parent, do.name))

    def _create(self, do: Action) -> None:
        if (parent := self._directory(do.which)) and do.name not in parent.children:
            self._new_file(parent, do.name, do.size)

    def _write(self, do: Action) -> None:
        if item := self._choose([item for item in self._there() if not item.is_dir], do.which):
            self.namespace.write(item, self._content(do.size))
            self._note(item)

    def _protect(self, do: Action) -> None:
        if item := self._choose(self._there(), do.which):
            item.hidden = False
            self.namespace.set_acl(item, f"D:{do.size}")

    def _move(self, do: Action) -> None:
        """A rename, where the directory is its own."""
        item, parent = self._choose(self._movable(), do.which), self._directory(do.other)
        if item is None or parent is None or item.folder_id != parent.folder_id:
            return
        if item not in parent.lineage() and do.name not in parent.children:
            item.hidden = False
            self.namespace.move(item, parent, do.name)

    def _swap(self, do: Action) -> None:
        """Two objects of any kind exchange their names."""
        one = self._choose(self._movable(), do.which)
        two = self._choose([item for item in self._movable() if one and item.parent is one.parent], do.other)
        if one is None or two is None or one is two:
            return
        names = one.name, two.name
        one.hidden = two.hidden = False
        self.namespace.rename(one, "between")
        self.namespace.rename(two, names[0])
        self.namespace.rename(one, names[1])

    def _delete(self, do: Action) -> None:
        if item := self._choose(self._movable() * 4 + self._there(), do.which):  # seldom a cloud folder
            self._remove(item, told=do.flag)

    def _undelete(self, do: Action) -> None:
        gone = [item for item in self.items if item.deleted and not (item.parent and item.parent.deleted)]
        item = self._choose(gone, do.which)
        if item and not (item.parent and item.name in item.parent.children):
            self.namespace.undelete(item)
            self.untold.difference_update(each.guid for each in item.subtree())

    def _replace(self, do: Action) -> None:
        """A directory takes the place of a file, or a file that of a directory."""
        if item := self._choose(self._movable(), do.which):
            parent, name = item.parent, item.name
            assert parent is not None
            self._remove(item, told=do.flag)
            if item.is_dir:
                self._new_file(parent, name, do.size)
            else:
                inside = self._new(self.namespace.mkdir(parent, name))
                self._new_file(inside, "inside", do.size)

    def _hide(self, do: Action) -> None:
        """A directory that nobody was told of: only `ancestors` knows it."""
        parent = self._directory(do.which)
        if parent and "hidden" not in parent.children:
            with self.namespace.silence():
                hidden = self._new(self.namespace.mkdir(parent, "hidden"))
            hidden.hidden = True
            self._new_file(hidden, "below", do.size)

    def _repeat(self, do: Action) -> None:
        item = self._choose(self.items, do.which)
        assert item is not None
        self.namespace.tell(item)
        if item.deleted:
            self.untold.discard(item.guid)

    # -- what a confused portal says

    def _stray(self, do: Action) -> None:
        """An object that the portal's own tree does not have, new or told of before. Its name may be taken, and what it
        lies in may not exist, or be a file, another stray, the stray itself, or something in it."""
        number = do.size or self._next_stray
        self._next_stray = max(self._next_stray, number + 1)
        guid, parent = f"stray:{number}", self._anything(do.other)
        stray = Item(guid, do.name, parent.folder_id, parent, do.flag, number, 0, 0)
        self._strays[guid] = stray
        self.namespace.tell(stray)
        self.disturbed.add(guid)

    def _lie(self, do: Action) -> None:
        """Something untrue of an object, and then the truth."""
        item = self._choose([item for item in self.items if not item.hidden], do.which)
        assert item is not None
        match do.size:
            case 0:
                untruth = replace(item, name="untrue", folder_id=3 - item.folder_id)
            case 1:
                untruth = replace(item, parent=self._anything(do.other))
            case 2:
                untruth = replace(item, is_dir=not item.is_dir)
            case _:
                untruth = replace(item, deleted=not item.deleted)
        self.namespace.tell(untruth, item)
        if do.size >= 2:
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
            if item.is_dir:
                given_away = [child for child in item.children.values() if self._is_given_away(child, strays)]
                for name, inside in _named([*given_away, *strays[item.guid]]):
                    show(f"{path}/{name}", inside)

        for folder in self.namespace.folders:
            show(f"/{folder.name}", folder.root)
        return tree

    @staticmethod
    def _is_given_away(item: Item, strays: Mapping[str, Sequence[Item]]) -> bool:
        return any(not each.hidden or strays.get(each.guid) for each in item.subtree())

    def may_be_seen(self, guid: str) -> bool:
        """A hidden directory that nothing gives away now may have been given away before."""
        return any(item.guid == guid and item.hidden for item in self.items)

    def list_again(self) -> None:
        """The portal rejects every cursor. Strays are in no listing: what they gave away goes, and may come back."""
        self.end_round()
        self.namespace.feed.reset()
        self._strays.clear()
        self.disturbed.update(item.guid for item in self.items if item.hidden)
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

    def _new_file(self, parent: Item, name: str, size: int) -> None:
        self._note(self._new(self.namespace.create(parent, name, self._content(size))))

    def _content(self, size: int) -> bytes:
        """No two of the same bytes, but for the empty ones."""
        return f"{len(self.contents):06}".encode() * size

    def _note(self, item: Item) -> None:
        self.contents[item.file.file_id] = item.file.content.read(0, item.file.size)

    def _remove(self, item: Item, *, told: bool) -> None:
        item.hidden = False
        self.namespace.tell_descendants = told
        self.namespace.delete(item)
        for each in item.subtree():
            self.disturbed.add(each.guid)
            if each is not item and (not told or each.hidden):
                self.untold.add(each.guid)


def _named(entries: Iterable[Item]) -> Iterator[tuple[str, Item]]:
    """The entries of a directory, under the names that they are shown by."""
    wanted: defaultdict[str, list[Item]] = defaultdict(list)
    for entry in sorted(entries, key=lambda entry: guid_key(entry.guid)):
        wanted[safe(entry.name)].append(entry)
    for name, those in wanted.items():
        for entry in those:
            yield name if entry is those[0] else distinct(name, guid_key(entry.guid)), entry
