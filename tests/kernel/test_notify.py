"""What the kernel is told of a change. Whether it then forgets is seen through real mounts (tests/mount)."""

from __future__ import annotations

import msgspec
import pyfuse3
import pytest
import trio

from cterafs.kernel.dentries import Negatives
from cterafs.kernel.notify import Notifier
from cterafs.model import Change, Inode, Node

DIRECTORY = Node(inode=Inode(7), parent=Inode(2), name="dir", wire_name="dir", is_dir=True)
FILE = Node(inode=Inode(8), parent=Inode(2), name="file", wire_name="file", is_dir=False)


class Everything:
    """A volume of which the kernel holds every inode."""

    def referenced(self, inode: Inode) -> bool:
        return True


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """What went to the kernel."""
    told: list[tuple[object, ...]] = []

    def invalidate_entry(parent: int, name: bytes, deleted: int = 0) -> None:
        told.append(("entry", parent, name, deleted))

    def invalidate_inode(inode: int, attr_only: bool = False) -> None:
        told.append(("inode", inode, attr_only))

    monkeypatch.setattr(pyfuse3, "invalidate_entry", invalidate_entry)
    monkeypatch.setattr(pyfuse3, "invalidate_inode", invalidate_inode)
    return told


async def push(negatives: Negatives, *changes: Change) -> None:
    notifier = Notifier(Everything(), negatives)  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(notifier.run)
        notifier.push(changes)
        await notifier.drained()
        nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_a_directory_that_comes_back_takes_back_what_was_denied_in_it(told: list[tuple[object, ...]]) -> None:
    """The portal may tell of the directory alone: its entries, and so their names, are there again all the same."""
    negatives = Negatives()
    negatives.add(DIRECTORY.inode, b"file")
    negatives.add(DIRECTORY.parent, b"dir")
    await push(negatives, Change(None, DIRECTORY))
    assert told == [("entry", 2, b"dir", 0), ("entry", 7, b"file", 0)]
    assert len(negatives) == 0


@pytest.mark.trio
async def test_only_files_are_told_as_deleted(told: list[tuple[object, ...]]) -> None:
    await push(Negatives(), Change(FILE, None), Change(DIRECTORY, None))
    assert told == [("entry", 2, b"file", 8), ("entry", 2, b"dir", 0)]


@pytest.mark.trio
async def test_attributes_are_taken_back_behind_the_answers_of_their_directory(told: list[tuple[object, ...]]) -> None:
    """The kernel locks the directory while it waits for an answer that may still hold the old ones."""
    await push(Negatives(), Change(FILE, msgspec.structs.replace(FILE, ctime_ns=1)))
    assert told == [("entry", 2, b"\xff", 0), ("inode", 8, True)]
    await push(Negatives(), Change(FILE, msgspec.structs.replace(FILE, acl="what the kernel does not cache")))
    assert len(told) == 2


def test_negatives_take_no_room_for_directories_without_names() -> None:
    negatives = Negatives(limit=1)
    assert negatives.add(Inode(2), b"a")
    assert not negatives.add(Inode(3), b"b")
    assert negatives.discard(Inode(2), b"a")
    assert not negatives._names
