from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cterafs.errors import NotificationsError, PortalError, ProtocolError
from cterafs.model import Event
from cterafs.portal import wire

GUID = "4fbc5aca-71d7-4bbf-9928-695d3b2dc711:562"
MOMENT = 1_714_979_289_000_000_000  # 2024-05-06T07:08:09Z
REQUIRED: dict[str, object] = {"type": "file", "guid": GUID, "deleted": False, "name": "report.txt"}


def page(*entries: object, cursor: object = "c1", has_more: object = False) -> bytes:
    return json.dumps({"has_more": has_more, "cursor": cursor, "entries": entries}).encode()


def only_event(**fields: object) -> Event:
    decoded = wire.decode_page(page(REQUIRED | fields))
    assert decoded.skipped == 0
    (event,) = decoded.events
    return event


def test_a_full_entry() -> None:
    event = only_event(
        id=4999328220,
        folder_id=12,
        size=1000,
        parent_guid="p:1",
        gvsn=7,
        acl="O:BAG:BA",
        portal_modified_date="2024-05-06T07:08:10Z",
        file_timestamp="2024-05-06T07:08:09",
        virtual_portal_id=3,
        color="an unknown field",
    )
    assert event == Event(
        guid=GUID,
        name="report.txt",
        is_dir=False,
        folder_id=12,
        parent_guid="p:1",
        file_id=4999328220,
        size=1000,
        gvsn="7",
        acl="O:BAG:BA",
        mtime_ns=MOMENT,
        ctime_ns=MOMENT + 10**9,
        virtual_portal_id="3",
    )


def test_the_required_fields_are_enough() -> None:
    assert only_event() == Event(guid=GUID, name="report.txt", is_dir=False)


@pytest.mark.parametrize(
    ("wire_field", "value", "field", "expected"),
    [
        ("type", "folder", "is_dir", True),
        ("type", "File", "is_dir", True),
        ("type", "", "is_dir", True),
        ("deleted", "true", "deleted", True),
        ("deleted", "false", "deleted", False),
        ("deleted", "1", "deleted", True),
        ("deleted", 1, "deleted", True),
        ("deleted", None, "deleted", False),
        ("size", "12", "size", 12),
        ("size", 12.0, "size", 12),
        ("size", 12.5, "size", 0),
        ("size", -1, "size", 0),
        ("size", None, "size", 0),
        ("size", {}, "size", 0),
        ("size", True, "size", 0),
        ("size", 2**63 - 1, "size", 2**63 - 1),
        ("size", 2**63, "size", 2**63 - 1),
        ("size", 10**40, "size", 2**63 - 1),
        ("size", "9" * 5000, "size", 0),
        ("id", "4999328220", "file_id", 4999328220),
        ("id", 4999328220.0, "file_id", 4999328220),
        ("id", "seven", "file_id", None),
        ("id", "\u0667", "file_id", None),
        ("id", 2**63, "file_id", None),
        ("id", [1], "file_id", None),
        ("folder_id", "12", "folder_id", 12),
        ("parent_guid", "", "parent_guid", None),
        ("parent_guid", 5, "parent_guid", "5"),
        ("parent_guid", ["p"], "parent_guid", None),
        ("gvsn", "7a", "gvsn", "7a"),
        ("gvsn", 1.5, "gvsn", "1.5"),
        ("gvsn", False, "gvsn", None),
        ("gvsn", [1], "gvsn", None),
        ("gvsn", 10**200, "gvsn", None),
        ("acl", {"a": 1}, "acl", None),
        ("name", "", "name", ""),
        ("name", "a/b\0c", "name", "a/b\0c"),
    ],
)
def test_optional_fields_of_any_type(wire_field: str, value: object, field: str, expected: object) -> None:
    assert getattr(only_event(**{wire_field: value}), field) == expected


