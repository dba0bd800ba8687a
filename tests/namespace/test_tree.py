"""What single events do, and the changes that the mount is told of."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from cterafs.errors import StateError
from cterafs.model import Change, Cursor, Event, FolderInfo, Inode, Node
from cterafs.namespace import edit
from cterafs.namespace.names import distinct
from cterafs.namespace.schema import IDLE, LAST_VERSION, LISTING, ROWS, SWEEPING
from cterafs.namespace.store import Store
from cterafs.namespace.tree import Batch, Tree

DOCS = Event(guid="r", name="Docs", is_dir=True, folder_id=7)


def directory(guid: str, name: str, parent: str = "r") -> Event:
    return Event(guid=guid, name=name, is_dir=True, parent_guid=parent, folder_id=7)


def file(guid: str, name: str, parent: str = "r", **values: object) -> Event:
    return Event(guid=guid, name=name, is_dir=False, parent_guid=parent, folder_id=7, **values)  # type: ignore[arg-type]


def gone(guid: str) -> Event:
    return Event(guid=guid, name="", is_dir=False, deleted=True)


class Mount:
    """A tree that commits at once."""

    def __init__(self, store: Store, tree: Tree) -> None:
        self.store, self.tree = store, tree

    def told(self, *events: Event) -> list[Change]:
        return self.commit(self.tree.prepare(events))

    @staticmethod
    def commit(batch: Batch) -> list[Change]:
        batch.commit()
        return list(batch.changes)

    def at(self, path: str) -> Node:
        node = self.store.resolve(path)
        assert node is not None, path
        return node

    def names(self, path: str) -> list[str]:
        return [node.name for node in self.store.children(self.at(path).inode, None, 100)]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    with Store.open(tmp_path) as store, Tree(store) as tree:
        mount = Mount(store, tree)
        mount.told(DOCS)
        yield mount


def test_an_event_that_repeats_changes_nothing(mount: Mount) -> None:
    event = file("a", "a.txt", size=5, file_id=9, gvsn="2", acl="D:", mtime_ns=1, ctime_ns=2)
    assert len(mount.told(event)) == 1
    assert mount.told(event, DOCS) == []


@pytest.mark.parametrize(
    "values", [{"size": 6}, {"file_id": 10}, {"gvsn": "3"}, {"gvsn": None}, {"mtime_ns": 5}, {"file_id": None}]
)
def test_new_content_is_a_new_inode(mount: Mount, values: dict[str, object]) -> None:
    first = {"size": 5, "file_id": 9, "gvsn": "2", "mtime_ns": 1}
    mount.told(file("a", "a.txt", **first))
    old = mount.at("/Docs/a.txt")
    changes = mount.told(file("a", "a.txt", **(first | values)))
    new = mount.at("/Docs/a.txt")
    assert new.inode > old.inode
    assert changes == [Change(old, new)]
    assert mount.store.get(old.inode) is None


def test_no_number_comes_back_however_often_a_file_is_written(mount: Mount, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edit, "LAST_VERSION", 2)
    numbers: list[Inode] = []
    for size in range(8):
        mount.told(file("a", "a.txt", size=size), file("below", "b", "a"))
        assert mount.at("/Docs/a.txt").size == size
        assert all(mount.store.get(number) is None for number in numbers)
        numbers.append(mount.at("/Docs/a.txt").inode)
        assert mount.store.path(numbers[-1]) == "/Docs/a.txt"
    assert len({*numbers}) == 8
    mount.told(directory("a", "a.txt"))
    assert mount.at("/Docs/a.txt").inode not in numbers
    assert mount.names("/Docs/a.txt") == ["b"]


def test_the_last_version_of_a_row_has_the_last_number_that_fits(mount: Mount) -> None:
    """SQLite's integers have 63 bits and a sign."""
    mount.told(file("a", "a.txt", size=1))
    with contextlib.closing(mount.store.writer()) as db:
        db.execute("UPDATE entry SET version = ? WHERE id = ?", (LAST_VERSION - 1, mount.at("/Docs/a.txt").inode))
    mount.told(file("a", "a.txt", size=2))
    last = mount.at("/Docs/a.txt").inode
    assert last | ROWS == 2**63 - 1
    mount.told(file("a", "a.txt", size=3))
    assert last & ROWS < mount.at("/Docs/a.txt").inode <= ROWS
    assert mount.store.get(last) is None


