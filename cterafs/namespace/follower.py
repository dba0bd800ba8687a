"""The task that keeps the tree current: list, wait for changes, list again; for ever."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NoReturn, Protocol, TypeVar

import trio

from cterafs import errors
from cterafs.model import Change, Cursor, Event, FolderInfo, Page
from cterafs.namespace.backoff import Backoff
from cterafs.namespace.disk import DamagedDatabase
from cterafs.namespace.schema import IDLE
from cterafs.namespace.status import FeedState, FeedStatus
from cterafs.namespace.store import UnknownParent
from cterafs.namespace.tree import Batch, Tree
from cterafs.threads import patiently

__all__ = ["FeedStatus", "Folders", "Follower", "Listener", "Notifications"]

T = TypeVar("T")

log = logging.getLogger(__name__)

MAX_RESULTS: Final = 2000  # entries in a page: what CTERA's own client asks for
LONGPOLL_TIMEOUT: Final = 10.0  # seconds; likewise
_LATE: Final = 5.0  # seconds beyond its time after which the answer of a long poll is missed
_IDLE_PAUSE: Final = 1.0  # a portal that answers a long poll at once, with nothing, is not asked more often than that
_PACE: Final = 0.05  # between two listings: in a storm of changes, each page has its cost, and nobody sees 50 ms
_STORM: Final = 100  # events in one listing: more have come meanwhile, and need no long poll that says so
_STORM_PACE: Final = 0.1  # seconds between two listings then
_PAGES_AHEAD: Final = 4  # fetched while others are applied; 2,000 entries take some 2 MB
_PAGES_AT_ONCE: Final = 10  # in one transaction of the first import: the fewer, the less an index page is written anew
_ASKED_AT_ONCE: Final = 20  # directories between two listings, so that asking does not hold up the news


class Notifications(Protocol):
    """What the follower needs of the portal's Notification Service."""

    async def list(self, cursor: Cursor | None, *, folder_ids: Sequence[int], max_results: int) -> Page: ...

    async def changes(self, cursor: Cursor, *, timeout: float, folders: Sequence[int]) -> bool: ...  # noqa: ASYNC109

    async def ancestors_of(self, folder_id: int, guid: str) -> Sequence[Event]: ...


class Folders(Protocol):
    """Who owns which cloud folder."""

    async def all(self) -> Sequence[FolderInfo]: ...


class Listener(Protocol):
    """Whoever shows the tree.

    `prepare` tells what is about to be committed, `publish` that it has been; both are called on the event loop, and
    nothing else runs in the follower between the commit and `publish`. A commit that fails leaves a `prepare` without
    its `publish`. `settle` returns when whoever caches something of the tree has been told; the follower takes no
    more from the portal before.
    """

    def prepare(self, changes: Sequence[Change], /) -> None: ...

    def publish(self, changes: Sequence[Change], /) -> None: ...

    async def settle(self) -> None: ...


