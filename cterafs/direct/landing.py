"""A block on its way: where its plaintext goes, and how much of it is there."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, MutableSequence

from cterafs import errors
from cterafs.direct.buffers import room
from cterafs.errors import BlockInfo
from cterafs.model import Extent

NOBODY = sys.maxsize
"""`awaited` where nobody waits for a part of it."""

SHORT = 64 << 10
"""Bytes of a block that is copied out of memory which another process filled: there, it takes whole pages."""

UNDIVIDED = 128 << 10
"""Bytes of the largest block of which nothing is read before all of it was verified. That is no more than is decrypted
at a time, and of so few, the first come hardly earlier than the last (10 ms at 100 Mbit/s)."""

State = MutableSequence[int] | memoryview
"""Five integers, which may be in memory that another process shares."""
FILLED, AWAITED, COMPLETE, DROPPED, ATTEMPT = range(5)
BEGINNING = (0, NOBODY, 0, 0, 0)


class Landing:
    """Filled by one worker from the front, and read meanwhile by the event loop.

    What either calls is marked below. Between the two is the state: the worker sets `filled` and then looks at
    `awaited`, the loop sets `awaited` and then looks at `filled`. Whoever begins anew takes `filled` back, then changes
    the buffer, and then counts the attempt; so what the loop finds of one attempt, before and after, belongs together.

    Attributes:
        tell: called when `awaited` is reached or the block complete, by the worker, and when it is dropped.
    """

    __slots__ = ("_buffer", "_plain", "_state", "_view", "block", "tell")

    def __init__(self, block: BlockInfo, tell: Callable[[], object] | None = None) -> None:
        self.block = block
        self.tell = tell
        self._state: State = list(BEGINNING)
        self._buffer: io.BytesIO | None = None
        self._view: memoryview | None = None
        self._plain: bytes | None = None

    @property
    def extent(self) -> Extent:
        """Where it lies in the file."""
        return Extent(self.block.offset, self.block.offset + self.block.length)

    @property
    def filled(self) -> int:
        """Bytes of the plaintext that are there."""
        return self._state[FILLED]

    @property
    def complete(self) -> bool:
        """All of it is there, and was verified."""
        return bool(self._state[COMPLETE])

    @property
    def dropped(self) -> bool:
        """Nobody wants it any more, or somebody else fetches it."""
        return bool(self._state[DROPPED])

    @property
    def pending(self) -> bool:
        """It still has to be fetched."""
        return not (self._state[COMPLETE] or self._state[DROPPED])

    @property
    def attempt(self) -> int:
        """Counts them, from 1; what an earlier one left is not part of the block."""
        return self._state[ATTEMPT]

    # --- the worker's -------------------------------------------------------------------------------------------------

    def start(self) -> memoryview:
        """An empty buffer of the block's length. What an earlier attempt left is not overwritten: it may be in use."""
        self._state[FILLED] = 0
        self._plain = None
        self._buffer, self._view = room(self.block.length)
        self._state[ATTEMPT] += 1
        return self._view

    def advance(self, count: int) -> None:
        """The next `count` bytes of the buffer are there."""
        filled = self._state[FILLED] = self._state[FILLED] + count
        if self._state[AWAITED] <= filled < self.block.length:
            self._notify()

    def replace(self, plain: bytes) -> None:
        """The block was made elsewhere."""
        self._state[FILLED] = 0
        self._buffer = self._view = None
        self._plain = plain
        self._state[ATTEMPT] += 1
        self._state[FILLED] = len(plain)

    def verify(self) -> None:
        """Raises:
        errors.BlockValidationException: it is not as long as it has to be.
        """
        if self.filled != self.block.length:
            raise errors.BlockValidationException(self.block, f"it holds {self.filled} bytes")

    def finish(self) -> None:
        """All is there, and the checks found nothing. Nobody is told who does not wait."""
        self._state[COMPLETE] = 1
        if self._state[AWAITED] != NOBODY:
            self._notify()

    def drop(self) -> None:
        """It is not fetched any more."""
        self._state[DROPPED] = 1
        self._notify()

    def _notify(self) -> None:
        self._state[AWAITED] = NOBODY
        tell = self.tell  # the loop may take it away
        if tell is not None:
            tell()

    # --- the loop's ---------------------------------------------------------------------------------------------------

    def moor(self, state: State, view: memoryview) -> None:
        """A worker in another process fills it from now on: `view` is its buffer there, `state` is shared with it."""
        state[AWAITED], state[ATTEMPT] = self._state[AWAITED], self._state[ATTEMPT]
        state[FILLED] = state[COMPLETE] = state[DROPPED] = 0
        self._state, self._view = state, view
        self._buffer = self._plain = None

    def cast_off(self) -> None:
        """The worker there is no longer heard. What it completed stays."""
        state = self._state = list(self._state)
        if not state[COMPLETE]:
            state[FILLED] = 0
            self._view = None

    def await_bytes(self, stop: int) -> None:
        """`tell` shall be called when the first `stop` bytes can be read."""
        self._state[AWAITED] = min(self._state[AWAITED], self._needed(stop))

    def part(self, start: int, stop: int) -> memoryview | None:
        """Bytes of the block, if they are there: another attempt may take them back at any moment.

        The last of them are not before all of it was verified, nor are any of a block that is not divided.
        """
        attempt, plain, view, needed = self.attempt, self._plain, self._view, self._needed(stop)
        there = self.filled >= needed and (needed < self.block.length or self.complete)
        if not there or self.attempt != attempt:
            return None
        if plain is not None:
            return memoryview(plain)[start:stop]
        return None if view is None else view[start:stop]

    def take(self) -> bytes | memoryview:
        """The whole block, once it is complete: no copy, unless it is short or a part of it in use at this moment."""
        if self._plain is not None:
            return self._plain
        if self._view is None:
            raise IndexError("it is not there yet")
        if self._buffer is not None:
            self._view.release()
            self._plain = self._buffer.getvalue()
        elif len(self._view) < SHORT:
            self._plain = bytes(self._view)
        else:
            return self._view
        self._buffer = self._view = None
        return self._plain

    def _needed(self, stop: int) -> int:
        """Bytes that have to be there before the first `stop` are read."""
        return stop if self.block.length > UNDIVIDED else self.block.length
