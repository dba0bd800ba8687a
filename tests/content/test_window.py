"""The access-pattern machine, as tables."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from cterafs.content.window import (
    BEHIND,
    BEHIND_OF_MANY,
    INITIAL,
    LOYALTY,
    PASSED,
    PLACES,
    SMALL_FILE,
    SMALL_HEAD,
    SMALL_READ,
    STREAMS,
    TRUST,
    AccessPattern,
    Advice,
)
from cterafs.model import Extent

KIB, MIB = 1 << 10, 1 << 20
READ = 128 * KIB
SIZE = 1024 * MIB
MAXIMUM = 64 * MIB


def advices(pattern: AccessPattern, *offsets: int, length: int = READ) -> list[Advice]:
    """What each of some reads makes worth doing."""
    return [pattern.observe(Extent(offset, offset + length), SIZE) for offset in offsets]


def observe(pattern: AccessPattern, *offsets: int, length: int = READ) -> list[Extent]:
    """What some reads make worth fetching."""
    return [extent for advice in advices(pattern, *offsets, length=length) for extent in advice.extents]


def lengths(extents: list[Extent]) -> list[int]:
    return [len(extent) for extent in extents]


# --- one stream -------------------------------------------------------------------------------------------------------


def test_one_read_is_a_probe() -> None:
    assert observe(AccessPattern(MAXIMUM), 0) == []


def test_a_second_read_in_order_opens_the_first_window() -> None:
    assert observe(AccessPattern(MAXIMUM), 0, READ) == [Extent(2 * READ, 2 * READ + INITIAL)]


def test_a_steady_stream_tells_once_what_it_left_behind() -> None:
    passed = [advice.passed for advice in advices(AccessPattern(MAXIMUM), *range(0, 100 * MIB, READ))]
    told = [extent for extent in passed if len(extent)]
    assert told[0].start == 0
    assert all(one.stop == two.start for one, two in pairwise(told))
    assert min(lengths(told)) >= PASSED
    assert passed.index(told[0]) * READ >= 2 * BEHIND - READ
    assert 100 * MIB - BEHIND - PASSED <= told[-1].stop <= 100 * MIB - BEHIND


@pytest.mark.parametrize(("swapped", "kept"), [(False, BEHIND_OF_MANY), (True, BEHIND)])
def test_where_less_is_kept_a_stream_out_of_order_keeps_more(swapped: bool, kept: int) -> None:
    pattern = AccessPattern(MAXIMUM)
    pattern.behind = BEHIND_OF_MANY
    offsets = list(range(0, 100 * MIB, READ))
    if swapped:
        offsets[8], offsets[9] = offsets[9], offsets[8]
    passed = [advice.passed for advice in advices(pattern, *offsets)]
    told = [extent for extent in passed if len(extent)]
    assert passed.index(told[0]) * READ == max(2 * kept, kept + PASSED) - READ
    assert 100 * MIB - kept - PASSED <= told[-1].stop <= 100 * MIB - kept


def test_a_backward_stream_leaves_behind_what_lies_above_it() -> None:
    told = [advice.passed for advice in advices(AccessPattern(MAXIMUM), *range(SIZE - READ, SIZE - 100 * MIB, -READ))]
    told = [extent for extent in told if len(extent)]
    assert min(extent.start for extent in told) >= SIZE - 100 * MIB + BEHIND
    assert max(extent.stop for extent in told) > SIZE - MIB


def test_random_reads_leave_nothing_behind() -> None:
    offsets = random.Random(4).sample(range(0, SIZE, READ), 1000)
    assert not any(len(advice.passed) for advice in advices(AccessPattern(MAXIMUM), *offsets))


def test_windows_grow_up_to_the_maximum_and_leave_no_gap() -> None:
    fetched = observe(AccessPattern(MAXIMUM), *range(0, 300 * MIB, READ))
    assert all(one.stop == two.start for one, two in pairwise(fetched))
    assert max(lengths(fetched)) <= MAXIMUM
    assert len(fetched) < 30  # a few large fetches, not one for each read
    assert fetched[-1].stop >= 300 * MIB


@pytest.mark.parametrize(("alone", "left"), [(True, 2), (False, 4)])
def test_a_window_is_filled_up_while_there_is_some_of_it_left(alone: bool, left: int) -> None:
    pattern, ahead = AccessPattern(MAXIMUM), 0
    pattern.alone = alone
    for offset in range(0, 900 * MIB, MIB):
        for extent in observe(pattern, offset, length=MIB):
            position = offset + MIB
            if offset > 100 * MIB:  # it has become as large as it may
                assert ahead - position == MAXIMUM // left
                assert len(extent) == MAXIMUM - MAXIMUM // left
            ahead = extent.stop


@pytest.mark.parametrize("read", [4 * KIB, 64 * KIB, READ, 256 * KIB, MIB])
def test_a_stream_that_ends_was_never_ahead_by_more_than_it_deserved(read: int) -> None:
    pattern = AccessPattern(MAXIMUM)
    for offset in range(0, 100 * MIB, read):
        for extent in observe(pattern, offset, length=read):
            ahead = extent.stop - (offset + read)
            assert ahead <= max(INITIAL, min(TRUST * (offset + read), MAXIMUM))


def test_nothing_is_fetched_beyond_the_end() -> None:
    pattern = AccessPattern(MAXIMUM)
    fetched = [pattern.observe(Extent(offset, offset + READ), 4 * READ) for offset in range(0, 4 * READ, READ)]
    assert [advice.extents for advice in fetched] == [(), (Extent(2 * READ, 4 * READ),), (), ()]


@pytest.mark.parametrize("burst", [MIB, 2 * MIB])
def test_reads_out_of_order_are_still_one_stream(burst: int) -> None:
    """The kernel's read-ahead, or a program's large read, arrives in pieces and shuffled."""
    random.seed(7)
    pattern = AccessPattern(MAXIMUM)
    fetched = []
    for start in range(0, 64 * MIB, burst):
        pieces = [*range(start, start + burst, READ)]
        random.shuffle(pieces)
        fetched += observe(pattern, *pieces)
    assert fetched[-1].stop >= 64 * MIB
    pieces = {piece for extent in fetched for piece in range(extent.start, extent.stop, READ)}
    assert len(pieces) * READ <= 3 * 64 * MIB


def test_small_jumps_stay_in_the_stream() -> None:
    pattern = AccessPattern(MAXIMUM)
    observe(pattern, *range(0, 8 * MIB, READ))
    (advice,) = advices(pattern, 8 * MIB + 512 * KIB)
    assert not advice.random
    assert observe(pattern, *range(8 * MIB + 640 * KIB, 40 * MIB, READ))[-1].stop >= 40 * MIB


def test_a_backward_reader_is_read_ahead_of_downwards() -> None:
    pattern = AccessPattern(MAXIMUM)
    fetched = observe(pattern, *range(100 * MIB, 50 * MIB, -64 * KIB), length=64 * KIB)
    assert all(one.start == two.stop for one, two in pairwise(fetched))
    assert fetched[0].stop > 100 * MIB - MIB
    assert fetched[-1].start < 50 * MIB
    assert len(fetched) < 30


def test_who_turns_round_is_followed() -> None:
    pattern = AccessPattern(MAXIMUM)
    observe(pattern, *range(100 * MIB, 50 * MIB, -READ))
    fetched = observe(pattern, *range(100 * MIB, 120 * MIB, READ))
    assert fetched[0].start >= 100 * MIB
    assert fetched[-1].stop >= 120 * MIB


# --- several streams and strides --------------------------------------------------------------------------------------


def test_interleaved_streams_each_get_a_window() -> None:
    pattern = AccessPattern(MAXIMUM)
    starts = [place * 50 * MIB for place in range(STREAMS)]
    fetched = [observe(pattern, *(start + step * READ for start in starts)) for step in range(100)]
    last = [max(extent.stop for round_ in fetched for extent in round_ if extent.start >= start) for start in starts]
    assert all(stop >= start + 100 * READ for start, stop in zip(starts, last, strict=True))


def test_two_readers_at_a_small_distance_keep_a_stream_each() -> None:
    pattern = AccessPattern(MAXIMUM)
    fetched = [observe(pattern, offset, offset + 10 * MIB) for offset in range(0, 20 * MIB, READ)]
    assert max(extent.stop for extents in fetched for extent in extents) >= 30 * MIB
    assert sum(len(extent) for extents in fetched for extent in extents) <= 4 * 40 * MIB


def test_a_stride_gets_its_pieces_and_nothing_between() -> None:
    pattern = AccessPattern(MAXIMUM)
    piece = 64 * KIB
    fetched = observe(pattern, *range(0, 100 * MIB, MIB), length=piece)
    assert all(extent.start % MIB == 0 and len(extent) == piece for extent in fetched)
    assert fetched[0].start <= 5 * MIB
    assert len(fetched) == len(set(fetched))
    assert 99 * MIB in [extent.start for extent in fetched]
    assert fetched[-1].start <= (99 + PLACES) * MIB


def test_a_stride_may_go_backwards_and_its_pieces_take_several_reads() -> None:
    pattern = AccessPattern(MAXIMUM)
    reads = [offset + part for offset in range(800 * MIB, 0, -20 * MIB) for part in (0, READ)]
    fetched = observe(pattern, *reads)
    pieces = [extent for extent in fetched if len(extent) == 2 * READ]
    assert {extent.start % (20 * MIB) for extent in pieces} == {0}
    assert len(pieces) >= 30


def test_a_stride_of_less_than_a_block_is_read_as_a_whole() -> None:
    fetched = observe(AccessPattern(MAXIMUM), *range(0, 20 * MIB, 100 * KIB), length=4 * KIB)
    assert all(one.stop == two.start for one, two in pairwise(fetched))
    assert fetched[-1].stop >= 20 * MIB


def test_a_stride_that_stays_somewhere_becomes_a_stream() -> None:
    pattern = AccessPattern(MAXIMUM)
    observe(pattern, *range(0, 20 * MIB, 4 * MIB), length=64 * KIB)
    fetched = observe(pattern, *range(16 * MIB + 64 * KIB, 30 * MIB, 64 * KIB), length=64 * KIB)
    assert fetched[-1].stop >= 30 * MIB


# --- jumps ------------------------------------------------------------------------------------------------------------


def test_after_one_jump_the_window_is_small_again() -> None:
    pattern = AccessPattern(MAXIMUM)
    observe(pattern, *range(0, 200 * MIB, READ))
    assert lengths(observe(pattern, 700 * MIB, 700 * MIB + READ)) == [INITIAL]


def test_what_is_ahead_of_a_place_that_was_left_is_wanted_no_more() -> None:
    pattern = AccessPattern(MAXIMUM)
    ahead = observe(pattern, *range(0, 100 * MIB, READ))[-1]
    assert pattern.wants(ahead, SIZE)
    observe(pattern, 700 * MIB)
    assert not pattern.wants(ahead, SIZE)


def test_who_comes_back_gets_half_the_window_and_is_not_given_up_again_at_once() -> None:
    pattern = AccessPattern(MAXIMUM)
    observe(pattern, *range(0, 100 * MIB, READ))
    observe(pattern, 700 * MIB)
    (again,) = observe(pattern, 100 * MIB)
    assert again.start == 100 * MIB + READ
    assert len(again) == MAXIMUM  # of twice what it trusts, which was the maximum
    observe(pattern, 800 * MIB)
    assert pattern.wants(again, SIZE)
    elsewhere = [MIB * number for number in random.Random(4).sample(range(300, 1000), LOYALTY + 1)]
    observe(pattern, *elsewhere)
    assert not pattern.wants(again, SIZE)


def test_a_look_ahead_within_the_window_disturbs_nothing() -> None:
    """SQLite reads the inner pages of its tree, which lie some MiB ahead of the leaves."""
    pattern = AccessPattern(MAXIMUM)
    fetched = observe(pattern, *range(0, 20 * MIB, READ))
    (advice,) = advices(pattern, 25 * MIB, length=4 * KIB)
    assert advice == Advice((), random=False)
    fetched += observe(pattern, *range(20 * MIB, 60 * MIB, READ))
    assert all(one.stop == two.start for one, two in pairwise(fetched))


# --- randomness -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "length", "size", "is_random"),
    [
        (500 * MIB, 4 * KIB, SIZE, True),
        (500 * MIB, SMALL_READ, SIZE, True),
        (500 * MIB, SMALL_READ + 1, SIZE, False),  # a large read goes on, mostly
        (0, SMALL_HEAD - 1, SIZE, True),
        (0, SMALL_HEAD, SIZE, False),
        (SIZE - 4 * KIB, 4 * KIB, SIZE, True),
        (8 * KIB, 4 * KIB, SMALL_FILE, False),
        (8 * KIB, 4 * KIB, SMALL_FILE + 1, True),
    ],
)
def test_whether_the_first_read_of_a_place_is_random(offset: int, length: int, size: int, is_random: bool) -> None:
    assert AccessPattern(MAXIMUM).observe(Extent(offset, offset + length), size) == Advice((), is_random)


def test_the_second_read_of_a_stream_is_not_random() -> None:
    assert [advice.random for advice in advices(AccessPattern(MAXIMUM), 9 * MIB, 9 * MIB + READ)] == [True, False]


def test_random_reads_fetch_nothing() -> None:
    random.seed(3)
    offsets = [random.randrange(SIZE // (4 * KIB)) * 4 * KIB for _ in range(2000)]
    found = advices(AccessPattern(MAXIMUM), *offsets, length=4 * KIB)
    assert sum(len(advice.extents) for advice in found) == 0
    assert sum(advice.random for advice in found) > 1800


@pytest.mark.parametrize(("length", "count", "part"), [(64 * KIB, 3000, 0.005), (READ, 3000, 0.1), (MIB, 500, 0.1)])
def test_random_reads_that_are_aligned_meet_by_chance_and_fetch_little(length: int, count: int, part: float) -> None:
    random.seed(3)
    offsets = [random.randrange(SIZE // length) * length for _ in range(count)]
    assert sum(lengths(observe(AccessPattern(MAXIMUM), *offsets, length=length))) < part * count * length


def test_random_reads_that_are_at_equal_distances_by_chance_are_random_all_the_same() -> None:
    pattern = AccessPattern(MAXIMUM)
    offsets = [100 * MIB, 130 * MIB, 160 * MIB, 171 * MIB, 185 * MIB, 163 * MIB]
    assert all(advice.random for advice in advices(pattern, *offsets, length=4 * KIB))


# --- memory -----------------------------------------------------------------------------------------------------------


def test_shortage_of_memory_halves_the_windows() -> None:
    grown, shrunk = AccessPattern(MAXIMUM), AccessPattern(MAXIMUM)
    for pattern in (grown, shrunk):
        observe(pattern, *range(0, 20 * MIB, READ))
    for _ in range(3):
        shrunk.shrink()
    after = range(20 * MIB, 100 * MIB, READ)
    assert len(observe(shrunk, *after)[0]) < len(observe(grown, *after)[0])


def test_what_was_evicted_before_it_was_read_is_fetched_again_with_a_smaller_window() -> None:
    pattern = AccessPattern(MAXIMUM)
    ahead = observe(pattern, *range(0, 20 * MIB, READ))[-1]
    pattern.lost(Extent(20 * MIB, 20 * MIB + READ), SIZE)
    (again,) = observe(pattern, 20 * MIB)
    assert again.start == 20 * MIB + READ
    assert again.stop < ahead.stop


def test_a_lower_maximum_holds_at_once() -> None:
    pattern = AccessPattern(MAXIMUM)
    observe(pattern, *range(0, 100 * MIB, READ))
    pattern.maximum = 4 * MIB
    for offset in range(100 * MIB, 300 * MIB, READ):
        assert all(extent.stop <= offset + READ + 4 * MIB for extent in observe(pattern, offset))


def test_a_maximum_of_zero_turns_read_ahead_off_and_still_tells_what_is_random() -> None:
    pattern = AccessPattern(0)
    assert observe(pattern, *range(0, 10 * MIB, READ)) == []
    assert [advice.random for advice in advices(pattern, 10 * MIB, 500 * MIB)] == [False, True]


# --- what is wanted still ---------------------------------------------------------------------------------------------


def test_a_read_where_its_stream_was_makes_nothing_unwanted_that_lies_ahead() -> None:
    """So who fetches need not ask after each of those. Random walks: on, back, elsewhere, and by steps."""
    source = random.Random(7)
    expected = 0
    for _ in range(60):
        pattern, offset, announced = AccessPattern(MAXIMUM), 0, set[Extent]()
        for _ in range(200):
            step = source.choice([0] * 12 + [-READ, READ, 3 * MIB, source.randrange(SIZE // READ) * READ - offset])
            offset = min(max(0, offset + step), SIZE - READ)
            read = Extent(offset, offset + READ)
            wanted = {extent for extent in announced if pattern.wants(extent, SIZE)}
            [advice] = advices(pattern, offset)
            if advice.expected:
                expected += 1
                ahead = {extent for extent in wanted if extent.stop > read.stop and extent.start >= read.start}
                assert all(pattern.wants(extent, SIZE) for extent in ahead)
            announced = wanted | set(advice.extents)
            offset += READ
    assert expected > 1000


def test_a_read_elsewhere_is_not_expected() -> None:
    [*_, on, back, elsewhere] = advices(AccessPattern(MAXIMUM), *range(0, 10 * READ, READ), 8 * READ, 500 * MIB)
    assert [on.expected, back.expected, elsewhere.expected] == [True, False, False]
