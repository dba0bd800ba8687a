"""The index: what it answers, what it refuses to open, and how it goes on from version to version."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cterafs.errors import StateError
from cterafs.model import Cursor, Event, FolderInfo, Inode, Node
from cterafs.namespace import schema
from cterafs.namespace.findable import SIZES
from cterafs.namespace.predicates import Plan, Query
from cterafs.namespace.store import _ENTRIES as ENTRIES
from cterafs.namespace.store import Store, UnusableIndex, set_aside
from cterafs.namespace.tree import Tree

ROOT = Inode(1)


def folder(guid: str, name: str, folder_id: int | None = 7) -> Event:
    return Event(guid=guid, name=name, is_dir=True, folder_id=folder_id)


def directory(guid: str, name: str, parent: str, **values: object) -> Event:
    return Event(guid=guid, name=name, is_dir=True, parent_guid=parent, folder_id=7, **values)  # type: ignore[arg-type]


def file(guid: str, name: str, parent: str | None, **values: object) -> Event:
    return Event(guid=guid, name=name, is_dir=False, parent_guid=parent, folder_id=7, **values)  # type: ignore[arg-type]


def gone(guid: str, *, is_dir: bool = False) -> Event:
    return Event(guid=guid, name="", is_dir=is_dir, deleted=True)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path) as opened:
        yield opened


@pytest.fixture
def tree(store: Store) -> Iterator[Tree]:
    with Tree(store) as opened:
        yield opened


def at(store: Store, path: str) -> Node:
    node = store.resolve(path)
    assert node is not None, path
    return node


def names(store: Store, path: str) -> list[str]:
    return [node.name for node in store.children(at(store, path).inode, None, 100)]


def test_a_new_index_has_a_root_and_nothing_else(store: Store) -> None:
    root = store.get(ROOT)
    assert root is not None
    assert (root.inode, root.parent, root.name, root.is_dir) == (1, 1, "", True)
    assert root.mtime_ns > 0
    assert store.resolve("/") == root
    assert store.path(ROOT) == "/"
    assert store.children(ROOT, None, 10) == []
    assert (store.cursor, store.imported, store.selection) == (None, False, ())
    assert 0 <= store.generation < 2**31


@pytest.mark.parametrize("shown_meanwhile", [True, False])
def test_an_empty_name_is_a_name(tmp_path: Path, shown_meanwhile: bool) -> None:
    with Store.open(tmp_path) as store, Tree(store, shown_meanwhile=shown_meanwhile) as tree:
        tree.prepare([folder("r", "Docs"), file("a", "", "r")], listing=True).commit()
        tree.prepare([], listing=True, complete=True).commit()
        while tree.unfinished:
            tree.proceed().commit()
        node = store.by_guid("a")
    assert node is not None
    assert node.wire_name == ""


def test_every_attribute_comes_back(store: Store, tree: Tree) -> None:
    event = file(
        "a", "a/b", "r", file_id=2**62, size=2**63 - 1, gvsn="007", acl="O:BA\udc80", mtime_ns=-5, ctime_ns=2**60
    )
    tree.prepare([folder("r", "Docs"), event]).commit()
    node = store.by_guid("a")
    assert node is not None
    assert node.wire_name == "a/b"
    assert (node.file_id, node.size, node.gvsn, node.acl) == (2**62, 2**63 - 1, "007", "O:BA\udc80")
    assert (node.mtime_ns, node.ctime_ns, node.folder_id) == (-5, 2**60, 7)


def test_absurd_numbers_are_left_out(store: Store, tree: Tree) -> None:
    huge = 10**30
    event = file("a", "a", "r", file_id=huge, size=huge, mtime_ns=huge, ctime_ns=-huge)
    tree.prepare([folder("r", "Docs", huge), event, file("b", "b", "r", size=-1)]).commit()
    node = at(store, "/Docs/a")
    assert (node.file_id, node.size, node.mtime_ns, node.ctime_ns) == (None, 0, 0, 0)
    assert at(store, "/Docs/b").size == 0


def test_sizes_may_add_up_to_more_than_64_bits(store: Store, tree: Tree) -> None:
    tree.prepare([folder("r", "Docs"), *(file(str(n), str(n), "r", size=2**63 - 1) for n in range(5))]).commit()
    assert store.counts.bytes == 5 * (2**63 - 1)


def test_a_directory_is_listed_in_parts(store: Store, tree: Tree) -> None:
    wanted = sorted([f"file {n}" for n in range(50)] + ["Z", "é", "\U0001f3ac", "\uffee"], key=str.encode)
    tree.prepare([folder("r", "Docs"), *(file(name, name, "r") for name in wanted)]).commit()
    docs, found, after = at(store, "/Docs").inode, list[str](), None
    while part := store.children(docs, after, 7):
        found += [node.name for node in part]
        after = found[-1]
    assert found == wanted


def test_names_that_are_no_text_are_not_found(store: Store) -> None:
    assert store.lookup(ROOT, "\udc80") is None
    assert store.resolve("/\udc80") is None


def test_deleted_directories_come_back_with_what_they_had(store: Store, tree: Tree) -> None:
    tree.prepare([folder("r", "Docs"), directory("d", "deep", "r"), file("a", "a", "d"), file("b", "b", "d")]).commit()
    deep, a = at(store, "/Docs/deep"), at(store, "/Docs/deep/a")
    tree.prepare([gone("d", is_dir=True)]).commit()
    assert store.get(deep.inode) is None
    assert store.lookup(deep.inode, "a") is None
    assert store.children(deep.inode, None, 9) == []
    assert store.path(a.inode) is None
    tree.prepare([gone("b"), file("c", "c", "d")]).commit()
    tree.prepare([directory("d", "back", "r")]).commit()
    assert names(store, "/Docs/back") == ["a", "c"]
    assert at(store, "/Docs/back/a").inode == a.inode


def test_cycles_are_out_of_reach(store: Store, tree: Tree) -> None:
    tree.prepare(
        [folder("r", "Docs"), directory("a", "a", "r"), directory("b", "b", "a"), file("f", "f", "b")]
    ).commit()
    tree.prepare([directory("a", "a", "b")]).commit()
    for guid in "abf":
        node = store.by_guid(guid)
        assert node is not None
        assert store.path(node.inode) is None
    tree.prepare([directory("a", "a", "a"), directory("b", "b", "r")]).commit()
    assert names(store, "/Docs") == ["b"]


def test_a_chain_without_end_has_no_path(store: Store, tree: Tree) -> None:
    chain = [directory(str(n), "d", str(n - 1)) for n in range(1, 5000)]
    tree.prepare([folder("0", "Docs"), *chain]).commit()
    deepest, above = store.by_guid("4999"), store.by_guid("4000")
    assert deepest is not None
    assert above is not None
    assert store.path(deepest.inode) is None
    assert store.path(above.inode) == "/Docs" + "/d" * 4000


def test_a_file_with_children_hides_them(store: Store, tree: Tree) -> None:
    tree.prepare([folder("r", "Docs"), file("a", "a", "r"), file("b", "b", "a")]).commit()
    assert store.resolve("/Docs/a/b") is None
    assert store.children(at(store, "/Docs/a").inode, None, 9) == []
    hidden = store.by_guid("b")
    assert hidden is not None
    assert store.path(hidden.inode) is None
    tree.prepare([directory("a", "a", "r")]).commit()
    assert at(store, "/Docs/a/b").guid == "b"


def test_a_file_without_a_directory_is_shown_nowhere(store: Store, tree: Tree) -> None:
    tree.prepare([file("a", "a", None)]).commit()
    assert store.children(ROOT, None, 9) == []
    node = store.by_guid("a")
    assert node is not None
    assert store.path(node.inode) is None


def test_owners_have_directories(store: Store, tree: Tree) -> None:
    tree.prepare([folder("r", "Docs", 7), folder("s", "Docs", 8), folder("t", "Plans", 9)]).commit()
    docs = at(store, "/Docs [7]")
    tree.close()
    with Tree(store, layout="owner") as by_owner:
        assert names(store, "/") == ["Docs [7]", "Docs [8]", "Plans"]
        by_owner.set_folders([FolderInfo(7, "Docs", "ann"), FolderInfo(8, "Docs", "b/b")]).commit()
        assert names(store, "/") == ["Plans", "ann", "b\u241b2Fb"]
        assert at(store, "/ann/Docs").inode == docs.inode
        ann = at(store, "/ann")
        by_owner.prepare([gone("s", is_dir=True)]).commit()
        assert names(store, "/") == ["Plans", "ann"]
    with Tree(store, layout="folder"):
        assert names(store, "/") == ["Docs", "Plans"]
        assert store.get(ann.inode) is None


def test_state_survives(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store, Tree(store) as tree:
        tree.begin_relist([9, 3, 3])
        tree.set_folders([FolderInfo(7, "Docs", "ann"), FolderInfo(10**30, "absurd", None)]).commit()
        tree.prepare([folder("r", "Docs")], Cursor("c\ud800"), listing=True, complete=True).commit()
        generation, node = store.generation, at(store, "/Docs")
    with Store.open(tmp_path, read_only=True) as store:
        assert (store.cursor, store.imported, store.selection) == ("c\ud800", True, (3, 9))
        assert store.folders == [FolderInfo(7, "Docs", "ann")]
        assert store.generation == generation
        assert at(store, "/Docs") == node
        with pytest.raises(StateError, match="reading only"):
            store.writer()


def test_readers_see_the_old_state_until_the_commit(store: Store, tree: Tree) -> None:
    batch = tree.prepare([folder("r", "Docs")], Cursor("1"))
    assert len(batch.changes) == 1
    assert store.resolve("/Docs") is None
    assert store.cursor is None
    batch.commit()
    assert at(store, "/Docs") == batch.changes[0].new
    assert store.cursor == "1"


def test_many_threads_may_ask_at_once(store: Store, tree: Tree) -> None:
    tree.prepare([folder("r", "Docs"), *(file(str(n), f"{n}", "r") for n in range(40))]).commit()
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            for n in range(100):
                assert at(store, f"/Docs/{n % 40}").guid == str(n % 40)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for n in range(100):
        tree.prepare([file(str(n % 40), f"{n % 40}", "r", size=n)]).commit()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_closed_index_says_so(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    store.close()
    with pytest.raises(StateError, match="closed"):
        store.get(ROOT)


# -- what cannot be opened


def test_without_an_index_there_is_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="mount once"):
        Store.open(tmp_path, read_only=True)
    (tmp_path / "index.db").touch()
    with pytest.raises(StateError, match="mount once"):
        Store.open(tmp_path, read_only=True)


def test_a_missing_directory_is_said(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="cannot be opened"):
        Store.open(tmp_path / "nowhere")


def test_a_damaged_index_is_set_aside_when_the_caller_says_so(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / "index.db").write_bytes(b"not a database " * 1000)
        (tmp_path / "index.db-wal").write_bytes(b"its log")
        with pytest.raises(UnusableIndex, match="set it aside"):
            Store.open(tmp_path)
        assert set_aside(tmp_path) == tmp_path / f"index.db.corrupt-{number}"
        assert (tmp_path / f"index.db.corrupt-{number}-wal").exists()
    with Store.open(tmp_path) as store:
        assert store.get(ROOT) is not None


def test_pages_that_are_overwritten_are_noticed(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    database = tmp_path / "index.db"
    content = database.read_bytes()
    database.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    with pytest.raises(UnusableIndex, match="damaged"):
        Store.open(tmp_path)


def test_damage_that_is_met_later_is_told(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store, Tree(store) as tree:
        tree.prepare([folder("r", "Docs"), *(file(str(n), f"file {n}", "r") for n in range(2000))]).commit()
    database = tmp_path / "index.db"
    content = database.read_bytes()
    for start in range(len(content) // 8192 * 4096, len(content), 4096):  # the state, at the beginning, stays
        content = content[:start] + b"\xff" * 4096 + content[start + 4096 :]
    database.write_bytes(content)
    with Store.open(tmp_path) as store, pytest.raises(StateError, match="cannot be read"):
        [store.get(Inode(inode)) for inode in range(1, 2000)]


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "index.db")
    db.execute("CREATE TABLE theirs (x)")
    db.close()
    with pytest.raises(UnusableIndex, match="not an index"):
        Store.open(tmp_path)


def test_a_newer_index_is_not_touched(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    db = sqlite3.connect(tmp_path / "index.db")
    db.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    db.close()
    with pytest.raises(StateError, match="newer"):
        Store.open(tmp_path)


def test_an_index_in_use_elsewhere_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cterafs.namespace.store._BUSY_TIMEOUT", 0.01)
    db = sqlite3.connect(tmp_path / "index.db", isolation_level=None)
    db.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StateError, match="in use"):
        Store.open(tmp_path)
    db.close()


# -- migrations


@pytest.fixture
def next_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)


def test_an_older_index_is_brought_up_to_date(
    tmp_path: Path, store: Store, tree: Tree, next_version: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.prepare([folder("r", "Docs")]).commit()
    with pytest.raises(StateError, match="older"):
        Store.open(tmp_path, read_only=True)
    monkeypatch.setattr(schema, "_MIGRATIONS", {schema.VERSION - 1: "CREATE TABLE more (x INTEGER) STRICT;"})
    with Store.open(tmp_path) as newer:
        assert at(newer, "/Docs").guid == "r"
        db = newer.writer()
        assert db.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
        assert db.execute("SELECT count(*) FROM more").fetchone() == (0,)
        db.close()


def test_a_migration_that_fails_changes_nothing(
    tmp_path: Path, store: Store, next_version: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = "CREATE TABLE more (x INTEGER) STRICT; INSERT INTO nowhere VALUES (1);"
    monkeypatch.setattr(schema, "_MIGRATIONS", {schema.VERSION - 1: broken})
    with pytest.raises(StateError, match="nowhere"):
        Store.open(tmp_path)
    db = sqlite3.connect(tmp_path / "index.db")
    assert db.execute("PRAGMA user_version").fetchone() == (schema.VERSION - 1,)
    assert db.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'more'").fetchone() == (0,)
    db.close()


def assert_listing_reads_no_rows(store: Store) -> None:
    with store.held() as db:
        steps = [step for *_, step in db.execute(f"EXPLAIN QUERY PLAN {ENTRIES}", (1, "", 1))]
    assert [step for step in steps if "SEARCH entry" in step] == [
        "SEARCH entry USING COVERING INDEX entry_name (parent=? AND name>?)"
    ]


def test_a_listing_reads_one_index_and_no_rows(store: Store) -> None:
    assert_listing_reads_no_rows(store)


def test_an_index_of_version_1_goes_on(tmp_path: Path, store: Store, tree: Tree) -> None:
    tree.prepare([folder("r", "Docs"), file("a", "a", "r", size=5)], Cursor("c")).commit()
    tree.close()
    store.close()
    db = sqlite3.connect(tmp_path / "index.db")
    db.executescript(
        "ALTER TABLE state DROP COLUMN staging; ALTER TABLE state DROP COLUMN open; DROP INDEX entry_name;"
        "DROP TABLE stale_name; DROP TABLE stale_size; DROP TABLE stale_time; ALTER TABLE entry DROP COLUMN version;"
        "ALTER TABLE entry RENAME COLUMN id TO inode; ALTER TABLE seen RENAME COLUMN id TO inode;"
        "ALTER TABLE state RENAME COLUMN next_id TO next_inode;"
        "CREATE INDEX entry_name ON entry (parent, name) WHERE parent IS NOT NULL; PRAGMA user_version = 1;"
    )
    db.close()
    with Store.open(tmp_path) as newer, Tree(newer) as writer:
        assert (newer.cursor, newer.crashed, at(newer, "/Docs/a").size) == ("c", False, 5)
        with newer.held() as db:
            assert Plan(Query(size=("=", 5))).best_order(db) == (SIZES, True)
        assert_listing_reads_no_rows(newer)
        writer.prepare([file("b", "b", "r")], Cursor("d"), listing=True, complete=True).commit()
        assert newer.imported
