"""The feed's task, against a portal that is played by hand, on a clock that jumps."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable

import pytest
import trio
from played_portal import Setting, directory, eventually, file, folder, live
from trio.testing import MockClock

from cterafs import errors
from cterafs.model import Event, FolderInfo, Page
from cterafs.namespace import disk
from cterafs.namespace import tree as tree_module
from cterafs.namespace.tree import Batch

pytestmark = pytest.mark.trio


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


async def test_backs_off_while_the_portal_is_away_and_says_so(
    setting: Setting, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    setting.portal.pages = [[folder("r", "Docs")]]
    async with setting.following() as follower:
        await live(follower)
        setting.portal.failures = [errors.PortalConnectionError("no route to portal") for _ in range(8)]
        await eventually(lambda: follower.status.state == "offline")
        assert follower.status.reason == "no route to portal"
        since = follower.status.since
        while setting.portal.failures:
            assert (follower.status.state, follower.status.since) == ("offline", since), "whatever is tried meanwhile"
            await trio.sleep(0.1)
        assert caplog.text.count("not following") == 1
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
    assert pauses[0] <= 5, "it may have been a hiccup"
    assert all(20 <= pause <= 900 for pause in pauses[1:])
    assert sum(pauses) >= 600, "nor five times in ten minutes, for which accounts are locked"
    assert pauses[-1] > 400


async def test_a_portal_that_starts_again_is_not_waited_for_as_one_that_refuses(
    setting: Setting, autojump_clock: MockClock
) -> None:
    setting.portal.pages = [[folder("r", "Docs")]]
    async with setting.following() as follower:
        await live(follower)
        setting.portal.failures = [errors.PortalConnectionError("no route to portal") for _ in range(8)]
        setting.portal.failures += [errors.AuthenticationError("no directory yet")]
        await eventually(lambda: isinstance(follower.error, errors.AuthenticationError))
        refused_at = trio.current_time()
        await live(follower)
        assert trio.current_time() - refused_at <= 6


async def test_waits_for_as_long_as_the_portal_asks_for(setting: Setting, autojump_clock: MockClock) -> None:
    setting.portal.pages = [[folder("r", "Docs")]]
    setting.portal.failures = [errors.PortalUnavailable("restarting", 100.0) for _ in ("folders", "list")]
    async with setting.following() as follower:
        await eventually(lambda: follower.status.state == "offline")
        began = trio.current_time()
        await live(follower)
        assert 98 <= trio.current_time() - began <= 102


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


async def test_in_a_storm_of_changes_nobody_is_asked_whether_there_are_any(
    setting: Setting, autojump_clock: MockClock
) -> None:
    setting.portal.pages = [[folder("r", "Docs")]]
    async with setting.following() as follower:
        await live(follower)
        for number in range(5):
            setting.portal.tell(*(file(f"{number} {n}", f"{number} {n}", "r") for n in range(150)))
            await setting.watcher.until(lambda: setting.store.counts.files == (number + 1) * 150)  # noqa: B023
        polls = len(setting.portal.times("changes"))
        assert polls <= 2
        assert follower.status.state == "live"
        await eventually(lambda: len(setting.portal.times("changes")) > polls)  # it is over
        lists = setting.portal.times("list")[1:7]
    pauses = [later - earlier for earlier, later in itertools.pairwise(lists)]
    assert pauses == [pytest.approx(0.1)] * 5


async def test_a_portal_that_went_silent_is_not_current(setting: Setting, autojump_clock: MockClock) -> None:
    async with setting.following() as follower:
        await live(follower)
        status = follower.status
    late = (status.last_contact_at or 0) + status.patience
    assert [status.lag(late), status.lag(late + 1)] == [0, pytest.approx(status.patience + 1, abs=1)]


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


@pytest.mark.parametrize("error", [errors.AuthenticationError("wrong password"), OSError(errno.EMFILE, "too many")])
async def test_whatever_goes_wrong_with_the_owners_of_new_cloud_folders_is_tried_again(
    setting: Setting, autojump_clock: MockClock, error: OSError
) -> None:
    portal, store = setting.portal, setting.store
    portal.pages = [[folder("r", "Docs", 7)]]
    async with setting.following() as follower:
        await live(follower)
        portal.folders = error
        portal.tell(folder("s", "Plans", 8))
        await eventually(lambda: follower.error is error)
        assert store.resolve("/Plans") is not None
        portal.folders = [FolderInfo(7, "Docs", "ann"), FolderInfo(8, "Plans", "bob")]
        await live(follower)
        assert [folder.owner for folder in store.folders] == ["ann", "bob"]


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


async def test_an_end_amid_the_import_is_no_trouble_with_the_disk(
    setting: Setting, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    setting.portal.pages = [[folder("r", "Docs")], *([file(f"f{n}", f"f{n}", "r")] for n in range(100))]
    monkeypatch.setattr(tree_module, "_STAGED_FROM", 3)
    monkeypatch.setattr(disk, "PULSE", 50)
    proceed = setting.tree.proceed
    ending = trio.CancelScope()

    def ends(alive: Callable[[], None]) -> Batch:
        trio.from_thread.run_sync(ending.cancel)
        return proceed(alive)

    monkeypatch.setattr(setting.tree, "proceed", ends)
    with ending:
        async with setting.following() as follower:
            await live(follower)
    assert ending.cancelled_caught
    assert caplog.text == ""
    assert not setting.store.imported


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
