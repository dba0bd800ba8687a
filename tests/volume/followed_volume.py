"""A volume that follows a portal in the same process: no HTTP, no kernel, a clock that jumps."""

from __future__ import annotations

import itertools
import shutil
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import trio
from played_storage import PlayedStorage
from trio.testing import MockClock

from cterafs.content.cache import BlockCache
from cterafs.content.memory import BlockMemory
from cterafs.demo.feed import CursorRejected
from cterafs.demo.inventory import UnknownObject
from cterafs.demo.namespace import Namespace
from cterafs.demo.objects import Entry
from cterafs.direct.remote import Fingerprint
from cterafs.errors import AncestorsError, CursorRejectedError, NotFound
from cterafs.model import Change, Chunk, Cursor, Event, Extent, Inode, Node, Page
from cterafs.namespace.follower import Follower
from cterafs.namespace.store import Store
from cterafs.namespace.tree import Tree
from cterafs.portal.wire import decode_ancestors, decode_page
from cterafs.stats import Stats
from cterafs.volume import Volume, VolumeOptions

T = TypeVar("T")

BLOCK = 5
AUTOJUMP = 0.001
"""Seconds without anything to do until the clock jumps. Work in threads does not count; nothing waits for its sake."""


async def without_thread(work: Callable[..., T], *args: object, limiter: trio.CapacityLimiter | None = None) -> T:
    """In the place of `trio.to_thread.run_sync`, which takes half of a short history's time. Others may run between the
    work and its answer, as they do when it is done in a thread; but not while it is done."""
    await trio.lowlevel.checkpoint_if_cancelled()
    answer = work(*args)
    await trio.lowlevel.cancel_shielded_checkpoint()
    return answer


class Loop:
    """A trio event loop in a thread of its own, for a test that is not asynchronous."""

    def __init__(self) -> None:
        started: Future[tuple[trio.lowlevel.TrioToken, trio.Nursery]] = Future()

        async def main() -> None:
            async with trio.open_nursery() as nursery:
                started.set_result((trio.lowlevel.current_trio_token(), nursery))
                await trio.sleep_forever()

        clock = MockClock(autojump_threshold=AUTOJUMP)
        self._thread = threading.Thread(target=lambda: trio.run(main, clock=clock), daemon=True)
        self._thread.start()
        self._token, self._nursery = started.result()

    def run(self, work: Callable[..., Awaitable[T]], *args: object) -> T:
        return trio.from_thread.run(work, *args, trio_token=self._token)

    def start(self, work: Callable[..., Awaitable[object]]) -> Any:
        """Starts a task; returns what it passes to `task_status.started`."""
        return self.run(self._nursery.start, work)

    def close(self) -> None:
        trio.from_thread.run_sync(self._nursery.cancel_scope.cancel, trio_token=self._token)
        self._thread.join()


class Feed:
    """The Notification Service of a namespace, as the follower asks it. Counts out its answers where a test wants that.

    Attributes:
        page_size: entries in an answer, at most.
        repeats: begin each answer with what the one before it told.
        given: the cursor behind all that was given.
        listings: how often the namespace was listed from its beginning.
    """

    def __init__(self, namespace: Namespace) -> None:
        self.page_size = 2000
        self.repeats = False
        self.given: Cursor | None = None
        self.listings = 0
        self._namespace = namespace
        self._last: list[Entry] = []
        self._left: float = 0
        self._changed = trio.Event()
        self._stands = False  # nothing goes on unless a test says so

    async def list(self, cursor: Cursor | None, *, folder_ids: Sequence[int], max_results: int) -> Page:
        self.given = cursor
        await self._turn()
        try:
            entries, after, more = self._namespace.feed.page(folder_ids, cursor, min(max_results, self.page_size))
        except CursorRejected:
            raise CursorRejectedError("no such cursor") from None
        self.listings += cursor is None
        again = self._last if self.repeats and cursor is not None else []
        self._last, self.given = entries, Cursor(after)
        answer = {"entries": [*again, *entries], "cursor": after, "has_more": more}
        return decode_page(msgspec.json.encode(answer))

    async def changes(self, cursor: Cursor, *, timeout: float, folders: Sequence[int]) -> bool:  # noqa: ASYNC109
        while not self._has_news(cursor, folders):
            await self._stand()
        return True

    async def ancestors_of(self, folder_id: int, guid: str) -> Sequence[Event]:
        await self._turn()
        try:
            entries = self._namespace.ancestors(folder_id, guid)
        except UnknownObject:
            raise AncestorsError("no such object") from None
        return decode_ancestors(msgspec.json.encode(entries), guid)

    async def give(self, answers: float) -> None:
        """Gives so many answers, or as many as are asked for; returns when the follower waits for more."""
        self._left = answers
        self.wake(stands=False)
        while not self._stands:
            await self._changed.wait()
        self._left = 0

    def wake(self, *, stands: bool) -> None:
        self._stands = stands
        self._changed.set()
        self._changed = trio.Event()

    async def _turn(self) -> None:
        await trio.lowlevel.checkpoint()
        while not self._left:
            await self._stand()
        self._left -= 1

    async def _stand(self) -> None:
        self.wake(stands=True)
        await self._changed.wait()

    def _has_news(self, cursor: Cursor, folders: Sequence[int]) -> bool:
        try:
            entries, _, _ = self._namespace.feed.page(folders, cursor, 1)
        except CursorRejected:
            return True  # and `list` says so
        return bool(entries)


