"""Bytes that lie together in memory are one without a copy; others are copied together."""

from __future__ import annotations

import ctypes
import mmap
import weakref

import pytest

from cterafs.content.adjacent import joined

PAGE = mmap.PAGESIZE


@pytest.fixture
def memory() -> mmap.mmap:
    memory = mmap.mmap(-1, 8 * PAGE)
    memory[:] = b"".join(bytes([number]) * PAGE for number in range(8))
    return memory


def page(memory: mmap.mmap, number: int) -> memoryview:
    return memoryview((ctypes.c_ubyte * PAGE).from_buffer(memory, number * PAGE)).cast("B")


def test_what_lies_together_is_not_copied(memory: mmap.mmap) -> None:
    whole = joined([page(memory, 2)[5:], page(memory, 3), page(memory, 4)[:7]])
    assert isinstance(whole, memoryview)
    assert whole == memory[2 * PAGE + 5 : 4 * PAGE + 7]
    memory[3 * PAGE] = 99
    assert whole[PAGE - 5] == 99


@pytest.mark.parametrize("numbers", [(3, 2), (2, 4), (2, 2), (1, 2, 4), (1, 2, 2)])
def test_what_does_not_is_copied_together(memory: mmap.mmap, numbers: tuple[int, ...]) -> None:
    whole = joined([page(memory, number) for number in numbers])
    assert isinstance(whole, bytes)
    assert whole == b"".join(bytes([number]) * PAGE for number in numbers)


def test_bytes_of_python_are_copied_together(memory: mmap.mmap) -> None:
    assert joined([memoryview(b"ab"), page(memory, 1), memoryview(b"c")]) == b"ab" + b"\1" * PAGE + b"c"
    assert joined([memoryview(b"ab"), memoryview(b"c")]) == b"abc"
    assert joined([memoryview(b"ab")]) == b"ab"


def test_the_whole_keeps_its_parts(memory: mmap.mmap) -> None:
    parts = [page(memory, number) for number in range(2)]
    anchors = [weakref.ref(part.obj) for part in parts]
    whole = joined(parts)
    parts.clear()
    del parts
    rest = whole[-1:]
    del whole
    assert all(anchor() is not None for anchor in anchors)
    del rest
    assert all(anchor() is None for anchor in anchors)
