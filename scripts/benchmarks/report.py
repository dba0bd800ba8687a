"""Figures with their targets: a table for people, JSON for programs, a plot where matplotlib is installed."""

from __future__ import annotations

import json
import math
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.figure import Figure
from benchmarks.machine import fixed_work
from benchmarks.plot import draw


@dataclass
class Report:
    title: str
    figures: list[Figure] = field(default_factory=list)
    noise: list[float] = field(default_factory=list)
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def add(
        self,
        name: str,
        unit: str,
        samples: Sequence[float],
        *,
        value: float | None = None,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> None:
        """One more figure, shown at once; each also takes a sample of the machine's steadiness."""
        middle = statistics.median(samples) if value is None else value
        target = at_least if at_most is None else at_most
        figure = Figure(name, unit, list(samples), middle, target, at_most is not None)
        self.figures.append(figure)
        self.noise += [fixed_work() for _ in range(3)]
        print(f"{name}: {_number(middle)} {unit}", flush=True)

    def miss(self, name: str, why: str) -> None:
        """A figure that cannot be taken yet."""
        self.figures.append(Figure(name, "", [], None))
        self.missing[name] = why
        print(f"{name}: missing: {why}", flush=True)

    def table(self) -> str:
        """All figures beside their targets."""
        header = ("figure", "result", "unit", "min", "max", "target", "ratio", "")
        rows = [header, *(self._row(figure) for figure in self.figures)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
        lines = [
            "  ".join(
                text.ljust(width) if column in {0, 2, 7} else text.rjust(width)
                for column, (text, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        lines.insert(1, "  ".join("-" * width for width in widths))
        noise = " / ".join(_number(value) for value in self._noise())
        steadiness = f"the machine's noise: fixed work took {noise} ms (min/median/max)"
        missing = [f"missing: {name}: {why}" for name, why in self.missing.items()]
        return "\n".join(("", self.title, "", *lines, "", *missing, steadiness))

    def write(self, directory: Path, name: str) -> list[Path]:
        directory.mkdir(parents=True, exist_ok=True)
        file = directory / f"{name}.json"
        content = {
            "title": self.title,
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "cpus": os.cpu_count(),
            "load": os.getloadavg(),
            "noise_ms": self._noise(),
            "figures": [{**asdict(figure), "ratio": figure.ratio, "passed": figure.passed} for figure in self.figures],
            "curves": self.curves,
            "missing": self.missing,
        }
        file.write_text(json.dumps(content, indent=1) + "\n")
        picture = directory / f"{name}.png"
        return [file, picture] if draw(picture, self.title, self.figures, self.curves) else [file]

    def _noise(self) -> tuple[float, float, float]:
        return (min(self.noise), statistics.median(self.noise), max(self.noise)) if self.noise else (0.0, 0.0, 0.0)

    def _row(self, figure: Figure) -> tuple[str, ...]:
        sign = "<= " if figure.at_most else ">= "
        return (
            figure.name,
            "missing" if figure.value is None else _number(figure.value),
            figure.unit,
            _number(min(figure.samples)) if figure.samples else "",
            _number(max(figure.samples)) if figure.samples else "",
            "" if figure.target is None else sign + _number(figure.target),
            "" if figure.ratio is None else f"{figure.ratio:.2f}",
            {None: "", True: "ok", False: "MISSED"}[figure.passed],
        )


def _number(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def percentile(values: Sequence[float], part: float) -> float:
    """The value that `part` of 100 of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * part / 100) - 1)]
