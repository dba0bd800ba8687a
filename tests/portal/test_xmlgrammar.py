from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cterafs.errors import ProtocolError
from cterafs.portal.xmlgrammar import Value, XmlObject, parse, serialise

# What XML can hold, without the white space at the ends and the carriage returns that parsers take away.
TEXT = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFFFD, exclude_categories=["Cs"])).map(str.strip)
VALUES: st.SearchStrategy[Value] = st.recursive(
    TEXT,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.builds(
            XmlObject,
            st.dictionaries(st.text("abcXYZ./_", max_size=5), inner | st.none(), max_size=4),
            st.none() | st.just("C"),
        )
    ),
    max_leaves=12,
)


def test_a_query_as_the_sdk_writes_it() -> None:
    query = XmlObject({"type": "db", "param": XmlObject({"include": ["name", "uid"]}, class_name="QueryParams")})
    assert serialise(query) == (
        b'<obj><att id="type"><val>db</val></att><att id="param"><obj class="QueryParams">'
        b'<att id="include"><list><val>name</val><val>uid</val></list></att></obj></att></obj>'
    )


def test_an_answer_with_everything() -> None:
    raw = b"""<?xml version="1.0" encoding="UTF-8" ?>
    <obj class="QueryResult" uuid="6f0e">
      <att id="hasMore"><val>false</val></att>
      <att id="nothing"/>
      <att id="empty"><val></val></att>
      <att id="objects">
        <list><obj class="CloudDrive"><att id="name"><val>R &amp; D &#233;</val></att></obj><val> 1.0 </val></list>
      </att>
    </obj>"""
    answer = parse(raw)
    assert answer == XmlObject(
        {
            "hasMore": "false",
            "nothing": None,
            "empty": "",
            "objects": [XmlObject({"name": "R & D \xe9"}, "CloudDrive"), "1.0"],
        },
        "QueryResult",
    )
    assert isinstance(answer, XmlObject)
    assert [answer.text(name) for name in ("hasMore", "nothing", "empty", "objects", "absent")] == [
        "false",
        *[None] * 4,
    ]


@given(VALUES)
def test_what_is_written_is_read(value: Value) -> None:
    assert parse(serialise(value)) == value


@pytest.mark.parametrize("raw", [b"", b" \n"])
def test_an_empty_body_is_nothing(raw: bytes) -> None:
    assert parse(raw) is None


BILLION_LAUGHS = b'<!DOCTYPE v [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]><val>&b;</val>'
EXTERNAL = b'<!DOCTYPE v [<!ENTITY x SYSTEM "file:///etc/passwd">]><val>&x;</val>'


@pytest.mark.parametrize("raw", [BILLION_LAUGHS, EXTERNAL, b"<!DOCTYPE html><html></html>"])
def test_document_types_are_refused(raw: bytes) -> None:
    with pytest.raises(ProtocolError, match="document type"):
        parse(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"not XML",
        b"<val>cut of",
        b"<val>&undefined;</val>",
        b"<html><body>Sorry</body></html>",
        b"<val>\xff</val>",
        b'<?xml version="1.0" encoding="no-such-thing"?><val/>',
        b'<?xml version="1.0" encoding="hex"?><val/>',
        b"<list>" * 200 + b"</list>" * 200,
        b"<list>" + b"<val/>" * 1_000_001 + b"</list>",
        b"<val/><val/>",
    ],
    ids=lambda raw: raw[:20].decode("latin-1"),
)
def test_what_is_not_the_grammar(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse(raw)


@given(st.binary())
def test_no_bytes_escape_as_another_error(raw: bytes) -> None:
    try:
        parse(b"<val>" + raw + b"</val>")
        parse(raw)
    except ProtocolError:
        pass


@pytest.mark.parametrize("text", ["\0", "\x1b", "\ud800", "\ufffe"])
def test_a_character_that_xml_cannot_write(text: str) -> None:
    with pytest.raises(ValueError, match="XML cannot hold"):
        serialise([text])
