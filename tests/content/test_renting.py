"""When parts of a block are worth requests of their own."""

from __future__ import annotations

from collections import Counter

import pytest

from cterafs.content import renting
from cterafs.content.renting import COST, Renting

KIB = 1 << 10


@pytest.mark.parametrize("part", [1, 4 * KIB, 128 * KIB, 300 * KIB, 512 * KIB])
@pytest.mark.parametrize("length", [1, 50_000, 255 * KIB, 256 * KIB, 1024 * KIB, 4096 * KIB])
def test_parts_come_to_half_a_block_at_most(length: int, part: int) -> None:
    rented = Renting()
    count = length // 2 // max(part, COST)
    assert [rented.rent("block", length, part) for _ in range(40)] == [True] * count + [False] * (40 - count)


def test_each_block_is_counted_for_itself() -> None:
    rented, found = Renting(), Counter[int]()
    for turn in range(90):
        found[turn % 3] += rented.rent(turn % 3, 4096 * KIB, 1)
    assert found == {0: 16, 1: 16, 2: 16}


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renting, "REMEMBERED", 2)
    rented = Renting()
    assert rented.rent("first", 256 * KIB, 1)
    assert not rented.rent("first", 256 * KIB, 1)
    assert rented.rent("second", 256 * KIB, 1)
    assert rented.rent("third", 256 * KIB, 1)
    assert rented.rent("first", 256 * KIB, 1)
