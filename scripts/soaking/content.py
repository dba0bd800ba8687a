"""Contents of which any process can compute any range, from nothing but what `fstat` tells of an open file.

A version's key is in its modification time, and everything else follows from the key: its size, how its blocks are
made, and its bytes. So whoever has a file open knows what it has to read, and bytes of another version, of another
place, or of another size are found.
"""

from __future__ import annotations

import functools
import itertools
import os
import random

from cterafs.demo.encoder import Codec, Encoding
from cterafs.demo.objects import ContentGone

KIB, MIB = 1 << 10, 1 << 20

EPOCH = 1_500_000_000_000_000
"""Microseconds: the modification time of key 0. The portal tells times in microseconds."""

KINDS = {"small": (0, 64 * KIB), "medium": (64 * KIB, 2 * MIB), "large": (8 * MIB, 24 * MIB)}
"""Sizes, from and to."""

BLOCKS = (64 * KIB, 256 * KIB, MIB, 4 * MIB)

PAGE = 4096
"""Bytes that come from one place of the unit; the next come from another."""

UNIT = MIB
WORDS = 4096

_MIX = 0x9E37_79B9_7F4A_7C15
"""2**64 over the golden ratio: the upper bits of its multiples are spread evenly."""


class Version:
    """One content, by its key."""

    def __init__(self, key: int) -> None:
        self.key = key
        draw = random.Random(key)
        smallest, largest = list(KINDS.values())[key % len(KINDS)]
        self.size = draw.randint(smallest, largest)
        encrypted = draw.random() < 0.6
        self.encoding = Encoding(
            block_size=draw.choice(BLOCKS),
            codec=draw.choice(list(Codec)),
            encrypted=encrypted,
            variable=draw.random() < 0.25,
            md5_prefix=encrypted and draw.random() < 0.2,
        )
        self._gone = False

    @property
    def mtime_ns(self) -> int:
        return (EPOCH + self.key) * 1000

    @property
    def verifiable(self) -> bool:
        """Whether its codec finds out that any bit of a whole block was altered."""
        return self.encoding.codec in (Codec.GZIP, Codec.LZ4)

    def read(self, offset: int, length: int) -> bytes:
        """The bytes of a range; what lies behind the end is left out.

        Raises:
            ContentGone: this version was dropped.
        """
        if self._gone:
            raise ContentGone
        unit, stop = _unit(), min(offset + length, self.size)
        parts = []
        for page in range(offset // PAGE, -(-stop // PAGE)):
            at = (((self.key << 24) + page) * _MIX % 2**64) * (UNIT - PAGE) >> 64
            parts.append(unit[at : at + PAGE])
        start = offset % PAGE
        return b"".join(parts)[start : start + max(0, stop - offset)]

    def drop(self) -> None:
        """Storage has it no longer."""
        self._gone = True


def key_of(stat: os.stat_result) -> int:
    """The key of the version that somebody was told of."""
    return stat.st_mtime_ns // 1000 - EPOCH


def keys(kind: str) -> itertools.count[int]:
    """Keys of versions of a kind, each once."""
    return itertools.count(len(KINDS) + list(KINDS).index(kind), len(KINDS))


@functools.cache
def _unit() -> bytes:
    """What compresses to about half: words of random bytes, of which there are few."""
    source = random.Random(8)
    words = [source.randbytes(16) for _ in range(WORDS)]
    return b"".join(source.choices(words, k=UNIT // 16))
