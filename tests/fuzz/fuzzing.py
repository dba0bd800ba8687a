"""What a fuzzer of one parser is, and what each must hold to.

A parser of outside bytes raises nothing but what it documents, takes memory in proportion to what it gets, and ends
soon. What else it holds to, its target asserts.
"""

from __future__ import annotations

import signal
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from hypothesis import strategies as st

SEEDS = Path(__file__).parent / "seeds"
"""A directory for each target, with what was once found."""

LONGEST = 1 << 20
"""Bytes of an input; edits that repeat would grow it without end."""

SECONDS = 5.0
"""Of this thread's processor time, for one input: hundreds of times what the slowest takes."""

HANG = 30.0
"""Seconds of the process's own time after which an input is given up."""

MEMORY = 4 << 20
"""Bytes that any input may take: buffers of fixed sizes."""

EXPANSION = 200
"""Bytes that each byte of an input may take: `[` in JSON is the dearest."""


@dataclass(frozen=True, slots=True, repr=False)
class Target:
    """A parser, and what is known of it.

    Attributes:
        run: feeds it; anything that it raises beside `raises` is a finding.
        seeds: inputs that it accepts, to be changed.
        words: what may be put anywhere, for it means something to the parser.
        memory: bytes that any input may take.
    """

    name: str
    run: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    raises: tuple[type[Exception], ...] = ()
    words: tuple[bytes, ...] = ()
    memory: int = MEMORY

    def __repr__(self) -> str:
        return self.name

    @property
    def findings(self) -> list[Path]:
        """Inputs that were mishandled once."""
        return sorted((SEEDS / self.name).glob("*"))

    def all_seeds(self) -> list[bytes]:
        return [*self.seeds, *(path.read_bytes() for path in self.findings)]


def is_one_line(error: Exception) -> bool:
    """Whether its text is short and cannot drive a terminal."""
    return str(error).isprintable() and len(str(error)) < 1000


class Hang(Exception):
    """An input takes for ever."""


def check(target: Target, data: bytes) -> None:
    """Runs the parser on `data`. To be called while memory is traced."""
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    began = time.thread_time()
    with _bounded(), suppress(*target.raises):
        target.run(data)
    took = time.thread_time() - began
    assert took < SECONDS, f"{took:.1f} s for {len(data)} bytes"
    _, peak = tracemalloc.get_traced_memory()
    allowed = target.memory + EXPANSION * len(data)
    assert peak - before <= allowed, f"{peak - before:,} bytes of memory for {len(data)} bytes"


@contextmanager
def traced() -> Iterator[None]:
    """Memory is traced while the context lasts."""
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


@contextmanager
def _bounded() -> Iterator[None]:
    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise Hang(f"after {HANG:.0f} s")

    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, HANG)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


# --- changing seeds ---------------------------------------------------------------------------------------------------

_PLACE = st.one_of(st.just(0), st.just(-1), st.integers(0, 1 << 16))
"""Modulo the length: the beginning and the end are where most is decided."""
_NUMBERS = [value.to_bytes(size, order) for size in (2, 4, 8) for order in ("big", "little") for value in (0, 1, 127)]
_NUMBERS += [b"\xff" * size for size in (1, 2, 4, 8)] + [b"\x7f" + b"\xff" * size for size in (3, 7)]
_TEXTS = [
    b"-1",
    b"0",
    b"1e999",
    b"9" * 19,
    b"9" * 5000,
    b"\xed\xa0\x80",
    b"\xff",
    b"\r\n",
    b"\n\n",
    b'"',
    b"\0",
    b"%00",
]


def mutated(target: Target) -> st.SearchStrategy[bytes]:
    """A seed of the target with up to eight changes."""
    seeds = target.all_seeds()
    words = [*_NUMBERS, *_TEXTS, *target.words]
    edit = st.one_of(
        st.tuples(st.just(_flipped), _PLACE, st.integers(0, 7)),
        st.tuples(st.just(_overwritten), _PLACE, st.sampled_from(words)),
        st.tuples(st.just(_inserted), _PLACE, st.sampled_from(words)),
        st.tuples(st.just(_inserted), _PLACE, st.binary(max_size=8)),
        st.tuples(st.just(_removed), _PLACE, st.integers(1, 64)),
        st.tuples(st.just(_repeated), _PLACE, st.tuples(st.integers(1, 64), st.integers(2, 200))),
        st.tuples(st.just(_cut), _PLACE, st.none()),
        st.tuples(st.just(_crossed), _PLACE, st.tuples(st.sampled_from(seeds), _PLACE)),
    )

    def apply(seed: bytes, edits: Sequence[tuple[Callable[..., bytes], int, object]]) -> bytes:
        data = seed
        for change, place, argument in edits:
            data = change(data, place % (len(data) + 1), argument)[:LONGEST]
        return data

    return st.builds(apply, st.sampled_from(seeds), st.lists(edit, max_size=8))


def _flipped(data: bytes, place: int, bit: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :] if place < len(data) else data


def _overwritten(data: bytes, place: int, word: bytes) -> bytes:
    return data[:place] + word + data[place + len(word) :]


def _inserted(data: bytes, place: int, word: bytes) -> bytes:
    return data[:place] + word + data[place:]


def _removed(data: bytes, place: int, count: int) -> bytes:
    return data[:place] + data[place + count :]


def _repeated(data: bytes, place: int, how: tuple[int, int]) -> bytes:
    size, times = how
    return data[:place] + data[place : place + size] * times + data[place + size :]


def _cut(data: bytes, place: int, _: None) -> bytes:
    return data[:place]


def _crossed(data: bytes, place: int, other: tuple[bytes, int]) -> bytes:
    seed, start = other
    return data[:place] + seed[start % (len(seed) + 1) :]
