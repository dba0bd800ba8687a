"""What the mount sees of a block that the process fills, when it takes more than one attempt."""

from __future__ import annotations

from cterafs.direct.landing import Landing
from cterafs.downloading.worker import Berthed
from cterafs.errors import BlockInfo

BLOCK = BlockInfo(7, None, 0, 4)


def begun() -> tuple[Berthed, Landing]:
    """Both sides of a landing that is half full, with the bytes `ab`."""
    landing = Landing(BLOCK)
    state, memory = [0] * 5, memoryview(bytearray(4))
    landing.moor(state, memory)
    berthed = Berthed(BLOCK, state, memory, lambda: None)
    berthed.start()[:2] = b"ab"
    berthed.advance(2)
    return berthed, landing


def test_another_attempt_leaves_what_is_in_use_and_shows_nothing_before_its_end() -> None:
    berthed, landing = begun()
    part = landing.part(0, 2)
    berthed.start()[:] = b"wxyz"
    assert landing.attempt == 2
    assert landing.part(0, 1) is None
    berthed.advance(4)
    assert landing.part(0, 1) is None
    assert part == b"ab"
    berthed.verify()
    berthed.finish()
    assert landing.complete
    assert landing.part(0, 4) == b"wxyz"


def test_a_block_that_was_made_elsewhere_shows_nothing_before_its_end() -> None:
    berthed, landing = begun()
    part = landing.part(0, 2)
    berthed.replace(b"wxyz")
    assert landing.attempt == 2
    assert landing.part(0, 1) is None
    assert part == b"ab"
    berthed.verify()
    berthed.finish()
    assert landing.complete
    assert landing.part(0, 4) == b"wxyz"
