"""Listings that are kept for whoever lists again."""

from __future__ import annotations

import pytest

from cterafs.model import Change, Dirent, Inode, Node
from cterafs.namespace.pages import OVERHEAD, Pages

HERE, THERE, FAR = Inode(10), Inode(11), Inode(12)


def page(*numbers: int) -> list[Dirent]:
    return [Dirent(Inode(number), f"f{number}", 0, 1, 0, 0) for number in numbers]


def node(inode: Inode, parent: Inode) -> Node:
    return Node(inode=inode, parent=parent, name="d", wire_name="d", is_dir=True)


@pytest.fixture
def pages() -> Pages:
    pages = Pages()
    pages.keep(HERE, None, page(1, 2))
    pages.keep(HERE, "f2", page(3))
    pages.keep(THERE, None, page())
    return pages


def test_each_page_is_found_by_the_name_before_it(pages: Pages) -> None:
    assert pages.get(HERE, None) == page(1, 2)
    assert pages.get(HERE, "f2") == page(3)
    assert pages.get(HERE, "f3") is None
    assert pages.get(THERE, None) == []
    assert pages.get(FAR, None) is None
    assert (HERE in pages, FAR in pages) == (True, False)


@pytest.mark.parametrize(
    "change",
    [
        Change(None, node(FAR, HERE)),
        Change(node(FAR, HERE), None),
        Change(node(FAR, HERE), node(FAR, FAR)),
        Change(node(HERE, FAR), None),
        Change(None, node(HERE, FAR)),
    ],
)
def test_a_change_in_a_directory_or_of_it_makes_its_pages_old(pages: Pages, change: Change) -> None:
    pages.forget([change])
    assert pages.get(HERE, None) is None
    assert pages.get(HERE, "f2") is None
    assert pages.get(THERE, None) == []


def test_what_was_listed_longest_ago_makes_room() -> None:
    pages = Pages(kept=3 * (1 + OVERHEAD))
    for directory in (HERE, THERE, FAR):
        pages.keep(directory, None, page(1))
    pages.get(HERE, None)
    pages.keep(FAR, None, page(1))  # again
    pages.keep(Inode(13), None, page(1))
    assert [directory in pages for directory in (HERE, THERE, FAR, Inode(13))] == [True, False, True, True]


def test_what_is_larger_than_all_there_is_room_for_is_not_kept() -> None:
    pages = Pages(kept=4)
    pages.keep(HERE, None, page(1, 2, 3))
    assert HERE not in pages
    pages.keep(THERE, None, page(1, 2))  # and takes no room
    assert THERE in pages
