"""Where the objects of events lie.

An event names its directory by a guid. The events themselves tell of some directories, and of what becomes of them; the
others are found in the local index, or asked for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import anyio
from cachetools import LRUCache

from cterafs.errors import AncestorsError, PortalError
from cterafs.model import Event
from cterafs.namespace.names import safe
from cterafs.namespace.store import Store

Ancestors = Callable[[int, str], Awaitable[Sequence[Event]]]
"""Asks the portal: takes a cloud folder's id and a guid."""

DIRECTORIES: Final = 100_000
"""Directories in memory: some 30 MB; the ones that were not needed for longest are asked for again."""

DEPTH: Final = 4096
"""Directories above an object: a path has 4096 bytes at most, so it cannot name more."""

_PAUSES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, None)
"""Seconds before the portal is asked again: it answered a moment ago, so it is restarting, if anything."""


@dataclass(frozen=True, slots=True)
class _Directory:
    """`name` as it is shown; of a cloud folder, its path without the leading slash. `parent` None: a cloud folder."""

    name: str
    parent: str | None


class EventPaths:
    """The paths of events, as the directories are called now, as far as that is known.

    Args:
        ancestors: asked about directories that neither an event nor the index told of.
        index: of the same portal, no older than the first event; None where there is none.
    """

    def __init__(self, ancestors: Ancestors, index: Store | None) -> None:
        self._ancestors = ancestors
        self._index = index
        self._known: LRUCache[str, _Directory | None] = LRUCache(DIRECTORIES)

    def learn(self, events: Iterable[Event]) -> None:
        """Takes note of directories; also of deleted ones, since events of what lay in them may follow."""
        for event in events:
            if event.is_dir:
                self._known[event.guid] = self._told(event)

    async def of(self, event: Event) -> str | None:
        """The path of an event's object, with a leading slash; None where its directories are not known.

        Raises:
            StateError: the index cannot be read.
        """
        directory = self._told(event)
        names, child = [directory.name], event.guid
        while directory.parent is not None:
            guid = directory.parent
            if len(names) > DEPTH:  # of a confused portal, and perhaps in a circle
                return None
            above = self._known[guid] if guid in self._known else await self._find(guid, child, event.folder_id)
            if above is None:
                return None
            names.append(above.name)
            directory, child = above, guid
        return "/" + "/".join(reversed(names))

    def _told(self, event: Event) -> _Directory:
        if event.parent_guid:
            return _Directory(safe(event.name), event.parent_guid)
        indexed = self._indexed(event.guid)  # which knows the folders of one name, and the layout
        return _Directory(safe(event.name) if indexed is None else indexed.name, None)

    async def _find(self, guid: str, child: str, folder_id: int | None) -> _Directory | None:
        found = self._indexed(guid)
        if found is None and folder_id is not None:
            for event in await self._ask(folder_id, guid, child):
                if event.is_dir and event.guid not in self._known:
                    self._known[event.guid] = self._told(event)
            found = self._known.get(guid)
        self._known[guid] = found
        return found

    def _indexed(self, guid: str) -> _Directory | None:
        if self._index is None or (node := self._index.by_guid(guid)) is None or not node.is_dir:
            return None
        parent = self._index.get(node.parent)
        if parent is not None and parent.guid:
            return _Directory(node.name, parent.guid)
        path = self._index.path(node.inode)
        return None if path is None else _Directory(path.removeprefix("/"), None)

    async def _ask(self, folder_id: int, guid: str, child: str) -> Sequence[Event]:
        """The directory and those above it. Old portals leave out what was asked about: then what lies in it is."""
        for asked in (guid, child):
            events = await self._patiently(folder_id, asked)
            if any(event.guid == guid for event in events):
                return events
        return ()

    async def _patiently(self, folder_id: int, guid: str) -> Sequence[Event]:
        for pause in _PAUSES:
            try:
                return await self._ancestors(folder_id, guid)
            except AncestorsError:
                break
            except PortalError as error:
                if pause is None or not error.retryable:
                    raise
                await anyio.sleep(pause)
        return ()
