"""What the event loop sees of a block that a thread fills."""

from __future__ import annotations

from cterafs.direct.landing import Landing
from cterafs.errors import BlockInfo


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


def test_its_end_is_not_there_before_it_was_verified() -> None:
    told = []
    landing = Landing(BlockInfo(1, 1, 0, 4), tell=lambda: told.append(landing.complete))
    landing.awaited = 4
    landing.start()[:] = b"abcd"
    landing.advance(4)
    assert landing.part(0, 3) == b"abc"
    assert landing.part(0, 4) is landing.part(3, 4) is None
    landing.finish()
    assert landing.part(0, 4) == b"abcd"
    assert told == [True]
