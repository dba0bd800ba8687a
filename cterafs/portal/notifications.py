"""The Notification Service: what exists, and what changes. `POST {context}/v2/api/metadata/…`, JSON."""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias, TypeVar

import anyio.to_thread
import msgspec
from anyio.abc import TaskGroup

from cterafs.errors import (
    AncestorsError,
    CursorRejectedError,
    NotificationsError,
    ProtocolError,
    TooManyVolumesRequestedError,
)
from cterafs.model import Cursor, Event, Page
from cterafs.portal.folders import FolderRef
from cterafs.portal.service import Service
from cterafs.portal.session import Session, check
from cterafs.portal.transport import Answer
from cterafs.portal.wire import decode_ancestors, decode_changes, decode_page
from cterafs.threads import patiently

Events: TypeAlias = list[Event]
Resolve: TypeAlias = Callable[[Sequence[FolderRef]], Awaitable[tuple[int, ...]]]

T = TypeVar("T")

DEFAULT_RESULTS = 2000
"""Entries in a page: what CTERA's SDK asks for."""

# Decoding this much takes 0.3 ms, about what a trip to a worker thread costs.
_DECODE_INLINE = 32 * 2**10
_TOO_MANY = re.compile(rb"size must be between\s+([0-9]{1,9})\s+and\s+([0-9]{1,9})")


class Notifications:
    """Listing and following changes.

    `folders` are ids, "owner/name" or `FolderInfo`; none of them is every cloud folder. A cursor belongs to the folders
    that it was issued for.

    Args:
        resolve: turns folders into their ids.
        tasks: the task group that notification services run in.
    """

    def __init__(self, session: Session, resolve: Resolve, tasks: Callable[[], TaskGroup]) -> None:
        self._session = session
        self._resolve = resolve
        self.service = Service(self, resolve, tasks)

    async def list(
        self, cursor: Cursor | None, *, folder_ids: Sequence[int] = (), max_results: int = DEFAULT_RESULTS
    ) -> Page:
        """One page of what changed since `cursor`; None starts from the beginning, with all that exists.

        Raises:
            TooManyVolumesRequestedError: the portal does not take so many folders at once.
            CursorRejectedError: the cursor is no longer accepted.
            NotificationsError: the service refused, or answered nothing.
            PortalError: any other kind.
        """
        parameters = {"folder_ids": [*folder_ids], "cursor": cursor, "max_results": max_results}
        answer = await self._call("list", parameters)
        _check_feed(answer, cursor, len(folder_ids))
        page = await _decoded(decode_page, answer.body)
        if page.has_more and page.cursor == cursor:
            raise ProtocolError("the portal's list of changes does not end: its cursor stays where it was")
        return page

    def get(
        self,
        cursor: Cursor | None = None,
        *,
        folders: Sequence[FolderRef] = (),
        max_results: int = DEFAULT_RESULTS,
    ) -> EventStream:
        """Every event since `cursor`, page after page until there are no more; see `list` for the errors."""

        folder_ids: tuple[int, ...] | None = None

        async def page_after(position: Cursor | None) -> Page:
            nonlocal folder_ids
            if folder_ids is None:
                folder_ids = await self._resolve(folders)
            return await self.list(position, folder_ids=folder_ids, max_results=max_results)

        return EventStream(page_after, cursor)

    async def changes(
        self,
        cursor: Cursor,
        *,
        timeout: float = 10.0,  # noqa: ASYNC109 -- it is the portal that waits
        folders: Sequence[FolderRef] = (),
    ) -> bool:
        """Wait up to `timeout` seconds for a change after `cursor`; False if there was none.

        Raises:
            As `list` does.
        """
        folder_ids = await self._resolve(folders)
        parameters = {"folder_ids": [*folder_ids], "cursor": cursor, "timeout": round(timeout * 1000)}
        answer = await self._call("longpoll", parameters, patience=timeout)
        _check_feed(answer, cursor, len(folder_ids))
        return decode_changes(answer.body)

    async def ancestors(self, event: Event) -> Events:
        """The directories above the object of `event`, root first; the object itself is the last.

        Raises:
            AncestorsError: the portal refused, or the event does not tell its cloud folder.
        """
        if event.folder_id is None:
            raise AncestorsError(f"the event of {event.guid!r} does not tell its cloud folder")
        return await self._ancestors(event.folder_id, event.guid, event)

    async def ancestors_of(self, folder_id: int, guid: str) -> Events:
        """As `ancestors`, for an object of which only this is known. Old portals leave the object itself out."""
        return await self._ancestors(folder_id, guid, None)

    async def _ancestors(self, folder_id: int, guid: str, known: Event | None) -> Events:
        answer = await self._call("ancestors", {"folder_id": folder_id, "guid": guid}, may_forbid=True)
        if 400 <= answer.status < 500 and answer.status != 429:
            raise AncestorsError(f"the portal refused the ancestors of {guid!r} (HTTP {answer.status})")
        check(answer)
        try:
            return decode_ancestors(answer.body, guid, known)
        except NotificationsError:
            raise AncestorsError(f"the portal knows no ancestors of {guid!r}") from None

    async def _call(
        self, name: str, parameters: Mapping[str, object], *, patience: float = 0.0, may_forbid: bool = False
    ) -> Answer:
        return await self._session.request(
            "POST",
            f"v2/api/metadata/{name}",
            content=msgspec.json.encode(parameters),
            content_type="application/json",
            patience=patience,
            may_forbid=may_forbid,
        )


class EventStream:
    """The events of all pages, as an asynchronous iterator.

    Attributes:
        cursor: after the last page whose events have all been delivered: the place to go on from.
    """

    def __init__(self, page_after: Callable[[Cursor | None], Awaitable[Page]], cursor: Cursor | None) -> None:
        self._page_after = page_after
        self._page: Page | None = None
        self._delivered = 0
        self.cursor = cursor

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> Event:
        while self._page is None or self._delivered == len(self._page.events):
            if self._page is not None:
                self.cursor = self._page.cursor
                if not self._page.has_more:
                    raise StopAsyncIteration
            self._page, self._delivered = await self._page_after(self.cursor), 0
        event = self._page.events[self._delivered]
        self._delivered += 1
        return event


async def _decoded(decode: Callable[[bytes], T], body: bytes) -> T:
    """`decode(body)`, in a worker thread where it takes long enough to be noticed."""
    if len(body) <= _DECODE_INLINE:
        return decode(body)
    return await patiently(functools.partial(anyio.to_thread.run_sync, decode, body))


def _check_feed(answer: Answer, cursor: Cursor | None, folders: int) -> None:
    """What a status means to `list` and `longpoll`."""
    if answer.status == 400:
        if allowed := _TOO_MANY.search(answer.body):
            most = allowed[2].decode()
            raise TooManyVolumesRequestedError(f"{folders} cloud folders were selected; the portal allows {most}")
        if cursor is not None:
            raise CursorRejectedError("the portal no longer accepts the cursor: the namespace has to be listed again")
    if answer.status in {400, 404}:
        raise NotificationsError(f"the Notification Service refused the request (HTTP {answer.status})")
    check(answer)
