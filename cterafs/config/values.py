"""From what people write in a configuration to what the program uses.

Each function takes a value of the TOML file, or the text of a variable or of an `-o` word, and raises ValueError
with one line that says what is accepted. No message ever repeats a secret.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

_T = TypeVar("_T", int, float)

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

# A bare K, M, G or T is binary, as in coreutils; KB, MB, … are decimal, as on a disk's label.
_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgt", start=1):
    _UNITS |= {_letter: 1024**_power, f"{_letter}ib": 1024**_power, f"{_letter}b": 1000**_power}
_SECONDS = {"": Decimal(1), "ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600)}

# 15 digits keep every product below 2**63 for the largest sensible unit, and a hostile number out of the arithmetic.
_QUANTITY = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([a-z]*)", re.IGNORECASE)
_LARGEST = 2**63 - 1

_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})


class Secret:
    """A value that no repr, log line or traceback shows. `reveal()` gives it to the code that needs it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))


@dataclass(frozen=True, slots=True)
class Reserve:
    """Space to leave free on a disk: a number of bytes, or a share of the disk."""

    size: int = 0
    percent: float = 0.0

    def of(self, total: int) -> int:
        """The reserve in bytes on a disk of `total` bytes."""
        return max(self.size, int(total * self.percent / 100))


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen."""

    host: str
    port: int


def shown(value: object) -> str:
    """A value as an error message quotes it: escaped, so that it cannot drive a terminal, and short."""
    text = ascii(value) if not isinstance(value, str) or not value.isprintable() else repr(value)
    return text if len(text) <= 80 else text[:79] + "…"


def text(value: object) -> str:
    """A line of text."""
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not text; put it in quotes")
    if not value.isprintable():
        raise ValueError("the text contains control characters")
    return value


def secret(value: object) -> Secret | None:
    """A secret; an empty one counts as not set."""
    if not isinstance(value, str):
        raise ValueError("the value is not text; put it in quotes")
    if "\n" in value or "\0" in value:
        raise ValueError("the value has more than one line")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("the value is not UTF-8 text") from None
    return Secret(value) if value else None


def command(value: object) -> tuple[str, ...]:
    """A command and its arguments, as a list or as one line that is cut as a shell would; no shell runs it."""
    if isinstance(value, list):
        return tuple(text(word) for word in value)
    try:
        return tuple(shlex.split(text(value)))
    except ValueError as error:
        raise ValueError(f"the command cannot be cut into words: {error}") from None


def path(value: object) -> Path:
    """A path that must be given."""
    line = text(value)
    if not line:
        raise ValueError("the path is empty")
    return Path(line)


def optional_path(value: object) -> Path | None:
    """A path; empty means none."""
    return path(value) if value != "" else None


def boolean(value: object) -> bool:
    """true or false; in a variable or a mount option also yes/no, on/off, 1/0."""
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else ""
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError(f"{shown(value)} is neither true nor false")


def integer(value: object) -> int:
    """A decimal integer."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,18}", value.strip()):
        return int(value)
    raise ValueError(f"{shown(value)} is not an integer")


def _quantity(value: object, units: dict[str, int] | dict[str, Decimal], examples: str) -> Decimal:
    line = str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value
    match = _QUANTITY.fullmatch(line.strip()) if isinstance(line, str) else None
    unit = units.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise ValueError(f"{shown(value)} is not understood; write it like {examples}")
    return Decimal(match[1]) * unit


def size(value: object) -> int:
    """A number of bytes: 4096, "512MiB", "20GiB", "1.5G", "10GB"."""
    number = int(_quantity(value, _UNITS, '"512MiB"'))
    if number > _LARGEST:
        raise ValueError(f"{shown(value)} is too large")
    return number


def duration(value: object) -> float:
    """Seconds: 30, "30s", "500ms", "2m", "1h"."""
    return float(_quantity(value, _SECONDS, '"30s", "500ms" or "2m"'))


def reserve(value: object) -> Reserve:
    """Space to leave free: a size, or a share of the disk like "5%"."""
    if isinstance(value, str) and value.strip().endswith("%"):
        share = value.strip().removesuffix("%")
        if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,9})?", share) or float(share) > 100:
            raise ValueError(f'{shown(value)} is not a share; write it like "5%"')
        return Reserve(percent=float(share))
    return Reserve(size=size(value))


def umask(value: object) -> int:
    """Permission bits to take away, in octal. Only text: TOML reads a bare 222 as a decimal number."""
    if isinstance(value, int):
        raise ValueError(f'put the umask in quotes, like "0222": {shown(value)} without them is a decimal number')
    if not isinstance(value, str) or not re.fullmatch(r"(0o)?[0-7]{1,4}", value) or int(value, 8) > 0o777:
        raise ValueError(f'{shown(value)} is not a umask; write it in octal, like "0222"')
    return int(value, 8)


def words(value: object) -> tuple[str, ...]:
    """A list of texts."""
    if not isinstance(value, list):
        raise ValueError(f"{shown(value)} is not a list")
    return tuple(dict.fromkeys(text(item).strip() for item in value))


def folders(value: object) -> tuple[int | str, ...]:
    """A list of cloud folders: ids, or "owner/name"."""
    if not isinstance(value, list):
        raise ValueError(f'{shown(value)} is not a list; write it like [12345, "owner/name"]')
    return tuple(dict.fromkeys(_folder(item) for item in value))


def _folder(value: object) -> int | str:
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    else:
        line = text(value).strip()
        if not re.fullmatch(r"[0-9]{1,19}", line):
            owner, slash, name = line.partition("/")
            if not (owner and slash and name):
                raise ValueError(f'{shown(value)} is neither a folder id nor "owner/name"')
            return line
        number = int(line)
    if not 0 <= number <= _LARGEST:
        raise ValueError(f"{shown(value)} is not a folder id")
    return number


def one_of(*choices: str) -> Callable[[object], str]:
    """Exactly one of the given words."""

    def parse(value: object) -> str:
        if value not in choices:
            raise ValueError(f"{shown(value)} is not one of {', '.join(choices)}")
        return str(value)

    return parse


def between(parse: Callable[[object], _T], low: _T, high: _T | None = None) -> Callable[[object], _T]:
    """`parse`, refusing what lies outside `low` to `high`, both included; without `high` there is no upper limit."""

    def checked(value: object) -> _T:
        number = parse(value)
        if high is None and number < low:
            raise ValueError(f"{shown(value)} is less than {low}")
        if high is not None and not low <= number <= high:
            raise ValueError(f"{shown(value)} is not between {low} and {high}")
        return number

    return checked


def portal_url(value: object) -> str:
    """The portal's address: a scheme and a host, perhaps a port. Empty: not set."""
    line = text(value).strip().rstrip("/")
    if not line:
        return ""
    try:
        parts = urlsplit(line)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme not in {"https", "http"} or port == 0:
        raise ValueError('the address is not understood; write it like "https://tenant.ctera.com"')
    if parts.username is not None or parts.password is not None:
        raise ValueError("the address must not carry a user or a password; use portal.username and portal.password")
    if parts.path or parts.query or parts.fragment:
        raise ValueError(f'write the address without a path, like "{parts.scheme}://{parts.netloc}"')
    return line


def address(value: object) -> Address | None:
    """HOST:PORT to listen on; empty means not at all."""
    line = text(value).strip()
    if not line:
        return None
    host, _, port = line.rpartition(":")
    if not host or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError(f'{shown(value)} is not an address; write it like "127.0.0.1:9808"')
    return Address(host.removeprefix("[").removesuffix("]"), int(port))
