"""What the event loop sees of a block that a thread fills."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cterafs.direct.landing import COMPLETE, FILLED, UNDIVIDED, Landing
from cterafs.errors import BlockInfo

divided = pytest.mark.usefixtures("divided")


@divided
def test_another_attempt_takes_back_what_was_there_but_not_what_is_in_use() -> None:
    landing = Landing(BlockInfo(1, 1, 0, 4))
    assert landing.part(0, 2) is None
    landing.start()[:2] = b"ab"
    landing.advance(2)
    part = landing.part(0, 2)
    landing.start()
    assert landing.part(0, 2) is None
    landing.replace(b"abcd")
    assert landing.part(0, 2) == part == b"ab"
    landing.start()
    assert landing.part(0, 2) is None


@divided
def test_its_end_is_not_there_before_it_was_verified() -> None:
    told = []
    landing = Landing(BlockInfo(1, 1, 0, 4), tell=lambda: told.append(landing.complete))
    landing.await_bytes(4)
    landing.start()[:] = b"abcd"
    landing.advance(4)
    assert landing.part(0, 3) == b"abc"
    assert landing.part(0, 4) is landing.part(3, 4) is None
    landing.finish()
    assert landing.part(0, 4) == b"abcd"
    assert told == [True]


def test_nothing_of_a_short_block_is_there_before_it_was_verified() -> None:
    told = []
    landing = Landing(BlockInfo(1, 1, 0, UNDIVIDED), tell=lambda: told.append(landing.complete))
    landing.await_bytes(1)
    landing.start()
    landing.advance(1)
    assert landing.part(0, 1) is None
    landing.advance(UNDIVIDED - 1)
    assert landing.part(0, 1) is None
    assert not told
    landing.finish()
    assert landing.part(0, 1) == b"\0"
    assert told == [True]


def test_the_beginning_of_a_longer_block_is_there_before_its_end() -> None:
    told = []
    landing = Landing(BlockInfo(1, 1, 0, UNDIVIDED + 1), tell=lambda: told.append(landing.complete))
    landing.await_bytes(1)
    landing.start()
    landing.advance(1)
    assert landing.part(0, 1) == b"\0"
    assert told == [False]


class Overtaken(Landing):
    """Filled by a worker that does all of another attempt while the loop looks."""

    def __init__(self, block: BlockInfo, work: Callable[[Landing], None]) -> None:
        super().__init__(block)
        self._work: list[Callable[[Landing], None]] = [work]

    @property
    def filled(self) -> int:
        while self._work:
            self._work.pop()(self)
        return super().filled


def receive_it(landing: Landing) -> None:
    landing.start()[:] = b"abcd"
    landing.advance(4)


def make_it_elsewhere(landing: Landing) -> None:
    landing.replace(b"abcd")
    landing.finish()


@divided
@pytest.mark.parametrize("work", [receive_it, make_it_elsewhere])
def test_nothing_of_an_attempt_is_taken_for_what_another_one_has(work: Callable[[Landing], None]) -> None:
    landing = Overtaken(BlockInfo(1, 1, 0, 4), work)
    landing.start()
    assert landing.part(0, 3) in (None, b"abc")
    assert landing.part(0, 3) == b"abc"


@divided
def test_what_another_process_fills_is_read_where_it_lies() -> None:
    landing = Landing(BlockInfo(1, 1, 0, 4))
    landing.start()
    landing.await_bytes(3)
    state, there = [9] * 5, bytearray(4)
    landing.moor(state, memoryview(there))
    assert state == [0, 3, 0, 0, 1]
    there[:] = b"abcd"
    state[FILLED] = 2
    assert landing.part(0, 2) == b"ab"
    assert landing.part(0, 3) is None
    state[FILLED], state[COMPLETE] = 4, 1
    assert landing.take() == b"abcd"


def test_what_it_completed_stays_when_it_is_no_longer_heard() -> None:
    landings = [Landing(BlockInfo(1, 1, 0, 4)) for _ in range(2)]
    states = [[0] * 5, [0] * 5]
    for landing, state in zip(landings, states, strict=True):
        landing.moor(state, memoryview(bytearray(b"abcd")))
        state[FILLED] = 4
    states[0][COMPLETE] = 1
    for landing, state in zip(landings, states, strict=True):
        landing.cast_off()
        state[:] = [1] * 5  # another block's by now
    assert (landings[0].complete, landings[1].complete) == (True, False)
    assert landings[0].take() == b"abcd"
    assert landings[1].part(0, 4) is None
