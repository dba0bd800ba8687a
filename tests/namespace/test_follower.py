"""The feed's task, against a portal that is played by hand, on a clock that jumps."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from cterafs import errors
from cterafs.model import Change, Cursor, Event, FolderInfo, Page
from cterafs.namespace.follower import Follower
from cterafs.namespace.schema import IDLE, LISTING
from cterafs.namespace.store import Store
from cterafs.namespace.tree import Batch, Tree

pytestmark = pytest.mark.trio


def folder(guid: str, name: str, folder_id: int = 7) -> Event:
    return Event(guid=guid, name=name, is_dir=True, folder_id=folder_id)


def directory(guid: str, name: str, parent: str) -> Event:
    return Event(guid=guid, name=name, is_dir=True, parent_guid=parent, folder_id=7)


def file(guid: str, name: str, parent: str, size: int = 1) -> Event:
    return Event(guid=guid, name=name, is_dir=False, parent_guid=parent, folder_id=7, file_id=1, size=size)


@dataclass
class PlayedPortal:
    """A feed of pages; its cursors are positions in it, with the number of times that it was reset in front."""

    pages: list[list[Event]] = field(default_factory=list)
    ancestors: dict[str, list[Event]] = field(default_factory=dict)
    folders: list[FolderInfo] | errors.PortalError = field(default_factory=list)
    failures: list[errors.PortalError] = field(default_factory=list)
    epoch: int = 0
    calls: list[tuple[str, object, float]] = field(default_factory=list)
    more: trio.Event = field(default_factory=trio.Event)
    polls_return_at_once: bool = False

    async def list(self, cursor: Cursor | None, *, folder_ids: Sequence[int], max_results: int) -> Page:
        self._called("list", cursor)
        await trio.lowlevel.checkpoint()
        if cursor is not None and not cursor.startswith(f"{self.epoch}:"):
            raise errors.CursorRejectedError("no such cursor")
        position = int(cursor.partition(":")[2]) if cursor else 0
        events = self.pages[position] if position < len(self.pages) else []
        after = min(position + 1, len(self.pages))
        return Page(events=events, cursor=Cursor(f"{self.epoch}:{after}"), has_more=after < len(self.pages), skipped=0)

    async def changes(self, cursor: Cursor, *, timeout: float, folders: Sequence[int]) -> bool:  # noqa: ASYNC109
        self._called("changes", cursor)
        if not cursor.startswith(f"{self.epoch}:"):
            raise errors.CursorRejectedError("no such cursor")
        if self.polls_return_at_once:
            await trio.lowlevel.checkpoint()
            return False
        with trio.move_on_after(timeout):
            await self.more.wait()
            self.more = trio.Event()
            return True
        return False

    async def ancestors_of(self, folder_id: int, guid: str) -> Sequence[Event]:
        self._called("ancestors", guid)
        await trio.lowlevel.checkpoint()
        if guid not in self.ancestors:
            raise errors.AncestorsError("never heard of it")
        return self.ancestors[guid]

    async def all(self) -> Sequence[FolderInfo]:
        self._called("folders", None)
        if isinstance(self.folders, errors.PortalError):
            raise self.folders
        return self.folders

    def tell(self, *events: Event) -> None:
        self.pages.append([*events])
        self.more.set()

    def asked(self, kind: str) -> Sequence[object]:
        return [argument for name, argument, _ in self.calls if name == kind]

    def times(self, kind: str) -> Sequence[float]:
        return [at for name, _, at in self.calls if name == kind]

    def _called(self, kind: str, argument: object) -> None:
        self.calls.append((kind, argument, trio.current_time()))
        if self.failures:
            raise self.failures.pop(0)


@dataclass
class Watcher:
    """A listener that notes what it hears, and what a reader would have seen at that moment."""

    store: Store
    heard: list[tuple[str, list[Change]]] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)
    news: trio.Event = field(default_factory=trio.Event)

    def prepare(self, changes: Sequence[Change]) -> None:
        self.heard.append(("prepare", [*changes]))
        self.seen.append(self.store.counts.files)

    def publish(self, changes: Sequence[Change]) -> None:
        self.heard.append(("publish", [*changes]))
        self.seen.append(self.store.counts.files)
        self.news.set()
        self.news = trio.Event()

    async def settle(self) -> None:
        pass

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self.news.wait()


@dataclass
class Setting:
    portal: PlayedPortal
    store: Store
    tree: Tree
    watcher: Watcher

    @asynccontextmanager
    async def following(self, **options: object) -> AsyncIterator[Follower]:
        follower = Follower(self.portal, self.tree, listener=self.watcher, folders=self.portal, **options)  # type: ignore[arg-type]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follower.run)
            yield follower
            nursery.cancel_scope.cancel()


@pytest.fixture
def setting(tmp_path: Path, autojump_clock: MockClock) -> Iterator[Setting]:
    # pytest-trio runs a test on this clock only where the test itself asks for it, so all of them do.
    # Work in threads does not count as busy for a jumping clock: it waits this long for it.
    autojump_clock.autojump_threshold = 0.01
    with Store.open(tmp_path) as store, Tree(store) as tree:
        yield Setting(PlayedPortal(), store, tree, Watcher(store))


async def eventually(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  # of the jumping clock
        await trio.sleep(1)


async def live(follower: Follower) -> None:
    await eventually(lambda: follower.status.state == "live")


async def test_imports_and_then_follows(setting: Setting, autojump_clock: MockClock) -> None:
    portal, store = setting.portal, setting.store
    portal.pages = [[folder("r", "Docs")], [file("a", "a.txt", "r"), file("b", "b.txt", "r")]]
    async with setting.following() as follower:
        assert follower.status.state == "importing"
        assert follower.status.lag(0) is None
        await follower.imported.wait()
        await live(follower)
        assert follower.status.lag(0) == 0
        assert follower.status.entries_seen == 3
        portal.tell(file("c", "c.txt", "r"))
        await setting.watcher.until(lambda: store.resolve("/Docs/c.txt") is not None)
        portal.tell(Event(guid="a", name="a.txt", is_dir=False, deleted=True))
        await setting.watcher.until(lambda: store.resolve("/Docs/a.txt") is None)
    assert store.imported
    assert store.cursor == "0:4"


async def test_prepare_before_the_commit_and_publish_after_it(setting: Setting, autojump_clock: MockClock) -> None:
    setting.portal.pages = [[folder("r", "Docs"), file("a", "a.txt", "r")]]
    async with setting.following() as follower:
        await live(follower)
    kinds = [kind for kind, changes in setting.watcher.heard if changes]
    files = [seen for (_, changes), seen in zip(setting.watcher.heard, setting.watcher.seen, strict=True) if changes]
    assert kinds == ["prepare", "publish"]
    assert files == [0, 1]


async def test_goes_on_from_the_cursor_in_the_next_life(setting: Setting, autojump_clock: MockClock) -> None:
    setting.portal.pages = [[folder("r", "Docs")], [file("a", "a.txt", "r")]]
    async with setting.following() as follower:
        await live(follower)
    setting.portal.tell(file("b", "b.txt", "r"))
    setting.portal.calls.clear()
    async with setting.following() as follower:
        assert follower.imported.is_set()
        assert follower.status.state == "catching-up"
        await live(follower)
    assert setting.portal.asked("list")[0] == "0:2"
    assert setting.store.resolve("/Docs/b.txt") is not None


async def test_backs_off_while_the_portal_is_away_and_says_so(setting: Setting, autojump_clock: MockClock) -> None:
    setting.portal.pages = [[folder("r", "Docs")]]
    async with setting.following() as follower:
        await live(follower)
        setting.portal.failures = [errors.PortalConnectionError("no route to portal") for _ in range(8)]
        await eventually(lambda: follower.status.state == "offline")
        assert follower.status.reason == "no route to portal"
        assert setting.store.resolve("/Docs") is not None
        await live(follower)
        assert follower.status.reason is None
    failed = setting.portal.times("folders")[1:]  # each attempt begins with them; they are not held against the portal
    pauses = [later - earlier for earlier, later in itertools.pairwise(failed)]
    assert max(pauses) <= 35
    assert pauses[1] > 0.5


async def test_wrong_credentials_are_not_tried_often(setting: Setting, autojump_clock: MockClock) -> None:
    setting.portal.folders = errors.PortalConnectionError("not even that")
    setting.portal.failures = []

    async def refused(*_: object, **__: object) -> Page:
        setting.portal.calls.append(("list", None, trio.current_time()))
        await trio.lowlevel.checkpoint()
        raise errors.AuthenticationError("wrong password")

    setting.portal.list = refused  # type: ignore[method-assign]
    async with setting.following() as follower:
        await eventually(lambda: len(setting.portal.times("list")) >= 5)
        assert follower.status.state == "offline"
        assert isinstance(follower.error, errors.AuthenticationError)
        assert not follower.imported.is_set()
    pauses = [later - earlier for earlier, later in itertools.pairwise(setting.portal.times("list"))]
    assert all(30 <= pause <= 900 for pause in pauses)
    assert pauses[-1] > 200


async def test_refused_credentials_are_tried_once_a_time(setting: Setting, autojump_clock: MockClock) -> None:
    setting.portal.folders = errors.AuthenticationError("wrong password")
    async with setting.following() as follower:
        await eventually(lambda: follower.error is not None and len(setting.portal.times("folders")) >= 2)
    assert not setting.portal.times("list")


async def test_a_storm_of_changes_is_taken_in_larger_pages(setting: Setting, autojump_clock: MockClock) -> None:
    """The portal has something new at every question; it is not asked more often than anybody would notice."""
    setting.portal.pages = [[folder("r", "Docs")]]
    async with setting.following() as follower:
        await live(follower)
        for number in range(20):
            setting.portal.tell(file(f"g{number}", f"{number}", "r"))
            while setting.store.counts.files <= number:
                await setting.watcher.news.wait()
        lists = setting.portal.times("list")[-20:]
    assert all(later - earlier >= 0.029 for earlier, later in itertools.pairwise(lists))


async def test_a_portal_that_went_silent_is_not_current(setting: Setting, autojump_clock: MockClock) -> None:
    async with setting.following() as follower:
        await live(follower)
        status = follower.status
    late = (status.last_contact_at or 0) + status.patience
    assert [status.lag(late), status.lag(late + 1)] == [0, pytest.approx(status.patience + 1, abs=1)]


async def test_a_rejected_cursor_lists_again(setting: Setting, autojump_clock: MockClock) -> None:
    portal, store = setting.portal, setting.store
    portal.pages = [[folder("r", "Docs"), file("a", "a.txt", "r"), file("b", "b.txt", "r")]]
    async with setting.following() as follower:
        await live(follower)
        kept, lost = store.resolve("/Docs/a.txt"), store.resolve("/Docs/b.txt")
        setting.watcher.heard.clear()
        portal.epoch += 1
        portal.pages = [[folder("r", "Docs")], [file("a", "a.txt", "r")], [file("c", "c.txt", "r")]]
        portal.more.set()
        await setting.watcher.until(lambda: store.relist == IDLE and store.resolve("/Docs/b.txt") is None)
        await live(follower)
    assert store.resolve("/Docs/a.txt") == kept
    changes = [change for kind, changes in setting.watcher.heard if kind == "publish" for change in changes]
    assert [(change.old, change.new) for change in changes] == [(None, store.resolve("/Docs/c.txt")), (lost, None)]


async def test_another_selection_lists_again(setting: Setting, autojump_clock: MockClock) -> None:
    setting.portal.pages = [[folder("r", "Docs", 7), folder("s", "Plans", 8)]]
    async with setting.following() as follower:
        await live(follower)
    setting.portal.pages = [[folder("s", "Plans", 8)]]  # the old cursor would be accepted, and tell nothing
    async with setting.following(folder_ids=[8]) as follower:
        await live(follower)
    assert setting.store.selection == (8,)
    assert setting.store.resolve("/Docs") is None
    assert setting.store.resolve("/Plans") is not None


async def test_a_listing_that_was_interrupted_is_finished(setting: Setting, autojump_clock: MockClock) -> None:
    portal, store = setting.portal, setting.store
    portal.pages = [[folder("r", "Docs"), file("a", "a.txt", "r"), file("b", "b.txt", "r")]]
    async with setting.following() as follower:
        await live(follower)
    setting.tree.begin_relist()
    setting.tree.prepare([folder("r", "Docs")], Cursor("1:1"), listing=True).commit()
    assert store.relist == LISTING
    portal.epoch = 1
    portal.pages = [[folder("r", "Docs")], [file("b", "b.txt", "r")]]
    async with setting.following() as follower:
        await live(follower)
    assert portal.asked("list")[-1] == "1:1"
    assert [node.name for node in store.children(store.resolve("/Docs").inode, None, 9)] == ["b.txt"]  # type: ignore[union-attr]


async def test_asks_for_parents_that_nothing_told_of(setting: Setting, autojump_clock: MockClock) -> None:
    portal, store = setting.portal, setting.store
    portal.pages = [[folder("r", "Docs"), file("a", "a.txt", "d"), file("b", "b.txt", "nobody")]]
    portal.ancestors = {"d": [folder("r", "Docs"), directory("d", "deep", "r")]}
    async with setting.following() as follower:
        await live(follower)
        assert store.resolve("/Docs/deep/a.txt") is not None
        assert portal.asked("ancestors").count("nobody") == 1
        portal.tell(file("a", "a.txt", "d", size=5))
        await setting.watcher.until(lambda: store.resolve("/Docs/deep/a.txt").size == 5)  # type: ignore[union-attr]
        await live(follower)
        assert portal.asked("ancestors").count("nobody") == 1  # asked in vain, and nothing new mentioned it
        portal.tell(file("c", "c.txt", "nobody"))
        await setting.watcher.until(lambda: store.by_guid("c") is not None)
        await eventually(lambda: portal.asked("ancestors").count("nobody") >= 2)


async def test_old_portals_are_asked_about_a_child(setting: Setting, autojump_clock: MockClock) -> None:
    setting.portal.pages = [[folder("r", "Docs"), file("a", "a.txt", "d")]]
    setting.portal.ancestors = {"d": [folder("r", "Docs")], "a": [folder("r", "Docs"), directory("d", "deep", "r")]}
    async with setting.following() as follower:
        await live(follower)
    assert setting.store.resolve("/Docs/deep/a.txt") is not None


async def test_owners_of_new_cloud_folders_are_asked_for_once(setting: Setting, autojump_clock: MockClock) -> None:
    portal, store = setting.portal, setting.store
    portal.pages = [[folder("r", "Docs", 7), folder("s", "Docs", 8)]]
    async with setting.following() as follower:
        await live(follower)
        assert {n.name for n in store.children(1, None, 9)} == {"Docs [7]", "Docs [8]"}  # type: ignore[arg-type]
        asked = len(portal.asked("folders"))
        portal.folders = [FolderInfo(7, "Docs", "ann"), FolderInfo(8, "Docs", "bob"), FolderInfo(9, "Plans", "bob")]
        portal.tell(folder("t", "Plans", 9))
        await setting.watcher.until(lambda: store.resolve("/Docs (ann)") is not None)
        portal.tell(folder("t", "Plans", 9), folder("u", "Nobody's", 10))
        portal.tell(folder("t", "Plans", 9), folder("u", "Nobody's", 10))
        await setting.watcher.until(lambda: store.cursor == "0:4")
        await live(follower)
    assert len(portal.asked("folders")) == asked + 2


async def test_long_polls_that_do_not_wait_are_no_flood(setting: Setting, autojump_clock: MockClock) -> None:
    setting.portal.pages = [[folder("r", "Docs")]]
    setting.portal.polls_return_at_once = True
    async with setting.following() as follower:
        await live(follower)
        await trio.sleep(20)
    assert 15 <= len(setting.portal.asked("changes")) <= 24


async def test_a_failing_disk_keeps_the_old_state_and_is_tried_again(
    setting: Setting, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    portal, store = setting.portal, setting.store
    portal.pages = [[folder("r", "Docs")]]
    async with setting.following() as follower:
        await live(follower)
        commit = Batch.commit

        def fails(batch: Batch) -> None:
            batch.rollback()
            raise errors.StateError("index.db cannot be written: disk is full")

        monkeypatch.setattr(Batch, "commit", fails)
        portal.tell(file("a", "a.txt", "r"))
        await eventually(lambda: follower.status.state == "offline")
        assert "cannot be written" in (follower.status.reason or "")
        assert store.resolve("/Docs/a.txt") is None
        monkeypatch.setattr(Batch, "commit", commit)
        await live(follower)
        assert store.resolve("/Docs/a.txt") is not None


async def test_a_bug_is_not_swallowed(
    setting: Setting, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting.portal.pages = [[folder("r", "Docs")]]

    def breaks(changes: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(setting.watcher, "prepare", breaks)
    with pytest.RaisesGroup(ZeroDivisionError, allow_unwrapped=True, flatten_subgroups=True):
        async with setting.following():
            await trio.sleep_forever()
    assert setting.store.cursor is None
