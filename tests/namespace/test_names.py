"""Names and guids: every text is shown, and no two alike."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cterafs.namespace.guid import guid_key, guid_text, owner_key
from cterafs.namespace.names import ESCAPE, NAME_MAX, distinct, safe

UUID = "4fbc5aca-71d7-4bbf-9928-695d3b2dc711"

ANY_TEXT = st.text(st.characters(exclude_categories=[]), max_size=400)  # lone surrogates included
TRICKY = st.text(st.sampled_from(["a", ".", "/", "\0", ESCAPE, "~", "#", "-", "2", "E", "\ud800", "é"]), max_size=6)


@pytest.mark.parametrize(
    ("wire", "shown"),
    [
        ("report.docx", "report.docx"),
        ("Grüße 漢字 🎬.mov", "Grüße 漢字 🎬.mov"),
        ("cafe\u0301", "cafe\u0301"),  # not normalised
        ("100%", "100%"),
        ("-rf *", "-rf *"),
        (" ", " "),
        ("...", "..."),
        (".hidden", ".hidden"),
        ("", f"{ESCAPE}-"),
        (".", f"{ESCAPE}2E"),
        ("..", f"{ESCAPE}2E."),
        ("a/b", f"a{ESCAPE}2Fb"),
        ("a\0b", f"a{ESCAPE}00b"),
        ("a\nb", f"a{ESCAPE}0Ab"),
        ("\x1b[31m", f"{ESCAPE}1B[31m"),
        ("\x9b31m", f"{ESCAPE}9B31m"),
        ("\x7f", f"{ESCAPE}7F"),
        ("\ud800", f"{ESCAPE}uD800"),
        (f"a{ESCAPE}2Fb", f"a{ESCAPE}{ESCAPE}2Fb"),
        ("x" * 255, "x" * 255),
        ("é" * 127, "é" * 127),
    ],
)
def test_a_name_is_shown_as(wire: str, shown: str) -> None:
    assert safe(wire) == shown


@pytest.mark.parametrize("wire", ["x" * 256, "é" * 128, "漢" * 100 + ".docx", "/" * 200, "a." + "b" * 300])
def test_a_long_name_is_cut_and_told_from_its_like(wire: str) -> None:
    shown, like = safe(wire), safe(wire[:-1] + "y" if wire.endswith("x") else "y" + wire)
    assert shown != like
    assert re.search(f"{ESCAPE}~[a-z2-7]{{16}}", shown)
    assert len(shown.encode()) <= NAME_MAX


def test_a_cut_name_keeps_its_extension() -> None:
    assert safe("漢" * 100 + ".docx").endswith(".docx")
    assert not safe("a." + "b" * 300).endswith("b")


def test_a_taken_name_is_marked_before_the_extension() -> None:
    assert re.fullmatch(f"report{ESCAPE}#[a-z2-7]{{16}}\\.docx", distinct("report.docx", b"1"))
    assert re.fullmatch(f"\\.bashrc{ESCAPE}#[a-z2-7]{{16}}", distinct(".bashrc", b"1"))
    assert distinct("a", b"1") != distinct("a", b"2")


@given(ANY_TEXT | TRICKY)
def test_the_kernel_can_hold_every_name(wire: str) -> None:
    for shown in (safe(wire), distinct(safe(wire), b"key")):
        assert 0 < len(shown.encode()) <= NAME_MAX
        assert shown not in {".", ".."}
        assert not re.search("[\0/]", shown)


@given(st.lists(TRICKY, unique=True, min_size=2, max_size=2), st.binary(max_size=3))
def test_no_two_names_are_shown_alike(wires: list[str], key: bytes) -> None:
    one, two = (safe(wire) for wire in wires)
    assert one != two
    assert distinct(one, key) not in {one, two}


@pytest.mark.parametrize(
    ("guid", "length"),
    [
        (f"{UUID}:0", 17),
        (f"{UUID}:562", 19),
        (f"{UUID}:{2**64 - 1}", 25),
        (f"{UUID}:{2**64}", 57),
        (f"{UUID}:007", 40),
        (f"{UUID}:", 37),
        (UUID, 36),
        (f"{UUID.upper()}:1", 38),
        (f"{UUID}:1\n", 39),
        (f"{UUID}:\u0661", 39),  # a digit, but not one of ASCII's
        ("", 26),
        ("x", 26),
        ("\udfff", 26),
    ],
)
def test_a_guid_is_a_key_of(guid: str, length: int) -> None:
    assert len(guid_key(guid)) == length
    assert guid_text(guid_key(guid)) == guid


GUID_LIKE = st.from_regex(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}:[0-9]{1,21}", fullmatch=True)


@given(st.lists(ANY_TEXT | GUID_LIKE, unique=True, max_size=5))
def test_guids_and_keys_are_one_to_one(guids: list[str]) -> None:
    keys = [guid_key(guid) for guid in guids]
    assert [guid_text(key) for key in keys] == guids
    assert len(set(keys)) == len(guids)
    assert not {owner_key(guid) for guid in guids} & set(keys)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_guids_of_one_uuid_sort_by_their_counter(one: int, two: int) -> None:
    assert (guid_key(f"{UUID}:{one}") < guid_key(f"{UUID}:{two}")) == (one < two)
