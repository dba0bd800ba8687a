"""Memory of two processes: who has which part of it, and for how long."""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cterafs.downloading import anonymous
from cterafs.downloading import arena as arenas
from cterafs.downloading.anonymous import anonymous_file
from cterafs.downloading.arena import HUGE, KEPT, KEPT_PART, LOOSE, PAGE, SLACK, STATE, Arena, Full, Segments

MIB = 1 << 20
BUDGET = KEPT * KEPT_PART


def refuse(*_: object) -> None:
    """As a system does where somebody has no right to mount."""
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


@pytest.fixture(params=["huge pages", "small pages"])
def arena(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Arena]:
    if request.param == "small pages":
        monkeypatch.setattr(anonymous, "_of_huge_pages", refuse)
    arena = Arena.create(BUDGET)
    yield arena
    arena.close()


def memory(arena: Arena) -> int:
    """Bytes that the kernel has given for it."""
    return os.fstat(arena.file).st_blocks * 512


def test_what_one_process_writes_the_other_reads(arena: Arena) -> None:
    place, view = Segments(arena, BUDGET).allocate(5)
    other = Arena(os.dup(arena.file))
    other.view(place, 5)[:] = b"bytes"
    for index in range(STATE):
        other.state(7)[index] = 2**63 - 1
    assert bytes(view) == b"bytes"
    assert list(arena.state(7)) == [2**63 - 1] * STATE
    assert not any(arena.state(6))
    assert not any(arena.state(8))
    other.close()


@pytest.mark.parametrize("length", [1, PAGE, PAGE + 1, 262_144, 262_145, 5 * MIB])
def test_segments_do_not_overlap(arena: Arena, length: int) -> None:
    segments = Segments(arena, BUDGET)
    taken = [segments.allocate(size) for size in (length, 1, length, PAGE, length)]
    for number, (_, view) in enumerate(taken, 1):
        view[:] = bytes([number]) * len(view)
    for number, (place, view) in enumerate(taken, 1):
        assert place % PAGE == 0
        assert bytes(view) == bytes([number]) * len(view)
    assert {bytes(arena.state(number)) for number in range(arenas.STATES)} == {bytes(8 * arenas.STATE)}


def test_a_segment_is_used_again_when_its_last_view_is_gone(arena: Arena) -> None:
    segments = Segments(arena, BUDGET)
    place, view = segments.allocate(MIB)
    part = view[10:20]
    assert segments.allocate(MIB)[0] != place
    del view
    assert segments.allocate(MIB)[0] != place
    del part
    assert place in {segments.allocate(MIB)[0] for _ in range(3)}


def test_those_that_follow_upon_each_other_do_so_in_memory_in_whatever_order_they_became_free(arena: Arena) -> None:
    segments = Segments(arena, BUDGET)
    taken = [segments.allocate(MIB) for _ in range(8)]
    places = [place for place, _ in taken]
    for number in (6, 1, 7, 0, 3, 2, 5, 4):
        taken[number] = (0, memoryview(b""))
    again = [segments.allocate(MIB) for _ in range(8)]
    assert [place for place, _ in again] == sorted(places)


def test_the_last_view_may_go_in_any_thread(arena: Arena) -> None:
    segments = Segments(arena, BUDGET)
    place, view = segments.allocate(MIB)
    views = [view]
    del view
    thread = threading.Thread(target=views.clear)
    thread.start()
    thread.join()
    assert segments.allocate(MIB)[0] == place


