from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cterafs.portal.cookies import Cookies


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], None),
        (["JSESSIONID=abc"], "JSESSIONID=abc"),
        (["JSESSIONID=abc; Path=/ServicesPortal; Secure; HttpOnly"], "JSESSIONID=abc"),
        (["JSESSIONID=abc; Domain=localhost; Path=/"], "JSESSIONID=abc"),
        (["JSESSIONID=abc; Domain=::1"], "JSESSIONID=abc"),
        (['JSESSIONID="abc"'], 'JSESSIONID="abc"'),
        (["a=1", "b=2"], "a=1; b=2"),
        (["a=1", "a=2"], "a=2"),
        (["a=1", "b=2", "a=; Path=/"], "b=2"),
        (["a=1", "a=gone; Max-Age=0; Path=/"], None),
        (["a=1", "a=gone; max-age=-5"], None),
        (["a=1; Max-Age=3600"], "a=1"),
        (["a=1; Max-Age=09"], "a=1"),
        (["", "=", ";", "no equals sign", "a b=1", "a=b c", "a=\r\nX: y", "\xe9=1", "a=\xe9"], None),
        (["a=" + "x" * 5000], None),
    ],
)
def test_what_is_sent_back(headers: list[str], expected: str | None) -> None:
    cookies = Cookies()
    cookies.update(headers)
    assert cookies.header() == expected


def test_there_are_not_many() -> None:
    cookies = Cookies()
    cookies.update(f"c{i}=1" for i in range(1000))
    cookies.update(["c0=changed"])
    header = cookies.header() or ""
    assert header.count("=") == 32
    assert "c0=changed" in header


def test_all_can_be_forgotten() -> None:
    cookies = Cookies()
    cookies.update(["a=1"])
    cookies.clear()
    assert cookies.header() is None


@given(st.lists(st.text()))
def test_no_header_can_be_split(headers: list[str]) -> None:
    cookies = Cookies()
    cookies.update(headers)
    header = cookies.header() or ""
    assert header.isascii()
    assert header.isprintable()
