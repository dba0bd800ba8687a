"""How many downloads at once are of use."""

import pytest

from cterafs.direct.pace import NEAR, REMEMBERED, Pace


@pytest.mark.parametrize(
    ("wait", "work", "useful"),
    [(0.0001, 0.001, NEAR), (0.002, 0.001, NEAR + 2), (0.020, 0.002, NEAR + 10), (0.020, 0.0003, 16), (0.1, 0.0, 16)],
)
def test_as_many_as_fit_into_one_wait(wait: float, work: float, useful: int) -> None:
    pace = Pace(16)
    for _ in range(10):
        pace.observe(wait, work)
    assert pace.useful == useful


def test_all_while_nothing_is_known() -> None:
    assert Pace(16).useful == 16


def test_never_more_than_allowed() -> None:
    pace = Pace(2)
    for _ in range(10):
        pace.observe(0.0, 0.001)
    assert pace.useful == 2


def test_one_that_waited_for_its_turn_does_not_make_storage_look_far() -> None:
    pace = Pace(16)
    for _ in range(10):
        pace.observe(0.0001, 0.001)
        pace.observe(0.050, 0.001)
    assert pace.useful == NEAR
    for _ in range(REMEMBERED):  # it has moved away
        pace.observe(0.050, 0.001)
    assert pace.useful == 16