def test_other_attributes_and_places_keep_the_inode(mount: Mount) -> None:
    mount.told(file("a", "a.txt", ctime_ns=1, acl="D:"), directory("d", "deep"))
    for event in (
        file("a", "a.txt", ctime_ns=2, acl="D:"),
        file("a", "a.txt", ctime_ns=2, acl="D:P"),
        file("a", "b.txt", ctime_ns=2),
        file("a", "b.txt", "d"),
    ):
        old = mount.store.by_guid("a")
        changes = mount.told(event)
        new = mount.store.by_guid("a")
        assert old is not None
        assert new is not None
        assert new.inode == old.inode
        assert changes == [Change(old, new)]


def test_only_the_net_effect_of_a_page_is_told(mount: Mount) -> None:
    changes = mount.told(file("a", "a"), file("a", "b"), gone("a"), file("b", "c"), file("b", "d"))
    assert [(change.old, change.new) for change in changes] == [(None, mount.at("/Docs/d"))]
    old = mount.at("/Docs/d")
    assert mount.told(file("b", "d", size=9), file("b", "d")) == []
    assert mount.at("/Docs/d") == old


def test_two_names_may_be_exchanged_in_one_page(mount: Mount) -> None:
    mount.told(file("a", "one"), file("b", "two"))
    one, two = mount.at("/Docs/one").inode, mount.at("/Docs/two").inode
    changes = mount.told(file("a", "two"), file("b", "one"))
    assert len(changes) == 2
    assert (mount.at("/Docs/two").inode, mount.at("/Docs/one").inode) == (one, two)
    assert mount.names("/Docs") == ["one", "two"]


def test_the_smallest_guid_has_the_name(mount: Mount) -> None:
    mount.told(file("b", "x.txt"))
    b = mount.at("/Docs/x.txt")
    changes = mount.told(file("a", "x.txt"))
    marked = distinct("x.txt", b"b" + b"\xff" * 25)
    assert mount.at(f"/Docs/{marked}").inode == b.inode
    assert {(change.old and change.old.name, change.new and change.new.name) for change in changes} == {
        (None, "x.txt"),
        ("x.txt", marked),
    }
    assert mount.at(f"/Docs/{marked}").wire_name == "x.txt"
    changes = mount.told(file("a", "elsewhere.txt"))
    assert mount.at("/Docs/x.txt") == b
    assert len(changes) == 2
    mount.told(file("a", "x.txt"))
    mount.told(gone("a"))
    assert mount.names("/Docs") == ["x.txt"]
    mount.told(file("c", "x.txt"))  # comes later, and is the larger one
    assert mount.at("/Docs/x.txt") == b


def test_an_object_that_changes_kind_is_another(mount: Mount) -> None:
    mount.told(directory("d", "thing"), file("a", "a", "d"))
    old, below = mount.at("/Docs/thing"), mount.at("/Docs/thing/a")
    changes = mount.told(file("d", "thing"))
    assert [change.new and change.new.inode for change in changes] == [mount.at("/Docs/thing").inode]
    assert mount.at("/Docs/thing").inode != old.inode
    assert mount.store.resolve("/Docs/thing/a") is None
    mount.told(directory("d", "thing"))
    assert mount.at("/Docs/thing").inode > old.inode
    assert mount.at("/Docs/thing/a").inode == below.inode
    mount.told(file("b", "b", "d"))
    assert mount.names("/Docs/thing") == ["a", "b"]


def test_names_are_shared_below_a_directory_that_has_just_changed_kind(mount: Mount) -> None:
    mount.told(file("d", "thing"), file("b", "x", "d"))
    mount.told(directory("d", "thing"), file("a", "x", "d"))
    assert mount.at("/Docs/thing/x").guid == "a"
    assert len(mount.names("/Docs/thing")) == 2


@pytest.mark.parametrize("together", [True, False])
def test_the_number_of_a_deleted_file_never_comes_back(mount: Mount, together: bool) -> None:
    """Not even where something claims to lie in the file, so that its row is kept."""
    mount.told(file("a", "a"))
    old = mount.at("/Docs/a").inode
    if together:
        mount.told(file("b", "b", "a"), gone("a"))
    else:
        mount.told(file("b", "b", "a"))
        mount.told(gone("a"))
    assert mount.store.get(old) is None
    mount.told(directory("a", "a"))
    assert mount.at("/Docs/a").inode > old
    assert mount.names("/Docs/a") == ["b"]


def test_a_directory_that_comes_back_as_a_file_is_another(mount: Mount) -> None:
    mount.told(directory("d", "d"), file("a", "a", "d"))
    old = mount.at("/Docs/d").inode
    mount.told(gone("d"))
    mount.told(file("d", "d"))
    assert mount.at("/Docs/d").inode > old


