"""The notification service: list, longpoll, ancestors. JSON, in both contexts."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from cterafs.demo.control import ControlPlane
from cterafs.demo.feed import CursorRejected
from cterafs.demo.inventory import Inventory, UnknownObject
from cterafs.demo.objects import Entry

MAX_LONGPOLL = 300.0
"""Seconds; whoever asks for longer is answered then."""


class _List(msgspec.Struct):
    folder_ids: list[int]
    cursor: str | None = None
    max_results: int = 2000


class _LongPoll(msgspec.Struct):
    folder_ids: list[int]
    cursor: str
    timeout: int = 10_000


class _Ancestors(msgspec.Struct):
    folder_id: int
    guid: str


class NotificationService:
    """Routes of the notification service.

    Attributes:
        page_size: most entries in one answer of `list`, whatever is asked for.
        max_folders: most folder ids in one request.
        old_shape: as older portals: `modified`, and ancestors unsorted, without the object itself.
    """

    def __init__(self, control: ControlPlane, inventory: Inventory) -> None:
        self.page_size = 2000
        self.max_folders = 1000
        self.old_shape = False
        self._control = control
        self._inventory = inventory

    @property
    def routes(self) -> list[BaseRoute]:
        guard, base = self._control.guard, "/{context}/v2/api/metadata"
        return [
            Route(f"{base}/list", guard("list", self._list), methods=["POST"]),
            Route(f"{base}/longpoll", guard("longpoll", self._longpoll), methods=["POST"]),
            Route(f"{base}/ancestors", guard("ancestors", self._ancestors), methods=["POST"]),
        ]

    async def _list(self, request: Request) -> Response:
        try:
            asked = msgspec.json.decode(await request.body(), type=_List)
            if refusal := self._too_many(asked.folder_ids):
                return refusal
            limit = max(1, min(asked.max_results, self.page_size))
            entries, cursor, more = self._inventory.feed.page(asked.folder_ids, asked.cursor, limit)
        except msgspec.DecodeError as error:
            return refuse(400, str(error))
        except CursorRejected:
            return refuse(400, "the cursor is not valid")
        return _json({"has_more": more, "cursor": cursor, "entries": self._wire(entries)})

    async def _longpoll(self, request: Request) -> Response:
        try:
            asked = msgspec.json.decode(await request.body(), type=_LongPoll)
            if refusal := self._too_many(asked.folder_ids):
                return refusal
            timeout = min(max(asked.timeout, 0) / 1000, MAX_LONGPOLL)
            changes = await self._inventory.feed.wait(asked.folder_ids, asked.cursor, timeout)
        except msgspec.DecodeError as error:
            return refuse(400, str(error))
        except CursorRejected:
            return refuse(400, "the cursor is not valid")
        return _json({"changes": changes})

    async def _ancestors(self, request: Request) -> Response:
        try:
            asked = msgspec.json.decode(await request.body(), type=_Ancestors)
            entries = self._inventory.ancestors(asked.folder_id, asked.guid)
        except msgspec.DecodeError as error:
            return refuse(400, str(error))
        except UnknownObject:
            return refuse(404, "no such object")
        return _json(self._wire(entries[-2::-1] if self.old_shape else entries))

    def _too_many(self, folder_ids: list[int]) -> Response | None:
        limit = self.max_folders
        return refuse(400, f"size must be between 0 and {limit}") if len(folder_ids) > limit else None

    def _wire(self, entries: list[Entry]) -> list[object]:
        return [_as_older_portals(entry) for entry in entries] if self.old_shape else list(entries)


def refuse(status: int, message: str) -> Response:
    """An error in the shape in which clients look for the reason."""
    return Response(msgspec.json.encode({"details": [{"error": message}]}), status, media_type="application/json")


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


def _as_older_portals(entry: Entry) -> dict[str, object]:
    fields = {name: value for name, value in msgspec.structs.asdict(entry).items() if value is not None}
    fields["modified"] = fields.pop("portal_modified_date", None)
    return fields
