"""Who walks through a tree, and what they will open next: played on a small tree, whose questions are answered late."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pytest

from cterafs.content.siblings import (
    DIRECTORIES,
    FIRST,
    GLANCE,
    LATE,
    LOOK,
    MOST,
    PATIENCE,
    SELDOM,
    SMALL,
    WALKS,
    Forecast,
    Order,
    Question,
    Siblings,
)
from cterafs.model import ROOT_INODE, Inode, Node

ROOM = 64 << 20


class Tree:
    """Directories of files. Inode numbers are scattered, so that their order is not that of the names."""

    def __init__(self) -> None:
        self._random = random.Random(1)
        self._numbers = iter(self._random.sample(range(2, 200_000), 100_000))
        self.root = self._node(ROOT_INODE, "", is_dir=True)
        self.parents: dict[Inode, Inode] = {}
        self.children: dict[Inode, list[Node]] = {self.root.inode: []}

    def _node(self, parent: Inode, name: str, *, is_dir: bool = False, size: int = 8192) -> Node:
        inode = Inode(next(self._numbers))
        return Node(inode=inode, parent=parent, name=name, wire_name=name, is_dir=is_dir, size=0 if is_dir else size)

    def directory(self, above: Node, name: str) -> Node:
        node = self._node(above.inode, name, is_dir=True)
        self.parents[node.inode] = above.inode
        self.children[node.inode] = []
        self._add(node)
        return node

    def file(self, above: Node, name: str, size: int = 8192) -> Node:
        node = self._node(above.inode, name, size=size)
        self._add(node)
        return node

    def files(self, above: Node, count: int, size: int = 8192) -> list[Node]:
        return [self.file(above, f"f{number:05}", size) for number in range(count)]

    def _add(self, node: Node) -> None:
        self.children[node.parent].append(node)
        self.children[node.parent].sort(key=lambda child: child.name)

    def walk(self, directory: Node) -> Iterator[Node]:
        """All files below, each directory in the place of its name."""
        for child in self.children[directory.inode]:
            if child.is_dir:
                yield from self.walk(child)
            else:
                yield child

    def following(self, question: Question) -> list[Node]:
        after = question.after
        if question.deep:
            files = list(self.walk(self.root))
            return files[files.index(after) + 1 :][: question.count]
        files = [child for child in self.children[after.parent] if not child.is_dir]
        if question.order is Order.INODE:
            files.sort(key=lambda file: file.inode)
            return [file for file in files if file.inode > after.inode][: question.count]
        return [file for file in files if file.name > after.name][: question.count]


@dataclass(slots=True)
class Outcome:
    """`early`: files that were named before they were opened; `vain`: those named that nobody opened."""

    early: int = 0
    opened: int = 0
    questions: int = 0
    ahead: int = 0
    fetched: list[Inode] = field(default_factory=list)
    vain: list[Inode] = field(default_factory=list)


def play(tree: Tree, order: Iterable[Node], *, siblings: Siblings | None = None, room: int = ROOM) -> Outcome:
    """Opens files in this order; each question is answered after the next open."""
    siblings = siblings or Siblings(tree.parents.get)
    outcome, waiting, unread = Outcome(), list[Question](), dict[Inode, int]()

    def do(forecast: Forecast) -> None:
        outcome.fetched += [file.inode for file in forecast.fetch]
        unread.update((file.inode, file.size) for file in forecast.fetch)
        outcome.ahead = max(outcome.ahead, sum(unread.values()))
        waiting.extend(forecast.ask)
        outcome.questions += len(forecast.ask)

    for file in order:
        outcome.opened += 1
        outcome.early += unread.pop(file.inode, None) is not None
        questions, waiting = waiting, []
        do(siblings.opened(file, room))
        for question in questions:
            do(siblings.learn(question, tree.following(question), room))
    outcome.vain = list(unread)
    return outcome


@pytest.fixture
def tree() -> Tree:
    return Tree()


# --- one directory ----------------------------------------------------------------------------------------------------


def test_one_file_asks_nothing(tree: Tree) -> None:
    files = tree.files(tree.root, 10_000)
    assert play(tree, [files[5000]]) == Outcome(opened=1)
    assert play(tree, [files[5000]] * 10) == Outcome(opened=10)


def test_two_files_fetch_nothing(tree: Tree) -> None:
    assert play(tree, tree.files(tree.root, 10_000)[:2]).fetched == []


def test_the_third_file_in_order_begins_a_walk(tree: Tree) -> None:
    files = tree.files(tree.root, 100)
    siblings = Siblings(tree.parents.get)
    assert siblings.opened(files[10], ROOM) == Forecast()
    questions = siblings.opened(files[11], ROOM).ask
    assert {(question.order, question.deep) for question in questions} == {(Order.NAME, False), (Order.INODE, False)}
    for question in questions:
        assert siblings.learn(question, tree.following(question), ROOM) == Forecast()
    assert {question.count for question in questions} == {GLANCE}
    forecast = siblings.opened(files[12], ROOM)
    assert forecast.fetch == files[13 : 13 + FIRST]
    assert [question.count for question in forecast.ask] == [LOOK]
    assert siblings.opened(files[13], ROOM).fetch == files[13 + FIRST : 13 + FIRST + 2]


def test_a_directory_in_the_order_of_names(tree: Tree) -> None:
    outcome = play(tree, tree.files(tree.root, 2000))
    assert outcome.early >= 2000 - 5
    assert outcome.vain == []
    assert outcome.questions <= 2 + 2000 / MOST + 2
    assert outcome.ahead == MOST * 8192


def test_a_directory_in_the_order_of_inodes(tree: Tree) -> None:
    outcome = play(tree, sorted(tree.files(tree.root, 12_000), key=lambda file: file.inode))
    assert outcome.early >= 12_000 - 10
    assert len(outcome.vain) <= MOST


def test_threads_that_share_the_work_are_one_walk(tree: Tree) -> None:
    order = random.Random(5)
    files = tree.files(tree.root, 2000)
    shuffled = sorted(files, key=lambda file: files.index(file) + order.random() * 8)
    outcome = play(tree, shuffled)
    assert outcome.early >= 2000 - 20
    assert len(outcome.vain) <= 2


def test_files_in_no_order_fetch_next_to_nothing_and_ask_ever_more_seldom(tree: Tree) -> None:
    files = tree.files(tree.root, 3000)
    random.Random(3).shuffle(files)
    outcome = play(tree, files)
    assert len(outcome.fetched) <= 30
    assert outcome.questions <= 2 * (PATIENCE + 6 + 3000 / SELDOM)


def test_a_walk_after_many_files_in_no_order_is_noticed(tree: Tree) -> None:
    files = tree.files(tree.root, 2000)
    shuffled = random.Random(3).sample(files, 1500)
    siblings = Siblings(tree.parents.get)
    play(tree, shuffled, siblings=siblings)
    assert play(tree, files, siblings=siblings).early >= 2000 - SELDOM - 10


def test_who_leaves_every_other_file_out_is_given_up(tree: Tree) -> None:
    outcome = play(tree, tree.files(tree.root, 3000)[::2])
    assert len(outcome.vain) <= 150


def test_a_walk_is_noticed_also_where_many_came_to_nothing(tree: Tree) -> None:
    files = tree.files(tree.root, 3000)
    siblings = Siblings(tree.parents.get)
    play(tree, files[:2000:2], siblings=siblings)
    siblings._directories[tree.root.inode].strikes = 10
    assert play(tree, files[2000:], siblings=siblings).early >= 1000 - SELDOM - 20


def test_who_leaves_a_few_out_is_not(tree: Tree) -> None:
    files = tree.files(tree.root, 3000)
    siblings = Siblings(tree.parents.get)
    outcome = play(tree, [file for number, file in enumerate(files) if number % 10], siblings=siblings)
    assert len(siblings._expected) <= 2 * (LOOK + MOST)
    assert outcome.early >= 0.95 * outcome.opened
    assert len(outcome.vain) <= 300 + MOST


def test_who_leaves_many_out_at_once_is_followed_and_pays_for_it(tree: Tree) -> None:
    files = tree.files(tree.root, 1000)
    outcome = play(tree, [*files[:500], *files[540:]])
    assert outcome.early >= 960 - 6
    assert len(outcome.vain) == 40


def test_files_that_are_opened_twice_are_walked_through_once(tree: Tree) -> None:
    outcome = play(tree, [file for file in tree.files(tree.root, 500) for _ in range(2)])
    assert len(outcome.fetched) >= 490
    assert outcome.questions <= 2 + 500 / MOST + 2


def test_large_and_empty_files_are_walked_past(tree: Tree) -> None:
    files = [tree.file(tree.root, f"{number:04}", (8192, SMALL + 1, 0)[number % 3]) for number in range(600)]
    outcome = play(tree, files)
    assert outcome.early >= 195
    assert {file.size for file in files if file.inode in outcome.fetched} == {8192}


def test_two_who_walk_through_one_directory(tree: Tree) -> None:
    files = tree.files(tree.root, 2000)
    outcome = play(tree, [file for pair in zip(files[:800], files[1000:1800], strict=True) for file in pair])
    assert outcome.early >= 1600 - 30


def test_what_is_opened_besides_does_not_end_a_walk(tree: Tree) -> None:
    files, other = tree.files(tree.root, 1000), tree.files(tree.directory(tree.root, "other"), 100)
    outcome = play(tree, [file for number, file in enumerate(files) for file in (file, other[number * 37 % 100])])
    assert outcome.early >= 1000 - 10


def test_no_more_is_fetched_than_there_is_room(tree: Tree) -> None:
    files = tree.files(tree.root, 200, size=100_000)
    assert play(tree, files, room=1_000_000).ahead <= 1_000_000
    assert play(tree, files, room=0).fetched == []


# --- trees ------------------------------------------------------------------------------------------------------------


def grow(tree: Tree, *, directories: int, files: int) -> None:
    for number in range(directories):
        above = tree.directory(tree.root, f"d{number:04}")
        tree.files(above, files)


def test_a_walk_goes_on_in_the_next_directory(tree: Tree) -> None:
    grow(tree, directories=100, files=10)
    outcome = play(tree, tree.walk(tree.root))
    assert outcome.early >= 1000 - 20
    assert outcome.vain == []


def test_directories_between_files_and_below_each_other(tree: Tree) -> None:
    for number in range(30):
        tree.files(above := tree.directory(tree.root, f"{number:02}"), 5)
        tree.files(tree.directory(above, "f00002-below"), 5)
    outcome = play(tree, tree.walk(tree.root))
    assert outcome.early >= 300 - 30
    assert outcome.vain == []


def test_files_first_and_then_directories(tree: Tree) -> None:
    """As rsync does: what lies below is fetched too early at worst."""
    grow(tree, directories=50, files=10)
    loose = tree.files(tree.root, 100)
    outcome = play(tree, [*loose, *(file for file in tree.walk(tree.root) if file not in loose)])
    assert outcome.early >= 600 - 30


def test_who_stays_in_one_directory_has_nothing_fetched_from_others(tree: Tree) -> None:
    grow(tree, directories=50, files=10)
    files = tree.files(tree.root, 100)
    assert set(play(tree, files).fetched) <= {file.inode for file in files}


def test_a_file_beside_a_walk_begins_no_other(tree: Tree) -> None:
    grow(tree, directories=50, files=50)
    walked, *others = (tree.children[node.inode] for node in tree.children[tree.root.inode])
    siblings = Siblings(tree.parents.get)
    play(tree, walked, siblings=siblings)
    assert play(tree, [files[30] for files in others], siblings=siblings).fetched == []


def test_files_of_many_directories_in_no_order_fetch_little(tree: Tree) -> None:
    """As a loader of training data does, with a directory for each class."""
    grow(tree, directories=200, files=20)
    files = list(tree.walk(tree.root))
    siblings = Siblings(tree.parents.get)
    play(tree, files, siblings=siblings)
    random.Random(8).shuffle(files)
    outcome = play(tree, files, siblings=siblings)
    assert len(outcome.fetched) <= 0.05 * len(files)
    assert outcome.questions <= 0.6 * len(files)


# --- changes and bounds -----------------------------------------------------------------------------------------------


def test_what_is_gone_is_not_fetched_and_given_up_if_it_was(tree: Tree) -> None:
    files = tree.files(tree.root, 100)
    siblings = Siblings(tree.parents.get)
    play(tree, files[:50], siblings=siblings)
    gone = [file.inode for file in files[52:80]]
    assert siblings.forget(gone) == gone[: len(gone)]
    assert set(play(tree, [*files[50:52], *files[80:]], siblings=siblings).fetched).isdisjoint(gone)


def test_what_is_gone_before_a_walk_is_noticed_is_not_fetched_either(tree: Tree) -> None:
    files = tree.files(tree.root, 100)
    siblings = Siblings(tree.parents.get)
    siblings.opened(files[0], ROOM)
    for question in siblings.opened(files[1], ROOM).ask:
        siblings.learn(question, tree.following(question), ROOM)
    siblings.forget([files[3].inode])
    assert siblings.opened(files[2], ROOM).fetch == ()


def test_a_walk_that_is_forgotten_for_others_cancels_what_it_had_fetched(tree: Tree) -> None:
    siblings = Siblings(tree.parents.get)
    directories = [tree.files(tree.directory(above, "x"), 20) for above in _apart(tree, WALKS + 1)]
    first = play(tree, directories[0][:5], siblings=siblings)
    cancelled: list[Inode] = []
    for files in directories[1:]:
        for file in files[:5]:
            forecast = siblings.opened(file, ROOM)
            cancelled += forecast.cancel
            for question in forecast.ask:
                siblings.learn(question, tree.following(question), ROOM)
    assert first.vain
    assert sorted(cancelled) == sorted(first.vain)


def _apart(tree: Tree, count: int) -> list[Node]:
    """Directories of which none is beside, above or below another's parent."""
    return [tree.directory(tree.directory(tree.root, f"{number}"), "y") for number in range(count)]


def test_memory_is_bounded(tree: Tree) -> None:
    grow(tree, directories=3 * DIRECTORIES, files=4)
    siblings = Siblings(tree.parents.get)
    play(tree, tree.walk(tree.root), siblings=siblings)
    files = list(tree.walk(tree.root))
    random.Random(1).shuffle(files)
    play(tree, files, siblings=siblings)
    assert len(siblings._directories) <= DIRECTORIES
    assert len(siblings._walks) <= WALKS
    assert len(siblings._expected) <= WALKS * (LOOK + MOST + LATE)
