"""What read-ahead costs and brings, for reads that programs really made: an ideal cache is played beside them."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

import pytest
import recorded_reads as recorded
from recorded_reads import Recording

from cterafs.content.renting import Renting
from cterafs.content.window import AccessPattern
from cterafs.model import Extent

KIB, MIB = 1 << 10, 1 << 20
MAXIMUM = 64 * MIB
LARGE, SMALL = 4 * MIB, 256 * KIB  # blocks


@dataclass(slots=True)
class Cost:
    """Bytes, but for `late`: reads that found a block not even asked for; and `reads`, of all.

    `vain`: fetched ahead and never read. `needed`: of all blocks that were touched.
    """

    reads: int = 0
    late: int = 0
    downloaded: int = 0
    vain: int = 0
    needed: int = 0


def play(size: int, reads: Iterable[Extent], block: int) -> Cost:
    """The reads of one handle, with a cache that forgets nothing."""
    pattern, renting, cost = AccessPattern(MAXIMUM), Renting(), Cost()
    there: set[int] = set()
    unread: set[int] = set()
    touched: set[int] = set()
    for read in reads:
        advice = pattern.observe(read, size)
        wanted = blocks(read, block)
        cost.reads += 1
        touched |= wanted
        if missing := wanted - there:
            cost.late += 1
            for number in missing:
                part = len(read.intersect(Extent(number * block, (number + 1) * block)))
                if advice.random and renting.rent(number, block, part):
                    cost.downloaded += part
                else:
                    there.add(number)
                    cost.downloaded += block
        unread -= wanted
        ahead = {number for extent in advice.extents for number in blocks(extent, block)} - there
        there |= ahead
        unread |= ahead
        cost.downloaded += len(ahead) * block
    cost.vain, cost.needed = len(unread) * block, len(touched) * block
    return cost


def blocks(extent: Extent, block: int) -> set[int]:
    return set(range(extent.start // block, (extent.stop - 1) // block + 1))


@pytest.mark.parametrize(
    ("recording", "block", "late", "vain", "downloaded"),
    [
        (recorded.CAT, LARGE, 1, 0, 64),
        (recorded.CAT, SMALL, 2, 0, 64),
        (recorded.FFPROBE_MP4, LARGE, 3, 0, 9),  # the first and the last block, and 36 KiB before it
        (recorded.FFPROBE_MP4, SMALL, 3, 0, 3),
        (recorded.FFMPEG_SEEK, LARGE, 5, 8, 29),
        (recorded.FFMPEG_SEEK, SMALL, 5, 7, 16),
        (recorded.SQLITE_SCAN, LARGE, 1, 24, 44),
        (recorded.SQLITE_SCAN, SMALL, 2, 26, 43),
        (recorded.SQLITE_POINT, LARGE, 7, 0, 5),  # whole blocks would be 20
        (recorded.SQLITE_POINT, SMALL, 10, 0, 1),
        (recorded.SQLITE_INDEX, LARGE, 87, 0, 29),  # most of them parts, of a file that is touched all over
        (recorded.SQLITE_INDEX, SMALL, 128, 1, 12),
        (recorded.DUCKDB_COLUMN, LARGE, 36, 52, 155),
        (recorded.DUCKDB_COLUMN, SMALL, 70, 48, 92),
        (recorded.PANDAS_COLUMN, LARGE, 38, 8, 131),
        (recorded.PANDAS_COLUMN, SMALL, 51, 31, 61),
        (recorded.TAR_LIST, LARGE, 1, 12, 28),
        (recorded.TAR_LIST, SMALL, 1, 17, 28),
        (recorded.MMAP, LARGE, 60, 0, 12),  # whole blocks would be 132
        (recorded.MMAP, SMALL, 60, 0, 9),
        (recorded.UNZIP, LARGE, 3, 36, 105),
        (recorded.UNZIP, SMALL, 4, 36, 100),
    ],
)
def test_programs(recording: Recording, block: int, late: int, vain: int, downloaded: int) -> None:
    """The bounds are in MiB, and what is reached today. Of recordings that break off, the last windows are in vain."""
    cost = play(recording.size, recording.reads, block)
    assert cost.late <= late
    assert cost.vain <= vain * MIB
    assert cost.downloaded <= downloaded * MIB


def test_direct_readers() -> None:
    for length in (4 * KIB, MIB):
        cost = play(256 * MIB, [Extent(at, at + length) for at in range(0, 256 * MIB, length)], LARGE)
        assert (cost.late, cost.vain) <= (2, 0)


@pytest.mark.parametrize("request_size", [128 * KIB, 256 * KIB, MIB])
def test_the_kernels_read_ahead_in_parallel(request_size: int) -> None:
    """Two windows of the kernel's are under way at a time, all requests of which arrive in any order."""
    random.seed(11)
    reads: list[Extent] = []
    for start in range(0, 256 * MIB, 2 * MIB):
        window = [Extent(at, at + request_size) for at in range(start, start + 2 * MIB, request_size)]
        random.shuffle(window)
        reads += window
    cost = play(256 * MIB, reads, SMALL)
    assert cost.late <= 2 * MIB // request_size + 2
    assert cost.downloaded <= 256 * MIB + 2 * MIB


def test_a_player_that_jumps_about_never_has_hundreds_of_megabytes_fetched() -> None:
    random.seed(5)
    size = 8 << 30
    reads: list[Extent] = []
    for _ in range(20):
        start = random.randrange(size >> 20) << 20
        reads += [Extent(at, at + 128 * KIB) for at in range(start, start + 2 * MIB, 128 * KIB)]
    cost = play(size, reads, LARGE)
    assert cost.downloaded <= 20 * (2 * LARGE + 4 * MIB)
    assert cost.late <= 3 * 20


def test_two_readers_through_one_handle() -> None:
    reads = [
        Extent(at + start, at + start + 64 * KIB) for at in range(0, 40 * MIB, 64 * KIB) for start in (0, 80 * MIB)
    ]
    cost = play(200 * MIB, reads, SMALL)
    assert cost.late <= 4
    assert cost.vain <= 2 * MAXIMUM


def test_a_stride_costs_what_it_touches() -> None:
    cost = play(400 * MIB, [Extent(at, at + 64 * KIB) for at in range(0, 400 * MIB, MIB)], SMALL)
    assert cost.late <= 6
    assert cost.downloaded <= cost.needed + 6 * SMALL
    assert cost.needed == 400 * SMALL
