"""The filesystem without a kernel: what is answered before, while and after the tree changes."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import msgspec
import pytest
import trio
from played_storage import PlayedStorage

from cterafs.content.cache import BlockCache
from cterafs.content.memory import BlockMemory
from cterafs.direct.remote import Fingerprint
from cterafs.errors import (
    DirectIOError,
    IsADirectory,
    NoAttribute,
    NotADirectory,
    NotFound,
    ObjectNotFoundError,
    StaleInode,
    VersionChangedError,
)
from cterafs.model import ROOT_INODE, Change, Chunk, Event, Extent, Inode, Node
from cterafs.namespace.store import Store
from cterafs.namespace.tree import Tree
from cterafs.stats import Stats
from cterafs.volume import Volume, VolumeOptions

BLOCK = 100
ROOT = Event(guid="root", name="Folder", is_dir=True, folder_id=1)


def file(guid: str, name: str, version: int = 1, size: int = 250) -> Event:
    return Event(
        guid=guid,
        name=name,
        is_dir=False,
        folder_id=1,
        parent_guid="root",
        file_id=version,
        size=size,
        gvsn=str(version),
        mtime_ns=version,
    )


class Remote(PlayedStorage):
    """Storage of one version: every byte is the low byte of the file id. `error` is raised instead, if set."""

    def __init__(self, file_id: int, size: int, fingerprint: Fingerprint) -> None:
        self.file_id = file_id
        self.size = size
        self.known = fingerprint
        self.fingerprint: Fingerprint = ((None, b"digest"),)
        self.listed = 0
        self.error: Exception | None = None

    async def chunks(self, extent: Extent) -> Sequence[Chunk]:
        if self.error is not None:
            raise self.error
        first = extent.start // BLOCK * BLOCK
        return [
            Chunk(Extent(start, min(start + BLOCK, self.size)), f"https://storage/{start}")
            for start in range(first, extent.stop, BLOCK)
        ]

    async def read(self, chunk: Chunk) -> bytes:
        await trio.lowlevel.checkpoint()
        return bytes([self.file_id % 256]) * len(chunk.extent)


class Rig:
    """A volume over a real tree, and changes applied to it as the follower does."""

    def __init__(self, directory: Path, nursery: trio.Nursery) -> None:
        self.store = Store.open(directory)
        self.tree = Tree(self.store)
        self.remotes: list[Remote] = []
        self.volume = Volume(
            self.store,
            cache=BlockCache(BlockMemory(1 << 20), nursery, Stats()),
            remote=self._remote,
            nursery=nursery,
            options=VolumeOptions(readahead=0, timeout=5),
            stats=Stats(),
        )

    def _remote(self, file_id: int, size: int, fingerprint: Fingerprint) -> Remote:
        self.remotes.append(Remote(file_id, size, fingerprint))
        return self.remotes[-1]

    def apply(self, *events: Event, between: Callable[[], None] = lambda: None) -> Sequence[Change]:
        """Commits and publishes; `between` the two, something may look."""
        batch = self.tree.prepare(events)
        self.volume.prepare(batch.changes)
        batch.commit()
        between()
        self.volume.publish(batch.changes)
        return batch.changes

    async def find(self, name: str) -> Node:
        folder = await self.volume.lookup(ROOT_INODE, "Folder")
        return await self.volume.lookup(folder.inode, name)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with trio.open_nursery() as nursery:
        rig = Rig(tmp_path, nursery)
        rig.apply(ROOT, file("a", "a"))
        yield rig
        rig.tree.close()
        rig.store.close()
        nursery.cancel_scope.cancel()


pytestmark = pytest.mark.trio


async def test_reads_cut_blocks_at_any_place(rig: Rig) -> None:
    handle, _ = await rig.volume.open((await rig.find("a")).inode)
    for offset in (0, 1, 99, 100, 199, 249, 250, 300):
        for size in (0, 1, 100, 151, 400):
            data = await rig.volume.read(handle, offset, size)
            assert bytes(data) == b"\x01" * max(0, min(size, 250 - offset))


async def test_a_superseded_inode_is_readable_by_its_handle_and_stale_to_a_new_open(rig: Rig) -> None:
    old = await rig.find("a")
    rig.volume.acquire(old.inode)
    handle, _ = await rig.volume.open(old.inode)
    rig.apply(file("a", "a", 2))
    new = await rig.find("a")
    assert new.inode != old.inode
    assert bytes(await rig.volume.read(handle, 0, 10)) == b"\x01" * 10
    assert await rig.volume.node(old.inode) == old
    with pytest.raises(StaleInode):
        await rig.volume.open(old.inode)
    rig.volume.close(handle)
    assert await rig.volume.node(old.inode) == old  # the kernel still refers to it
    rig.volume.forget(old.inode, 1)
    with pytest.raises(StaleInode):
        await rig.volume.node(old.inode)


async def test_an_open_handle_keeps_a_forgotten_inode(rig: Rig) -> None:
    old = await rig.find("a")
    rig.volume.acquire(old.inode)
    handle, _ = await rig.volume.open(old.inode)
    rig.apply(msgspec.structs.replace(file("a", "a"), deleted=True))
    rig.volume.forget(old.inode, 1)
    assert await rig.volume.node(old.inode) == old
    rig.volume.close(handle)
    with pytest.raises(StaleInode):
        await rig.volume.node(old.inode)


async def test_a_handle_whose_version_is_gone_from_storage_is_stale(rig: Rig) -> None:
    old = await rig.find("a")
    handle, _ = await rig.volume.open(old.inode)
    rig.remotes[0].error = ObjectNotFoundError(1)
    with pytest.raises(StaleInode):
        await rig.volume.read(handle, 0, 10)
    rig.apply(file("a", "a", 2))
    with pytest.raises(StaleInode):
        await rig.volume.read(handle, 100, 10)


async def test_between_commit_and_publish_an_inode_that_is_in_use_is_known(rig: Rig) -> None:
    old = await rig.find("a")
    rig.volume.acquire(old.inode)
    seen = []

    def look() -> None:
        assert rig.store.get(old.inode) is None
        seen.append(rig.volume._ghosts.get(old.inode))

    rig.apply(file("a", "a", 2), between=look)
    assert seen == [old]


async def test_what_is_looked_up_during_a_commit_stays_known(rig: Rig) -> None:
    old = await rig.find("a")
    rig.apply(file("a", "a", 2), between=lambda: rig.volume.acquire(old.inode))
    assert await rig.volume.node(old.inode) == old


async def test_a_row_read_before_a_change_is_not_answered_after_it(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The query runs in a thread; the change is published before its answer arrives."""
    folder = await rig.volume.lookup(ROOT_INODE, "Folder")
    lookup, queries = rig.store.lookup, []

    def slow(parent: int, name: str) -> Node | None:
        answer = lookup(parent, name)  # type: ignore[arg-type]
        queries.append(answer)
        if len(queries) == 1:
            trio.from_thread.run_sync(rig.apply, file("a", "a", 2))
        return answer

    monkeypatch.setattr(rig.store, "lookup", slow)
    node = await rig.volume.lookup(folder.inode, "a")
    assert [query.file_id for query in queries if query] == [1, 2]
    assert node.file_id == 2
    assert (await rig.volume.node(node.inode)).file_id == 2


