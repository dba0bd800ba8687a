"""A portal that is played by hand, and whoever follows it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from cterafs import errors
from cterafs.model import Change, Cursor, Event, FolderInfo, Page
from cterafs.namespace.follower import Follower
from cterafs.namespace.store import Store
from cterafs.namespace.tree import Tree


def folder(guid: str, name: str, folder_id: int = 7) -> Event:
    return Event(guid=guid, name=name, is_dir=True, folder_id=folder_id)


def directory(guid: str, name: str, parent: str) -> Event:
    return Event(guid=guid, name=name, is_dir=True, parent_guid=parent, folder_id=7)


def file(guid: str, name: str, parent: str, size: int = 1) -> Event:
    return Event(guid=guid, name=name, is_dir=False, parent_guid=parent, folder_id=7, file_id=1, size=size)


@dataclass
class PlayedPortal:
    """A feed of pages; its cursors are positions in it, with the number of times that it was reset in front."""

    pages: list[list[Event]] = field(default_factory=list)
    ancestors: dict[str, list[Event]] = field(default_factory=dict)
    folders: list[FolderInfo] | OSError = field(default_factory=list)
    failures: list[errors.PortalError] = field(default_factory=list)
    epoch: int = 0
    calls: list[tuple[str, object, float]] = field(default_factory=list)
    more: trio.Event = field(default_factory=trio.Event)
    polls_return_at_once: bool = False

    async def list(self, cursor: Cursor | None, *, folder_ids: Sequence[int], max_results: int) -> Page:
        self._called("list", cursor)
        await trio.lowlevel.checkpoint()
        if cursor is not None and not cursor.startswith(f"{self.epoch}:"):
            raise errors.CursorRejectedError("no such cursor")
        position = int(cursor.partition(":")[2]) if cursor else 0
        events = self.pages[position] if position < len(self.pages) else []
        after = min(position + 1, len(self.pages))
        return Page(events=events, cursor=Cursor(f"{self.epoch}:{after}"), has_more=after < len(self.pages), skipped=0)

    async def changes(self, cursor: Cursor, *, timeout: float, folders: Sequence[int]) -> bool:  # noqa: ASYNC109
        self._called("changes", cursor)
        if not cursor.startswith(f"{self.epoch}:"):
            raise errors.CursorRejectedError("no such cursor")
        if self.polls_return_at_once:
            await trio.lowlevel.checkpoint()
            return False
        with trio.move_on_after(timeout):
            await self.more.wait()
            self.more = trio.Event()
            return True
        return False

    async def ancestors_of(self, folder_id: int, guid: str) -> Sequence[Event]:
        self._called("ancestors", guid)
        await trio.lowlevel.checkpoint()
        if guid not in self.ancestors:
            raise errors.AncestorsError("never heard of it")
        return self.ancestors[guid]

    async def all(self) -> Sequence[FolderInfo]:
        self._called("folders", None)
        if isinstance(self.folders, OSError):
            raise self.folders
        return self.folders

    def tell(self, *events: Event) -> None:
        self.pages.append([*events])
        self.more.set()

    def asked(self, kind: str) -> Sequence[object]:
        return [argument for name, argument, _ in self.calls if name == kind]

    def times(self, kind: str) -> Sequence[float]:
        return [at for name, _, at in self.calls if name == kind]

    def _called(self, kind: str, argument: object) -> None:
        self.calls.append((kind, argument, trio.current_time()))
        if self.failures:
            raise self.failures.pop(0)


@dataclass
class Watcher:
    """A listener that notes what it hears, and what a reader would have seen at that moment."""

    store: Store
    heard: list[tuple[str, list[Change]]] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)
    news: trio.Event = field(default_factory=trio.Event)

    def prepare(self, changes: Sequence[Change]) -> None:
        self.heard.append(("prepare", [*changes]))
        self.seen.append(self.store.counts.files)

    def publish(self, changes: Sequence[Change]) -> None:
        self.heard.append(("publish", [*changes]))
        self.seen.append(self.store.counts.files)
        self.news.set()
        self.news = trio.Event()

    async def settle(self) -> None:
        pass

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self.news.wait()


@dataclass
class Setting:
    portal: PlayedPortal
    store: Store
    tree: Tree
    watcher: Watcher

    @asynccontextmanager
    async def following(self, **options: object) -> AsyncIterator[Follower]:
        follower = Follower(self.portal, self.tree, listener=self.watcher, folders=self.portal, **options)  # type: ignore[arg-type]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follower.run)
            yield follower
            nursery.cancel_scope.cancel()


async def eventually(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  # of the jumping clock
        await trio.sleep(1)


async def live(follower: Follower) -> None:
    await eventually(lambda: follower.status.state == "live")
