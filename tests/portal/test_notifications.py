from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cterafs import Portal
from cterafs.errors import (
    AncestorsError,
    CursorRejectedError,
    NotificationsError,
    PortalError,
    PortalTimeout,
    PortalUnavailable,
    ProtocolError,
    TooManyVolumesRequestedError,
)
from cterafs.model import Cursor, Event, FolderInfo

pytestmark = pytest.mark.anyio

C1 = Cursor("c1")


def page(*guids: str, cursor: str, has_more: bool = False) -> bytes:
    entries = [{"type": "file", "guid": guid, "name": guid, "deleted": False} for guid in guids]
    return json.dumps({"has_more": has_more, "cursor": cursor, "entries": entries}).encode()


@pytest.fixture
async def portal(portal_server: Any) -> AsyncIterator[Portal]:
    async with Portal(portal_server.url, token="t0ken") as portal:
        yield portal


async def test_list_asks_as_the_protocol_says(portal_server: Any, reply: Any, portal: Portal) -> None:
    portal_server.on("/list", reply(200, page("a", "b", cursor="c1", has_more=True)))
    answer = await portal.notifications.list(None)
    assert ([event.guid for event in answer.events], answer.cursor, answer.has_more) == (["a", "b"], "c1", True)
    await portal.notifications.list(Cursor("c0"), folder_ids=(3, 4), max_results=10)
    first, second = portal_server.requests
    assert (first.method, first.path) == ("POST", "/ServicesPortal/v2/api/metadata/list")
    assert first.headers["content-type"] == "application/json"
    assert first.json == {"folder_ids": [], "cursor": None, "max_results": 2000}
    assert second.json == {"folder_ids": [3, 4], "cursor": "c0", "max_results": 10}


async def test_a_large_page_is_decoded_too(portal_server: Any, reply: Any, portal: Portal) -> None:
    portal_server.on("/list", reply(200, page(*map(str, range(2000)), cursor="c1")))
    assert len((await portal.notifications.list(None)).events) == 2000


async def test_get_goes_through_all_pages(portal_server: Any, reply: Any, portal: Portal) -> None:
    portal_server.on(
        "/list",
        reply(200, page("a", "b", cursor="c1", has_more=True)),
        reply(200, page(cursor="c2", has_more=True)),
        reply(200, page("c", cursor="c3")),
    )
    stream = portal.notifications.get(Cursor("c0"), folders=[7, FolderInfo(8, "x")])
    seen = []
    async for event in stream:
        seen.append((event.guid, stream.cursor))
    assert seen == [("a", "c0"), ("b", "c0"), ("c", "c2")]
    assert stream.cursor == "c3"
    assert [request.json["cursor"] for request in portal_server.requests] == ["c0", "c1", "c2"]
    assert portal_server.requests[0].json["folder_ids"] == [7, 8]


async def test_get_can_go_on_after_an_error(portal_server: Any, reply: Any, portal: Portal) -> None:
    portal_server.on(
        "/list", reply(200, page("a", cursor="c1", has_more=True)), reply(503), reply(200, page("b", cursor="c2"))
    )
    stream = portal.notifications.get()
    assert (await anext(stream)).guid == "a"
    with pytest.raises(PortalUnavailable):
        await anext(stream)
    assert stream.cursor == "c1"
    assert [event.guid async for event in stream] == ["b"]


async def test_a_list_that_does_not_move_is_an_error(portal_server: Any, reply: Any, portal: Portal) -> None:
    portal_server.on("/list", reply(200, page("a", cursor="c1", has_more=True)))
    with pytest.raises(ProtocolError, match="does not end"):
        await portal.notifications.list(C1)


@pytest.mark.parametrize("changes", [True, False])
async def test_longpoll_speaks_milliseconds(portal_server: Any, reply: Any, portal: Portal, changes: bool) -> None:
    portal_server.on("/longpoll", reply(200, json.dumps({"changes": changes}).encode()))
    assert await portal.notifications.changes(C1, timeout=2.5, folders=[3]) is changes
    assert portal_server.requests[0].json == {"folder_ids": [3], "cursor": "c1", "timeout": 2500}


async def test_longpoll_waits_longer_than_other_calls_but_not_for_ever(portal_server: Any, reply: Any) -> None:
    over = threading.Event()

    def answer(request: Any) -> Any:
        # The first poll outlasts the 0.1 s that other calls may take; the second is never answered in time.
        over.wait(0.3 if request.json["timeout"] == 10_000 else 10)
        return reply(200, b'{"changes": false}')

    portal_server.on("/longpoll", answer)
    try:
        async with Portal(portal_server.url, token="t0ken", timeout=0.1) as portal:
            assert await portal.notifications.changes(C1, timeout=10) is False
            with pytest.raises(PortalTimeout):
                await portal.notifications.changes(C1, timeout=0.05)
    finally:
        over.set()


