"""A large first import: whatever is staged, the index ends as if it had been applied page by page."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_tree_model import (
    CUTS,
    FOLDERS,
    HISTORIES,
    LAYOUTS,
    OWNERS,
    Mirror,
    _placeless,
    pages,
    recount,
    reference,
    shown,
)

from cterafs.errors import StateError
from cterafs.model import Cursor, Event, Inode
from cterafs.namespace import disk
from cterafs.namespace import tree as tree_module
from cterafs.namespace.findable import make_findable
from cterafs.namespace.search import Query, search
from cterafs.namespace.store import Store
from cterafs.namespace.tree import Layout, Tree


@pytest.fixture(autouse=True)
def stages_soon() -> Iterator[None]:
    """Three entries are many here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tree_module, "_STAGED_FROM", 3)
        patch.setattr(tree_module, "_APPLIED_AT_ONCE", 2)
        yield


def d(guid: str, name: str, parent: str | None) -> Event:
    return Event(guid=guid, name=name, is_dir=True, parent_guid=parent, folder_id=1)


def f(guid: str, name: str, parent: str | None, size: int = 0, *, deleted: bool = False) -> Event:
    return Event(guid=guid, name=name, is_dir=False, parent_guid=parent, folder_id=1, size=size, deleted=deleted)


START = [d("r", "Docs", None), d("a", "a", "r"), f("x", "x", "a", 1), f("y", "y", "r", 1)]


def finish(tree: Tree, mirror: Mirror | None = None) -> None:
    while tree.unfinished:
        batch = tree.proceed()
        if mirror is not None:
            mirror.apply(batch.changes)
        batch.commit()


def children(store: Store, inode: int) -> dict[int, str]:
    return {node.inode: node.name for node in store.children(Inode(inode), None, 1000)}


@settings(max_examples=100)
@given(
    HISTORIES,
    HISTORIES,
    CUTS,
    LAYOUTS,
    st.integers(0, 8),
    st.lists(st.sampled_from(["crash", "rollback", ""]), max_size=10),
    st.booleans(),
)
def test_any_listing_ends_as_the_model_does(
    history: list[Event],
    news: list[Event],
    cuts: list[int],
    layout: Layout,
    owners_known_at: int,
    fates: list[str],
    shown_meanwhile: bool,
) -> None:
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        told = list(pages(history, cuts))
        life, fate, owners = itertools.count(1), iter(fates), dict[int, str | None]()
        directory = Path(place) / "0"
        directory.mkdir()
        store = stack.enter_context(Store.open(directory))
        tree = stack.enter_context(Tree(store, layout=layout, shown_meanwhile=shown_meanwhile))
        while (position := int(store.cursor or 0)) < len(told) or tree.unfinished:
            if position == owners_known_at and not owners and not tree.unfinished:
                tree.set_folders(FOLDERS).commit()
                owners = OWNERS
            if tree.unfinished:
                batch = tree.proceed()
            else:
                complete = position == len(told) - 1
                batch = tree.prepare(told[position], Cursor(str(position + 1)), listing=True, complete=complete)
            match next(fate, ""):
                case "rollback":
                    batch.rollback()
                case "crash":  # the files as they are, in the middle of a transaction
                    copy = Path(place) / str(next(life))
                    shutil.copytree(directory, copy)
                    batch.rollback()
                    directory = copy
                    store = stack.enter_context(Store.open(directory))
                    tree = stack.enter_context(Tree(store, layout=layout, shown_meanwhile=shown_meanwhile))
                case _:
                    batch.commit()
        assert store.imported
        assert not store.staging.exists()
        assert shown(store) == reference(history, owners, layout)
        assert store.counts == recount(store)
        tree.prepare(news).commit()
        assert shown(store) == reference(history + news, owners, layout)
        assert store.counts == recount(store)


@settings(max_examples=80)
@given(HISTORIES, HISTORIES, CUTS, LAYOUTS)
@example(START, [f("x2", "x", "a"), f("0", "x", "a"), d("new", "new", "r"), f("n", "n", "new")], [], "folder")
def test_readers_are_told_what_concerns_them(
    first: list[Event], rest: list[Event], cuts: list[int], layout: Layout
) -> None:
    with tempfile.TemporaryDirectory() as place, Store.open(Path(place)) as store, Tree(store, layout=layout) as tree:
        mirror = Mirror()
        batch = tree.prepare([*START, *first], Cursor("0"), listing=True)
        mirror.apply(batch.changes)
        batch.commit()
        known, before = dict(mirror.nodes), shown(store)
        for page in pages(rest, cuts):
            tree.prepare(page, Cursor("1"), listing=True).commit()
            assert shown(store) == before
        tree.prepare([], Cursor("2"), listing=True, complete=True).commit()
        finish(tree, mirror)
        for inode, node in mirror.nodes.items():
            current = store.get(Inode(inode))
            assert current is not None
            assert _placeless(current) == _placeless(node)
        for inode in {1, *known} & {1, *mirror.nodes}:
            if inode == 1 or mirror.nodes[Inode(inode)].is_dir:
                told = {node.inode: node.name for node in mirror.nodes.values() if node.parent == inode}
                assert children(store, inode) == told