async def test_changes_without_end_do_not_hold_up_an_answer(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    lookup, loop = rig.store.lookup, threading.get_ident()

    def overtaken(parent: Inode, name: str) -> Node | None:
        if threading.get_ident() != loop:
            trio.from_thread.run_sync(rig.volume.publish, ())
        return lookup(parent, name)

    monkeypatch.setattr(rig.store, "lookup", overtaken)
    with trio.fail_after(10):
        assert (await rig.volume.lookup(ROOT_INODE, "Folder")).is_dir


async def test_a_file_without_an_id_can_be_opened_if_it_is_empty(rig: Rig) -> None:
    empty, full = file("empty", "empty", size=0), file("full", "full")
    rig.apply(*(msgspec.structs.replace(event, file_id=None) for event in (empty, full)))
    handle, _ = await rig.volume.open((await rig.find("empty")).inode)
    assert bytes(await rig.volume.read(handle, 0, 10)) == b""
    with pytest.raises(DirectIOError, match="no file id"):
        await rig.volume.open((await rig.find("full")).inode)


async def test_a_rename_keeps_the_inode_and_what_the_frontend_cached(rig: Rig) -> None:
    node = await rig.find("a")
    handle, _ = await rig.volume.open(node.inode)
    await rig.volume.read(handle, 0, 10)
    rig.volume.close(handle)
    rig.apply(file("a", "b"))
    renamed = await rig.find("b")
    assert renamed.inode == node.inode
    with pytest.raises(NotFound):
        await rig.find("a")
    _, keep = await rig.volume.open(renamed.inode)
    assert keep
    assert len(rig.remotes) == 1


async def test_storage_that_changed_without_an_event_fails_old_handles_and_starts_anew_after_them(rig: Rig) -> None:
    node = await rig.find("a")
    handle, _ = await rig.volume.open(node.inode)
    await rig.volume.read(handle, 0, 10)
    rig.remotes[0].error = VersionChangedError(1)
    with pytest.raises(VersionChangedError):
        await rig.volume.read(handle, 100, 10)
    with pytest.raises(StaleInode):
        await rig.volume.open(node.inode)
    rig.volume.close(handle)
    handle, keep = await rig.volume.open(node.inode)
    assert not keep  # the kernel's pages are of the other version
    assert bytes(await rig.volume.read(handle, 0, 250)) == b"\x01" * 250
    assert len(rig.remotes) == 2


async def test_what_is_known_of_a_version_outlives_its_list_of_blocks(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frontend may keep its pages only as long as somebody could tell that they are of another version."""
    node = await rig.find("a")
    handle, keep = await rig.volume.open(node.inode)
    assert not keep  # nothing is known of what the frontend may hold
    rig.volume.close(handle)
    rig.volume._contents._idle.clear()
    handle, keep = await rig.volume.open(node.inode)
    assert keep
    assert rig.remotes[1].known == rig.remotes[0].fingerprint
    rig.volume.close(handle)
    rig.volume._contents._idle.clear()
    rig.volume._contents._known.clear()
    _, keep = await rig.volume.open(node.inode)
    assert not keep


async def test_files_and_directories_are_not_taken_for_each_other(rig: Rig) -> None:
    node = await rig.find("a")
    with pytest.raises(NotADirectory):
        await rig.volume.parent(node.inode)
    with pytest.raises(IsADirectory):
        await rig.volume.open(ROOT_INODE)
    with pytest.raises(NotFound):
        await rig.volume.lookup(node.inode, "a")


async def test_attributes(rig: Rig) -> None:
    node = await rig.find("a")
    assert await rig.volume.attribute(node.inode, "user.ctera.id") == b"1"
    assert await rig.volume.attribute(node.inode, "user.ctera.guid") == b"a"
    with pytest.raises(NoAttribute):
        await rig.volume.attribute(node.inode, "user.ctera.acl")
