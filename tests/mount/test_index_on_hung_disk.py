"""What is known can be read although the index's disk hangs: whoever reads writes nothing, and opens nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from real_mount import DEADLINE
from small_disk import SmallDisk

from cterafs.model import ROOT_INODE, Cursor, Event
from cterafs.namespace.store import Store
from cterafs.namespace.tree import Tree

READERS = 8  # at once
ROUNDS = 50


@pytest.fixture
def store(disk: SmallDisk) -> Iterator[Store]:
    with Store.open(disk.path) as store:
        yield store


def folder(name: str) -> Event:
    return Event(guid=f"guid of {name}", name=name, is_dir=True, folder_id=7)


def while_it_hangs(disk: SmallDisk, readers: int, read: Callable[[], bool]) -> bool:
    """What all of them read was right. They can be waited for once the disk goes on."""
    with ThreadPoolExecutor(readers) as threads, disk.hanging():
        reading = [threads.submit(read) for _ in range(readers)]
        return all(each.result(DEADLINE / 4) for each in reading)


def test_first_to_read_what_was_committed(disk: SmallDisk, store: Store) -> None:
    with Tree(store) as tree:
        tree.prepare([folder("one")], Cursor("1"), listing=True, complete=True).commit()
        assert store.resolve("/one") is not None
        tree.prepare([folder("two")], Cursor("2")).commit()
        assert while_it_hangs(disk, 1, lambda: store.resolve("/two") is not None)


def test_first_to_read_what_was_copied_back(disk: SmallDisk, store: Store) -> None:
    with Tree(store) as tree:
        tree.prepare([folder("one")], Cursor("1"), listing=True, complete=True).commit()
        tree.checkpoint()
        tree.prepare([folder("two")], Cursor("2")).commit()
        assert store.resolve("/two") is not None
        tree.checkpoint()
        assert while_it_hangs(disk, 1, lambda: store.resolve("/two") is not None)


def test_more_readers_than_ever(disk: SmallDisk, store: Store) -> None:
    together = threading.Barrier(READERS)

    def read() -> bool:
        for _ in range(ROUNDS):
            together.wait(DEADLINE)
            if store.resolve("/one") is None or not store.entries(ROOT_INODE, None, 10):
                return False
        return True

    with Tree(store) as tree:
        tree.prepare([folder("one")], Cursor("1"), listing=True, complete=True).commit()
        assert while_it_hangs(disk, READERS, read)
