"""What the mount sees of a block that the process fills, when it takes more than one attempt."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cterafs.direct.landing import Landing
from cterafs.downloading.worker import Berthed
from cterafs.errors import BlockInfo

BLOCK = BlockInfo(7, None, 0, 4)

pytestmark = pytest.mark.usefixtures("divided")


def begun() -> tuple[Berthed, Landing]:
    """Both sides of a landing that is half full, with the bytes `ab`."""
    landing = Landing(BLOCK)
    state, memory = [0] * 5, memoryview(bytearray(4))
    landing.moor(state, memory)
    berthed = Berthed(BLOCK, state, memory, lambda: None)
    berthed.start()[:2] = b"ab"
    berthed.advance(2)
    return berthed, landing


def attempted_again(berthed: Berthed, landing: Landing) -> None:
    berthed.start()[:] = b"wxyz"
    assert landing.part(0, 1) is None
    berthed.advance(4)


def made_elsewhere(berthed: Berthed, landing: Landing) -> None:
    berthed.replace(b"wxyz")


@pytest.mark.parametrize("go_on", [attempted_again, made_elsewhere])
def test_what_is_in_use_stays_and_nothing_else_is_shown_before_the_end(go_on: Callable[..., None]) -> None:
    berthed, landing = begun()
    part = landing.part(0, 2)
    go_on(berthed, landing)
    assert landing.attempt == 2
    assert landing.part(0, 1) is None
    assert part == b"ab"
    berthed.verify()
    berthed.finish()
    assert landing.complete
    assert landing.part(0, 4) == b"wxyz"
