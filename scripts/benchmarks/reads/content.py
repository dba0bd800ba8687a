"""Contents that compress to about half, as documents do, and are made as they are read."""

from __future__ import annotations

import random

UNIT = 1 << 20
"""Bytes of text that all contents are made of, far more than the 32 KiB that Snappy looks back."""

WORDS = 4096


class Text:
    """One file's content: the same text again and again, with the position at the start of each mebibyte."""

    _unit = b""

    def __init__(self, size: int) -> None:
        self.size = size
        if not Text._unit:
            Text._unit = _text()

    def read(self, offset: int, length: int) -> bytes:
        parts: list[bytes] = []
        position, stop = offset, min(offset + length, self.size)
        while position < stop:
            number, start = divmod(position, UNIT)
            end = min(UNIT, start + stop - position)
            parts.append((b"%015d\n" % number + Text._unit[16:])[start:end])
            position += end - start
        return b"".join(parts)


def _text() -> bytes:
    source = random.Random(8)
    words = [source.randbytes(source.randint(2, 9)).hex().encode() for _ in range(WORDS)]
    return b" ".join(source.choices(words, k=UNIT // 6))[:UNIT]
