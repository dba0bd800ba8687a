"""From the files that are opened, one after the other: which come next. Pure; no I/O, no clock.

Programs that go through a tree (tar, cp, grep, find, a loader of training data) open the files of a directory in the
order in which we list them, by name, or, where there are more than 10,000, by inode number, as the C library's fts of
GNU does. So the third file in order begins a walk, whose next files are worth fetching; the more of them are opened,
the more are fetched ahead, and fetching what is passed over ends it soon. A walk that was seen to go on in a
neighbouring directory is taken to go on into the next ones as well.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from cachetools import LRUCache

from cterafs.model import Inode, Node

SMALL = 1 << 20
"""Bytes of the largest file that is fetched ahead, as a whole: at 100 MB/s it takes as long as the two requests that it
needs at 5 ms each, so with larger ones there is little to gain. They have read-ahead of their own."""

IN_ORDER = 2
"""Files opened in order, after a first one, that begin a walk."""

FIRST = 4
"""Files ahead of a new walk; one more for each that is opened."""

MOST = 64
"""Files ahead, at most: with 20 ms for each of a file's two requests, 1,600 files a second."""

PENALTY = 4
"""Files fewer ahead for each one that was fetched and passed over: a walk that takes every other file ends."""

REACH = 2
"""Files that may be left out between the first few, so that nobody is taken for a walker who jumps about."""

LATE = 16
"""Files that may be opened after one that comes behind them: threads that share the work."""

WALKS = 16
"""Walks followed at a time, for as many programs."""

RECENT = 16
"""Files opened since, by anybody, after which two opens are not taken for the work of one program: as many as there
may be programs at a time."""

STALE = 64
"""Files opened since, by anybody, after which a walk is over: in a small directory, somebody who opens files in no
order comes by its next ones by chance."""

GLANCE = 8
"""Files looked up to see whether the next ones are opened in order, ..."""

LOOK = 2 * MOST
"""... and at a time for those who do: 1 ms of work for a hop to a thread of some 0.1 ms."""

DIRECTORIES = 256
"""Directories remembered in which files were opened, so far without an order: with what was looked up, some 2 MiB."""

PATIENCE = 4
"""Files opened in a directory without an order, until one is looked for ever more seldom, ..."""

SELDOM = 64
"""... down to once in so many: 0.3 ms of work."""


class Order(enum.Enum):
    """How a walk goes through a directory."""

    NAME = enum.auto()
    INODE = enum.auto()


@dataclass(eq=False, slots=True)
class _Walk:
    """Somebody who opens one file after the other.

    Attributes:
        last: the file opened last, of those in order, and `turn` the number of that open.
        deep: it goes on in the next directory.
        upcoming: the next files in order, of those that are known, and `late` those passed over lately.
        waiting: those of them that are not fetched yet; `fetched`: the bytes of those that are, and are not opened yet.
        depth: files to be ahead.
        length: files opened in order after the first.
        needed: how many make it a walk.
        asked: a question is under way; `ended`: nothing follows what is known.
    """

    last: Node
    turn: int
    order: Order
    deep: bool
    depth: int = FIRST
    needed: int = IN_ORDER
    length: int = 0
    upcoming: dict[Inode, Node] = field(default_factory=dict)
    late: dict[Inode, Node] = field(default_factory=dict)
    waiting: deque[Node] = field(default_factory=deque)
    fetched: dict[Inode, int] = field(default_factory=dict)
    asked: bool = False
    ended: bool = False

    def takes(self, file: Node) -> bool:
        """Whether this file is one that it was to open, give or take a few; takes note of it."""
        if self.late.pop(file.inode, None) is None:
            if file.inode not in self.upcoming or not self._comes_to(file):
                return False
            self.last = file
        self.length += 1
        if self.fetched.pop(file.inode, None) is not None:
            self.depth = min(self.depth + 1, MOST)
        return True

    def _comes_to(self, file: Node) -> bool:
        passed = []
        for inode in self.upcoming:
            if inode == file.inode:
                break
            passed.append(inode)
            if len(passed) > (REACH if self.length < self.needed else LATE):
                return False
        for inode in passed:
            self.late[inode] = self.upcoming.pop(inode)
        del self.upcoming[file.inode]
        return True

    def pass_over(self) -> list[Inode]:
        """Gives up those that nobody will open any more; returns those that were fetched for nothing."""
        wasted = []
        while len(self.late) > LATE:
            inode = next(iter(self.late))
            del self.late[inode]
            if self.fetched.pop(inode, None) is not None:
                wasted.append(inode)
        self.depth -= PENALTY * len(wasted)
        return wasted

    def next_files(self, room: int) -> list[Node]:
        """What is to be fetched now, so that no more than `room` bytes are ahead."""
        found = []
        ahead = sum(self.fetched.values()) if self.waiting else 0
        while self.waiting and len(self.fetched) < self.depth:
            file = self.waiting[0]
            if 0 < file.size <= SMALL and file.inode in self.upcoming:
                if ahead + file.size > room:
                    break
                ahead += file.size
                self.fetched[file.inode] = file.size
                found.append(file)
            self.waiting.popleft()
        return found

    def learn(self, files: Iterable[Node]) -> list[Node]:
        """These come behind those that are known."""
        new = [file for file in files if file.inode not in self.upcoming and file.inode not in self.late]
        self.upcoming.update((file.inode, file) for file in new)
        self.waiting.extend(new)
        return new


