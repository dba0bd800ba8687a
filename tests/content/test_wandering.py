"""Reads that belong to no stream while access is random: they are told from others at little cost."""

from __future__ import annotations

import random

import pytest

from cterafs.content.window import INITIAL, SCATTERED, AccessPattern
from cterafs.model import Extent

KIB, MIB = 1 << 10, 1 << 20
READ = 128 * KIB
SIZE = 1024 * MIB


def observe(pattern: AccessPattern, *offsets: int, length: int = READ) -> list[Extent]:
    """What some reads make worth fetching."""
    extents = []
    for offset in offsets:
        extents += pattern.observe(Extent(offset, offset + length), SIZE).extents
    return extents


def at_random(count: int = SCATTERED, after: tuple[int, ...] = (), length: int = READ) -> AccessPattern:
    """What has seen some reads of a stream, and then some at random."""
    pattern = AccessPattern(64 * MIB)
    observe(pattern, *after, length=length)
    observe(pattern, *random.Random(5).sample(range(500 * MIB, SIZE, MIB), count), length=4 * KIB)
    return pattern


def wanders(pattern: AccessPattern, offset: int, length: int = READ) -> bool:
    return pattern.wanders(Extent(offset, offset + length), SIZE)


def test_a_random_read_that_no_stream_goes_on_with_wanders() -> None:
    assert wanders(at_random(), 0)


def test_until_access_is_random_no_read_wanders() -> None:
    assert not wanders(at_random(SCATTERED - 1), 0)


def test_a_read_that_a_stream_goes_on_with_does_not_wander() -> None:
    pattern = at_random()
    assert wanders(pattern, READ)
    observe(pattern, 0)
    assert not wanders(pattern, READ)
    assert wanders(pattern, 2 * READ)


@pytest.mark.parametrize(
    ("stream", "follows"),
    [
        (range(0, 8 * READ, READ), 8 * READ),
        (range(0, 8 * READ, READ), 10 * READ),  # requests that overtake each other
        (range(100 * READ, 90 * READ, -READ), 90 * READ),
        (range(0, 40 * MIB, 10 * MIB), 40 * MIB),
    ],
    ids=["the next", "the next but two", "the one before", "the next at the same distance"],
)
def test_nor_does_one_that_a_stream_of_long_ago_goes_on_with(stream: range, follows: int) -> None:
    pattern = at_random(after=tuple(stream))
    assert not wanders(pattern, follows)
    assert wanders(pattern, follows + 5 * MIB)


def test_nor_does_one_that_goes_on_backwards_with_a_stream_of_few_bytes() -> None:
    pattern = at_random(after=tuple(range(MIB, MIB - 32 * KIB, -4 * KIB)), length=4 * KIB)
    assert not wanders(pattern, MIB - 32 * KIB, length=4 * KIB)
    assert wanders(pattern, MIB - 36 * KIB, length=4 * KIB)


def test_to_ask_whether_a_read_wanders_changes_nothing() -> None:
    pattern = at_random()
    wanders(pattern, 0)
    assert observe(pattern, READ) == [], "which would be the second of a stream"
    assert [len(extent) for extent in observe(pattern, 2 * READ)] == [INITIAL]


@pytest.mark.parametrize("seed", range(20))
def test_the_short_way_tells_what_the_long_one_does(seed: int) -> None:
    chance = random.Random(seed)
    pattern = AccessPattern(64 * MIB)
    for _ in range(100):
        length = chance.choice((4 * KIB, READ))
        start, step = chance.randrange(0, SIZE, READ), chance.choice((length, -length, 3 * length, 10 * MIB))
        for offset in range(start, start + chance.choice((1, 1, 1, 1, 2, 9)) * step, step):
            observe(pattern, offset % SIZE, length=length)
            for probe in (offset - length, offset, offset + length, offset + 3 * length, offset + 10 * MIB):
                read = Extent(probe % SIZE, probe % SIZE + length)
                followed = pattern._expecting(read, SIZE) is not None
                assert pattern.wanders(read, SIZE) == (pattern._scattered >= SCATTERED and not followed)