@pytest.mark.parametrize(("budget", "kept"), [(2 * BUDGET, KEPT), (BUDGET, KEPT), (BUDGET // 2, KEPT // 2)])
def test_memory_that_is_not_used_goes_back(arena: Arena, budget: int, kept: int) -> None:
    segments = Segments(arena, budget)
    taken = [segments.allocate(4 * MIB) for _ in range(2 * kept // (4 * MIB))]
    for _, view in taken:
        view[:] = bytes(len(view))
    del view
    assert memory(arena) >= 2 * kept
    taken.clear()
    segments.allocate(PAGE)
    assert kept <= memory(arena) <= kept + MIB
    _, view = segments.allocate(4 * MIB)
    view[:] = bytes(len(view))
    assert memory(arena) <= kept + MIB  # it has its pages still


def test_a_segment_that_is_used_over_and_over_keeps_its_pages(arena: Arena) -> None:
    segments = Segments(arena, BUDGET)
    for _ in range(2 * KEPT // (4 * MIB)):
        _, view = segments.allocate(4 * MIB)
        view[:] = bytes(len(view))
        del view
    segments.allocate(PAGE)
    assert memory(arena) >= 4 * MIB


def test_memory_that_is_used_again_does_not_go_back(arena: Arena) -> None:
    segments = Segments(arena, BUDGET)
    place, view = segments.allocate(4 * MIB)
    del view
    again, view = segments.allocate(4 * MIB)
    assert again == place
    view[:] = b"x" * len(view)
    others = [segments.allocate(4 * MIB) for _ in range(KEPT // (4 * MIB) + 1)]
    others.clear()
    segments.allocate(PAGE)
    assert bytes(view) == b"x" * len(view)


def test_a_short_block_does_not_keep_the_pages_of_a_long_one(arena: Arena) -> None:
    segments = Segments(arena, BUDGET)
    place, view = segments.allocate(7 * MIB)
    view[:] = bytes(len(view))
    del view
    again, view = segments.allocate(4 * MIB + 1)
    assert again == place
    assert memory(arena) <= 4 * MIB + SLACK + MIB
    view[:] = bytes(len(view))
    assert memory(arena) <= 4 * MIB + SLACK + MIB


def test_what_lies_behind_pages_that_go_back_stays(arena: Arena) -> None:
    segments = Segments(arena, BUDGET)
    place, view = segments.allocate(7 * MIB)
    behind, neighbour = segments.allocate(7 * MIB)
    assert behind == place + 8 * MIB
    neighbour[:] = b"x" * len(neighbour)
    del view
    assert segments.allocate(4 * MIB + 1)[0] == place
    assert bytes(neighbour) == b"x" * len(neighbour)


@pytest.mark.parametrize("length", [3 * MIB, 4 * MIB])
def test_there_is_an_end_to_it(arena: Arena, monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    monkeypatch.setattr(arena, "huge", 16 * MIB)
    monkeypatch.setattr(arena, "size", 28 * MIB)
    segments = Segments(arena, BUDGET)
    taken = [segments.allocate(length) for _ in range(3)]
    with pytest.raises(Full):
        segments.allocate(length)
    place, view = taken.pop()
    del view
    assert segments.allocate(length)[0] == place


def test_no_budget_is_too_large_for_addresses() -> None:
    arena = Arena.create(1 << 60)
    _, view = Segments(arena, BUDGET).allocate(PAGE)
    view[:] = bytes(PAGE)
    arena.close()


WITHOUT_PRIVILEGES = """
import os
from cterafs.downloading.arena import Arena
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
arena = Arena.create(1 << 20)
arena.view(0, 1)[:] = b"x"
print(os.readlink(f"/proc/self/fd/{arena.file}"), os.fstat(arena.file).st_blocks)
"""


def test_whoever_may_mount_has_huge_pages_and_nothing_is_mounted() -> None:
    file = anonymous_file("pages")
    try:
        os.ftruncate(file, 64 * MIB)
        with mmap.mmap(file, 64 * MIB) as memory:
            memory[::HUGE] = bytes(64 * MIB // HUGE)
            given = os.fstat(file).st_blocks * 512
        assert given >= HUGE, "not one of 32"
        found = os.fstat(file)
        assert os.fstatvfs(file).f_blocks == 0, "no limit"
        assert found.st_nlink == 0
        assert not os.get_inheritable(file)
        device = f" {os.major(found.st_dev)}:{os.minor(found.st_dev)} "
        assert device not in Path("/proc/self/mountinfo").read_text()
    finally:
        os.close(file)


def test_without_privileges_pages_are_small() -> None:
    command = [sys.executable, "-c", WITHOUT_PRIVILEGES]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["/memfd:cterafs", "(deleted)", str(PAGE // 512)]


@pytest.mark.parametrize("length", [5_000, 72 << 10, 250_000, 256 << 10, 260 << 10, 1088 << 10, MIB, 4 * MIB])
def test_blocks_take_no_more_memory_than_they_have_bytes(arena: Arena, length: int) -> None:
    """Give or take a 16th, what is left over of their last pages, and a huge page that is not full yet."""
    segments = Segments(arena, BUDGET)
    held = []
    for _ in range(min(1000, 32 * MIB // length)):
        held.append(segments.allocate(length)[1])
        held[-1][:] = bytes(length)
    needed = sum(-(-len(view) // PAGE) * PAGE for view in held)
    assert memory(arena) <= needed * (1 + 1 / LOOSE) + HUGE


def test_blocks_that_fill_their_segments_are_on_huge_pages(arena: Arena) -> None:
    """If there are any."""
    segments = Segments(arena, BUDGET)
    small, large = [PAGE, 128 << 10, 260 << 10, 800 << 10], [256 << 10, 250 << 10, MIB, 4 * MIB]
    assert not any(segments.allocate(length)[0] >= arena.huge for length in small)
    assert all(segments.allocate(length)[0] >= arena.huge for length in large)
