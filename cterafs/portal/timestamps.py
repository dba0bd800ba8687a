"""The portal's times, in every format that portals have been seen to use, to nanoseconds since 1970-01-01 UTC."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

# What a signed 64-bit integer holds, in nanoseconds: the years 1677 to 2262. The local state takes no more.
_INT64_MAX = 2**63 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# As seconds this is the year 5138, as milliseconds 1973-03-03: no real file time is taken for the wrong unit.
_FIRST_MILLISECONDS = 10**11
_NUMBER = re.compile(r"[+-]?[0-9]{1,19}(\.[0-9]{1,9})?", re.ASCII)
# The longest ISO 8601 form with a fraction and a zone has 35 characters; anything much longer is not a time.
_MAX_TEXT = 64


def nanoseconds(value: object) -> int | None:
    """The time that `value` tells, in nanoseconds since the epoch; None if it is missing or absurd.

    Accepts ISO 8601 with or without a fraction or a zone (without one it is UTC), and seconds or milliseconds since
    the epoch as a number or as text. Fractions are kept to the microsecond.
    """
    if isinstance(value, str):
        return _from_text(value)
    if value is None or isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return _from_number(value)


def _from_text(text: str) -> int | None:
    if len(text) > _MAX_TEXT:
        return None
    if text[4:5] != "-" and (number := _NUMBER.fullmatch(text.strip())):  # 2024- is no number: the usual case first
        return _from_number(float(number[0]) if number[1] else int(number[0]))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text.strip().upper())
        except ValueError:
            return None
    since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH
    return _in_range((since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000)


def _from_number(value: int | float) -> int | None:
    if abs(value) > _INT64_MAX or math.isnan(value):
        return None
    per_second = 1000 if abs(value) >= _FIRST_MILLISECONDS else 1
    if isinstance(value, float):  # a float holds today's time to a quarter of a microsecond: the rest is noise
        return _in_range(round(value * (10**6 // per_second)) * 1000)
    return _in_range(value * (10**9 // per_second))


def _in_range(value: int) -> int | None:
    return value if -_INT64_MAX <= value <= _INT64_MAX else None
