"""How each kind of value is read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cterafs.config import OPTIONS, Address, Reserve, Secret
from cterafs.config import values as v


@pytest.mark.parametrize(
    ("parse", "value", "expected"),
    [
        (v.size, "0", 0),
        (v.size, 4096, 4096),
        (v.size, "512MiB", 512 << 20),
        (v.size, "20GiB", 20 << 30),
        (v.size, "1.5G", 3 << 29),
        (v.size, "10 kB", 10_000),
        (v.size, "64k", 65536),
        (v.duration, "30s", 30.0),
        (v.duration, "500ms", 0.5),
        (v.duration, "2m", 120.0),
        (v.duration, 7, 7.0),
        (v.duration, 1.5, 1.5),
        (v.reserve, "5%", Reserve(percent=5.0)),
        (v.reserve, "2GiB", Reserve(size=2 << 30)),
        (v.umask, "0222", 0o222),
        (v.umask, "22", 0o22),
        (v.umask, "0o027", 0o27),
        (v.boolean, True, True),
        (v.boolean, "yes", True),
        (v.boolean, "Off", False),
        (v.boolean, "0", False),
        (v.integer, "-1", -1),
        (v.folders, [12, "34", "anna/Projects/2024"], (12, 34, "anna/Projects/2024")),
        (v.folders, [5, "5"], (5,)),
        (v.command, "pass show 'my key'", ("pass", "show", "my key")),
        (v.command, ["pass", "show"], ("pass", "show")),
        (v.portal_url, "https://tenant.ctera.com/", "https://tenant.ctera.com"),
        (v.portal_url, "http://[::1]:8080", "http://[::1]:8080"),
        (v.portal_url, "", ""),
        (v.address, "127.0.0.1:9808", Address("127.0.0.1", 9808)),
        (v.address, "[::1]:0", Address("::1", 0)),
        (v.address, "", None),
        (v.optional_path, "", None),
        (v.secret, "", None),
        (v.secret, "hunter2", Secret("hunter2")),
    ],
)
def test_understood(parse, value, expected):
    assert parse(value) == expected


@pytest.mark.parametrize(
    ("parse", "value"),
    [
        (v.size, "-1"),
        (v.size, -1),
        (v.size, "12 apples"),
        (v.size, ""),
        (v.size, True),
        (v.size, None),
        (v.size, "9999999999999999999"),
        (v.size, "999999999999999TiB"),
        (v.size, float("nan")),
        (v.duration, "30 parsecs"),
        (v.duration, -1),
        (v.reserve, "101%"),
        (v.reserve, "-5%"),
        (v.umask, 222),
        (v.umask, "888"),
        (v.umask, "01777"),
        (v.boolean, "maybe"),
        (v.boolean, 1),
        (v.integer, "1e3"),
        (v.integer, True),
        (v.integer, 1.5),
        (v.folders, "12"),
        (v.folders, ["no-slash"]),
        (v.folders, [-3]),
        (v.folders, [2**63]),
        (v.folders, [{}]),
        (v.command, "echo 'open"),
        (v.command, [1]),
        (v.portal_url, "tenant.ctera.com"),
        (v.portal_url, "ftp://tenant.ctera.com"),
        (v.portal_url, "https://tenant.ctera.com/ServicesPortal"),
        (v.portal_url, "https://tenant.ctera.com:99999"),
        (v.portal_url, "https://[broken"),
        (v.portal_url, "https://"),
        (v.address, "9808"),
        (v.address, "host:99999"),
        (v.text, "a\x1b[2Jb"),
        (v.text, 5),
        (v.secret, 5),
        (v.secret, "two\nlines"),
        (v.secret, "\udcff"),
        (v.between(v.integer, 1, 256), 0),
        (v.between(v.integer, 1, 256), "257"),
        (v.between(v.size, 1 << 20), "1K"),
    ],
)
def test_refused_in_one_line(parse, value):
    with pytest.raises(ValueError, match=r"\S") as caught:
        parse(value)
    assert str(caught.value).isprintable()


def test_an_address_with_a_password_is_refused_without_showing_it():
    with pytest.raises(ValueError, match=r"portal\.password") as caught:
        v.portal_url("https://svc:hunter2@tenant.ctera.com")
    assert "hunter2" not in str(caught.value)


def test_secrets_do_not_show():
    secret = Secret("hunter2")
    assert "hunter2" not in f"{secret!r} {secret} {[secret]}"
    assert secret.reveal() == "hunter2"


def test_a_reserve_is_a_share_or_a_size():
    assert Reserve(percent=5.0).of(1000) == 50
    assert Reserve(size=70).of(1000) == 70


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


def _refusal(parse, value):
    try:
        parse(value)
    except ValueError as error:
        return str(error)
    return ""


@given(value=_ANYTHING)
def test_no_value_crashes_any_option(value):
    for option in OPTIONS.values():
        refusal = _refusal(option.parse, value)
        assert refusal == "" or refusal.isprintable(), option.name
