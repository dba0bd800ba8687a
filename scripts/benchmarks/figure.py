"""One measured value beside its target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One result: the median of its samples, unless another value is the point.

    Attributes:
        value: None where there is nothing yet to measure.
        target: what it has to reach; with `at_most`, not to exceed. None where nothing is promised.
        passed: None where nothing is promised, or nothing was measured.
    """

    name: str
    unit: str
    samples: Sequence[float]
    value: float | None
    target: float | None = None
    at_most: bool = False

    @property
    def passed(self) -> bool | None:
        if self.target is None or self.value is None:
            return None
        return self.value <= self.target if self.at_most else self.value >= self.target

    @property
    def ratio(self) -> float | None:
        """How well the target is met: 1 is just so, 2 is twice as well."""
        return self.fulfils(self.value)

    def fulfils(self, value: float | None) -> float | None:
        """How well this value would meet the target."""
        if self.target is None or not value:
            return None
        return self.target / value if self.at_most else value / self.target