@settings(max_examples=150)
@given(HISTORIES, HISTORIES, CUTS, LAYOUTS, st.booleans())
def test_a_first_listing_that_begins_again_ends_as_the_new_one(
    first: list[Event], again: list[Event], cuts: list[int], layout: Layout, killed: bool
) -> None:
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        store = stack.enter_context(Store.open(Path(place)))
        tree = stack.enter_context(Tree(store, layout=layout))
        mirror = Mirror()
        batch = tree.prepare([*START, *first], Cursor("first"), listing=True)
        mirror.apply(batch.changes)
        batch.commit()
        before = shown(store)
        tree.begin_relist([1])
        told = list(pages(again, cuts))
        for page in told[:-1]:
            tree.prepare(page, Cursor("again"), listing=True).commit()
            assert shown(store) == before
        if killed:
            tree = stack.enter_context(Tree(store, layout=layout))
        batch = tree.prepare(told[-1], Cursor("end"), listing=True, complete=True)
        mirror.apply(batch.changes)  # where it is the only page, it was not staged
        batch.commit()
        finish(tree, mirror)
        assert store.imported
        while tree.sweeping:
            batch = tree.sweep()
            mirror.apply(batch.changes)
            batch.commit()
        assert shown(store) == reference(again, {}, layout)
        assert store.counts == recount(store)


def staged(directory: Path, events: Sequence[Event], *, complete: bool = True) -> tuple[Store, Tree]:
    store = Store.open(directory)
    tree = Tree(store)
    tree.prepare(START, Cursor("start"), listing=True).commit()
    tree.prepare(events, Cursor("staged"), listing=True, complete=False).commit()
    if complete:
        tree.prepare([], Cursor("end"), listing=True, complete=True).commit()
    return store, tree


def test_readers_see_the_state_before_until_all_is_built(tmp_path: Path) -> None:
    store, tree = staged(tmp_path, [f("z", "z", "a", 5), f("y", "y", "r", 7)])
    y = store.resolve("/Docs/y")
    assert y is not None
    assert store.resolve("/Docs/a/z") is None
    assert (store.imported, store.cursor, store.counts.files) == (False, "end", 2)
    batch = tree.proceed()
    assert store.resolve("/Docs/a/z") is None
    batch.commit()
    assert store.resolve("/Docs/a/z") is not None
    assert store.get(y.inode) is None  # other content
    assert (store.imported, store.cursor, store.counts.files, store.counts.bytes) == (True, "end", 3, 13)
    finish(tree)
    assert [found.path for found in search(store, Query(size=("+", 4), name="z*"))] == ["/Docs/a/z"]
    tree.close()
    store.close()


def test_what_an_older_version_began_to_import_is_built(tmp_path: Path) -> None:
    """Its index could be searched before it was complete, and so can what was made of it."""
    store, tree = staged(tmp_path, [f("z", "z", "a", 5)])
    with contextlib.closing(store.writer()) as db:
        make_findable(db)
    finish(tree)
    assert [found.path for found in search(store, Query(size=("+", 4)))] == ["/Docs/a/z"]
    tree.close()
    store.close()


def test_what_was_shown_before_an_import_was_staged_is_found_when_it_changes(tmp_path: Path) -> None:
    """The lists of what is stale are emptied meanwhile."""
    with Store.open(tmp_path) as store, Tree(store) as tree:
        with contextlib.closing(store.writer()) as db:
            make_findable(db)  # as an older version left it
        for cursor, events in ("start", START), ("staged", [f("z", "z", "a")]):
            tree.prepare(events, Cursor(cursor), listing=True).commit()
        tree.prepare([], Cursor("end"), listing=True, complete=True).commit()
        finish(tree)
        tree.prepare([f("y", "y", "r", 2)]).commit()
        assert [found.path for found in search(store, Query(size=("=", 2)))] == ["/Docs/y"]


@pytest.mark.parametrize("shown_meanwhile", [True, False])
def test_the_first_pages_are_shown_where_somebody_reads_meanwhile(tmp_path: Path, shown_meanwhile: bool) -> None:
    with Store.open(tmp_path) as store, Tree(store, shown_meanwhile=shown_meanwhile) as tree:
        tree.prepare(START[:2], Cursor("start"), listing=True).commit()
        assert (store.cursor, bool(shown(store))) == ("start", shown_meanwhile)
        tree.prepare(START[2:], Cursor("end"), listing=True, complete=True).commit()
        finish(tree)
        assert store.resolve("/Docs/a/x") is not None