TOO_MANY = b'{"details": [{"error": "size must be between 0 and 1000"}]}'
TOO_MANY_NESTED = b'{"error": {"details": [{"error": "folderIds: size must be between 0 and 1000"}]}}'


@pytest.mark.parametrize(
    ("status", "body", "cursor", "expected"),
    [
        (400, TOO_MANY, None, TooManyVolumesRequestedError),
        (400, TOO_MANY_NESTED, C1, TooManyVolumesRequestedError),
        (400, b"", C1, CursorRejectedError),
        (400, b"<html>", C1, CursorRejectedError),
        (400, b"", None, NotificationsError),
        (404, b"", C1, NotificationsError),
        (200, b"null", C1, NotificationsError),
        (200, b"", C1, NotificationsError),
        (200, b"<!DOCTYPE html>", C1, ProtocolError),
        (200, b'{"entries": [', C1, ProtocolError),
        (418, b"", C1, ProtocolError),
        (500, b"", C1, PortalUnavailable),
    ],
)
async def test_errors_of_list(
    portal_server: Any,
    reply: Any,
    portal: Portal,
    status: int,
    body: bytes,
    cursor: Cursor,
    expected: type[PortalError],
) -> None:
    portal_server.on("/list", reply(status, body))
    with pytest.raises(PortalError) as caught:
        await portal.notifications.list(cursor, folder_ids=range(1200))
    assert type(caught.value) is expected
    if expected is TooManyVolumesRequestedError:
        assert "1200" in str(caught.value)
        assert "1000" in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, TOO_MANY, TooManyVolumesRequestedError),
        (400, b"", CursorRejectedError),
        (200, b"null", NotificationsError),
        (200, b"{}", ProtocolError),
    ],
)
async def test_errors_of_longpoll(
    portal_server: Any, reply: Any, portal: Portal, status: int, body: bytes, expected: type[PortalError]
) -> None:
    portal_server.on("/longpoll", reply(status, body))
    with pytest.raises(PortalError) as caught:
        await portal.notifications.changes(C1)
    assert type(caught.value) is expected


EVENT = Event(guid="leaf", name="leaf", is_dir=False, parent_guid="root", folder_id=3)


async def test_ancestors(portal_server: Any, reply: Any, portal: Portal) -> None:
    root = {"type": "folder", "guid": "root", "name": "", "deleted": False}
    portal_server.on("/ancestors", reply(200, json.dumps([root]).encode()))
    assert [event.guid for event in await portal.notifications.ancestors(EVENT)] == ["root", "leaf"]
    assert [event.guid for event in await portal.notifications.ancestors_of(3, "leaf")] == ["root"]
    assert [request.json for request in portal_server.requests] == [{"folder_id": 3, "guid": "leaf"}] * 2


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, b"", AncestorsError),
        (403, b"", AncestorsError),
        (404, b"", AncestorsError),
        (200, b"null", AncestorsError),
        (200, b"{}", ProtocolError),
        (429, b"", PortalUnavailable),
        (503, b"", PortalUnavailable),
    ],
)
async def test_errors_of_ancestors(
    portal_server: Any, reply: Any, status: int, body: bytes, expected: type[PortalError]
) -> None:
    portal_server.on("/login", reply(200, b"", [("Set-Cookie", "JSESSIONID=1")]))
    portal_server.on("/ancestors", reply(status, body))
    async with Portal(portal_server.url, username="alice", password="s3cret") as portal:
        with pytest.raises(PortalError) as caught:
            await portal.notifications.ancestors(EVENT)
    assert type(caught.value) is expected


async def test_ancestors_that_are_forbidden_do_not_cost_a_login_each(portal_server: Any, reply: Any) -> None:
    portal_server.on("/login", reply(200, b"", [("Set-Cookie", "JSESSIONID=1")]))
    portal_server.on("/ancestors", reply(403))
    async with Portal(portal_server.url, username="alice", password="s3cret") as portal:
        for _ in range(5):
            with pytest.raises(AncestorsError):
                await portal.notifications.ancestors(EVENT)
    assert len(portal_server.asked("/login")) == 2


async def test_ancestors_need_the_folder(portal: Portal) -> None:
    with pytest.raises(AncestorsError, match="cloud folder"):
        await portal.notifications.ancestors(Event(guid="g", name="n", is_dir=False))
