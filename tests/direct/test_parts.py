"""Parts of blocks: where they lie in storage, and what can be wrong with what comes."""

from __future__ import annotations

import pytest
from block_encoder import block, encrypt
from hypothesis import given
from hypothesis import strategies as st

from cterafs import errors
from cterafs.direct import parts
from cterafs.direct.cipher import decrypt_part, encrypted_part
from cterafs.direct.storage import Part
from cterafs.model import Extent

KEY = bytes(range(32))


class Object:
    """What storage holds, and what was asked of it."""

    def __init__(self, stored: bytes, total: int | None = None) -> None:
        self._stored = stored
        self._total = len(stored) if total is None else total
        self.asked: list[Extent] = []

    def get(self, extent: Extent) -> Part | None:
        self.asked.append(extent)
        if extent.stop > len(self._stored):
            return None
        return Part(self._stored[extent.start : extent.stop], self._total)


@st.composite
def plain_and_part(draw: st.DrawFn) -> tuple[bytes, Extent]:
    plain = draw(st.binary(min_size=1, max_size=100))
    start = draw(st.integers(0, len(plain) - 1))
    return plain, Extent(start, draw(st.integers(start + 1, len(plain))))


@given(plain_and_part(), st.binary(min_size=16, max_size=16), st.booleans())
def test_a_part_of_an_encrypted_block(case: tuple[bytes, Extent], iv: bytes, prefix: bool) -> None:
    plain, part = case
    storage = Object(encrypt(plain, KEY, iv, prefix=prefix))
    found = parts.read(storage.get, block(len(plain)), part, KEY)
    assert found == plain[part.start : part.stop]
    assert len(storage.asked) == 1 + prefix
    assert all(len(asked) <= len(part) + 46 for asked in storage.asked)  # an AES block before, and what is not aligned


@given(plain_and_part())
def test_a_part_of_a_plain_block(case: tuple[bytes, Extent]) -> None:
    plain, part = case
    storage = Object(plain)
    assert parts.read(storage.get, block(len(plain)), part, None) == plain[part.start : part.stop]
    assert storage.asked == [part]


@pytest.mark.parametrize(
    ("start", "stop", "first", "last"),
    [
        (0, 1, 1, 33),
        (0, 16, 1, 33),
        (0, 17, 1, 49),
        (15, 17, 1, 49),
        (16, 32, 17, 49),
        (4096, 8192, 4097, 8209),
        (4095, 4097, 4081, 4129),
    ],
)
def test_where_a_part_lies(start: int, stop: int, first: int, last: int) -> None:
    assert encrypted_part(Extent(start, stop)) == Extent(first, last)


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("off", [-17, -1, 1, 15, 16, 17, 4000])
def test_what_is_not_as_long_as_it_must_be_is_read_whole(key: bytes | None, off: int) -> None:
    plain = bytes(range(200)) * 5
    stored = encrypt(plain, KEY) if key else plain
    storage = Object(stored + bytes(16), len(stored) + off)
    found = parts.read(storage.get, block(len(plain)), Extent(100, 300), key)
    if key and off == 16:
        assert found != plain[100:300]  # no check can see it: the total lies, and what comes is as long as it must be
    else:
        assert found is None


def test_what_cannot_be_had_by_ranges_is_read_whole() -> None:
    for key in (None, KEY):
        assert parts.read(lambda extent: None, block(1000), Extent(100, 300), key) is None


def test_a_second_answer_of_another_length_is_not_believed() -> None:
    plain = bytes(range(100))
    stored = encrypt(plain, KEY, prefix=True)
    totals = iter([len(stored), len(stored) - 16])
    found = parts.read(
        lambda extent: Part(stored[extent.start : extent.stop], next(totals)), block(len(plain)), Extent(0, 50), KEY
    )
    assert found is None


@given(st.integers(1, 100).filter(lambda length: length % 16), st.integers(1, 255), st.data())
def test_padding_is_checked_where_it_is_part_of_the_range(length: int, change: int, data: st.DataObject) -> None:
    stored = bytearray(encrypt(bytes(length), KEY))
    position = data.draw(st.integers(length, length - length % 16 + 15), "position")
    stored[1 + position] ^= change  # flips the same bits of the padding
    part = Extent(length - 1, length)
    asked = encrypted_part(part)
    with pytest.raises(errors.DecryptBlockError, match="padding"):
        decrypt_part(bytes(stored[asked.start : asked.stop]), part, block(length), KEY)