def test_deleting_what_nothing_told_of_does_nothing(mount: Mount) -> None:
    before = mount.store.counts
    assert mount.told(gone("never heard of")) == []
    assert mount.store.counts == before


def test_a_deleted_directory_is_forgotten_with_its_last_entry(mount: Mount) -> None:
    mount.told(directory("d", "d"), file("a", "a", "d"), file("b", "b", "d"))
    mount.told(gone("d"))
    assert mount.store.counts.orphans == 1
    mount.told(gone("a"))
    mount.told(file("b", "b"))
    assert mount.store.counts.orphans == 0


def test_unknown_parents_are_asked_about_until_it_is_in_vain(mount: Mount) -> None:
    mount.told(file("a", "a", "p"))
    assert mount.store.unknown_parents(9) == [(7, "p", "a")]
    mount.commit(mount.tree.prepare([], asked=["p"]))
    assert mount.store.unknown_parents(9) == []
    mount.told(file("a", "a", "p"))
    assert mount.store.unknown_parents(9) == []
    for news in (file("a", "a", "p", ctime_ns=2), file("b", "b", "p")):
        mount.told(news)
        assert len(mount.store.unknown_parents(9)) == 1
        mount.commit(mount.tree.prepare([], asked=["p"]))
    mount.told(file("b", "b", "p", ctime_ns=2))
    mount.commit(mount.tree.prepare([], asked=["p"]))
    mount.tree.begin_relist()
    assert len(mount.store.unknown_parents(9)) == 1


def test_a_parent_without_a_cloud_folder_cannot_be_asked_about(mount: Mount) -> None:
    mount.told(Event(guid="a", name="a", is_dir=False, parent_guid="p"))
    assert mount.store.unknown_parents(9) == []
    mount.told(file("b", "b", "p"))
    assert [parent.guid for parent in mount.store.unknown_parents(9)] == ["p"]


@pytest.mark.parametrize("order", list(itertools.permutations([3, 8, 5])))
def test_an_unknown_parent_is_asked_about_in_each_cloud_folder_that_it_may_be_in(
    mount: Mount, order: Sequence[int]
) -> None:
    for folder_id in order:
        mount.told(Event(guid=f"a{folder_id}", name="a", is_dir=False, parent_guid="p", folder_id=folder_id))
    asked = []
    while unknown := mount.store.unknown_parents(9):
        asked.append(unknown[0].folder_id)
        mount.commit(mount.tree.prepare([], asked=["p"]))
    assert asked == [3, 5, 8]


def test_cloud_folders_of_one_name_are_told_apart(mount: Mount) -> None:
    other = Event(guid="s", name="Docs", is_dir=True, folder_id=8)
    docs = mount.at("/Docs").inode
    changes = mount.told(other)
    assert mount.names("/") == ["Docs [7]", "Docs [8]"]
    assert len(changes) == 2
    changes = mount.commit(mount.tree.set_folders([FolderInfo(7, "Docs", "ann"), FolderInfo(9, "Plans", "bob")]))
    assert len(changes) == 1
    assert mount.names("/") == ["Docs (ann)", "Docs [8]"]
    mount.told(Event(guid="s", name="Plans", is_dir=True, folder_id=8))
    assert mount.names("/") == ["Docs", "Plans"]
    assert mount.at("/Docs").inode == docs


def test_a_batch_that_is_rolled_back_leaves_nothing(mount: Mount) -> None:
    before = mount.store.counts
    mount.tree.prepare([file("a", "a", acl="new")], Cursor("x")).rollback()
    assert (mount.store.counts, mount.store.cursor, mount.store.by_guid("a")) == (before, None, None)
    mount.told(file("b", "b", acl="other"))
    mount.told(file("a", "a", acl="new"))
    assert (mount.at("/Docs/a").acl, mount.at("/Docs/b").acl) == ("new", "other")


