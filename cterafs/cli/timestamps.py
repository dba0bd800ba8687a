"""Times as people and programs read them."""

from __future__ import annotations

from datetime import UTC, datetime


def iso_time(nanoseconds: int) -> str | None:
    """ISO 8601 in UTC, to the nanosecond; None outside the years that it can write."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return f"{moment.replace(tzinfo=None).isoformat()}.{rest:09}Z"
