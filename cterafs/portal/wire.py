"""What the Notification Service answers, from JSON to types. Pure: bytes in, types out.

The portal is not trusted, and its releases differ. Unknown fields are ignored; an optional field of a wrong type is
converted where its meaning is plain ("12" and 12.0 are 12) and is None otherwise; an entry without a usable `guid`,
`name` or `type` is skipped and counted. Nothing but `ProtocolError` and `NotificationsError` is raised.

JSON can hold what UTF-8 cannot: lone surrogates. They, and bytes that are not UTF-8, become private-use characters of
plane 16 (U+D800 becomes U+10D800), so that texts can always be encoded and names stay distinct.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from cterafs.errors import NotificationsError, ProtocolError
from cterafs.model import Cursor, Event, Page
from cterafs.portal.timestamps import nanoseconds

# A full page of 2,000 entries has some 30,000 values; this many take about 75 MB once decoded, which is all that a
# hostile answer can make us allocate.
_MAX_VALUES = 1_000_000
_MAX_TEXT = 64 << 10
"""Characters of a name or a guid; an extended attribute could show no more. An entry with a longer one is skipped."""
_INT64_MAX = 2**63 - 1
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
# Longer integers mean nothing in this protocol, and Python refuses to convert those of more than 4,300 digits.
_MAX_DIGITS = 100
_SURROGATES = {code: 0x100000 + code for code in range(0xD800, 0xE000)}


_Int64 = Annotated[int, Meta(ge=-_INT64_MAX, le=_INT64_MAX)]
_Size = Annotated[int, Meta(ge=0, le=_INT64_MAX)]


class _Entry(msgspec.Struct, gc=False):
    """An entry as protocol-abiding portals send it: what the decoder has checked, nobody has to check again."""

    type: str
    guid: Annotated[str, Meta(min_length=1)]
    name: str
    deleted: bool = False
    folder_id: _Int64 | None = None
    id: _Int64 | None = None
    size: _Size | None = None
    parent_guid: str | None = None
    gvsn: str | int | float | None = None
    acl: str | None = None
    modified: str | int | float | None = None
    portal_modified_date: str | int | float | None = None
    file_timestamp: str | int | float | None = None
    virtual_portal_id: str | int | None = None


class _Page(msgspec.Struct, gc=False):
    has_more: bool
    cursor: str
    entries: list[_Entry]


_page_decoder = msgspec.json.Decoder(_Page)


def decode_page(raw: bytes) -> Page:
    """The answer of `list`.

    Well-formed pages take the typed decoder (2,000 entries in 3 ms), others the tolerant one (14 ms).

    Raises:
        NotificationsError: the body is null.
        ProtocolError: it is not a page, or there is no cursor to go on from.
    """
    _check_size(raw)
    try:
        page = _page_decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _tolerant_page(raw)
    return _page(page.entries, Cursor(page.cursor), has_more=page.has_more, listed=len(page.entries))


def decode_changes(raw: bytes) -> bool:
    """The answer of `longpoll`: has anything changed?

    Raises:
        NotificationsError: the body is null.
        ProtocolError: it does not say.
    """
    answer = _object(_load(raw))
    changes = _boolean(answer.get("changes"))
    if changes is None:
        raise ProtocolError("the portal's answer does not say whether there are changes")
    return changes


def decode_ancestors(raw: bytes, guid: str, known: Event | None = None) -> list[Event]:
    """The answer of `ancestors` for the object `guid`: root first, the object itself last.

    Old portals neither sort nor include the object: the chain is made by `parent_guid`, and `known`, if given, is
    appended where the object is missing.

    Raises:
        NotificationsError: the body is null.
        ProtocolError: it is not an array.
    """
    answer = _load(raw)
    if not isinstance(answer, list):
        raise ProtocolError("the portal's list of ancestors is not an array")
    entries = (_entry(value, default_type="folder") for value in answer)
    events = [_event(entry) for entry in entries if entry]
    if known is not None and all(event.guid != guid for event in events):
        events.append(known)
    return _chained(events, guid)


def _chained(events: Sequence[Event], guid: str) -> list[Event]:
    """`events` by descent. Where the links do not join them all, the portal's order is all there is to go by."""
    by_guid = {event.guid: event for event in events}
    if guid in by_guid:
        deepest = guid
    else:
        parents = {event.parent_guid for event in events}
        deepest = next((event.guid for event in events if event.guid not in parents), guid)
    chain: list[Event] = []
    step: str | None = deepest
    while step is not None and (event := by_guid.pop(step, None)):  # popping ends a cycle
        chain.append(event)
        step = event.parent_guid
    if not by_guid:
        return chain[::-1]
    return sorted(events, key=lambda event: event.guid == guid)  # stable: only the object moves, to the end