class Follower:
    """Follows one feed into one tree.

    Args:
        folder_ids: the cloud folders to follow; none is all of them. Another selection than the index's lists again.
        folders: tells the owners; None where nobody does.
        current_at: when the tree was last known to be current, in an earlier life (seconds since 1970); None: unknown.
        longpoll_timeout: seconds that the portal may keep a question for changes.

    Attributes:
        imported: set once the tree has been complete, now or in an earlier life.
        error: why it is offline, for whoever waits for the import and would rather give up; None otherwise.
    """

    def __init__(
        self,
        notifications: Notifications,
        tree: Tree,
        *,
        listener: Listener,
        folder_ids: Sequence[int] = (),
        folders: Folders | None = None,
        current_at: float | None = None,
        longpoll_timeout: float = LONGPOLL_TIMEOUT,
    ) -> None:
        self.imported: Final = trio.Event()
        self.error: Exception | None = None
        self._feed: Final = notifications
        self._tree: Final = tree
        self._listener: Final = listener
        self._selection: Final = tuple(sorted(set(folder_ids)))
        self._folders: Final = folders
        self._longpoll_timeout: Final = longpoll_timeout
        self._limiter: Final = trio.CapacityLimiter(1)  # of its own: hung reads elsewhere never hold up the feed
        self._backoff: Final = Backoff()
        self._state: FeedState = "catching-up" if tree.store.imported else "importing"
        self._since = time.time()
        self._last_event_at: float | None = None
        self._last_contact_at: float | None = None
        self._current_at = current_at
        self._listed_at = -math.inf
        self._entries_seen = 0
        self._entries_skipped = 0
        self._known_folders: set[int] = set()
        self._begin_again = tree.store.selection != self._selection
        if tree.store.imported:
            self.imported.set()

    @property
    def status(self) -> FeedStatus:
        return FeedStatus(
            state=self._state,
            since=self._since,
            reason=None if self.error is None else _one_line(self.error),
            last_event_at=self._last_event_at,
            last_contact_at=self._last_contact_at,
            current_at=self._current_at,
            entries_seen=self._entries_seen,
            entries_skipped=self._entries_skipped,
            patience=self._longpoll_timeout + _LATE,
        )

    async def run(self) -> NoReturn:
        """Follows for ever, whatever the portal and the disk do; only a bug of ours ends it with an exception."""
        while True:
            try:
                await self._follow()
            except errors.CursorRejectedError as error:
                log.warning("the portal no longer accepts the cursor; listing again: %s", error)
                self._begin_again = True
                await self._rest(error)
            except errors.PortalError as error:
                await self._rest(error, refused=not error.retryable)
            except DamagedDatabase as error:
                if error.database == self._tree.store.database:
                    await self._give_up(error)
                log.warning("the namespace is listed again: %s", error)  # what was staged of it is lost
                self._begin_again = True
            except OSError as error:  # the disk, with nothing changed, or the system has no room for us; it may pass
                await trio.lowlevel.checkpoint_if_cancelled()  # then a step was only interrupted
                await self._rest(error)

    # -- the cycle

    async def _follow(self) -> NoReturn:
        if self._begin_again:
            await self._in_thread(lambda: self._tree.begin_relist(self._selection))
            self._begin_again = False
        await self._learn_owners()
        promised = False  # the portal said that there is something
        while True:
            applied = await self._catch_up()
            await self._finish_import()
            if promised and not applied:
                await trio.sleep(_IDLE_PAUSE)
            promised = False
            if await self._ask():
                continue
            await self._sweep()
            self._current_at = time.time()
            self._backoff.succeeded()
            self._enter("live")
            if applied >= _STORM:
                await self._pause(_STORM_PACE)
                continue
            await self._wait_for_changes()
            promised = True

    async def _catch_up(self) -> int:
        """Applies all that the portal has behind the cursor; gives the number of events."""
        store = self._tree.store
        cursor, relist = await self._in_thread(lambda: (store.cursor, store.relist))
        listing = not self.imported.is_set() or relist != IDLE
        if listing and self._state != "offline":
            self._begin_catching_up()
        self._listed_at = trio.current_time()
        applied = 0
        failure: Exception | None = None
        # What is expected to go wrong is raised outside of the nursery, which would wrap it into a group.
        async with trio.open_nursery() as nursery:
            send, receive = trio.open_memory_channel[Page | OSError](_PAGES_AHEAD)
            nursery.start_soon(self._fetch, cursor, send)
            async for first in receive:
                pages, failure = _drain(first, receive, 1 if self.imported.is_set() else _PAGES_AT_ONCE)
                try:
                    applied += await self._take(pages, listing=listing) if pages else 0
                    if pages and self._state == "offline":  # and no earlier: it may fail again
                        self._begin_catching_up()
                except OSError as error:
                    failure = error
                if failure is not None:
                    nursery.cancel_scope.cancel()
                    break
        if failure is not None:
            raise failure
        return applied

    async def _fetch(self, cursor: Cursor | None, send: trio.MemorySendChannel[Page | OSError]) -> None:
        """Sends pages until there are no more; an error goes the same way, behind those that came before it."""
        async with send:
            try:
                more = True
                while more:
                    page = await self._feed.list(cursor, folder_ids=self._selection, max_results=MAX_RESULTS)
                    self._heard()
                    await send.send(page)
                    cursor, more = page.cursor, page.has_more
                    if more and self._state == "live":
                        self._begin_catching_up()
            except OSError as error:
                await send.send(error)

    async def _take(self, pages: Sequence[Page], *, listing: bool) -> int:
        events = [event for page in pages for event in page.events]
        last = pages[-1]
        complete = not last.has_more
        await self._apply(lambda: self._tree.prepare(events, last.cursor, listing=listing, complete=complete))
        self._entries_seen += len(events)
        self._entries_skipped += sum(page.skipped for page in pages)
        if events:
            self._last_event_at = time.time()
        if new := _cloud_folders(events) - self._known_folders:
            self._known_folders |= new  # whatever the answer, they are asked about once
            await self._learn_owners()
        return len(events)

    async def _finish_import(self) -> None:
        """Shows what was staged of a complete listing: step by step, as the mount is told of each."""
        while await self._in_thread(lambda: self._tree.unfinished):
            await self._apply(lambda: self._tree.proceed(trio.from_thread.check_cancelled))
        if not self.imported.is_set() and await self._in_thread(lambda: self._tree.store.imported):
            self.imported.set()

    async def _sweep(self) -> None:
        """Ends listing again. Nothing may come between the last question and this: it could raise others."""
        while await self._in_thread(lambda: self._tree.sweeping):
            await self._apply(self._tree.sweep)

    async def _wait_for_changes(self) -> None:
        cursor = await self._in_thread(lambda: self._tree.store.cursor)
        if cursor is None:  # a portal that gives no cursor can only be listed again
            await trio.sleep(self._longpoll_timeout)
            return
        while True:
            asked = trio.current_time()
            there_are = await self._feed.changes(cursor, timeout=self._longpoll_timeout, folders=self._selection)
            self._heard()
            self._backoff.succeeded()
            if there_are:
                await self._pause(_PACE)
                return
            self._current_at = time.time()
            await trio.sleep(max(0.0, asked + _IDLE_PAUSE - trio.current_time()))

    async def _pause(self, pace: float) -> None:
        """Until so many seconds have passed since the last listing began."""
        await trio.sleep(max(0.0, self._listed_at + pace - trio.current_time()))

    async def _ask(self) -> bool:
        """Asks about some directories that only what lies in them gives away; whether there were any."""
        questions = await self._in_thread(lambda: self._tree.questions(_ASKED_AT_ONCE))
        if not questions:
            return False
        events = [event for parent in questions for event in await self._ancestors(parent)]
        asked = [parent.guid for parent in questions]
        await self._apply(lambda: self._tree.prepare(events, asked=asked))
        return True

    async def _ancestors(self, parent: UnknownParent) -> Sequence[Event]:
        """The directory and those above it. Old portals leave out what was asked about: then a child of it is."""
        for guid in (parent.guid, parent.child):
            try:
                events = await self._feed.ancestors_of(parent.folder_id, guid)
            except errors.AncestorsError as error:
                log.debug("no ancestors of %r: %s", guid, error)
                continue
            self._heard()
            if any(event.guid == parent.guid for event in events):
                return events
        return ()

    async def _learn_owners(self) -> None:
        """Asks who owns which cloud folder. An account that may not know goes without: names then show folder ids."""
        if self._folders is None:
            return
        try:
            folders = await self._folders.all()
        except errors.AuthenticationError:
            raise
        except errors.PortalError as error:
            log.info("the owners of the cloud folders are not known: %s", error)
            return
        self._known_folders.update(folder.folder_id for folder in folders)
        await self._apply(lambda: self._tree.set_folders(folders))

    # -- applying

    async def _apply(self, make: Callable[[], Batch]) -> None:
        batch = await self._in_thread(make)
        try:
            self._listener.prepare(batch.changes)
            await self._in_thread(batch.commit)
        except BaseException:
            batch.rollback()
            raise
        self._listener.publish(batch.changes)
        await self._listener.settle()
        if self._tree.log_is_long:
            await self._in_thread(self._tree.checkpoint)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await patiently(partial(trio.to_thread.run_sync, work, limiter=self._limiter))

    # -- the state

    def _enter(self, state: FeedState) -> None:
        if state != self._state:
            self._state, self._since = state, time.time()
        if state != "offline":
            self.error = None

    def _begin_catching_up(self) -> None:
        self._enter("catching-up" if self.imported.is_set() else "importing")

    def _heard(self) -> None:
        self._last_contact_at = time.time()

    async def _give_up(self, error: DamagedDatabase) -> NoReturn:
        """The index can take no more changes. Another cannot take its place while inodes of this one are in use, so
        what it still holds is served until the next mount."""
        await self._in_thread(self._tree.condemn)
        self.error = DamagedDatabase(f"{error}; the next mount imports the namespace again", error.database)
        log.error("%s", self.error)
        self._enter("offline")
        await trio.sleep_forever()

    async def _rest(self, error: OSError, *, refused: bool = False) -> None:
        """Offline for a while."""
        if self.error is None:
            log.warning("not following the portal for now: %s", _one_line(error))
        self.error = error
        self._enter("offline")
        await trio.sleep(self._backoff.failed(error, refused=refused))


def _drain(
    first: Page | OSError,
    receive: trio.MemoryReceiveChannel[Page | OSError],
    limit: int,
) -> tuple[list[Page], OSError | None]:
    """What has arrived so far, up to `limit` pages."""
    pages: list[Page] = []
    item = first
    while True:
        if not isinstance(item, Page):
            return pages, item
        pages.append(item)
        if len(pages) >= limit:
            return pages, None
        try:
            item = receive.receive_nowait()
        except (trio.WouldBlock, trio.EndOfChannel):
            return pages, None


def _cloud_folders(events: Sequence[Event]) -> set[int]:
    """The ids of the cloud folders whose roots these events tell of."""
    return {
        event.folder_id
        for event in events
        if event.is_dir and not event.parent_guid and not event.deleted and event.folder_id is not None
    }


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
