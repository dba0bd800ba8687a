"""What the follower does where the feed begins again."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from played_portal import Setting, directory, file, folder, live
from trio.testing import MockClock

from cterafs import errors
from cterafs.model import Change, Cursor, Event
from cterafs.namespace.follower import Follower
from cterafs.namespace.schema import IDLE, LISTING
from cterafs.namespace.tree import Tree

pytestmark = pytest.mark.trio


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


HIDDEN = directory("h", "hidden", "r")


def hide(setting: Setting) -> None:
    """`hidden` is in no listing; what lies in it is."""
    setting.portal.pages = [[folder("r", "Docs"), file("a", "a.txt", "h")]]
    setting.portal.ancestors = {"h": [folder("r", "Docs"), HIDDEN]}


async def list_again(setting: Setting, follower: Follower, *pages: list[Event]) -> list[Change]:
    """What whoever shows the tree hears of it."""
    setting.watcher.heard.clear()
    setting.portal.epoch += 1
    if pages:
        setting.portal.pages = [*pages]
    setting.portal.more.set()
    await setting.watcher.until(lambda: setting.tree.sweeping)
    await setting.watcher.until(lambda: not setting.tree.sweeping)
    await live(follower)
    return [change for kind, changes in setting.watcher.heard if kind == "publish" for change in changes]


async def test_a_directory_that_no_listing_mentions_stays_as_it_is(setting: Setting, autojump_clock: MockClock) -> None:
    hide(setting)
    async with setting.following() as follower:
        await live(follower)
        assert await list_again(setting, follower) == []
        assert await list_again(setting, follower) == []
    assert setting.store.resolve("/Docs/hidden/a.txt") is not None
    assert setting.portal.asked("ancestors") == ["h"] * 3


async def test_those_above_it_stay_too(setting: Setting, autojump_clock: MockClock) -> None:
    setting.portal.pages = [[folder("r", "Docs"), file("a", "a.txt", "i")]]
    inner = directory("i", "inner", "h")
    setting.portal.ancestors = {"i": [folder("r", "Docs"), HIDDEN, inner]}
    async with setting.following() as follower:
        await live(follower)
        assert await list_again(setting, follower) == []
    assert setting.store.resolve("/Docs/hidden/inner/a.txt") is not None


async def test_it_stays_where_only_something_unknown_gives_it_away(setting: Setting, autojump_clock: MockClock) -> None:
    hide(setting)
    async with setting.following() as follower:
        await live(follower)
        hidden = setting.store.by_guid("h")
        setting.portal.ancestors = {"i": [folder("r", "Docs"), HIDDEN, directory("i", "inner", "h")]}
        await list_again(setting, follower, [folder("r", "Docs"), file("b", "b.txt", "i")])
    assert setting.store.resolve("/Docs/hidden/inner/b.txt") is not None
    assert setting.store.by_guid("h") == hidden


async def test_a_directory_that_the_portal_denies_goes(setting: Setting, autojump_clock: MockClock) -> None:
    hide(setting)
    async with setting.following() as follower:
        await live(follower)
        hidden = setting.store.by_guid("h")
        setting.portal.ancestors = {}
        changes = await list_again(setting, follower)
    assert [(change.old, change.new) for change in changes] == [(hidden, None)]
    assert setting.portal.asked("ancestors") == ["h", "h", "a"]


async def test_nothing_goes_while_the_portal_cannot_be_asked(setting: Setting, autojump_clock: MockClock) -> None:
    hide(setting)
    portal = setting.portal
    answer = portal.ancestors_of

    async def fails_once(folder_id: int, guid: str) -> Sequence[Event]:
        portal.ancestors_of = answer  # type: ignore[method-assign]
        raise errors.PortalConnectionError("no route to portal")

    async with setting.following() as follower:
        await live(follower)
        portal.ancestors_of = fails_once  # type: ignore[method-assign]
        assert await list_again(setting, follower) == []
    assert setting.store.resolve("/Docs/hidden/a.txt") is not None


async def test_the_next_life_asks_too(setting: Setting, autojump_clock: MockClock) -> None:
    hide(setting)
    async with setting.following() as follower:
        await live(follower)
    setting.tree.begin_relist()
    setting.tree.prepare(setting.portal.pages[0], Cursor("0:1"), listing=True, complete=True).commit()
    with Tree(setting.store) as setting.tree:
        assert setting.tree.sweeping
        async with setting.following() as follower:
            await live(follower)
    assert not setting.tree.sweeping
    assert setting.store.resolve("/Docs/hidden/a.txt") is not None


async def test_many_are_asked_about_some_at_a_time(setting: Setting, autojump_clock: MockClock) -> None:
    """News come in between."""
    numbers = range(50)
    setting.portal.pages = [[folder("r", "Docs"), *(file(f"a{n}", "a.txt", f"h{n}") for n in numbers)]]
    setting.portal.ancestors = {f"h{n}": [folder("r", "Docs"), directory(f"h{n}", f"{n}", "r")] for n in numbers}
    async with setting.following() as follower:
        await live(follower)
        setting.portal.calls.clear()
        assert await list_again(setting, follower) == []
    kinds = [kind for kind, _, _ in setting.portal.calls if kind in {"list", "ancestors"}]
    runs = [len([*run]) for kind, run in itertools.groupby(kinds) if kind == "ancestors"]
    assert runs == [20, 20, 10]
