"""The client against the embedded portal, which shares no code with it but the types of `model`."""

from __future__ import annotations

from collections.abc import Iterator

import anyio
import pytest

from cterafs import EventQueue, Portal
from cterafs.demo.server import EmbeddedPortal
from cterafs.errors import (
    AncestorsError,
    AuthenticationError,
    CursorRejectedError,
    ObjectNotFoundException,
    PortalConnectionError,
    TooManyVolumesRequestedError,
)
from cterafs.model import Cursor, Event, FolderInfo

pytestmark = pytest.mark.anyio


@pytest.fixture
def embedded() -> Iterator[EmbeddedPortal]:
    with EmbeddedPortal() as server:
        yield server


def client(server: EmbeddedPortal, context: str = "ServicesPortal") -> Portal:
    ca_file = str(server.ca_file) if server.ca_file else None
    return Portal(server.url, context=context, username=server.username, password=server.password, ca_file=ca_file)


@pytest.mark.parametrize("context", ["ServicesPortal", "admin"])
async def test_a_session(embedded: EmbeddedPortal, context: str) -> None:
    async with Portal(embedded.url, context=context) as portal:
        with pytest.raises(AuthenticationError):
            await portal.login(embedded.username, "wrong")
        await portal.login(embedded.username, embedded.password)
        account = await portal.whoami()
        assert (account.username, account.domain, account.role) == (embedded.username, None, "ReadWriteAdmin")
        assert (await portal.session.version())[0].isdigit()
        await portal.logout()
        with pytest.raises(AuthenticationError):
            await portal.whoami()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_session_over_tls_with_a_bare_address(host: str) -> None:
    with EmbeddedPortal(host=host, tls=True) as server:
        async with Portal(server.url) as stranger:
            with pytest.raises(PortalConnectionError, match=r"portal\.ca_file"):
                await stranger.login(server.username, server.password)
        async with client(server) as portal:
            assert (await portal.whoami()).username == server.username


async def test_a_bearer_token_and_the_echoed_token(embedded: EmbeddedPortal) -> None:
    async with Portal(embedded.url, token=embedded.accounts.bearer_token) as portal:
        assert (await portal.notifications.list(None)).events == []
    embedded.control.demand_token = True
    async with client(embedded) as portal:
        await portal.whoami()  # brings the token that the portal demands from now on
        assert (await portal.notifications.list(None)).events == []
    assert embedded.faults.requests["login"] == 1


async def test_the_whole_namespace_then_its_changes(embedded: EmbeddedPortal) -> None:
    root = embedded.namespace.create_folder("Sales")
    directory = embedded.namespace.mkdir(root, "2024")
    report = embedded.namespace.create(directory, "r\xe9port.txt", b"12345", mtime_ns=1_714_979_289_000_000_000)
    embedded.notifications.page_size = 2
    async with client(embedded) as portal:
        stream = portal.notifications.get()
        by_guid = {event.guid: event async for event in stream}
        assert set(by_guid) == {root.guid, directory.guid, report.guid}
        event = by_guid[report.guid]
        assert (event.name, event.is_dir, event.size, event.parent_guid) == ("r\xe9port.txt", False, 5, directory.guid)
        assert (event.folder_id, event.mtime_ns) == (root.folder_id, 1_714_979_289_000_000_000)
        assert event.file_id is not None
        assert by_guid[directory.guid].is_dir
        assert by_guid[root.guid].parent_guid is None

        assert stream.cursor is not None
        assert await portal.notifications.changes(stream.cursor, timeout=0.01) is False
        embedded.namespace.rename(report, "renamed")
        assert await portal.notifications.changes(stream.cursor, timeout=10) is True
        (changed,) = [event async for event in portal.notifications.get(stream.cursor)]
        assert (changed.guid, changed.name, changed.file_id) == (report.guid, "renamed", event.file_id)