@pytest.mark.parametrize(
    ("times", "mtime", "ctime"),
    [
        ({"file_timestamp": MOMENT // 10**9}, MOMENT, MOMENT),
        ({"portal_modified_date": MOMENT // 10**6}, MOMENT, MOMENT),
        ({"modified": "2024-05-06T07:08:09Z"}, MOMENT, MOMENT),
        ({"modified": "2024-05-06T07:08:09Z", "file_timestamp": "2024-05-06T07:08:08Z"}, MOMENT - 10**9, MOMENT),
        ({"modified": "2000-01-01", "portal_modified_date": "2024-05-06T07:08:09Z"}, MOMENT, MOMENT),
        ({"modified": "2024-05-06T07:08:09Z", "portal_modified_date": "absurd"}, MOMENT, MOMENT),
        ({"file_timestamp": 0, "modified": "2024-05-06T07:08:09Z"}, 0, MOMENT),
        ({"file_timestamp": 10**30}, None, None),
        ({"file_timestamp": {}, "modified": []}, None, None),
        ({}, None, None),
    ],
)
def test_times_stand_in_for_each_other(times: dict[str, object], mtime: int | None, ctime: int | None) -> None:
    event = only_event(**times)
    assert (event.mtime_ns, event.ctime_ns) == (mtime, ctime)


@pytest.mark.parametrize(
    "entry",
    [
        None,
        3,
        [],
        {},
        REQUIRED | {"guid": None},
        REQUIRED | {"guid": ""},
        REQUIRED | {"guid": 5},
        REQUIRED | {"name": None},
        REQUIRED | {"name": ["x"]},
        REQUIRED | {"type": None},
        REQUIRED | {"type": True},
        {key: value for key, value in REQUIRED.items() if key != "guid"},
        REQUIRED | {"name": "n" * (2**16 + 1)},
        REQUIRED | {"guid": "g" * (2**16 + 1)},
    ],
)
def test_an_entry_without_a_usable_identity_is_skipped_and_the_rest_kept(entry: object) -> None:
    decoded = wire.decode_page(page(REQUIRED, entry, REQUIRED | {"guid": "other"}))
    assert [event.guid for event in decoded.events] == [GUID, "other"]
    assert decoded.skipped == 1


def test_a_number_of_thousands_of_digits_costs_only_its_field() -> None:
    raw = page(REQUIRED | {"size": 5, "id": 1234}).replace(b"1234", b"9" * 5000)
    (event,) = wire.decode_page(raw).events
    assert (event.size, event.file_id) == (5, None)


def test_names_that_utf8_cannot_hold_stay_distinct_and_can_be_encoded() -> None:
    raw = page(
        *(REQUIRED | {"guid": str(i), "name": name} for i, name in enumerate(("\ud800", "\ud801", "\udfff", "é")))
    )
    raw = raw.replace(b"\\u00e9", b"\xff")  # neither is this byte UTF-8
    names = [event.name for event in wire.decode_page(raw).events]
    assert len(set(names)) == 4
    for name in names:
        name.encode("utf-8")
    assert names[0] == "\U0010d800"


def test_a_pair_of_surrogates_is_one_character() -> None:
    assert only_event(name="\U0001f600").name == "\U0001f600"


@pytest.mark.parametrize("entries", [b"null", b"[]"])
def test_a_page_without_entries(entries: bytes) -> None:
    decoded = wire.decode_page(b'{"cursor": "c2", "entries": %s}' % entries)
    assert (decoded.events, decoded.cursor, decoded.has_more, decoded.skipped) == ([], "c2", False, 0)


def test_a_byte_order_mark_is_no_obstacle() -> None:
    assert wire.decode_page(b"\xef\xbb\xbf" + page(REQUIRED)).cursor == "c1"


@pytest.mark.parametrize("raw", [b"", b"  ", b"null"])
def test_a_null_body_is_the_services_refusal(raw: bytes) -> None:
    with pytest.raises(NotificationsError):
        wire.decode_page(raw)
    with pytest.raises(NotificationsError):
        wire.decode_changes(raw)
    with pytest.raises(NotificationsError):
        wire.decode_ancestors(raw, GUID)


@pytest.mark.parametrize(
    "raw",
    [
        b"<!DOCTYPE html><title>Sorry</title>",
        page(REQUIRED)[:-5],
        b"[]",
        b'"text"',
        b'{"entries": []}',
        b'{"cursor": [], "entries": []}',
        b'{"cursor": "c", "entries": {}}',
        b"[" * 100_000,
        b'{"cursor": "c", "entries": [{"x": ' + b"[" * 50_000 + b"]" * 50_000 + b"}]}",
    ],
)
def test_what_is_not_a_page(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        wire.decode_page(raw)


def test_an_answer_of_millions_of_values_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(ProtocolError, match="values"):
        wire.decode_page(b'{"cursor": "c", "entries": [' + b"0," * 4_000_000 + b"0]}")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"changes": true}', True),
        (b'{"changes": false, "more": 1}', False),
        (b'{"changes": "true"}', True),
        (b'{"changes": 0}', False),
    ],
)
def test_changes(raw: bytes, expected: bool) -> None:
    assert wire.decode_changes(raw) is expected


@pytest.mark.parametrize("raw", [b"{}", b'{"changes": null}', b'{"changes": "maybe"}', b"[true]", b"true", b"<html>"])
def test_changes_that_say_nothing(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        wire.decode_changes(raw)


def directory(guid: str, parent: str | None) -> dict[str, object]:
    return {"type": "folder", "guid": guid, "name": guid, "deleted": False, "parent_guid": parent}


ROOT, MIDDLE, LEAF = directory("root", None), directory("middle", "root"), directory("leaf", "middle")
KNOWN = Event(guid="leaf", name="leaf", is_dir=False, parent_guid="middle", folder_id=3)


@pytest.mark.parametrize(
    ("answer", "known", "expected"),
    [
        ([ROOT, MIDDLE, LEAF], None, ["root", "middle", "leaf"]),
        ([ROOT, MIDDLE, LEAF], KNOWN, ["root", "middle", "leaf"]),
        ([MIDDLE, LEAF, ROOT], KNOWN, ["root", "middle", "leaf"]),
        ([MIDDLE, ROOT], KNOWN, ["root", "middle", "leaf"]),
        ([MIDDLE, ROOT], None, ["root", "middle"]),
        ([], KNOWN, ["leaf"]),
        ([], None, []),
        ([LEAF, directory("middle", "leaf")], KNOWN, ["middle", "leaf"]),  # a cycle
        ([directory("leaf", "leaf")], KNOWN, ["leaf"]),
        ([LEAF, directory("a", None), directory("b", None)], KNOWN, ["a", "b", "leaf"]),  # no links: the portal's order
        ([{"guid": "root", "name": ""}, LEAF | {"parent_guid": "root"}], None, ["root", "leaf"]),  # no types
        ([ROOT, 7, None, {"guid": 3}, LEAF | {"parent_guid": "root"}], None, ["root", "leaf"]),
    ],
)
def test_ancestors_of_old_and_new_portals(answer: list[object], known: Event | None, expected: list[str]) -> None:
    events = wire.decode_ancestors(json.dumps(answer).encode(), "leaf", known)
    assert [event.guid for event in events] == expected


def test_the_portals_word_on_the_object_counts_more_than_what_was_known() -> None:
    (event,) = wire.decode_ancestors(json.dumps([LEAF | {"name": "new"}]).encode(), "leaf", KNOWN)
    assert event.name == "new"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.sampled_from([2**63, -(2**63) - 1, 10**400, "9" * 30, "\ud800", "2024-05-06T07:08:09Z", "1e5"]),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4),
    max_leaves=12,
)
FIELDS = ["type", "guid", "name", "deleted", "folder_id", "id", "size", "parent_guid", "gvsn", "acl", "modified",
          "portal_modified_date", "file_timestamp", "virtual_portal_id"]  # fmt: skip
ENTRY = st.dictionaries(st.sampled_from(FIELDS), JSON) | st.dictionaries(st.sampled_from(FIELDS[3:]), JSON).map(
    lambda fields: REQUIRED | fields
)
PAGE = st.fixed_dictionaries({}, optional={"has_more": JSON, "cursor": JSON, "entries": st.lists(ENTRY | JSON) | JSON})


@given(st.one_of(PAGE, JSON))
def test_no_json_escapes_as_another_error(value: object) -> None:
    raw = json.dumps(value).encode()
    for decode in (wire.decode_page, wire.decode_changes, lambda raw: wire.decode_ancestors(raw, GUID, KNOWN)):
        try:
            decoded = decode(raw)
        except PortalError:
            continue
        events = getattr(decoded, "events", decoded)
        for event in events if isinstance(events, list) else []:
            check_event(event)


@given(st.lists(ENTRY | JSON, max_size=5))
def test_every_entry_is_an_event_or_counted(entries: list[object]) -> None:
    decoded = wire.decode_page(page(*entries))
    assert len(decoded.events) + decoded.skipped == len(entries)


@given(st.binary())
def test_no_bytes_escape_as_another_error(raw: bytes) -> None:
    for decode in (wire.decode_page, wire.decode_changes):
        try:
            decode(raw)
        except PortalError:
            continue


def check_event(event: Event) -> None:
    assert event.guid
    assert 0 <= event.size < 2**63
    for number in (event.file_id, event.folder_id, event.mtime_ns, event.ctime_ns):
        assert number is None or -(2**63) < number < 2**63
    for text in (event.guid, event.name, event.parent_guid, event.gvsn, event.acl, event.virtual_portal_id):
        assert text is None or text.encode("utf-8") is not None
