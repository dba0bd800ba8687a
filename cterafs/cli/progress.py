"""A line on the terminal that tells how far something is."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self, TextIO

# Often enough to look alive, seldom enough to cost nothing.
INTERVAL = 0.2


class Progress:
    """Bytes done of a known total, on standard error if that is a terminal, and nowhere otherwise."""

    def __init__(self, total: int, done: int = 0, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._total = total
        self._done = self._first = done
        self._began = time.monotonic()
        self._next = self._began
        self._is_terminal = self._stream.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_terminal:
            self._show(time.monotonic())
            print(file=self._stream)

    def advance(self, count: int) -> None:
        """`count` more bytes are done."""
        self._done += count
        now = time.monotonic()
        if self._is_terminal and now >= self._next:
            self._next = now + INTERVAL
            self._show(now)

    def _show(self, now: float) -> None:
        rate = (self._done - self._first) / max(now - self._began, 0.001)
        share = self._done * 100 // self._total if self._total else 100
        line = f"{share:3d} %  {readable(self._done)} of {readable(self._total)}  {readable(rate)}/s"
        print(f"\r{line}\x1b[K", end="", file=self._stream, flush=True)


def readable(count: float) -> str:
    """A number of bytes for people: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
