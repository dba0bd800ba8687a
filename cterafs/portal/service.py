"""The notification service: a task that delivers every event to a queue, and the cursor once they are handled."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Generator, Sequence
from functools import partial
from typing import Protocol, TypeAlias, TypeVar

import anyio
from anyio.abc import TaskGroup

from cterafs.errors import PortalConnectionError, PortalTimeout, PortalUnavailable, SessionExpired
from cterafs.model import Cursor, Event, Page
from cterafs.portal.folders import FolderRef

_log = logging.getLogger(__name__)

T = TypeVar("T")
SaveCursor: TypeAlias = Callable[[Cursor], Awaitable[object]]

# What passes by itself. Anything else would only be repeated: it ends the service.
_PASSING = (PortalConnectionError, PortalTimeout, SessionExpired)
# A restart of the portal takes minutes; a client asks again within one, but not a hundred of them in the same second.
_FIRST_DELAY = 1.0
_LONGEST_DELAY = 60.0
# A portal that answers long polls at once, without any change, must not make us a busy loop.
_SHORTEST_ROUND = 1.0


class EventSink(Protocol):
    """What events are put into: an `EventQueue`, or under asyncio an `asyncio.Queue`."""

    async def put(self, item: Event, /) -> None: ...

    def task_done(self) -> None: ...

    async def join(self) -> None: ...


class Feed(Protocol):
    """What events are taken from: `Notifications`."""

    async def list(self, cursor: Cursor | None, *, folder_ids: Sequence[int] = ...) -> Page: ...

    async def changes(self, cursor: Cursor, *, folders: Sequence[FolderRef] = ...) -> bool: ...


class ServiceHandle:
    """A running service. `await handle` waits for its end and raises what it died of; None once it was stopped."""

    def __init__(self) -> None:
        self._scope = anyio.CancelScope()
        self._ended = anyio.Event()
        self._error: Exception | None = None

    def __await__(self) -> Generator[object, None, None]:
        return self._outcome().__await__()

    async def stop(self) -> None:
        """End the service and wait until it has ended. What it may have died of before is not raised here."""
        self._scope.cancel()
        await self._ended.wait()

    async def _outcome(self) -> None:
        await self._ended.wait()
        if self._error is not None:
            raise self._error

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work` until it fails or is stopped; the failure is logged, and kept for whoever awaits the handle."""
        try:
            with self._scope:
                await work()
        except Exception as error:  # for whoever awaits the handle
            _log.error("the notification service ended: %s: %s", type(error).__name__, error)
            self._error = error
        finally:
            self._ended.set()


class Service:
    """Starts notification services.

    Args:
        resolve: turns folders into their ids.
        tasks: the task group to run in; raises where there is none yet.
    """

    def __init__(
        self,
        feed: Feed,
        resolve: Callable[[Sequence[FolderRef]], Awaitable[tuple[int, ...]]],
        tasks: Callable[[], TaskGroup],
    ) -> None:
        self._feed = feed
        self._resolve = resolve
        self._tasks = tasks

    def run(
        self,
        queue: EventSink,
        save_cursor: SaveCursor,
        *,
        cursor: Cursor | None = None,
        folders: Sequence[FolderRef] = (),
    ) -> ServiceHandle:
        """Start delivering what changes after `cursor` (None: everything), at once; keep the handle.

        All events of a page are put into `queue`; when they have all been handled (`queue.join()`), `save_cursor` is
        awaited with the page's cursor, also where the page was empty. Whoever starts again with the cursor that was
        saved last misses nothing.

        Lost connections, timeouts, expired sessions and an unavailable portal are waited out. Any other error, also one
        of `save_cursor`, ends the service.
        """
        handle = ServiceHandle()

        async def deliver() -> None:
            folder_ids = await _patiently(lambda: self._resolve(folders))
            await _deliver(self._feed, queue, save_cursor, cursor, folder_ids)

        self._tasks().start_soon(handle.run, deliver)
        return handle


async def _deliver(
    feed: Feed, queue: EventSink, save_cursor: SaveCursor, cursor: Cursor | None, folder_ids: tuple[int, ...]
) -> None:
    has_more = False
    while True:
        started = anyio.current_time()
        if cursor is None or has_more or await _patiently(partial(feed.changes, cursor, folders=folder_ids)):
            page = await _patiently(partial(feed.list, cursor, folder_ids=folder_ids))
            for event in page.events:
                await queue.put(event)
            await queue.join()
            await save_cursor(page.cursor)
            cursor, has_more = page.cursor, page.has_more
            if page.events or has_more:
                continue
        await anyio.sleep_until(started + _SHORTEST_ROUND)


async def _patiently(call: Callable[[], Awaitable[T]]) -> T:
    """`await call()`, again and again while its failures are of the kind that passes."""
    longest = _FIRST_DELAY
    while True:
        try:
            return await call()
        except _PASSING as error:
            longest = min(2 * longest, _LONGEST_DELAY)
            delay = random.uniform(_FIRST_DELAY, longest)  # noqa: S311 -- spreads clients, hides nothing
            if isinstance(error, PortalUnavailable) and error.retry_after is not None:
                delay = max(delay, min(error.retry_after, _LONGEST_DELAY))
            _log.warning("the notification service waits %.0f s: %s", delay, error)
            await anyio.sleep(delay)
