"""Random histories against a model of the tree that is nothing but the last event of each object."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeAlias

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cterafs.model import Change, Cursor, Event, FolderInfo, Inode, Node
from cterafs.namespace import findable as findable_module
from cterafs.namespace.findable import NAMES as BY_NAME
from cterafs.namespace.findable import SIZES, TIMES, is_findable
from cterafs.namespace.guid import guid_key
from cterafs.namespace.names import distinct, safe
from cterafs.namespace.search import Query, search
from cterafs.namespace.store import Counts, Store
from cterafs.namespace.tree import Layout, Tree

Listing: TypeAlias = dict[str, tuple[str, bool, int]]
"""By path: guid, whether it is a directory, size."""

SECOND = 1_000_000_000
UUID = "4fbc5aca-71d7-4bbf-9928-695d3b2dc711"
DIRECTORIES = [f"{UUID}:{number}" for number in (256, 255, 1)] + ["\ud800"]
FILES = [f"{UUID}:{number}" for number in (0, 2, 65536)] + ["a", "plain"]
NAMES = ["a", "a.txt"] * 4 + ["b", "a/b", "..", "a (ann)", "x" * 300 + ".txt"]
OWNERS = {1: "ann", 2: None, 3: "ann"}


@st.composite
def events(draw: st.DrawFn) -> Event:
    """Mostly what a sane portal tells of a small tree, so that much of it can be reached; the rest is confusion."""
    sane = draw(st.integers(0, 7)) > 0
    guid = draw(st.sampled_from(DIRECTORIES + FILES))
    above = DIRECTORIES[: DIRECTORIES.index(guid)] if guid in DIRECTORIES else DIRECTORIES
    parent = draw(st.sampled_from([None, *above] if sane else [None, *DIRECTORIES, *FILES]))
    is_dir = guid in DIRECTORIES if sane else draw(st.booleans())
    return Event(
        guid=guid,
        name=draw(st.sampled_from(NAMES)),
        is_dir=is_dir or not parent,
        deleted=draw(st.integers(0, 5)) == 0,
        parent_guid=parent,
        folder_id=draw(st.sampled_from([1, 2, 3, 4, None])),
        size=draw(st.integers(0, 2)),
        gvsn=draw(st.sampled_from([None, "1"])),
        ctime_ns=draw(st.integers(0, 1)),
        acl=draw(st.sampled_from([None, "D:", "\udfff"])),
    )


HISTORIES = st.lists(events(), max_size=40) | st.lists(events(), min_size=20, max_size=40)


def reference(history: Sequence[Event], owners: dict[int, str | None], layout: Layout) -> Listing:
    """What the mount shows after a history."""
    objects = {guid: event for guid, event in {e.guid: e for e in history}.items() if not event.deleted}
    below: defaultdict[str | None, list[Event]] = defaultdict(list)
    for event in objects.values():
        below[event.parent_guid].append(event)
    listing: Listing = {}
    if layout == "folder":
        roots = [(event, None, owners.get(event.folder_id or 0)) for event in below[None]]
        _show(listing, "", _named_roots(roots), below)
        return listing
    by_owner: defaultdict[str | None, list[Event]] = defaultdict(list)
    for event in below[None]:
        by_owner[owners.get(event.folder_id or 0)].append(event)
    _show(listing, "", _named_roots([(event, None, None) for event in by_owner.pop(None, [])]), below, [*by_owner])
    for owner, folders in by_owner.items():
        path = next(p for p, (guid, is_dir, _) in listing.items() if guid == f"owner {owner}" and is_dir)
        _show(listing, path, _named_roots([(event, None, None) for event in folders]), below)
    return listing


def _named_roots(roots: list[tuple[Event, None, str | None]]) -> list[tuple[Event, str]]:
    named = []
    for event, _, owner in roots:
        name = event.name
        if sum(other.name == name for other, _, _ in roots) > 1:
            mark = f" ({owner})" if owner else f" [{event.folder_id}]" if event.folder_id is not None else ""
            name += mark
        named.append((event, safe(name)))
    return named


def _show(
    listing: Listing,
    path: str,
    entries: list[tuple[Event, str]],
    below: dict[str | None, list[Event]],
    owners: Sequence[str | None] = (),
) -> None:
    wanted: defaultdict[str, list[tuple[bytes, Event | str]]] = defaultdict(list)
    for event, name in entries:
        wanted[name].append((guid_key(event.guid), event))
    for owner in owners:
        key = (b"\xfe" + str(owner).encode()).ljust(26, b"\xff")
        wanted[safe(str(owner))].append((key, str(owner)))
    for name, those in wanted.items():
        for number, (key, what) in enumerate(sorted(those, key=lambda pair: pair[0])):
            shown = f"{path}/{name if number == 0 else distinct(name, key)}"
            if isinstance(what, str):
                listing[shown] = (f"owner {what}", True, 0)
                continue
            listing[shown] = (what.guid, what.is_dir, 0 if what.is_dir else what.size)
            if what.is_dir:
                _show(listing, shown, [(e, safe(e.name)) for e in below[what.guid]], below)


def shown(store: Store, parent: int = 1, path: str = "") -> Listing:
    """What the store shows, read as the mount reads it: page by page."""
    listing: Listing = {}
    after: str | None = None
    while page := store.children(Inode(parent), after, 2):
        for node in page:
            place = f"{path}/{node.name}"
            assert place not in listing
            assert store.lookup(Inode(parent), node.name) == node == store.get(node.inode) == store.resolve(place)
            assert store.path(node.inode) == place
            listing[place] = (node.guid or f"owner {node.wire_name}", node.is_dir, node.size)
            if node.is_dir:
                listing |= shown(store, node.inode, place)
        after = page[-1].name
    return listing


class Mirror:
    """What someone knows who was only told the changes."""

    def __init__(self) -> None:
        self.nodes: dict[int, Node] = {}
        self.contents: dict[int, object] = {}

    def apply(self, changes: Sequence[Change]) -> None:
        gone = [change.old for change in changes if change.old is not None]
        come = [change.new for change in changes if change.new is not None]
        for change in changes:
            assert change.old != change.new
        for old in gone:
            assert _placeless(self.nodes.pop(old.inode)) == _placeless(old)
        for new in come:
            assert new.inode not in self.nodes
            self.nodes[new.inode] = new
            content = (new.guid, new.is_dir) if new.is_dir else (new.guid, new.size, new.gvsn, new.mtime_ns)
            assert self.contents.setdefault(new.inode, content) == content  # a number never stands for two contents


def _placeless(node: Node) -> Node:
    # The entries of a directory that becomes a file follow its new inode number without a change each.
    return msgspec.structs.replace(node, parent=Inode(0))


@contextmanager
def opened(layout: Layout = "folder") -> Iterator[tuple[Store, Tree]]:
    with (
        tempfile.TemporaryDirectory() as place,
        Store.open(Path(place)) as store,
        Tree(store, layout=layout) as tree,
    ):
        yield store, tree


def pages(history: Sequence[Event], cuts: Sequence[int]) -> Iterator[Sequence[Event]]:
    bounds = [0, *sorted(cut % (len(history) + 1) for cut in cuts), len(history)]
    for start, stop in itertools.pairwise(bounds):
        yield history[start:stop]


def recount(store: Store) -> Counts:
    db = store.writer()
    try:
        rows = db.execute("SELECT kind, size FROM entry WHERE id <> 1").fetchall()
    finally:
        db.close()
    files = [size for kind, size in rows if kind == 2]
    return Counts(
        files=len(files),
        directories=sum(kind in {3, 4} for kind, _ in rows),
        bytes=sum(files),
        orphans=sum(kind in {0, 1} for kind, _ in rows),
    )


def findable(store: Store) -> None:
    """Asserts that a search finds by each of the orders what lies in the tree, once, and nothing else."""
    nodes = listed(store)
    for size in (0, 1):
        expected = {path for path, node in nodes.items() if not node.is_dir and node.size == size}
        assert sorted(hit.path for hit in search(store, Query(size=("=", size)))) == sorted(expected)
    expected = {path for path, node in nodes.items() if node.mtime_ns > 2 * SECOND}
    assert sorted(hit.path for hit in search(store, Query(newer_ns=2 * SECOND))) == sorted(expected)
    expected = {path for path, node in nodes.items() if node.name.startswith("a")}
    assert sorted(hit.path for hit in search(store, Query(name="a*"))) == sorted(expected)
    with store.held() as db:
        if is_findable(db):
            for order in (BY_NAME, SIZES, TIMES):
                fresh = f"id NOT IN (SELECT id FROM {order.stale})"  # noqa: S608  # these and the next are constants
                told = db.execute(f"SELECT value, id FROM {order.table} WHERE {fresh}").fetchall()  # noqa: S608
                where = f"{order.condition} AND {fresh}"
                true = db.execute(f"SELECT {order.value}, id FROM entry WHERE {where}").fetchall()  # noqa: S608
                assert sorted(told) == sorted(true)


def listed(store: Store, parent: int = 1, path: str = "") -> dict[str, Node]:
    nodes = {f"{path}/{node.name}": node for node in store.children(Inode(parent), None, 1000)}
    for place, node in [*nodes.items()]:
        if node.is_dir:
            nodes |= listed(store, node.inode, place)
    return nodes


CUTS = st.lists(st.integers(0, 1000), max_size=8)
LAYOUTS: st.SearchStrategy[Layout] = st.sampled_from(["folder", "owner"])
FOLDERS = [FolderInfo(folder_id, f"folder {folder_id}", owner) for folder_id, owner in OWNERS.items()]


@settings(max_examples=250)
@given(HISTORIES, CUTS, LAYOUTS, st.integers(0, 8))
def test_any_history_ends_as_the_model_does(
    history: list[Event], cuts: list[int], layout: Layout, owners_known_at: int
) -> None:
    with opened(layout) as (store, tree):
        mirror, owners = Mirror(), dict[int, str | None]()
        for number, page in enumerate(pages(history, cuts)):
            if number == owners_known_at:
                batch = tree.set_folders(FOLDERS)
                mirror.apply(batch.changes)
                batch.commit()
                owners = OWNERS
            before = {node.guid: node for node in mirror.nodes.values() if node.guid}
            batch = tree.prepare(page, Cursor(str(number)))
            mirror.apply(batch.changes)
            batch.commit()
            assert_numbers_are_kept(before, {node.guid: node for node in mirror.nodes.values() if node.guid})
            assert store.counts == recount(store)
        assert shown(store) == reference(history, owners, layout)
        for inode, node in mirror.nodes.items():
            known = store.get(Inode(inode))
            assert known is not None
            assert _placeless(known) == _placeless(node)
        # All of it again, object by object: nothing differs.
        latest = {event.guid: event for event in history}
        batch = tree.prepare(latest.values())
        assert [change for change in batch.changes if change.old is None or change.new is None] == []
        assert batch.changes == []
        batch.rollback()


@settings(max_examples=200)
@given(HISTORIES, CUTS, st.integers(0, 8), st.sampled_from([1, 4, 1000]), st.booleans())
def test_what_lies_in_the_tree_is_found_at_any_moment(
    history: list[Event], cuts: list[int], complete_at: int, longest: int, swept: bool
) -> None:
    times = {1: -SECOND - 1, 2: SECOND, 3: 3 * SECOND}  # what is before 1970 is rounded otherwise
    told = [msgspec.structs.replace(event, mtime_ns=times.get(event.folder_id or 0)) for event in history]
    with opened() as (store, tree), pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(findable_module, "_LONGEST_LIST", longest)
        for number, page in enumerate(pages(told, cuts)):
            tree.prepare(page, Cursor(str(number)), listing=True, complete=number == complete_at).commit()
            findable(store)
            tree.checkpoint()
            findable(store)
        if swept:
            tree.begin_relist()
            tree.prepare(told[:3], Cursor(""), listing=True, complete=True).commit()
            while tree.sweeping:
                tree.sweep().commit()
            findable(store)


def assert_numbers_are_kept(before: dict[str, Node], after: dict[str, Node]) -> None:
    for guid in before.keys() & after.keys():
        old, new = before[guid], after[guid]
        same = old.is_dir == new.is_dir and (
            old.is_dir or (old.size, old.gvsn, old.mtime_ns) == (new.size, new.gvsn, new.mtime_ns)
        )
        assert (old.inode == new.inode) == same


@settings(max_examples=150)
@given(HISTORIES, CUTS, st.randoms(use_true_random=False))
def test_the_order_of_different_objects_does_not_matter(history: list[Event], cuts: list[int], random: object) -> None:
    by_guid: defaultdict[str, list[Event]] = defaultdict(list)
    order = [event.guid for event in history]
    for event in history:
        by_guid[event.guid].append(event)
    random.shuffle(order)  # type: ignore[attr-defined]
    reordered = [by_guid[guid].pop(0) for guid in order]
    with opened() as (store, tree), opened() as (other_store, other_tree):
        for page in pages(history, cuts):
            tree.prepare(page).commit()
        for page in pages(reordered + reordered[-1:], cuts):
            other_tree.prepare(page).commit()
        assert shown(store) == shown(other_store)


@settings(max_examples=80)
@given(HISTORIES, CUTS, st.lists(st.sampled_from(["crash", "rollback", ""]), max_size=10))
def test_a_crash_loses_nothing(history: list[Event], cuts: list[int], fates: list[str]) -> None:
    """Pages that were not committed are told again, from the cursor that was."""
    told = list(pages(history, cuts))
    with tempfile.TemporaryDirectory() as place:
        store = Store.open(Path(place) / "0") if (Path(place) / "0").mkdir() is None else None
        assert store is not None
        tree = Tree(store)
        fate, life = iter(fates), 0
        while (position := int(store.cursor or 0)) < len(told):
            batch = tree.prepare(told[position], Cursor(str(position + 1)))
            match next(fate, ""):
                case "rollback":
                    batch.rollback()
                case "crash":  # the files as they are, in the middle of a transaction
                    life += 1
                    shutil.copytree(Path(place) / str(life - 1), Path(place) / str(life))
                    batch.rollback()
                    tree.close()
                    store.close()
                    store = Store.open(Path(place) / str(life))
                    tree = Tree(store)
                case _:
                    batch.commit()
        assert shown(store) == reference(history, {}, "folder")
        assert store.counts == recount(store)
        tree.close()
        store.close()


@settings(max_examples=120)
@given(HISTORIES, HISTORIES, CUTS, st.integers(0, 8))
def test_listing_again_ends_as_the_new_listing(
    old: list[Event], new: list[Event], cuts: list[int], crash_at: int
) -> None:
    with ExitStack() as stack:
        store, tree = stack.enter_context(opened())
        mirror = Mirror()

        def apply(batch: object) -> None:
            mirror.apply(batch.changes)  # type: ignore[attr-defined]
            batch.commit()  # type: ignore[attr-defined]

        apply(tree.prepare(old, Cursor("old"), listing=True, complete=True))
        tree.begin_relist([3, 1])
        assert store.cursor is None
        assert store.selection == (1, 3)
        before = {node.guid: node for node in mirror.nodes.values() if node.guid}
        told, again = list(pages(new, cuts)), tree
        for number, page in enumerate(told):
            apply(again.prepare(page, Cursor(str(number)), listing=True, complete=number == len(told) - 1))
            if number == crash_at:
                again = stack.enter_context(Tree(store))  # forgets where it was
        while again.sweeping:
            apply(again.sweep())
        assert shown(store) == reference(new, {}, "folder")
        assert store.counts == recount(store)
        after = {node.guid: node for node in mirror.nodes.values() if node.guid}
        mentioned_once = {event.guid for event in new} - {event.guid for event in new if event.deleted}
        kept = {guid: node for guid, node in before.items() if guid in mentioned_once}
        final = {guid: after[guid] for guid in kept}
        if len({e.guid for e in new}) == len(new):  # otherwise a number may have gone with a version in between
            assert_numbers_are_kept(kept, final)
