"""What a soak came to: a table for people, JSON for programs, and memory over time as a plot."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.plot import draw

from soaking.content import MIB
from soaking.soak import MARGIN, MEMORY, Soak

COLUMNS = 72
LEVELS = " ▁▂▃▄▅▆▇█"


class Summary:
    """Of a soak that has ended."""

    def __init__(self, soak: Soak) -> None:
        self._samples, self._ledger = soak.samples, soak.ledger
        self._injected, self._changes = soak.schedule.injected, soak.tree.changes
        self._seconds = self._samples[-1].at - self._samples[0].at

    def text(self) -> str:
        return "\n".join(self._lines())

    def write(self, directory: Path) -> list[Path]:
        """JSON, and a picture where matplotlib is installed."""
        directory.mkdir(parents=True, exist_ok=True)
        file, picture = directory / "soak.json", directory / "soak.png"
        file.write_text(json.dumps(self._content(), indent=1) + "\n")
        start = self._samples[0].at
        curves = {
            "memory of the mount, MiB": [((each.at - start) / 60, each.memory / MIB) for each in self._samples],
            "threads": [((each.at - start) / 60, float(each.threads)) for each in self._samples],
            "limit of the cache in memory, MiB": [(0.0, MEMORY / MIB), (self._seconds / 60, MEMORY / MIB)],
        }
        title = f"soak: {self._ledger.bytes / MIB:,.0f} MiB read, {self._ledger.wrongs} wrong"
        return [file, picture] if draw(picture, title, (), curves, "minutes") else [file]

    def _lines(self) -> Iterator[str]:
        ledger, memory = self._ledger, [each.memory for each in self._samples]
        yield f"soak of {self._seconds / 60:.1f} minutes"
        yield f"\nread and compared: {ledger.bytes / MIB:,.0f} MiB, while {self._changes:,} changes were made"
        yield from _table("requests", ledger.done)
        yield from _table("faults injected", self._injected)
        yield from _table("errors that faults and changes explain", ledger.expected)
        yield f"\nwrong bytes that no check can find: {ledger.unseen:,} pieces"
        yield f"\nmemory: {memory[0] / MIB:.0f} MiB at first, {max(memory) / MIB:.0f} at most, " + (
            f"{memory[-1] / MIB:.0f} at last; {(MEMORY + MARGIN) / MIB:.0f} are allowed"
        )
        yield self._plot(memory)
        first, last = self._samples[0], self._samples[-1]
        for what in ("processes", "threads", "descriptors", "sockets", "tasks"):
            most = max(getattr(each, what) or 0 for each in self._samples)
            yield f"{what}: {getattr(first, what)} at first, {most} at most, {getattr(last, what)} at last"
        yield f"\nwrong: {ledger.wrongs}"
        yield from (f"  {text}" for text in ledger.wrong)

    def _plot(self, memory: list[int]) -> str:
        """Memory over time in one line; each column is the most of its time."""
        width = min(COLUMNS, len(memory))
        columns = [
            max(memory[len(memory) * column // width : len(memory) * (column + 1) // width]) for column in range(width)
        ]
        return "".join(LEVELS[min(8, value * 8 // (MEMORY + MARGIN) + 1)] for value in columns)

    def _content(self) -> dict[str, object]:
        ledger = self._ledger
        return {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seconds": self._seconds,
            "bytes": ledger.bytes,
            "changes": self._changes,
            "requests": ledger.done,
            "faults": self._injected,
            "expected errors": ledger.expected,
            "unseen": ledger.unseen,
            "wrongs": ledger.wrongs,
            "wrong": ledger.wrong,
            "memory": [(each.at - self._samples[0].at, each.memory) for each in self._samples],
            "threads": [each.threads for each in self._samples],
        }


def _table(title: str, counts: Mapping[str, int]) -> Iterator[str]:
    yield f"\n{title}: {sum(counts.values()):,}"
    yield from (f"  {count:>9,}  {name}" for name, count in sorted(counts.items()))
