from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cterafs import Portal
from cterafs.errors import ObjectNotFoundException, PortalUnavailable, ProtocolError
from cterafs.model import FolderInfo
from cterafs.portal import folders
from cterafs.portal.xmlgrammar import Value, XmlObject, parse, serialise

pytestmark = pytest.mark.anyio


@pytest.fixture
async def portal(portal_server: Any) -> AsyncIterator[Portal]:
    async with Portal(portal_server.url, token="t0ken") as portal:
        yield portal


def folder(**attributes: Value) -> XmlObject:
    return XmlObject(attributes, class_name="CloudDrive")


def answer(*objects: Value, has_more: str = "false") -> bytes:
    return serialise(XmlObject({"hasMore": has_more, "objects": list(objects)}))


USER = serialise(XmlObject({"name": "alice", "uid": "21"}))
NOBODY = serialise(XmlObject({"name": None, "uid": None}))


async def test_all(portal_server: Any, reply: Any, portal: Portal) -> None:
    portal_server.on(
        "/api/cloudDrives",
        reply(
            200,
            answer(
                folder(name="Sales", uid="12", owner="objs/21/tenant/PortalUser/alice/more"),
                folder(name="1.0", uid="13", owner="objs/22/tenant/ADUser/bob/corp.example.com"),
                has_more="true",
            ),
        ),
        reply(
            200,
            answer(
                folder(name="Plain", uid="14"),
                folder(name="Reference", uid="15", owner="objs/21"),
                folder(name=None, uid="16"),
                folder(name="No number", uid="x"),
                folder(name="Huge", uid="9" * 30),
                "not an object",
            ),
        ),
    )
    assert await portal.folders.all() == [
        FolderInfo(12, "Sales", "alice"),
        FolderInfo(13, "1.0", "bob@corp.example.com"),
        FolderInfo(14, "Plain", None),
        FolderInfo(15, "Reference", None),
    ]
    first, second = portal_server.requests
    assert (first.method, first.path) == ("POST", "/ServicesPortal/api/cloudDrives")
    assert parse(first.body) == XmlObject(
        {
            "type": "db",
            "name": "query",
            "param": XmlObject({"startFrom": "0", "countLimit": "50", "include": ["name", "uid", "owner"]}),
        }
    )
    assert b'<att id="startFrom"><val>2</val>' in second.body


@pytest.mark.parametrize("body", [answer(folder(name="a", uid="1"), has_more="true"), answer(has_more="true")])
async def test_a_list_that_does_not_end(portal_server: Any, reply: Any, portal: Portal, body: bytes) -> None:
    portal_server.on("/api/cloudDrives", reply(200, body))
    with pytest.raises(ProtocolError, match="does not end"):
        await portal.folders.all()


async def test_a_list_that_is_always_another_one(
    portal_server: Any, reply: Any, portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No portal has so many, and they are kept in memory."""
    monkeypatch.setattr(folders, "_MOST", 100)
    numbers = itertools.count()

    def another(_: Any) -> Any:
        return reply(200, answer(folder(name="a", uid=str(next(numbers))), has_more="true"))

    portal_server.on("/api/cloudDrives", another)
    with pytest.raises(ProtocolError, match="does not end"):
        await portal.folders.all()
    assert next(numbers) == 101


@pytest.mark.parametrize("body", [b"", b"<val>x</val>", b"<list/>", b"<html/>"])
async def test_what_is_not_a_list_of_folders(portal_server: Any, reply: Any, portal: Portal, body: bytes) -> None:
    portal_server.on("/api/cloudDrives", reply(200, body))
    with pytest.raises(ProtocolError):
        await portal.folders.all()


async def test_find_asks_for_the_owner_and_then_for_the_name(portal_server: Any, reply: Any, portal: Portal) -> None:
    portal_server.on("/api/users/alice", reply(200, USER))
    portal_server.on("/api/cloudDrives", reply(200, answer(folder(name="R & D/x", uid="12"))))
    assert await portal.folders.find("alice", "R & D/x") == FolderInfo(12, "R & D/x", "alice")
    assert await portal.folders.find("alice/R & D/x") == FolderInfo(12, "R & D/x", "alice")
    user, query = portal_server.requests[:2]
    assert parse(user.body) == XmlObject({"type": "db", "name": "get-multi", "param": ["/name", "/uid"]})
    asked = parse(query.body)
    assert isinstance(asked, XmlObject)
    parameters = asked.attributes["param"]
    assert isinstance(parameters, XmlObject)
    assert parameters.attributes["ownedBy"] == "21"
    assert parameters.attributes["filters"] == [
        XmlObject({"field": "name", "restriction": "eq", "value": "R & D/x"}, class_name="StringFilter")
    ]


async def test_an_owner_in_a_directory(portal_server: Any, reply: Any, portal: Portal) -> None:
    portal_server.on("/api/domains/corp.example.com/adUsers/bob%2Fx", reply(200, USER))
    portal_server.on("/api/cloudDrives", reply(200, answer(folder(name="Sales", uid="12"))))
    found = await portal.folders.find("bob/x@corp.example.com", "Sales")
    assert found == FolderInfo(12, "Sales", "bob/x@corp.example.com")


async def test_a_local_user_may_be_named_as_an_address(portal_server: Any, reply: Any, portal: Portal) -> None:
    portal_server.on("/adUsers/bob", reply(200, NOBODY))
    portal_server.on("/api/users/bob%40example.com", reply(200, USER))
    portal_server.on("/api/cloudDrives", reply(200, answer(folder(name="Sales", uid="12"))))
    assert (await portal.folders.find("bob@example.com/Sales")).folder_id == 12


@pytest.mark.parametrize("wanted", ["nobody/Sales", "gone/Sales", "alice/Other", "alice", "alice/", "/Sales", "a\0/b"])
async def test_what_does_not_exist(portal_server: Any, reply: Any, portal: Portal, wanted: str) -> None:
    portal_server.on("/api/users/alice", reply(200, USER))
    portal_server.on("/api/users/nobody", reply(200, NOBODY))
    portal_server.on("/api/users/gone", reply(404))
    portal_server.on("/api/cloudDrives", reply(200, answer(folder(name="Sales", uid="12"))))
    with pytest.raises(ObjectNotFoundException):
        await portal.folders.find(wanted)


async def test_an_unavailable_portal_is_not_an_absent_user(portal_server: Any, reply: Any, portal: Portal) -> None:
    portal_server.on("/api/users/alice", reply(503))
    with pytest.raises(PortalUnavailable):
        await portal.folders.find("alice/Sales")


async def test_resolve(portal_server: Any, reply: Any, portal: Portal) -> None:
    portal_server.on("/api/users/alice", reply(200, USER))
    portal_server.on("/api/cloudDrives", reply(200, answer(folder(name="Sales", uid="12"))))
    assert await portal.folders.resolve([3, FolderInfo(4, "x"), "alice/Sales"]) == (3, 4, 12)
