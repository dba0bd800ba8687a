"""Contents that are made as they are read."""

from __future__ import annotations

import random

UNIT = 1 << 20
"""Random bytes that all contents are made of: each mebibyte of a file has them in another rotation."""

STAMP = 16
"""Bytes at the start of each mebibyte that tell the version and the position, so that no two are alike."""


class Noise:
    """The contents of all versions of one namespace."""

    def __init__(self, seed: int) -> None:
        unit = random.Random(seed).randbytes(UNIT)  # noqa: S311  # not meant to be secret
        self._twice = memoryview(unit + unit)

    def read(self, serial: int, offset: int, length: int) -> bytes:
        """These bytes of the version that is called `serial`."""
        parts: list[bytes | memoryview] = []
        position, stop = offset, offset + length
        while position < stop:
            number, start = divmod(position, UNIT)
            end = min(UNIT, start + stop - position)
            if start < STAMP:
                stamp = serial.to_bytes(STAMP // 2, "big") + number.to_bytes(STAMP // 2, "big")
                parts.append(stamp[start:end])
            turn = (serial * 2_654_435_761 + number * 40_503) % UNIT
            parts.append(self._twice[turn + max(start, STAMP) : turn + max(end, STAMP)])
            position += end - start
        return b"".join(parts)


class NoiseContent:
    """One version's content."""

    __slots__ = ("_noise", "_serial", "size")

    def __init__(self, noise: Noise, serial: int, size: int) -> None:
        self._noise = noise
        self._serial = serial
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        return self._noise.read(self._serial, offset, length)
