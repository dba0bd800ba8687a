"""Damage to the index: it is noticed, set aside and imported again, and whatever is met of it is a StateError."""

from __future__ import annotations

import logging
import random
import sqlite3
from pathlib import Path

import pytest

from cterafs.errors import StateError
from cterafs.model import Cursor, Event, Inode
from cterafs.namespace import schema
from cterafs.namespace.health import open_or_rebuild, verify
from cterafs.namespace.search import Query, search
from cterafs.namespace.store import Store
from cterafs.namespace.tree import Tree

PAGE = 4096
VERSION = range(60, 64)  # of the schema: a newer one is never set aside


def events(count: int = 400) -> list[Event]:
    docs = Event(guid="r", name="Docs", is_dir=True, folder_id=7)
    directories = [Event(guid=f"d{n}", name=f"d{n}", is_dir=True, parent_guid="r", folder_id=7) for n in range(20)]
    files = [
        Event(guid=f"f{n}", name=f"file {n}", is_dir=False, parent_guid=f"d{n % 20}", folder_id=7, size=n, acl="D:")
        for n in range(count)
    ]
    return [docs, *directories, *files]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    directory = tmp_path_factory.mktemp("sound")
    with Store.open(directory) as store, Tree(store) as tree:
        tree.prepare(events(), Cursor("c"), listing=True, complete=True).commit()
    return (directory / "index.db").read_bytes()


def use(directory: Path) -> None:
    """Everything that is asked of an index, and a page of events; only StateErrors may come of it."""
    with open_or_rebuild(directory) as store:
        try:
            _ = store.counts, store.cursor, store.selection, store.folders, store.imported, store.unknown_parents(9)
            for found in list(search(store, Query())):
                store.path(found.node.inode)
                store.resolve(found.path)
            for inode in range(1, 430):
                store.get(Inode(inode))
                store.children(Inode(inode), None, 100)
            list(search(store, Query(name="file 1*", size=("+", 7), newer_ns=-1)))
        except StateError:
            pass
        verify(store)
        try:
            with Tree(store) as tree:
                tree.prepare(events(30), Cursor("d")).commit()
        except StateError:
            pass


def test_flipped_bits(tmp_path: Path, sound: bytes) -> None:
    chance = random.Random(7)
    for number in range(120):
        directory = tmp_path / str(number)
        directory.mkdir()
        damaged = bytearray(sound)
        for _ in range(1 + number % 8):
            # Half of them where the pages' own structure is, at their beginning.
            page = chance.randrange(len(sound) // PAGE) * PAGE
            place = page + chance.randrange(64 if number % 2 else PAGE)
            if place not in VERSION:
                damaged[place] ^= 1 << chance.randrange(8)
        (directory / "index.db").write_bytes(damaged)
        use(directory)


def test_truncated(tmp_path: Path, sound: bytes) -> None:
    for number, length in enumerate([1, 50, 99, 100, 512, *range(PAGE, len(sound), PAGE * 5), len(sound) - 1]):
        directory = tmp_path / str(number)
        directory.mkdir()
        (directory / "index.db").write_bytes(sound[:length])
        use(directory)


def test_pages_swapped_or_zeroed(tmp_path: Path, sound: bytes) -> None:
    chance = random.Random(7)
    for number in range(40):
        directory = tmp_path / str(number)
        directory.mkdir()
        damaged = bytearray(sound)
        one, other = (chance.randrange(len(sound) // PAGE) * PAGE for _ in range(2))
        damaged[one : one + PAGE] = bytes(PAGE) if number % 2 else damaged[other : other + PAGE]
        (directory / "index.db").write_bytes(damaged)
        use(directory)


def test_a_rebuilt_index_is_empty_and_says_where_the_old_one_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "index.db").write_bytes(b"rubbish" * 1000)
    (tmp_path / "import.db").write_bytes(b"rubbish")
    with open_or_rebuild(tmp_path) as store:
        assert (store.cursor, store.imported, store.crashed) == (None, False, False)
    assert "index.db.corrupt-1" in caplog.text
    assert (tmp_path / "index.db.corrupt-1").read_bytes() == b"rubbish" * 1000
    assert not (tmp_path / "import.db").exists()


def test_a_clean_close_and_a_crash_are_told_apart(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        assert not store.crashed
        tree = Tree(store)
        with Store.open(tmp_path, read_only=True) as beside:
            assert beside.get(Inode(1)) is not None
        tree.close()
    with Store.open(tmp_path) as store:
        assert not store.crashed
        tree = Tree(store)  # and no close
    with Store.open(tmp_path) as store:
        assert store.crashed
        Tree(store).close()
    with Store.open(tmp_path) as store:
        assert not store.crashed
    tree.close()


def test_what_a_check_finds_is_imported_again(tmp_path: Path, sound: bytes, caplog: pytest.LogCaptureFixture) -> None:
    database = tmp_path / "index.db"
    database.write_bytes(sound)
    with open_or_rebuild(tmp_path) as store:
        assert verify(store) == []
    db = sqlite3.connect(database)
    page = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'find_size'").fetchone()[0]
    db.close()
    damaged = bytearray(sound)
    damaged[page * PAGE - 40 : page * PAGE] = bytes(40)
    database.write_bytes(damaged)
    with open_or_rebuild(tmp_path) as store, Tree(store):
        assert store.cursor == "c"  # a cheap check does not see it
        assert verify(store) != []
        assert "damaged" in caplog.text
    with Store.open(tmp_path, read_only=True) as store:
        assert store.cursor == "c"
    with caplog.at_level(logging.WARNING), open_or_rebuild(tmp_path) as store:
        assert store.cursor is None
    assert (tmp_path / "index.db.corrupt-1").exists()


def test_a_check_ends_with_the_store(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    store.close()
    assert verify(store) == []
    with Store.open(tmp_path) as store:
        assert verify(store) == []


def test_a_newer_index_is_not_set_aside(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    db = sqlite3.connect(tmp_path / "index.db")
    db.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    db.close()
    with pytest.raises(StateError, match="newer"):
        open_or_rebuild(tmp_path)
    assert (tmp_path / "index.db").exists()