def test_listing_again_removes_what_is_no_longer_there_in_bounded_batches(
    mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cterafs.namespace.relisting._SWEPT_AT_ONCE", 2)
    mount.commit(mount.tree.set_folders([FolderInfo(7, "Docs", "ann")]))
    mount.told(*(file(str(n), f"file {n}") for n in range(5)), file("a", "a", size=1))
    kept = mount.at("/Docs/a")
    mount.tree.begin_relist()
    assert mount.store.relist == LISTING
    assert mount.told(DOCS, file("a", "a", size=1)) == []
    mount.commit(mount.tree.prepare([file("b", "b")], Cursor("end"), listing=True, complete=True))
    assert mount.store.relist == SWEEPING
    sizes = []
    while mount.tree.sweeping:
        mount.told(file("news", "news"))  # comes in between, and stays
        sizes.append(len(mount.commit(mount.tree.sweep())))
    assert sizes == [2, 2, 1]
    assert mount.names("/Docs") == ["a", "b", "news"]
    assert mount.at("/Docs/a") == kept
    assert mount.store.relist == IDLE


def test_a_sweep_that_is_rolled_back_begins_again(mount: Mount, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cterafs.namespace.relisting._SWEPT_AT_ONCE", 2)
    mount.told(*(file(str(n), f"file {n}") for n in range(3)))
    mount.tree.begin_relist()
    mount.commit(mount.tree.prepare([DOCS], Cursor("end"), listing=True, complete=True))
    mount.tree.sweep().rollback()
    while mount.tree.sweeping:
        mount.commit(mount.tree.sweep())
    assert mount.names("/Docs") == []


def test_what_is_in_doubt_is_asked_about_before_a_sweep(mount: Mount) -> None:
    mount.told(directory("d", "d"), directory("e", "e", "d"), file("a", "a", "e"), directory("f", "f"))
    mount.tree.begin_relist()
    mount.told(DOCS, file("a", "a", "e"))
    assert mount.tree.questions(9) == []  # it may still come
    mount.commit(mount.tree.prepare([], Cursor("end"), listing=True, complete=True))
    assert mount.tree.questions(9) == [(7, "e", "a")]
    mount.tree.prepare([directory("d", "d"), directory("e", "e", "d")], asked=["e"]).rollback()
    assert mount.tree.questions(9) == [(7, "e", "a")]
    mount.commit(mount.tree.prepare([directory("d", "d"), directory("e", "e", "d")], asked=["e"]))
    assert mount.tree.questions(9) == []
    mount.told(file("b", "b", "f"))  # news
    assert mount.tree.questions(9) == [(7, "f", "b")]
    changes = mount.commit(mount.tree.prepare([], asked=["f"]))
    assert [(change.old and change.old.name, change.new) for change in changes] == [("f", None)]
    assert mount.tree.questions(9) == []
    assert mount.commit(mount.tree.sweep()) == []
    assert mount.names("/Docs/d/e") == ["a"]


def test_a_file_that_is_swept_gives_its_number_up(mount: Mount) -> None:
    mount.told(file("a", "a"), file("b", "b", "a"))
    old = mount.at("/Docs/a").inode
    mount.tree.begin_relist()
    mount.commit(mount.tree.prepare([DOCS, file("b", "b", "a")], Cursor("end"), listing=True, complete=True))
    while mount.tree.sweeping:
        mount.commit(mount.tree.sweep())
    mount.told(directory("a", "a"))
    assert mount.names("/Docs/a") == ["b"]
    assert mount.at("/Docs/a").inode > old


def test_nothing_is_swept_after_the_first_import(mount: Mount, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    with Store.open(tmp_path / "new") as store, Tree(store) as tree:
        tree.begin_relist()
        tree.prepare([DOCS], Cursor("1"), listing=True, complete=True).commit()
        assert store.imported
        assert not tree.sweeping
        assert store.lookup(Inode(1), "Docs") is not None


def test_a_full_disk_changes_nothing(mount: Mount) -> None:
    db = mount.tree._db
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    db.execute(f"PRAGMA max_page_count = {pages}")
    before = mount.store.counts
    with pytest.raises(StateError, match=r"cannot be written: .* full"):
        mount.tree.prepare([file(str(n), f"file {n}") for n in range(2000)], Cursor("x"))
    assert (mount.store.counts, mount.store.cursor) == (before, None)
    db.execute("PRAGMA max_page_count = 1000000")
    mount.told(*(file(str(n), f"file {n}") for n in range(2000)))
    assert mount.store.counts.files == 2000


def test_the_log_is_copied_back_apart_from_the_commits(mount: Mount, tmp_path: Path) -> None:
    def copied() -> int:
        (tmp_path / "copy.db").write_bytes((tmp_path / "index.db").read_bytes())  # without its log
        with contextlib.closing(sqlite3.connect(tmp_path / "copy.db")) as db:
            return int(db.execute("SELECT files FROM state").fetchone()[0])

    mount.told(DOCS)
    assert not mount.tree.log_is_long
    mount.tree.checkpoint()
    mount.told(*(file(f"f{n}", f"{n:0200}") for n in range(10_000)))  # over the 1,000 pages of SQLite's own limit
    assert mount.tree.log_is_long
    assert copied() == 0
    mount.tree.checkpoint()
    assert not mount.tree.log_is_long
    assert copied() == 10_000
