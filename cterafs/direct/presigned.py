"""What a presigned URL tells without asking its server. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlsplit

SHORTEST = 60.0
"""Seconds. A shorter life is either not worth renewing ahead, or the sign of a clock that is wrong here."""


def stable_path(url: str) -> str:
    """The part that names the block and stays when the URL is signed anew: no host, no query."""
    head = url.partition("?")[0]
    return head.split("/", 3)[3] if head.count("/") > 2 else ""


def lifetime(url: str, now: float) -> float | None:
    """Seconds for which the URL remains valid; None where it does not tell, or tells nonsense.

    Understood are S3's and Google's `X-Amz-Expires`/`X-Goog-Expires` (a duration), the older `Expires` (epoch seconds)
    and Azure's `se` (ISO 8601).

    Args:
        now: the wall clock, in seconds since 1970.
    """
    try:
        query = {name.lower(): value for name, value in parse_qsl(urlsplit(url).query, max_num_fields=64)}
        seconds = _seconds(query, now)
    except (ValueError, OverflowError):
        return None
    return seconds if seconds is not None and seconds >= SHORTEST else None


def _seconds(query: dict[str, str], now: float) -> float | None:
    for name in ("x-amz-expires", "x-goog-expires"):
        if name in query:
            return float(query[name])
    if "expires" in query:
        return float(query["expires"]) - now
    if "se" in query:
        end = datetime.fromisoformat(query["se"])
        return (end if end.tzinfo else end.replace(tzinfo=UTC)).timestamp() - now
    return None