def _tolerant_page(raw: bytes) -> Page:
    answer = _object(_load(raw))
    cursor = _text(answer.get("cursor"))
    if cursor is None:
        raise ProtocolError("the portal's list of changes has no cursor")
    entries = answer.get("entries")
    if entries is None:
        entries = []
    if not isinstance(entries, list):
        raise ProtocolError("the portal's list of changes has no array of entries")
    understood = [entry for entry in map(_entry, entries) if entry]
    return _page(understood, Cursor(cursor), has_more=bool(_boolean(answer.get("has_more"))), listed=len(entries))


def _page(entries: Sequence[_Entry], cursor: Cursor, *, has_more: bool, listed: int) -> Page:
    events = [_event(entry) for entry in entries if len(entry.name) <= _MAX_TEXT and len(entry.guid) <= _MAX_TEXT]
    return Page(events=events, cursor=cursor, has_more=has_more, skipped=listed - len(events))


def _entry(value: object, default_type: str | None = None) -> _Entry | None:
    """An entry of which nothing is certain; None if it lacks what identifies it."""
    if not isinstance(value, dict):
        return None
    kind, guid, name = (value.get(field) for field in ("type", "guid", "name"))
    if kind is None:
        kind = default_type
    if not (isinstance(kind, str) and isinstance(guid, str) and guid and isinstance(name, str)):
        return None
    return _Entry(
        type=kind,
        guid=_encodable(guid),
        name=_encodable(name),
        deleted=bool(_boolean(value.get("deleted"))),
        folder_id=_int64(_integer(value.get("folder_id"))),
        id=_int64(_integer(value.get("id"))),
        # Clamped, not dropped: an impossible size must not make a file look empty.
        size=min(max(_integer(value.get("size")) or 0, 0), _INT64_MAX),
        parent_guid=_text(value.get("parent_guid")),
        gvsn=_text(value.get("gvsn")),
        acl=_text(value.get("acl")),
        modified=_scalar(value.get("modified")),
        portal_modified_date=_scalar(value.get("portal_modified_date")),
        file_timestamp=_scalar(value.get("file_timestamp")),
        virtual_portal_id=_text(value.get("virtual_portal_id")),
    )


def _event(entry: _Entry) -> Event:
    gvsn, virtual_portal_id = entry.gvsn, entry.virtual_portal_id
    changed = nanoseconds(entry.portal_modified_date)
    if changed is None:
        changed = nanoseconds(entry.modified)
    written = nanoseconds(entry.file_timestamp)
    return Event(
        guid=entry.guid,
        name=entry.name,
        is_dir=entry.type != "file",
        deleted=entry.deleted,
        folder_id=entry.folder_id,
        parent_guid=entry.parent_guid or None,
        file_id=entry.id,
        size=entry.size or 0,
        gvsn=gvsn if gvsn is None or isinstance(gvsn, str) else _text(gvsn),
        acl=entry.acl,
        mtime_ns=changed if written is None else written,
        ctime_ns=written if changed is None else changed,
        virtual_portal_id=virtual_portal_id if virtual_portal_id is None else _text(virtual_portal_id),
    )


def _load(raw: bytes) -> object:
    _check_size(raw)
    try:
        text = raw.decode("utf-8-sig", "surrogateescape")
        answer: object = json.loads(text, parse_int=_digits, parse_constant=lambda _: None) if text.strip() else None
    except (ValueError, RecursionError):
        raise ProtocolError("the portal's answer is not JSON") from None
    if answer is None:
        raise NotificationsError("the Notification Service answered nothing")
    return answer


def _check_size(raw: bytes) -> None:
    """Refuse what would take far more memory than its bytes: every value but the first follows one of these."""
    if len(raw) <= _MAX_VALUES:
        return
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") > _MAX_VALUES:
        raise ProtocolError(f"the portal's answer holds more than {_MAX_VALUES:,} values")


def _digits(text: str) -> int | None:
    return int(text) if len(text) <= _MAX_DIGITS else None


def _object(answer: object) -> dict[str, object]:
    if not isinstance(answer, dict):
        raise ProtocolError("the portal's answer is not an object")
    return answer


def _encodable(text: str) -> str:
    return text if text.isascii() else text.translate(_SURROGATES)


def _scalar(value: object) -> str | int | float | None:
    return value if isinstance(value, str | int | float) else None


def _text(value: object) -> str | None:
    if isinstance(value, str):
        return _encodable(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int) and abs(value) >= 10**_MAX_DIGITS:
        return None
    return str(value)


def _integer(value: object) -> int | None:
    if isinstance(value, str):
        text = value.strip()
        return int(text) if _INTEGER.fullmatch(text) else None
    if isinstance(value, float):
        return int(value) if math.isfinite(value) and value.is_integer() else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _int64(value: int | None) -> int | None:
    return value if value is not None and -_INT64_MAX <= value <= _INT64_MAX else None


def _boolean(value: object) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "1": True, "false": False, "0": False}.get(value.strip().lower())
    if isinstance(value, int | float):
        return bool(value)
    return None