class Interrupted(Exception):
    """`alive` had enough."""


def interrupt_after(tree: Tree, calls: int) -> None:
    left = iter(range(calls))

    def alive() -> None:
        if next(left, None) is None:
            raise Interrupted

    try:
        tree.proceed(alive).commit()
    except StateError as error:
        if "interrupted" not in str(error):
            raise
        raise Interrupted from error


def test_building_can_be_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "PULSE", 50)
    store, tree = staged(tmp_path, [f(f"n{n}", f"n{n}", "a") for n in range(100)])
    before, patience = shown(store), 0
    while not store.imported:
        patience += 20
        with contextlib.suppress(Interrupted):
            interrupt_after(tree, patience)
        assert store.imported or shown(store) == before
    assert patience > 100  # it was interrupted at many places
    finish(tree)
    assert store.counts.files == 102
    assert store.counts == recount(store)
    tree.close()
    store.close()


@pytest.mark.parametrize("folder_ids", [(3, 8), (8, 3)])
def test_an_unknown_parent_is_asked_about_in_the_first_of_its_cloud_folders(
    tmp_path: Path, folder_ids: tuple[int, ...]
) -> None:
    lost = [
        Event(guid=f"n{number}", name="n", is_dir=False, parent_guid="p", folder_id=number) for number in folder_ids
    ]
    store, tree = staged(tmp_path, lost)
    finish(tree)
    assert [(parent.folder_id, parent.guid) for parent in store.unknown_parents(9)] == [(3, "p")]
    tree.close()
    store.close()


def test_what_is_the_same_keeps_its_inode(tmp_path: Path) -> None:
    store, tree = staged(tmp_path, [*START, f("z", "z", "a")])
    before = {path: store.resolve(path) for path in ("/Docs", "/Docs/a", "/Docs/a/x", "/Docs/y")}
    finish(tree)
    assert {path: store.resolve(path) for path in before} == before
    tree.close()
    store.close()


@pytest.mark.parametrize("damage", ["lost", "overwritten", "emptied", "of another index"])
def test_a_staging_that_cannot_be_used_is_listed_again(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    store, tree = staged(tmp_path, [f("z", "z", "a")])
    tree.close()
    store.close()
    path = tmp_path / "import.db"
    if damage == "lost":
        path.unlink()
    elif damage == "overwritten":
        path.write_bytes(b"\xff" * path.stat().st_size)
    else:
        db = sqlite3.connect(path)
        db.execute("DELETE FROM state" if damage == "emptied" else "UPDATE state SET generation = -1")
        db.commit()
        db.close()
    with Store.open(tmp_path) as store, Tree(store) as tree:
        assert "listed again" in caplog.text
        assert (store.cursor, store.imported, path.exists()) == (None, False, False)
        assert store.resolve("/Docs/a/x") is not None
        tree.prepare([*START, f("z", "z", "a")], Cursor("1"), listing=True, complete=True).commit()
        finish(tree)
        assert store.resolve("/Docs/a/z") is not None
        assert store.imported


def test_listing_again_forgets_what_is_staged(tmp_path: Path) -> None:
    store, tree = staged(tmp_path, [f("z", "z", "a")], complete=False)
    tree.begin_relist([5])
    assert (store.cursor, store.selection, store.staging.exists()) == (None, (5,), False)
    tree.prepare([d("r", "Docs", None)], Cursor("1"), listing=True, complete=True).commit()
    while tree.sweeping:
        tree.sweep().commit()
    assert list(shown(store)) == ["/Docs"]
    tree.close()
    store.close()


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
import test_staging
from cterafs.namespace import building, tree as tree_module
tree_module._STAGED_FROM = 3
store, tree = test_staging.staged(Path(sys.argv[1]), [test_staging.f(f"n{n}", f"n{n}", "a") for n in range(500)])
moment = sys.argv[2]
if moment == "settled":
    tree._staging.settle()
else:
    batch = tree.proceed()
    if moment == "built":
        batch.commit()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("moment", ["settled", "building", "built"])
def test_killed_while_building(tmp_path: Path, moment: str) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path), moment, str(Path(__file__).parent)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    with Store.open(tmp_path) as store, Tree(store) as tree:
        assert store.imported == (moment == "built")
        assert store.cursor == "end"
        finish(tree)
        assert store.counts.files == 502
        assert len(children(store, store.resolve("/Docs/a").inode)) == 501  # type: ignore[union-attr]
        assert not store.staging.exists()
