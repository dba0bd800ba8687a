"""A picture of a report: how well each target is met, and curves; where matplotlib is installed."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.figure import Figure

ROW = 0.28
"""Inches for one figure: a line of its name."""

Curves = Mapping[str, Sequence[tuple[float, float]]]


def draw(file: Path, title: str, figures: Sequence[Figure], curves: Curves, over: str = "") -> bool:
    """Writes a PNG; False where there is no matplotlib, or nothing to show.

    Args:
        over: what the curves run over, evenly; without it, they have a logarithmic scale.
    """
    promised = [figure for figure in figures if figure.ratio]
    if not promised and not curves:
        return False
    try:
        library = importlib.import_module("matplotlib.figure")
    except ModuleNotFoundError:
        return False
    heights = [max(2.0, ROW * len(promised) + 1)] * bool(promised) + [4.0] * bool(curves)
    canvas = library.Figure(figsize=(11, sum(heights)), layout="constrained")
    axes = canvas.subplots(len(heights), squeeze=False, height_ratios=heights)[:, 0]
    axes[0].set_title(title)
    if promised:
        _draw_targets(axes[0], promised)
    if curves:
        _draw_curves(axes[-1], curves, over)
    canvas.savefig(file)
    return True


def _draw_targets(axes: Any, figures: Sequence[Figure]) -> None:
    """A bar for each from its worst to its best sample, with its value as a dot."""
    for row, figure in enumerate(figures):
        colour = "tab:green" if figure.passed else "tab:red"
        reached = sorted(filter(None, (figure.fulfils(sample) for sample in figure.samples)))
        if reached:
            axes.plot([reached[0], reached[-1]], [row, row], color=colour, linewidth=5, alpha=0.4)
        axes.plot([figure.ratio], [row], marker="o", color=colour)
    axes.axvline(1, color="black", linewidth=1)
    axes.set(xscale="log", xlabel="result over its target: 1 is just met", ylim=(len(figures) - 0.5, -0.5))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.set_yticks(range(len(figures)), [figure.name for figure in figures])
    axes.grid(axis="x", which="both", alpha=0.3)


def _draw_curves(axes: Any, curves: Curves, over: str) -> None:
    for label, points in curves.items():
        if over:
            axes.plot(*zip(*points, strict=True), label=label)
        else:
            axes.semilogx(*zip(*points, strict=True), marker="o", label=label)
    axes.set(ylim=(0, None), xlabel=over)
    axes.legend()
