from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
import trio
from anyio.abc import TaskGroup

from cterafs import EventQueue, Portal
from cterafs.errors import (
    AuthenticationError,
    CursorRejectedError,
    NotificationsError,
    PortalConnectionError,
    PortalTimeout,
    PortalUnavailable,
    ProtocolError,
    SessionExpired,
)
from cterafs.model import Cursor, Event, Page
from cterafs.portal import Service


def page(*guids: str, cursor: str, has_more: bool = False) -> Page:
    events = [Event(guid=guid, name=guid, is_dir=False) for guid in guids]
    return Page(events=events, cursor=Cursor(cursor), has_more=has_more)


@dataclass
class FakeFeed:
    """Gives `answers` in their order, pages to `list` and truths to `changes`; then nothing ever happens again."""

    answers: list[Page | bool | Exception]
    calls: list[tuple[object, ...]] = field(default_factory=list)

    async def list(self, cursor: Cursor | None, *, folder_ids: Sequence[int] = ()) -> Page:
        self.calls.append(("list", cursor, folder_ids, anyio.current_time()))
        answer = await self._next()
        assert isinstance(answer, Page)
        return answer

    async def changes(self, cursor: Cursor, *, folders: Sequence[Any] = ()) -> bool:
        self.calls.append(("changes", cursor, folders, anyio.current_time()))
        answer = await self._next()
        assert isinstance(answer, bool)
        return answer

    async def _next(self) -> object:
        if not self.answers:
            await anyio.sleep_forever()
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def asked(self) -> list[tuple[object, object]]:  # type: ignore[valid-type]
        return [(call[0], call[1]) for call in self.calls]

    @property
    def pauses(self) -> list[float]:  # type: ignore[valid-type]
        times = [call[3] for call in self.calls]
        return [after - before for before, after in itertools.pairwise(times)]


async def ids(folders: Sequence[Any]) -> tuple[int, ...]:
    return tuple(folders)


def service(feed: FakeFeed, tasks: TaskGroup) -> Service:
    return Service(feed, ids, lambda: tasks)


class Saved:
    """A `save_cursor` that remembers; `reached(cursor)` waits for one."""

    def __init__(self) -> None:
        self.cursors: list[str] = []
        self._waiting: dict[str, anyio.Event] = {}

    async def __call__(self, cursor: Cursor) -> None:
        self.cursors.append(cursor)
        if cursor in self._waiting:
            self._waiting[cursor].set()

    async def reached(self, cursor: str, within: float = 10.0) -> None:
        with anyio.fail_after(within):
            if cursor not in self.cursors:
                await self._waiting.setdefault(cursor, anyio.Event()).wait()


async def handle_all(queue: Any, seen: list[str]) -> None:
    while True:
        seen.append((await queue.get()).guid)
        queue.task_done()


@pytest.mark.anyio
async def test_a_cursor_is_saved_once_its_events_are_handled() -> None:
    feed = FakeFeed([page("a", "b", cursor="c1", has_more=True), page("c", cursor="c2")])
    queue: EventQueue[Event] = EventQueue()
    saved = Saved()
    async with anyio.create_task_group() as tasks:
        handle = service(feed, tasks).run(queue, saved)
        for guid in ("a", "b"):
            assert (await queue.get()).guid == guid
            await anyio.wait_all_tasks_blocked()
            assert saved.cursors == []
            assert feed.asked == [("list", None)]
            queue.task_done()
        await saved.reached("c1")
        assert (await queue.get()).guid == "c"
        assert saved.cursors == ["c1"]
        queue.task_done()
        await saved.reached("c2")
        await handle.stop()
    assert feed.asked[:3] == [("list", None), ("list", "c1"), ("changes", "c2")]


@pytest.mark.anyio
async def test_the_cursor_of_an_empty_page_is_saved() -> None:
    feed = FakeFeed([True, page(cursor="c2")])
    saved = Saved()
    async with anyio.create_task_group() as tasks:
        handle = service(feed, tasks).run(EventQueue(), saved, cursor=Cursor("c1"), folders=[3])
        await saved.reached("c2")
        await handle.stop()
    assert [call[:3] for call in feed.calls[:2]] == [("changes", "c1", (3,)), ("list", "c1", (3,))]


@pytest.mark.anyio
async def test_it_starts_without_being_awaited_and_stops_when_told() -> None:
    feed = FakeFeed([])
    async with anyio.create_task_group() as tasks:
        handle = service(feed, tasks).run(EventQueue(), Saved())
        await anyio.wait_all_tasks_blocked()
        assert feed.asked == [("list", None)]
        await handle.stop()
        await handle.stop()
        assert await handle is None


@pytest.mark.anyio
async def test_stopped_before_it_began() -> None:
    feed = FakeFeed([])
    async with anyio.create_task_group() as tasks:
        handle = service(feed, tasks).run(EventQueue(), Saved())
        await handle.stop()
        await handle


