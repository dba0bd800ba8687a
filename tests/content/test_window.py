"""The access-pattern machine, as tables."""

from __future__ import annotations

import random
from itertools import pairwise

from cterafs.content.window import INITIAL, SLACK, STREAMS, AccessPattern
from cterafs.model import Extent

KIB, MIB = 1 << 10, 1 << 20
READ = 128 * KIB
SIZE = 1024 * MIB
MAXIMUM = 64 * MIB


def observe(pattern: AccessPattern, *offsets: int, length: int = READ) -> list[Extent]:
    """What each of some reads makes worth fetching."""
    return [pattern.observe(Extent(offset, offset + length), SIZE) for offset in offsets]


def test_one_read_is_a_probe() -> None:
    assert [len(wanted) for wanted in observe(AccessPattern(MAXIMUM), 0)] == [0]


def test_a_second_read_in_order_opens_the_first_window() -> None:
    wanted = observe(AccessPattern(MAXIMUM), 0, READ)
    assert wanted[-1] == Extent(2 * READ, 2 * READ + INITIAL)


def test_windows_double_up_to_the_maximum_and_leave_no_gap() -> None:
    pattern = AccessPattern(MAXIMUM)
    fetched = [wanted for offset in range(0, 300 * MIB, READ) for wanted in observe(pattern, offset) if len(wanted)]
    assert all(one.stop == two.start for one, two in pairwise(fetched))
    ahead = [wanted.stop for wanted in fetched]
    assert max(b - a for a, b in pairwise(ahead)) <= MAXIMUM
    assert len(fetched) < 30  # a few large fetches, not one for each read
    assert fetched[-1].stop >= 300 * MIB


def test_nothing_is_fetched_beyond_the_end() -> None:
    pattern = AccessPattern(MAXIMUM)
    wanted = [pattern.observe(Extent(offset, offset + READ), 3 * READ) for offset in (0, READ, 2 * READ)]
    assert max(extent.stop for extent in wanted) == 3 * READ
    assert len(wanted[-1]) == 0


def test_reads_out_of_order_are_still_one_stream() -> None:
    """The kernel's read-ahead arrives shuffled within its request limit."""
    random.seed(7)
    pattern = AccessPattern(MAXIMUM)
    fetched = 0
    for start in range(0, 64 * MIB, MIB):
        offsets = list(range(start, start + MIB, READ))
        random.shuffle(offsets)
        fetched += sum(len(wanted) for wanted in observe(pattern, *offsets))
    assert fetched >= 64 * MIB


def test_random_reads_fetch_nothing() -> None:
    pattern = AccessPattern(MAXIMUM)
    offsets = [number * 7 * SLACK % SIZE for number in range(100)]
    assert sum(len(wanted) for wanted in observe(pattern, *offsets, length=4 * KIB)) == 0


def test_interleaved_streams_each_get_a_window() -> None:
    pattern = AccessPattern(MAXIMUM)
    starts = [place * 200 * MIB for place in range(STREAMS)]
    for step in range(8):
        wanted = observe(pattern, *(start + step * READ for start in starts))
    assert wanted[0].start > starts[0]
    assert [extent.start - start for extent, start in zip(wanted, starts, strict=True)] == [wanted[0].start] * STREAMS


def test_after_one_jump_the_window_is_small_again() -> None:
    pattern = AccessPattern(MAXIMUM)
    for offset in range(0, 200 * MIB, READ):
        observe(pattern, offset)
    wanted = observe(pattern, 700 * MIB, 700 * MIB + READ)
    assert [len(extent) for extent in wanted] == [0, INITIAL]


def test_shortage_of_memory_halves_the_windows() -> None:
    grown, shrunk = AccessPattern(MAXIMUM), AccessPattern(MAXIMUM)
    for offset in range(0, 40 * MIB, READ):
        observe(grown, offset)
        observe(shrunk, offset)
    for _ in range(8):
        shrunk.shrink()
    after = range(40 * MIB, 140 * MIB, READ)
    first = [next(extent for extent in observe(pattern, *after) if len(extent)) for pattern in (grown, shrunk)]
    assert len(first[1]) < len(first[0])


def test_a_maximum_of_zero_turns_read_ahead_off() -> None:
    assert sum(len(wanted) for wanted in observe(AccessPattern(0), *range(0, 10 * MIB, READ))) == 0
