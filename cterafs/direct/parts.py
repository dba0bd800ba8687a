"""A part of a block that is not compressed, by ranges of what storage holds of it."""

from __future__ import annotations

from collections.abc import Callable

from cterafs.direct.cipher import decrypt_part, encrypted_part, encrypted_size
from cterafs.direct.codec import PREFIX
from cterafs.direct.storage import Part
from cterafs.errors import BlockInfo
from cterafs.model import Extent

Get = Callable[[Extent], Part | None]
"""Fetches a range of what storage holds of the block (`Storage.get_part`)."""


def read(get: Get, block: BlockInfo, part: Extent, key: bytes | None) -> bytes | None:
    """The plaintext of `part`, counted from the block's beginning; None if the whole block has to be read.

    How many bytes storage holds tells how the block lies there. If there is no way in which it can, reading it whole
    tells what is wrong.

    Args:
        key: None where the block is not encrypted.

    Raises:
        errors.DecryptBlockError: the padding is wrong.
        as `get` does.
    """
    if key is None:
        found = get(part)
        return found.data if found is not None and found.total == block.length else None
    asked, size = encrypted_part(part), encrypted_size(block.length)
    found = get(asked)
    if found is not None and found.total == size + PREFIX:
        size = found.total
        found = get(Extent(asked.start + PREFIX, asked.stop + PREFIX))
    if found is None or found.total != size:
        return None
    return decrypt_part(found.data, part, block, key)
