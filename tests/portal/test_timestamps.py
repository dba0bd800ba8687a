from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cterafs.portal.timestamps import nanoseconds

MOMENT = 1_714_979_289_000_000_000  # 2024-05-06T07:08:09Z


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2024-05-06T07:08:09Z", MOMENT),
        ("2024-05-06T07:08:09z", MOMENT),
        ("2024-05-06t07:08:09", MOMENT),
        ("2024-05-06 07:08:09", MOMENT),
        ("2024-05-06T09:08:09+02:00", MOMENT),
        ("2024-05-06T07:08:09.000+0000", MOMENT),
        (" 2024-05-06T07:08:09Z ", MOMENT),
        ("2024-05-06T07:08:09.5", MOMENT + 500_000_000),
        ("2024-05-06T07:08:09.123456789Z", MOMENT + 123_456_000),
        ("2024-05-06", MOMENT - (7 * 3600 + 8 * 60 + 9) * 10**9),
        ("1969-12-31T23:59:59.5Z", -500_000_000),
        (1_714_979_289, MOMENT),
        (1_714_979_289_123, MOMENT + 123_000_000),
        ("1714979289", MOMENT),
        ("1714979289123", MOMENT + 123_000_000),
        ("1714979289.25", MOMENT + 250_000_000),
        (1_714_979_289.25, MOMENT + 250_000_000),
        (1_714_979_289_250.0, MOMENT + 250_000_000),
        (0, 0),
        (-1, -(10**9)),
    ],
)
def test_every_format(value: object, expected: int) -> None:
    assert nanoseconds(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "yesterday",
        "2024-13-01T00:00:00Z",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "0001-01-01T00:00:00+14:00",
        True,
        [],
        {},
        10**18,
        -(10**18),
        10**4000,
        "9" * 5000,
        float("inf"),
        float("nan"),
        1e300,
    ],
)
def test_absurd_times_are_none(value: object) -> None:
    assert nanoseconds(value) is None


@given(st.one_of(st.text(), st.integers(), st.floats(), st.datetimes().map(str), st.binary(), st.booleans()))
def test_anything_is_a_64_bit_time_or_none(value: object) -> None:
    result = nanoseconds(value)
    assert result is None or -(2**63) < result < 2**63


@given(st.datetimes(min_value=datetime(1960, 1, 1), max_value=datetime(2261, 1, 1), timezones=st.timezones()))
def test_every_zone_is_told_exactly_to_the_microsecond(moment: datetime) -> None:
    text = moment.isoformat()
    exact = (moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000
    assert nanoseconds(text) == exact
