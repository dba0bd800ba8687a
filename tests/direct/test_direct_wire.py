"""The portal's answer, as it is documented, as older portals give it, and as it must not be."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cterafs import errors
from cterafs.direct import wire
from cterafs.model import Compression, Extent

KEY = {"wrapped_key": "d3JhcHBlZA==", "data_encrypted": True}


def answer(*lengths: Any, **fields: Any) -> bytes:
    chunks = [{"url": f"https://s/blocks/{i}?sig", "len": length} for i, length in enumerate(lengths)]
    return json.dumps({"chunks": chunks, **fields}).encode()


def actual(size: Any, printed: Any) -> dict[str, Any]:
    return {"actual_blocks_range": {"file_size": size, "range": printed}}


def extents(found: wire.Description) -> list[tuple[int, int]]:
    return [(chunk.extent.start, chunk.extent.stop) for chunk in found.chunks]


def test_portal_8_3() -> None:
    found = wire.parse(
        answer(10, 20, 5, encrypt_info=KEY, compression_type="SNAPPY", **actual(35, "0-34"), unknown=[{}]), 7
    )
    assert (found.size, found.wrapped_key, found.compression) == (35, "d3JhcHBlZA==", Compression.SNAPPY)
    assert extents(found) == [(0, 10), (10, 30), (30, 35)]
    assert [chunk.number for chunk in found.chunks] == [1, 2, 3]
    assert found.chunks[1].url == "https://s/blocks/1?sig"


def test_portal_8_2() -> None:
    found = wire.parse(answer(10, 20, wrapped_key="d3JhcHBlZA=="), 7)
    assert (found.size, found.wrapped_key, found.compression) == (30, "d3JhcHBlZA==", None)


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({}, None),
        ({"wrapped_key": None}, None),
        ({"encrypt_info": None}, None),
        ({"encrypt_info": {}}, None),
        ({"encrypt_info": {**KEY, "data_encrypted": False}}, None),
        ({"encrypt_info": {"wrapped_key": None, "data_encrypted": False}}, None),
        ({"encrypt_info": {"wrapped_key": "a2V5"}}, "a2V5"),
    ],
)
def test_the_key_is_there_where_blocks_are_encrypted(fields: dict[str, Any], key: str | None) -> None:
    assert wire.parse(answer(1, **fields), 7).wrapped_key == key


@pytest.mark.parametrize(
    ("name", "compression"),
    [("GZIP", Compression.GZIP), ("none", Compression.NONE), ("ZSTD", None), (None, None), (5, None), ([], None)],
)
def test_compression_by_name(name: Any, compression: Compression | None) -> None:
    assert wire.parse(answer(1, compression_type=name), 7).compression is compression


def test_a_range_starts_where_it_says_and_ends_where_its_blocks_do() -> None:
    found = wire.parse(answer(10, 20, **actual(1000, "100-999999999999")), 7, Extent(105, 120))
    assert (found.size, extents(found)) == (1000, [(100, 110), (110, 130)])
    assert [chunk.number for chunk in found.chunks] == [None, None]


def test_blocks_are_numbered_where_the_list_starts_with_the_file() -> None:
    found = wire.parse(answer(10, 20, **actual(1000, "0-29")), 7, Extent(0, 25))
    assert [chunk.number for chunk in found.chunks] == [1, 2]


@pytest.mark.parametrize("told", [{}, actual(30, "0-29"), actual(True, "0-29"), actual("30", "0-29"), actual(30, None)])
def test_an_answer_that_ignores_the_range_is_the_whole_list(told: dict[str, Any]) -> None:
    found = wire.parse(answer(10, 10, 10, **told), 7, Extent(12, 15))
    assert (found.size, extents(found)) == (30, [(0, 10), (10, 20), (20, 30)])


def test_the_list_of_a_file_that_ends_within_the_first_range_is_whole() -> None:
    assert wire.parse(answer(10, 10), 7, Extent(0, 100)).size == 20


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        ({}, Extent(5, 20)),
        ({}, Extent(0, 20)),
        ({}, Extent(100, 200)),
        ({"actual_blocks_range": {"file_size": 90}}, Extent(10, 20)),
    ],
)
def test_a_list_that_may_be_of_any_place_is_not_guessed_at(told: dict[str, Any], wanted: Extent) -> None:
    with pytest.raises(wire.Unplaced):
        wire.parse(answer(10, 10, **told), 7, wanted)


def test_a_range_beyond_the_end_has_no_chunks() -> None:
    assert wire.parse(answer(**actual(30, "0-0")), 7, Extent(30, 40)).chunks == ()


def test_of_a_huge_answer_to_a_range_only_the_range_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_KEPT", 5)
    found = wire.parse(answer(*[10] * 20), 7, Extent(35, 55))
    assert (found.size, extents(found)) == (200, [(30, 40), (40, 50), (50, 60)])
    assert found.chunks[0].number == 4


@pytest.mark.parametrize("wanted", [None, Extent(0, 5)])
def test_no_block_reaches_beyond_the_end(wanted: Extent | None) -> None:
    with pytest.raises(errors.InvalidRequest, match="byte 20 of a file of 19"):
        wire.parse(answer(10, 10, **actual(19, "0-19")), 7, wanted)


@pytest.mark.parametrize("chunks", [[], None])
@pytest.mark.parametrize("wanted", [None, Extent(0, 10)])
def test_no_chunks(chunks: Any, wanted: Extent | None) -> None:
    with pytest.raises(errors.BlocksNotFoundError):
        wire.parse(json.dumps({"chunks": chunks, **actual(30, "0-29")}).encode(), 7, wanted)


@pytest.mark.parametrize(
    "hostile",
    [
        b"",
        b"<html>log in</html>",
        b"[]",
        b"null",
        b'{"chunks":' + b"[" * 100_000,
        b'{"chunks":[{"url":"http://s/","len":1}],"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"chunks":[{"url":"\xff","len":1}]}',
        b'{"chunks":[{"url":"http://s/"}]}',
        b'{"chunks":[{"len":1}]}',
        b'{"chunks":[{"url":5,"len":1}]}',
        b'{"chunks":[{"url":null,"len":1}]}',
        b'{"chunks":[7]}',
        b'{"chunks":{"0":1}}',
        answer(0),
        answer(-5),
        answer("12"),
        answer(1.5),
        answer(True),
        answer(None),
        answer(2**80),
        answer((64 << 20) + 1),
        answer(10, 10, **actual(19, "0-19")),
        answer(10, 10, **actual(21, "0-19")),
        answer(10, **actual(-1, "0-9")),
        answer(10, **actual(2**70, "0-9")),
        answer(10, **actual(100, "50-59")),
        answer(10, **actual(None, "50-59")),
        answer(10, **actual(10, "x-9")),
        answer(10, **actual(10, "-1-9")),
        answer(10, **actual(10, "٣-9")),
        answer(10, **actual(10, "9" * 5000)),
        answer(10, **actual(2**63 - 1, f"{2**63 - 5}-{2**63 - 1}")),
        answer(10, encrypt_info={"wrapped_key": None, "data_encrypted": True}),
        answer(10, encrypt_info={"wrapped_key": 5, "data_encrypted": True}),
        answer(10, encrypt_info={"wrapped_key": "", "data_encrypted": "yes"}),
    ],
)
def test_nonsense_is_an_invalid_request_with_a_reason(hostile: bytes) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        wire.parse(hostile, 7)
    assert caught.value.file_id == 7
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_the_number_of_chunks_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_CHUNKS", 3)
    assert len(wire.parse(answer(1, 1, 1), 7).chunks) == 3
    with pytest.raises(errors.InvalidRequest, match="4 blocks"):
        wire.parse(answer(1, 1, 1, 1), 7)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
chunk_lists = st.lists(
    st.fixed_dictionaries({"url": st.text(max_size=9) | values, "len": st.integers(1, 9) | values}), max_size=4
)


@given(
    st.fixed_dictionaries(
        {"chunks": chunk_lists | values},
        optional={
            "encrypt_info": st.fixed_dictionaries({}, optional={"wrapped_key": values, "data_encrypted": values})
            | values,
            "wrapped_key": values,
            "compression_type": values,
            "actual_blocks_range": st.fixed_dictionaries({}, optional={"file_size": values, "range": values}) | values,
        },
    ),
    st.none() | st.builds(Extent, st.integers(0, 20), st.integers(21, 40)),
)
def test_any_json_is_a_sound_list_or_a_typed_error(sent: dict[str, Any], wanted: Extent | None) -> None:
    try:
        found = wire.parse(json.dumps(sent).encode("utf-8", "surrogatepass"), 7, wanted)
    except (errors.DirectIOAPIError, wire.Unplaced):
        return
    for before, after in zip(found.chunks, found.chunks[1:], strict=False):
        assert before.extent.stop == after.extent.start
    assert all(len(chunk.extent) and chunk.extent.stop <= found.size for chunk in found.chunks)


@pytest.mark.parametrize("inside", [b"\xff", b"A" * 100_000])
def test_what_is_said_of_the_key_and_cannot_be_read_is_not_taken_for_plain(inside: bytes) -> None:
    said = (
        b'{"encrypt_info":{"wrapped_key":"'
        + inside
        + b'","data_encrypted":true},"chunks":[{"url":"https://s/","len":1}]}'
    )
    with pytest.raises(errors.InvalidRequest):
        wire.parse(said, 7)