class Remote(PlayedStorage):
    """Storage that never forgets a version."""

    def __init__(self, content: bytes) -> None:
        self.fingerprint: Fingerprint = ()
        self.listed = 0
        self._content = content

    async def chunks(self, extent: Extent) -> Sequence[Chunk]:
        await trio.lowlevel.checkpoint()
        starts = range(extent.start // BLOCK * BLOCK, extent.stop, BLOCK)
        return [Chunk(Extent(at, min(at + BLOCK, len(self._content))), f"https://storage/{at}") for at in starts]

    async def read(self, chunk: Chunk) -> bytes:
        await trio.lowlevel.checkpoint()
        return self._content[chunk.extent.start : chunk.extent.stop]


class Frontend:
    """Remembers every name that it looked up, and every name that was not there, until a change tells otherwise; as the
    kernel does, which is given no time limit."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._known: dict[tuple[Inode, str], Node | None] = {}
        volume.observer = self

    async def lookup(self, parent: Inode, name: str) -> Node | None:
        if (parent, name) not in self._known:
            try:
                self._known[parent, name] = await self._volume.lookup(parent, name)
            except NotFound:
                self._known[parent, name] = None
        return self._known[parent, name]

    def push(self, changes: Sequence[Change]) -> None:
        for change in changes:
            for node in (change.old, change.new):
                if node is not None:
                    self._known.pop((node.parent, node.name), None)

    async def drained(self) -> None:
        await trio.lowlevel.checkpoint()


class FollowedVolume:
    """One life of a mount's process: a volume in a state directory, and the follower that keeps it current.

    Args:
        contents: of every version, by its file id.
    """

    def __init__(self, directory: Path, feed: Feed, contents: Mapping[int, bytes]) -> None:
        self.directory = directory
        self.volume: Volume
        self.frontend: Frontend
        self.failure: BaseException | None = None
        self._feed = feed
        self._contents = contents
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        self._published = trio.Event()
        self._kill_at = 0
        self._remains: Path | None = None

    async def live(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Follows until it is killed or ended."""
        try:
            with self._scope, Store.open(self.directory) as self.store, Tree(self.store) as tree:
                async with trio.open_nursery() as nursery:
                    self.volume = Volume(
                        self.store,
                        cache=BlockCache(BlockMemory(1 << 20), nursery, Stats()),
                        remote=lambda file_id, *_: Remote(self._contents[file_id]),
                        nursery=nursery,
                        options=VolumeOptions(readahead=0, timeout=1000),
                        stats=Stats(),
                    )
                    self.frontend = Frontend(self.volume)
                    nursery.start_soon(Follower(self._feed, tree, listener=self).run)
                    task_status.started()
        except BaseException as error:
            self.failure = error
        finally:
            self._ended.set()
            self._wake()
            self._feed.wake(stands=True)

    async def end(self) -> None:
        self._scope.cancel()
        await self._ended.wait()

    async def follow(self, answers: float) -> None:
        """Lets the portal give so many answers, and waits until they are applied."""
        if not self._ended.is_set():
            await self._feed.give(answers)
        while not self._ended.is_set() and self.store.cursor != self._feed.given:
            await self._published.wait()
        if self.failure is not None:
            raise self.failure

    async def kill(self, commits: int) -> Path:
        """Follows until so many changes were committed and one more is about to be, or nothing more is told; dies then.

        Returns:
            A copy of the state directory as it was at that moment.
        """
        self._kill_at = commits + 1
        await self.follow(float("inf"))
        if self._remains is None:
            self._die()
        await self.end()
        assert self._remains is not None
        return self._remains

    def prepare(self, changes: Sequence[Change]) -> None:
        self.volume.prepare(changes)
        self._kill_at -= 1
        if self._kill_at == 0:
            self._die()

    def publish(self, changes: Sequence[Change]) -> None:
        self.volume.publish(changes)
        self._wake()

    async def settle(self) -> None:
        await self.volume.settle()

    def _wake(self) -> None:
        self._published.set()
        self._published = trio.Event()

    def _die(self) -> None:
        remains = (self.directory.parent / str(number) for number in itertools.count())
        self._remains = next(path for path in remains if not path.exists())
        shutil.copytree(self.directory, self._remains)
        self._scope.cancel()
