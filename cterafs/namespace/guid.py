"""The portal's guids as compact database keys.

A guid looks like `4fbc5aca-71d7-4bbf-9928-695d3b2dc711:562`: a UUID and a counter. As text it takes 40 bytes in the
row and 40 more in the index; as a key it takes 18 or so. Guids of one UUID sort by their counter, so that objects that
were made one after the other lie side by side in the index. Any other text is a key as well, only a longer one.

    UUID form   16 bytes, the counter's length (0 to 8), the counter, big-endian    17 to 25 bytes
    other text  UTF-8, filled up with 0xFF (which UTF-8 never has)                  26 bytes and more
    an owner    0xFE (which UTF-8 never has), UTF-8, filled up likewise             26 bytes and more

The mapping is one to one: nothing is normalised.
"""

from __future__ import annotations

import re
import sqlite3
from functools import lru_cache

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_UUIDS_KEPT = 1024  # millions of objects have few different ones
_COUNTER_LIMIT = 1 << 64
_COUNTER_DIGITS = 20
_TEXT_LENGTH = 26
_OWNER = b"\xfe"


def guid_key(guid: str) -> bytes:
    """The key of a guid; lone surrogates are allowed."""
    if guid[36:37] == ":" and (uuid := _uuid(guid[:36])) is not None:
        digits = guid[37:]
        if digits.isdecimal() and digits.isascii() and len(digits) <= _COUNTER_DIGITS:
            counter = int(digits)
            if counter < _COUNTER_LIMIT and (digits[0] != "0" or digits == "0"):
                size = (counter.bit_length() + 7) // 8
                return uuid + (size << 8 * size | counter).to_bytes(1 + size, "big")
    return guid.encode("utf-8", "surrogatepass").ljust(_TEXT_LENGTH, b"\xff")


@lru_cache(_UUIDS_KEPT)
def _uuid(text: str) -> bytes | None:
    return bytes.fromhex(text.replace("-", "")) if _UUID.match(text) else None


def guid_text(key: bytes) -> str:
    """The guid of a key; empty for the directory of an owner, which the portal does not know.

    Raises:
        sqlite3.DatabaseError: it is no key: the database is damaged.
    """
    if not isinstance(key, bytes):
        raise sqlite3.DatabaseError("a guid is damaged")
    if len(key) >= _TEXT_LENGTH:
        try:
            return "" if key.startswith(_OWNER) else key.rstrip(b"\xff").decode("utf-8", "surrogatepass")
        except UnicodeDecodeError as error:
            raise sqlite3.DatabaseError(f"a guid is damaged ({error})") from error
    uuid = key[:16].hex()
    counter = int.from_bytes(key[17:], "big")
    return f"{uuid[:8]}-{uuid[8:12]}-{uuid[12:16]}-{uuid[16:20]}-{uuid[20:]}:{counter}"


def owner_key(owner: str) -> bytes:
    """The key of an owner's directory; no guid has it."""
    return (_OWNER + owner.encode("utf-8", "surrogatepass")).ljust(_TEXT_LENGTH, b"\xff")