@pytest.mark.anyio
@pytest.mark.parametrize(
    "error",
    [
        AuthenticationError("no"),
        CursorRejectedError("no"),
        NotificationsError("no"),
        ProtocolError("no"),
        KeyError("bug"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_it_dies_aloud_of_what_does_not_pass(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    async with anyio.create_task_group() as tasks:
        handle = service(FakeFeed([error]), tasks).run(EventQueue(), Saved())
        with pytest.raises(type(error)) as caught:
            await handle
        await handle.stop()
    assert caught.value is error
    assert [record.levelname for record in caplog.records] == ["ERROR"]


@pytest.mark.anyio
async def test_it_dies_of_an_error_of_save_cursor() -> None:
    async def full(_: Cursor) -> None:
        raise OSError("disk full")

    async with anyio.create_task_group() as tasks:
        handle = service(FakeFeed([page(cursor="c1")]), tasks).run(EventQueue(), full)
        with pytest.raises(OSError, match="disk full"):
            await handle


A_DAY = 86_400.0  # of the clock that jumps
PASSING = [PortalConnectionError("x"), PortalTimeout("x"), SessionExpired("x"), PortalUnavailable("x")]


async def under_autojump(work: Callable[[TaskGroup], Awaitable[None]]) -> None:
    async with anyio.create_task_group() as tasks:
        await work(tasks)
        tasks.cancel_scope.cancel()


@pytest.mark.trio
@pytest.mark.parametrize("error", PASSING, ids=lambda error: type(error).__name__)
async def test_what_passes_is_waited_out_longer_and_longer(
    error: Exception, autojump_clock: trio.testing.MockClock
) -> None:
    feed = FakeFeed([error] * 100 + [page(cursor="c1")])
    saved = Saved()

    async def work(tasks: TaskGroup) -> None:
        service(feed, tasks).run(EventQueue(), saved)
        await saved.reached("c1", within=A_DAY)

    await under_autojump(work)
    pauses = feed.pauses[:100]
    assert all(1 <= pause <= 60.001 for pause in pauses)
    assert all(pause <= 2**attempt + 0.001 for attempt, pause in enumerate(pauses, 1))
    assert max(pauses) > 30
    assert len(set(pauses)) > 50  # jitter


@pytest.mark.trio
async def test_the_portals_retry_after_is_kept_within_a_minute(autojump_clock: trio.testing.MockClock) -> None:
    feed = FakeFeed([PortalUnavailable("x", 30.0), PortalUnavailable("x", 1e6), page(cursor="c1")])
    saved = Saved()

    async def work(tasks: TaskGroup) -> None:
        service(feed, tasks).run(EventQueue(), saved)
        await saved.reached("c1", within=A_DAY)

    await under_autojump(work)
    assert feed.pauses[:2] == pytest.approx([30, 60])


@pytest.mark.trio
async def test_waiting_starts_small_again_after_a_success(autojump_clock: trio.testing.MockClock) -> None:
    feed = FakeFeed(
        [PortalTimeout("x")] * 20 + [page("a", cursor="c1", has_more=True), PortalTimeout("x"), page(cursor="c2")]
    )
    saved, queue, seen = Saved(), EventQueue[Event](), list[str]()

    async def work(tasks: TaskGroup) -> None:
        service(feed, tasks).run(queue, saved)
        tasks.start_soon(handle_all, queue, seen)
        await saved.reached("c2", within=A_DAY)

    await under_autojump(work)
    assert 1 <= feed.pauses[21] <= 2.001


@pytest.mark.trio
async def test_a_portal_that_never_waits_does_not_make_a_busy_loop(autojump_clock: trio.testing.MockClock) -> None:
    feed = FakeFeed([False, False, True, page(cursor="c1"), False, True, page(cursor="c2")])
    saved = Saved()

    async def work(tasks: TaskGroup) -> None:
        service(feed, tasks).run(EventQueue(), saved, cursor=Cursor("c1"))
        await saved.reached("c2", within=A_DAY)

    await under_autojump(work)
    assert anyio.current_time() == pytest.approx(4)


@pytest.mark.anyio
async def test_leaving_the_portal_stops_it(portal_server: Any, reply: Any) -> None:
    entries = [{"type": "file", "guid": "a", "name": "a"}]
    body = json.dumps({"has_more": False, "cursor": "c1", "entries": entries}).encode()
    portal_server.on("/list", reply(200, body))
    portal_server.on("/longpoll", reply(200, b'{"changes": false}'))
    queue: EventQueue[Event] = EventQueue()
    saved = Saved()
    async with Portal(portal_server.url, token="t0ken") as portal:
        handle = portal.notifications.service.run(queue, saved)
        assert (await queue.get()).guid == "a"
        queue.task_done()
        await saved.reached("c1")
    with anyio.fail_after(5):
        await handle


async def _with_asyncio_queue(url: str) -> list[str]:
    queue: asyncio.Queue[Event] = asyncio.Queue()
    saved, seen = Saved(), list[str]()
    async with Portal(url, token="t0ken") as portal:
        handle = portal.notifications.service.run(queue, saved)
        worker = asyncio.create_task(handle_all(queue, seen))
        await saved.reached("c1")
        await handle.stop()
        worker.cancel()
    return seen


def test_an_asyncio_queue_will_do(portal_server: Any, reply: Any) -> None:
    entries = [{"type": "file", "guid": guid, "name": guid} for guid in "abc"]
    body = json.dumps({"has_more": False, "cursor": "c1", "entries": entries}).encode()
    portal_server.on("/list", reply(200, body))
    assert asyncio.run(_with_asyncio_queue(portal_server.url)) == ["a", "b", "c"]
