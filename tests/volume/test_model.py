"""Any history of a portal, as a volume that follows it shows it: the tree, its contents, and what is held open.

Most histories run without worker threads, in half the time. CTERAFS_HISTORIES asks for another number of histories than
the suite runs.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
from followed_volume import Feed, FollowedVolume, Loop, without_thread
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule, run_state_machine_as_test
from portal_history import ACTIONS, PICK, SEED, Action, PortalHistory, Seen

from cterafs.demo.namespace import Namespace
from cterafs.errors import StaleInode
from cterafs.model import ROOT_INODE, Dirent, Inode, Node

HISTORIES = int(os.environ.get("CTERAFS_HISTORIES", "1000"))
IN_THREADS = HISTORIES // 20

STEPS = 12  # in a history, at most; each is a batch of several changes
BATCH = st.lists(ACTIONS, min_size=3, max_size=12)
ALL = float("inf")


@dataclass
class Held:
    """A file that somebody has open."""

    node: Node
    handle: int
    content: bytes


class VolumeHistory(PortalHistory):
    """Compares after each batch, and now and then lives on from what a killed process left."""

    loop: Loop

    def __init__(self) -> None:
        super().__init__(Namespace())
        self.feed = Feed(self.namespace)
        self.place = tempfile.TemporaryDirectory(dir=_memory())
        self.seen: dict[str, Node] = {}
        self.meanings: dict[Inode, tuple[Any, ...]] = {}
        self.held: list[Held] = []
        self.life: FollowedVolume
        self.begin(Path(self.place.name, "0"))

    def begin(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self.life = FollowedVolume(directory, self.feed, self.contents)
        self.loop.start(self.life.live)

    def teardown(self) -> None:
        self.end_round()
        try:
            self.look()
        finally:
            self.loop.run(self.life.end)
            self.place.cleanup()

    @initialize(size=st.sampled_from([1, 2, 3, 2000]), repeats=st.booleans(), keep=st.booleans(), first=BATCH)
    def choose_a_portal(self, size: int, repeats: bool, keep: bool, first: list[Action]) -> None:
        self.feed.page_size, self.feed.repeats = size, repeats
        self.namespace.keep_file_ids = keep
        self.begin_listing()
        self.happen(first)

    @rule(batch=BATCH, seed=SEED)
    def change(self, batch: list[Action], seed: int) -> None:
        self.happen(batch)
        self.tell(seed)
        self.look()

    @rule(batch=BATCH, seed=SEED, answers=st.integers(0, 6))
    def interrupt(self, batch: list[Action], seed: int, answers: int) -> None:
        """Only so much is followed: what happens next comes into the middle of it."""
        self.happen(batch)
        self.tell(seed)
        self.loop.run(self.life.follow, answers)

    @rule(batch=BATCH, seed=SEED, commits=st.integers(0, 4), reset=st.booleans())
    def break_off(self, batch: list[Action], seed: int, commits: int, reset: bool) -> None:
        """The process is killed, or the portal forgets all cursors."""
        self.happen(batch)
        self.tell(seed)
        if reset:
            self.list_again()
            self.begin_listing()
        else:
            remains = self.loop.run(self.life.kill, commits)
            self.held.clear()
            self.begin(remains)

    @rule(which=st.lists(PICK, min_size=1, max_size=4))
    def hold(self, which: list[int]) -> None:
        for number in which:
            files = [node for node in self.seen.values() if node.file_id in self.contents]
            if node := self._choose(files, number):
                self.loop.run(self._hold, node)

    @rule(which=PICK)
    def release(self, which: int) -> None:
        if held := self._choose(self.held, which):
            self.held.remove(held)
            self.loop.run(self._release, held)

    def begin_listing(self) -> None:
        """Up to its first page: what happens from then on is told as news, strays included."""
        before = self.feed.listings
        while self.feed.listings == before:
            self.loop.run(self.life.follow, 1)

    def look(self) -> None:
        self.loop.run(self.life.follow, ALL)
        self.loop.run(self._compare)
        self.disturbed.clear()

    async def _compare(self) -> None:
        shown = await self._walk(ROOT_INODE, "")
        assert {path: _seen(node) for path, node in shown.items()} == self.expected()
        before, self.seen = self.seen, {node.guid: node for node in shown.values()}
        for guid, node in self.seen.items():
            meaning = guid, node.is_dir, *((node.file_id, node.gvsn, node.size) if not node.is_dir else ())
            assert self.meanings.setdefault(node.inode, meaning) == meaning
            old = before.get(guid)
            if old is not None and guid not in self.disturbed:
                same = node.is_dir or _version(old) == _version(node)
                assert (old.inode == node.inode) == same
        for held in self.held:
            await self._check(held)

    async def _walk(self, directory: Inode, path: str) -> dict[str, Node]:
        volume, found = self.life.volume, dict[str, Node]()
        after: str | None = None
        absent = {"a", "b", "c.txt", "hidden", "inside"}
        while page := await volume.entries(directory, after, 3):
            for entry in page:
                after = entry.name
                absent.discard(after)
                node = await volume.lookup(directory, after)
                assert node == await self.life.frontend.lookup(directory, after)
                assert entry == Dirent(node.inode, after, node.is_dir, node.size, node.mtime_ns, node.ctime_ns)
                if node.is_dir:
                    below = await self._walk(node.inode, f"{path}/{after}")
                    if not below and self.may_be_seen(node.guid):
                        continue
                    found |= below
                found[f"{path}/{after}"] = node
        for name in sorted(absent):
            assert await self.life.frontend.lookup(directory, name) is None
        return found

    async def _hold(self, node: Node) -> None:
        assert node.file_id is not None
        try:
            handle, _ = await self.life.volume.open(node.inode)
        except StaleInode:  # followed a little since the last look
            return
        self.life.volume.acquire(node.inode)
        self.held.append(Held(node, handle, self.contents[node.file_id]))

    async def _check(self, held: Held) -> None:
        """What is open stays what it was; only what is current can be opened."""
        volume, inode = self.life.volume, held.node.inode
        if not self.namespace.keep_file_ids:  # otherwise storage holds one version, and others check what comes of that
            assert bytes(await volume.read(held.handle, 0, 100)) == held.content
        assert _version(await volume.node(inode)) == _version(held.node)
        current = self.seen.get(held.node.guid)
        if current is not None and current.inode == inode:
            handle, _ = await volume.open(inode)
            volume.close(handle)
        elif current is not None or held.node.guid not in self.untold:
            with pytest.raises(StaleInode):
                await volume.open(inode)

    async def _release(self, held: Held) -> None:
        volume = self.life.volume
        volume.close(held.handle)
        volume.forget(held.node.inode, 1)
        current = self.seen.get(held.node.guid)
        if current is not None and current.inode != held.node.inode and not self._holds(held.node.inode):
            with pytest.raises(StaleInode):
                await volume.node(held.node.inode)

    def _holds(self, inode: Inode) -> bool:
        return any(held.node.inode == inode for held in self.held)


def _seen(node: Node) -> Seen:
    return Seen(node.guid, node.is_dir, node.size, node.file_id, node.gvsn)


def _version(node: Node) -> tuple[Any, ...]:
    return node.guid, node.is_dir, node.file_id, node.gvsn, node.size, node.mtime_ns


def _memory() -> str | None:
    """A place that needs no disk, where there is one: what is tested is no power failure."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def run_histories(number: int, loop: Loop) -> None:
    VolumeHistory.loop = loop
    try:
        run_state_machine_as_test(
            VolumeHistory,
            settings=settings(
                max_examples=number,
                stateful_step_count=STEPS,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        loop.close()


def test_any_history_is_seen_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trio.to_thread, "run_sync", without_thread)
    run_histories(HISTORIES - IN_THREADS, Loop())


def test_any_history_is_seen_as_it_is_from_threads() -> None:
    run_histories(IN_THREADS, Loop())
