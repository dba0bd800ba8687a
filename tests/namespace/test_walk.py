"""Which directories a walk through the tree comes to next."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from cterafs.model import Change, Dirent, Inode, Node
from cterafs.namespace.walk import AHEAD, SMALL, Walks, come_next

TOP = Inode(10)
SUBS = [Inode(100 + number) for number in range(AHEAD * 2)]


def directory(inode: int) -> Dirent:
    return Dirent(Inode(inode), f"d{inode}", 1, 0, 0, 0)


def file(inode: int) -> Dirent:
    return Dirent(Inode(inode), f"f{inode}", 0, 1, 0, 0)


def node(inode: int) -> Node:
    return Node(inode=Inode(inode), parent=TOP, name="d", wire_name="d", is_dir=True)


@pytest.fixture
def walks() -> Walks:
    """`TOP` was just listed."""
    walks = Walks()
    walks.listed(TOP, [*map(directory, SUBS), file(99)], more=False)
    return walks


def test_whoever_goes_from_one_to_the_next_is_expected_to_go_on(walks: Walks) -> None:
    assert walks.visit(SUBS[0]) == SUBS[1 : 1 + AHEAD]
    assert walks.visit(SUBS[1]) == SUBS[2 : 2 + AHEAD]


def test_whoever_jumps_about_is_not(walks: Walks) -> None:
    assert walks.visit(SUBS[7]) is None
    assert walks.visit(SUBS[3]) is None
    assert walks.visit(Inode(5555)) is None
    assert walks.visit(SUBS[4])[:1] == [SUBS[5]]


def test_the_last_one_is_followed_by_nothing(walks: Walks) -> None:
    for inode in SUBS[:-1]:
        walks.visit(inode)
    assert walks.visit(SUBS[-1]) == []


def test_a_second_page_adds_to_the_first(walks: Walks) -> None:
    walks.listed(TOP, [directory(7000)], more=True)
    for inode in SUBS[:-1]:
        walks.visit(inode)
    assert walks.visit(SUBS[-1]) == [Inode(7000)]


def test_a_listing_from_the_beginning_replaces_the_one_before(walks: Walks) -> None:
    walks.visit(SUBS[0])
    walks.listed(TOP, map(directory, SUBS[:3]), more=False)
    assert walks.visit(SUBS[0]) == SUBS[1:3]


def test_a_change_anywhere_makes_everything_doubtful_but_who_lies_where(walks: Walks) -> None:
    walks.forget([Change(node(SUBS[5]), None)])
    assert walks.visit(SUBS[0]) is None
    assert walks.parent(SUBS[4]) == TOP
    assert walks.parent(SUBS[5]) is None


def test_behind_the_last_of_some_siblings_come_those_of_their_parent(walks: Walks) -> None:
    walks.visit(SUBS[0])
    walks.listed(SUBS[0], [directory(7000), directory(7001)], more=False)
    assert walks.visit(Inode(7000)) == [Inode(7001), *SUBS[1:AHEAD]]
    assert walks.visit(Inode(7001)) == SUBS[1 : 1 + AHEAD]
    assert walks.visit(SUBS[1]) == SUBS[2 : 2 + AHEAD]


def test_what_lies_in_a_directory_comes_before_its_siblings() -> None:
    tree = {
        1: [directory(2), file(3), directory(4)],
        2: [directory(5), directory(6)],
        4: [],
        5: [directory(8)],
        6: [],
        7: [],
        8: [],
    }
    found = come_next(tree[1], [Inode(7)], lambda inode: tree[inode])
    assert [*found] == [2, 5, 8, 6, 4, 7]
    assert all(found[inode] is tree[inode] for inode in found)


def test_no_more_is_read_ahead_than_is_worth_it() -> None:
    endless = come_next([directory(1)], [], lambda inode: [directory(inode + 1)])
    assert [*endless] == [*range(1, AHEAD + 1)]
    large = [directory(number) for number in range(2, SMALL + 3)]
    assert [*come_next([directory(1)], [Inode(9999)], lambda inode: large if inode == 1 else [])] == [1, 9999]


@pytest.fixture
def bounded() -> Iterator[None]:
    """What has no end fails instead."""

    def fail(*_: object) -> None:
        raise AssertionError("it does not end")

    before = signal.signal(signal.SIGVTALRM, fail)
    signal.setitimer(signal.ITIMER_VIRTUAL, 5)
    yield
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.signal(signal.SIGVTALRM, before)


@pytest.mark.usefixtures("bounded")
def test_a_directory_that_lies_within_itself_is_read_once() -> None:
    assert [*come_next([directory(1)], [], lambda inode: [directory(3 - inode)])] == [1, 2]


@pytest.mark.usefixtures("bounded")
def test_nobody_is_followed_upwards_for_ever(walks: Walks) -> None:
    walks.listed(Inode(1), [directory(2)], more=False)
    walks.listed(Inode(2), [directory(1)], more=False)
    assert {*(walks.visit(Inode(2)) or ())} <= {1, 2}
    assert walks.visit(Inode(1)) == []
