"""The portal's names as names that the kernel can hold. Pure, and one to one.

U+241B (the symbol for escape) marks what had to be changed:

    /, controls, DEL     ␛2F, ␛0A, ␛7F, ␛9B: the code in two hexadecimal digits (controls could steer a terminal)
    a lone surrogate     ␛uD800
    ␛ itself             ␛␛
    . and ..             ␛2E and ␛2E.
    an empty name        ␛-
    over 255 bytes       cut, then ␛~ and a digest of the whole name, then the extension
    a name taken twice   ␛# and a digest of the guid, before the extension (`distinct`)

Nothing else is touched: no case folding, no Unicode normalisation. What the portal said is kept beside it, and shown
as `user.ctera.name`.
"""

from __future__ import annotations

import base64
import hashlib
import re

ESCAPE = "\u241b"
NAME_MAX = 255  # bytes; the kernel's limit for one name

_UNSAFE = re.compile(f"[\x00-\x1f\x7f-\x9f/{ESCAPE}\ud800-\udfff]")
_EXTENSION_MAX = 16  # bytes; a longer ending is hardly one


def safe(wire_name: str) -> str:
    """The name under which the kernel can hold `wire_name`. Different names give different results."""
    # Most names are printable ASCII, which is known sooner than a search ends.
    plain = wire_name.isascii() and wire_name.isprintable() and "/" not in wire_name
    if plain or _UNSAFE.search(wire_name) is None:
        name = wire_name
        if name in {"", ".", ".."}:
            return {"": f"{ESCAPE}-", ".": f"{ESCAPE}2E", "..": f"{ESCAPE}2E."}[name]
    else:
        name = _UNSAFE.sub(_escaped, wire_name)
    if len(name) * 4 <= NAME_MAX or len(name.encode()) <= NAME_MAX:
        return name
    return _marked(name, f"{ESCAPE}~{_digest(wire_name.encode('utf-8', 'surrogatepass'))}")


def distinct(name: str, key: bytes) -> str:
    """The name of an object whose safe `name` another object of its directory has; `key` is its guid's."""
    return _marked(name, f"{ESCAPE}#{_digest(key)}")


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    if character == ESCAPE:
        return ESCAPE * 2
    code = ord(character)
    return f"{ESCAPE}u{code:04X}" if code >= 0xD800 else f"{ESCAPE}{code:02X}"


def _marked(name: str, mark: str) -> str:
    """`name` with `mark` before its extension, its stem cut so that all of it fits."""
    stem, dot, extension = name.rpartition(".")
    if not stem or len(extension.encode()) > _EXTENSION_MAX or ESCAPE in extension:
        stem, dot, extension = name, "", ""
    tail = f"{mark}{dot}{extension}"
    # A character that the cut splits is dropped whole.
    return stem.encode()[: NAME_MAX - len(tail.encode())].decode("utf-8", "ignore") + tail


def _digest(data: bytes) -> str:
    """80 bits in 16 letters and digits: two of a directory's names never share it by chance."""
    return base64.b32encode(hashlib.blake2b(data, digest_size=10).digest()).decode().lower()
