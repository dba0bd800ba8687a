"""The portal's cookies.

There is one origin, so every cookie it sets goes back to it and nowhere else. The standard library's jar also weighs
`Domain`, `Path` and `Secure`: it drops a cookie whose `Domain` is `localhost` or an IPv6 address.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# RFC 6265 §4.1.1; what is neither a token nor these octets is not sent back: it could split a header.
_PAIR = re.compile(
    r"\s*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)\s*=\s*([\x21-\x3a\x3c-\x7e]*)\s*(?:;(.*))?", re.ASCII | re.DOTALL
)
_REMOVAL = re.compile(r"(?:^|;)\s*max-age\s*=\s*(?:0+|-[0-9]+)\s*(?:;|$)", re.ASCII | re.IGNORECASE)
# A portal sets two or three; the bounds keep a hostile one from growing our requests without limit.
_MAX_COOKIES = 32
_MAX_LENGTH = 4096


class Cookies:
    """Name and value of each cookie that the portal has set and not taken back."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}

    def update(self, set_cookie: Iterable[str]) -> None:
        """Apply the `Set-Cookie` headers of an answer; what is not a cookie is ignored."""
        for header in set_cookie:
            if len(header) > _MAX_LENGTH or not (pair := _PAIR.fullmatch(header)):
                continue
            name, value, attributes = pair.groups()
            if not value or (attributes and _REMOVAL.search(attributes)):
                self._values.pop(name, None)
            elif name in self._values or len(self._values) < _MAX_COOKIES:
                self._values[name] = value

    def header(self) -> str | None:
        """The `Cookie` header of the next request; None without cookies."""
        return "; ".join(f"{name}={value}" for name, value in self._values.items()) or None

    def clear(self) -> None:
        self._values.clear()