@pytest.mark.parametrize("old_shape", [False, True])
async def test_ancestors_of_old_and_new_portals(embedded: EmbeddedPortal, old_shape: bool) -> None:
    embedded.notifications.old_shape = old_shape
    path = [embedded.namespace.create_folder("Sales")]
    for name in "abc":
        path.append(embedded.namespace.mkdir(path[-1], name))
    async with client(embedded) as portal:
        events = {event.guid: event async for event in portal.notifications.get()}
        lineage = await portal.notifications.ancestors(events[path[-1].guid])
        assert [event.guid for event in lineage] == [item.guid for item in path]
        assert lineage[-1].ctime_ns is not None
        with pytest.raises(AncestorsError):
            await portal.notifications.ancestors_of(path[0].folder_id, "no such guid")


async def test_refusals(embedded: EmbeddedPortal) -> None:
    embedded.notifications.max_folders = 3
    async with client(embedded) as portal:
        with pytest.raises(TooManyVolumesRequestedError, match="3"):
            await portal.notifications.list(None, folder_ids=[1, 2, 3, 4])
        with pytest.raises(CursorRejectedError):
            await portal.notifications.list(Cursor("made up"))
        with pytest.raises(CursorRejectedError):
            await portal.notifications.changes(Cursor("made up"))


async def test_many_tasks_log_in_once_when_the_session_expires(embedded: EmbeddedPortal) -> None:
    async with client(embedded) as portal:
        await portal.whoami()
        embedded.expire_sessions()
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(portal.notifications.list, None)
    assert embedded.faults.requests["login"] == 2


async def test_cloud_folders(embedded: EmbeddedPortal) -> None:
    alice = embedded.accounts.add("alice")
    bob = embedded.accounts.add("bob", domain="corp.example.com")
    first = embedded.namespace.create_folder("Sales & more", alice.uid)
    second = embedded.namespace.create_folder("Sales & more", bob.uid)
    others = [embedded.namespace.create_folder(f"Folder {number}") for number in range(120)]
    async with client(embedded) as portal:
        folders = await portal.folders.all()
        assert [folder.folder_id for folder in folders] == [root.folder_id for root in (first, second, *others)]
        assert {folder.name for folder in folders} >= {"Sales & more", "Folder 0", "Folder 119"}
        assert [folder.owner for folder in folders[:3]] == ["alice", "bob@corp.example.com", None]
        found = await portal.folders.find("alice/Sales & more")
        assert found == FolderInfo(first.folder_id, "Sales & more", "alice")
        found = await portal.folders.find("bob@corp.example.com", "Sales & more")
        assert found.folder_id == second.folder_id
        for absent in ("alice/Nothing", "carol/Sales & more", "alice@corp.example.com/Sales & more"):
            with pytest.raises(ObjectNotFoundException):
                await portal.folders.find(absent)


async def test_only_the_folders_that_were_asked_for(embedded: EmbeddedPortal) -> None:
    alice = embedded.accounts.add("alice")
    wanted = embedded.namespace.create_folder("Wanted", alice.uid)
    embedded.namespace.create_folder("Other", alice.uid)
    async with client(embedded) as portal:
        for folders in ([wanted.folder_id], ["alice/Wanted"], [FolderInfo(wanted.folder_id, "Wanted")]):
            events = [event async for event in portal.notifications.get(folders=folders)]
            assert [event.guid for event in events] == [wanted.guid]


async def test_the_service_follows_through_a_lost_session_and_resumes(embedded: EmbeddedPortal) -> None:
    queue: EventQueue[Event] = EventQueue()
    cursors: list[Cursor] = []
    saved = anyio.Event()

    async def save(cursor: Cursor) -> None:
        cursors.append(cursor)
        saved.set()

    async def next_name() -> str:
        event = await queue.get()
        queue.task_done()
        return event.name

    root = embedded.namespace.create_folder("Sales")
    async with client(embedded) as portal:
        handle = portal.notifications.service.run(queue, save)
        with anyio.fail_after(10):
            assert await next_name() == "Sales"
            await saved.wait()
            embedded.expire_sessions()
            embedded.namespace.mkdir(root, "while expired")
            assert await next_name() == "while expired"
        await handle.stop()
        embedded.namespace.mkdir(root, "while stopped")
        handle = portal.notifications.service.run(queue, save, cursor=cursors[0])
        with anyio.fail_after(10):
            assert [await next_name(), await next_name()] == ["while expired", "while stopped"]
        await handle.stop()