@dataclass(frozen=True, slots=True)
class Question:
    """Which `count` files follow `after`, in this order; with `deep`, also those in the directories that follow."""

    after: Node
    count: int
    order: Order
    deep: bool
    walk: _Walk


@dataclass(frozen=True, slots=True)
class Forecast:
    """What to do now.

    Attributes:
        fetch: files that will be opened, in that order.
        cancel: those named before that will not.
        ask: what `Siblings.learn` should be told.
    """

    fetch: Sequence[Node] = ()
    cancel: Sequence[Inode] = ()
    ask: Sequence[Question] = ()


@dataclass(eq=False, slots=True)
class _Directory:
    """Where files were opened, so far without an order.

    Attributes:
        last: the latest of them, and `turn` the number of that open.
        misses: opens that no candidate foresaw; `strikes`: walks there that came to nothing.
    """

    last: Inode
    turn: int
    candidates: list[_Walk] = field(default_factory=list)
    misses: int = 0
    strikes: int = 0


class Siblings:
    """Who walks where.

    Args:
        parent: the directory above another, where it is known.
    """

    def __init__(self, parent: Callable[[Inode], Inode | None]) -> None:
        self._parent = parent
        self._directories: LRUCache[Inode, _Directory] = LRUCache(DIRECTORIES)
        self._walks: list[_Walk] = []  # the one that went on last at the front
        self._expected: dict[Inode, _Walk] = {}
        self._turn = 0

    def opened(self, file: Node, room: int) -> Forecast:
        """A file was opened; `room` bytes may be ahead of who did it."""
        self._turn += 1
        walk = self._expected.get(file.inode)
        if walk is not None and self._turn - walk.turn > STALE:
            return Forecast(cancel=self._drop(walk))
        if walk is not None and walk.takes(file):
            del self._expected[file.inode]
            return self._go_on(walk, room)
        if any(walk.last.inode == file.inode for walk in self._walks):
            return Forecast()  # once more
        return self._unexpected(file, room)

    def learn(self, question: Question, files: Sequence[Node], room: int) -> Forecast:
        """The answer to a question: none is the end."""
        walk = question.walk
        walk.asked, walk.ended = False, not files
        new = walk.learn(files)
        if walk not in self._walks:
            return Forecast()
        self._expected.update((file.inode, walk) for file in new)
        return self._advance(walk, room)

    def forget(self, inodes: Iterable[Inode]) -> Sequence[Inode]:
        """These are gone, or something else now; returns those of them that are being fetched."""
        for directory in self._directories.values():
            directory.candidates = []
        cancelled = []
        for inode in inodes:
            walk = self._expected.pop(inode, None)
            if walk is not None:
                walk.upcoming.pop(inode, None)
                walk.late.pop(inode, None)
                if walk.fetched.pop(inode, None) is not None:
                    cancelled.append(inode)
        return cancelled

    def _go_on(self, walk: _Walk, room: int) -> Forecast:
        walk.turn = self._turn
        self._walks.remove(walk)
        self._walks.insert(0, walk)
        known = list(walk.late)
        wasted = walk.pass_over()
        for inode in known[: len(known) - len(walk.late)]:
            self._expected.pop(inode, None)
        if walk.depth <= 0:
            directory = self._directories.setdefault(walk.last.parent, _Directory(walk.last.inode, self._turn))
            directory.strikes += 1
            return Forecast(cancel=[*wasted, *self._drop(walk)])
        forecast = self._advance(walk, room)
        return Forecast(forecast.fetch, wasted, forecast.ask) if wasted else forecast

    def _advance(self, walk: _Walk, room: int) -> Forecast:
        fetch = walk.next_files(room)
        if walk.asked or walk.ended or len(walk.waiting) >= walk.depth:
            return Forecast(fetch)
        walk.asked = True
        after = next(reversed(walk.upcoming.values()), walk.last)
        return Forecast(fetch, ask=(Question(after, LOOK, walk.order, walk.deep, walk),))

    def _unexpected(self, file: Node, room: int) -> Forecast:
        directory = self._directories.get(file.parent)
        if directory is None:
            directory = self._directories[file.parent] = _Directory(file.inode, -RECENT)
        elif directory.last == file.inode:
            return Forecast()  # once more
        recent = self._turn - directory.turn <= RECENT
        directory.last, directory.turn = file.inode, self._turn
        if not directory.candidates and self._leads_to(file.parent):
            return self._look(directory, [_Walk(file, self._turn, Order.NAME, deep=True, needed=1)])
        if not recent:
            return Forecast()
        for walk in directory.candidates:
            if walk.takes(file):
                return self._begin(directory, walk, room) if walk.length >= walk.needed else Forecast()
        directory.misses += 1
        rare = directory.misses & (directory.misses - 1) and directory.misses % SELDOM
        if (directory.misses > PATIENCE and rare) or any(walk.asked for walk in directory.candidates):
            return Forecast()
        # Of the files in order, `file` is taken for the second. As many as were looked up can be recognised.
        needed = min((IN_ORDER << directory.strikes) - 1, GLANCE - 1)
        return self._look(directory, [_Walk(file, self._turn, order, deep=False, needed=needed) for order in Order])

    def _leads_to(self, directory: Inode) -> bool:
        """Whether a walk may have gone on in this directory: it has just been below, above or beside it."""
        above = self._parent(directory)
        for walk in self._walks:
            here = walk.last.parent
            if self._turn - walk.turn > RECENT or here == directory:
                continue
            beside = above is not None and self._parent(here) == above
            if beside or here == above or self._parent(here) == directory:
                return True
        return False

    def _look(self, directory: _Directory, candidates: list[_Walk]) -> Forecast:
        directory.candidates = candidates
        for walk in candidates:
            walk.asked = True
        return Forecast(ask=[Question(walk.last, GLANCE, walk.order, walk.deep, walk) for walk in candidates])

    def _begin(self, directory: _Directory, walk: _Walk, room: int) -> Forecast:
        """A candidate has turned out to be a walk."""
        directory.candidates = []
        self._walks.insert(0, walk)
        dropped = [inode for old in self._walks[WALKS:] for inode in self._drop(old)]
        self._expected.update((inode, walk) for inode in [*walk.upcoming, *walk.late])
        forecast = self._advance(walk, room)
        return Forecast(forecast.fetch, dropped, forecast.ask)

    def _drop(self, walk: _Walk) -> list[Inode]:
        """Forgets a walk; returns what was fetched for it and not opened."""
        self._walks.remove(walk)
        for inode in [*walk.upcoming, *walk.late]:
            if self._expected.get(inode) is walk:
                del self._expected[inode]
        return list(walk.fetched)
