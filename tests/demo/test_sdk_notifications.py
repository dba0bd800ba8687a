"""CTERA's client lists the namespace, waits for changes, and asks for ancestors."""

from __future__ import annotations

import asyncio

import pytest
from cterasdk import AsyncGlobalAdmin, AsyncServicesPortal
from cterasdk.asynchronous.core.types import Event
from cterasdk.core.types import CloudFSFolderFindingHelper, UserAccount
from cterasdk.exceptions.notifications import AncestorsError, TooManyVolumesRequestedError

from cterafs.demo.server import EmbeddedPortal

pytestmark = pytest.mark.anyio


async def connect(portal: EmbeddedPortal, client: type = AsyncServicesPortal) -> AsyncServicesPortal:
    sdk = client(portal.host, portal.port)
    await sdk.login(portal.username, portal.password)
    return sdk


@pytest.mark.parametrize("client", [AsyncGlobalAdmin, AsyncServicesPortal])
async def test_lists_everything_page_by_page(tls_portal: EmbeddedPortal, client: type) -> None:
    folder = tls_portal.namespace.create_folder("Documents")
    files = [tls_portal.namespace.create(folder, f"file {number}", b"x" * number) for number in range(7)]
    async with await connect(tls_portal, client) as sdk:
        events, cursor, more = [], None, True
        while more:
            page = await sdk.notifications.get(cursor=cursor, max_results=3)
            assert len(page.objects) <= 3
            events += [Event.from_server_object(entry) for entry in page.objects]
            cursor, more = page.cursor, page.more
    assert [event.guid for event in events] == [folder.guid, *(file.guid for file in files)]
    assert (events[0].type, events[0].parent_guid, events[0].folder_id) == ("folder", None, folder.folder_id)
    assert [event.size for event in events[1:]] == list(range(7))
    assert [event.id for event in events[1:]] == [file.file.file_id for file in files]
    assert {event.parent_guid for event in events[1:]} == {folder.guid}


async def test_waits_for_a_change(tls_portal: EmbeddedPortal) -> None:
    folder = tls_portal.namespace.create_folder("Documents")
    async with await connect(tls_portal) as sdk:
        page = await sdk.notifications.get()
        assert not await sdk.notifications.changes(page.cursor, timeout=1)
        loop, asked = asyncio.get_running_loop(), asyncio.Event()

        def note(kind: str, _: object) -> None:
            assert kind == "longpoll"
            loop.call_soon_threadsafe(asked.set)

        tls_portal.faults.portal = note
        waiting = asyncio.create_task(sdk.notifications.changes(page.cursor))
        await asked.wait()
        tls_portal.namespace.mkdir(folder, "new")
        assert await waiting
        tls_portal.faults.portal = None
        page = await sdk.notifications.get(cursor=page.cursor)
        assert [entry.name for entry in page.objects] == ["new"]
        assert not page.more


async def test_asks_for_ancestors(tls_portal: EmbeddedPortal) -> None:
    folder = tls_portal.namespace.create_folder("Documents")
    directory = tls_portal.namespace.mkdir(folder, "a")
    file = tls_portal.namespace.create(directory, "b")
    async with await connect(tls_portal) as sdk:
        event = (await sdk.notifications.get()).objects[-1]
        assert event.guid == file.guid
        chain = await sdk.notifications.ancestors(event)
        assert [entry.name for entry in chain] == ["Documents", "a", "b"]
        tls_portal.namespace.delete(file)
        with pytest.raises(AncestorsError):
            await sdk.notifications.ancestors(event)


async def test_finds_a_cloud_folder_by_name_and_owner(tls_portal: EmbeddedPortal) -> None:
    alice = tls_portal.accounts.add("alice", domain="example.com")
    for number in range(60):  # more than the 50 of one answer
        tls_portal.namespace.create_folder(f"Folder {number}", alice.uid)
    mine = tls_portal.namespace.create_folder("Folder 7", tls_portal.accounts.owner.uid)
    tls_portal.namespace.create(mine, "file")
    async with await connect(tls_portal) as sdk:
        owner = UserAccount(tls_portal.username)
        assert [folder.uid async for folder in await sdk.cloudfs.drives.find("Folder 7", owner, ["uid"])] == [
            mine.folder_id
        ]
        page = await sdk.notifications.get([CloudFSFolderFindingHelper("Folder 7", owner)])
        assert [entry.name for entry in page.objects] == ["Folder 7", "file"]
        assert len([folder async for folder in sdk.cloudfs.drives.all()]) == 61


async def test_is_told_of_too_many_folders(tls_portal: EmbeddedPortal) -> None:
    tls_portal.notifications.max_folders = 2
    async with await connect(tls_portal) as sdk:
        with pytest.raises(TooManyVolumesRequestedError):
            await sdk.notifications.get([1, 2, 3])


async def test_runs_its_service(tls_portal: EmbeddedPortal) -> None:
    folder = tls_portal.namespace.create_folder("Documents")
    queue: asyncio.Queue[Event] = asyncio.Queue()
    saved: asyncio.Queue[str] = asyncio.Queue()
    async with await connect(tls_portal) as sdk:
        sdk.notifications.service.run(queue, saved.put)
        event = await queue.get()
        assert event.name == "Documents"
        queue.task_done()
        cursor = await saved.get()
        tls_portal.namespace.create(folder, "new", b"content")
        event = await queue.get()
        assert (event.name, event.size) == ("new", 7)
        queue.task_done()
        assert await saved.get() != cursor
        await sdk.notifications.service.stop()


async def test_reads_the_shape_of_older_portals(tls_portal: EmbeddedPortal) -> None:
    tls_portal.notifications.old_shape = True
    folder = tls_portal.namespace.create_folder("Documents")
    tls_portal.namespace.create(tls_portal.namespace.mkdir(folder, "a"), "b")
    async with await connect(tls_portal) as sdk:
        entry = (await sdk.notifications.get()).objects[-1]
        assert Event.from_server_object(entry).portal_modified_date == entry.modified
        assert [ancestor.name for ancestor in await sdk.notifications.ancestors(entry)] == ["a", "Documents"]
