"""A short round of every fuzzer; `scripts/fuzz` has long ones."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from every_target import TARGETS
from fuzzing import SEEDS, Target, check, mutated, traced
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

INPUTS = {target: mutated(target) for target in TARGETS.values()}


@pytest.fixture(scope="module", autouse=True)
def memory() -> Iterator[None]:
    with traced():
        yield


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_what_was_found_once_is_right_now(target: Target) -> None:
    for seed in target.all_seeds():
        check(target, seed)


@pytest.mark.filterwarnings("ignore:Generating overly large repr")  # as an error it hides what was found
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@settings(max_examples=100, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_whatever_comes(target: Target, data: st.DataObject) -> None:
    check(target, data.draw(INPUTS[target]))


def test_every_finding_is_of_a_target() -> None:
    assert {path.parent.name for path in SEEDS.glob("*/*")} <= {*TARGETS}
