"""How long the follower rests between attempts."""

from __future__ import annotations

import itertools

import pytest

from cterafs.errors import AuthenticationError, PortalConnectionError, PortalUnavailable
from cterafs.namespace.backoff import Backoff

AWAY, REFUSED = PortalConnectionError("away"), AuthenticationError("refused")


def test_failures_are_tried_again_soon_and_at_least_twice_a_minute() -> None:
    backoff = Backoff()
    pauses = [backoff.failed(AWAY, refused=False) for _ in range(20)]
    assert pauses[0] <= 1
    assert all(15 <= pause <= 30 for pause in pauses[6:])
    backoff.succeeded()
    assert backoff.failed(AWAY, refused=False) <= 1


def test_refusals_are_tried_seldom_lest_the_account_is_locked() -> None:
    backoff = Backoff()
    at = [0.0, *itertools.accumulate(backoff.failed(REFUSED, refused=True) for _ in range(20))]
    assert at[1] <= 5, "it may be a hiccup"
    assert sum(time <= 600 for time in at) <= 5
    assert all(450 <= later - earlier <= 900 for earlier, later in itertools.pairwise(at[5:]))


def test_another_kind_of_failure_begins_anew() -> None:
    backoff = Backoff()
    for _ in range(10):
        backoff.failed(AWAY, refused=False)
    assert backoff.failed(REFUSED, refused=True) <= 5
    assert backoff.failed(AWAY, refused=False) <= 1


@pytest.mark.parametrize(("asked", "least", "most"), [(100.0, 100, 100), (1e9, 900, 900), (0.0, 0.5, 1)])
def test_as_long_as_the_portal_asks_for(asked: float, least: float, most: float) -> None:
    assert least <= Backoff().failed(PortalUnavailable("restarting", asked), refused=False) <= most
