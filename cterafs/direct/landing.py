"""A block on its way: where its plaintext goes, and how much of it is there."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

from cterafs import errors
from cterafs.direct.buffers import room
from cterafs.errors import BlockInfo
from cterafs.model import Extent

NOBODY = sys.maxsize
"""`awaited` where nobody waits for a part of it."""


class Landing:
    """Filled by one worker thread from the front, and read meanwhile by the event loop.

    Only the loop calls `take` and `part`, and only the worker the rest. Between the two are plain attributes: the
    worker sets `filled` and then looks at `awaited`, the loop sets `awaited` and then looks at `filled`.

    Attributes:
        filled: bytes of the plaintext that are there.
        awaited: `filled` for which the loop wants to be told; `NOBODY` while nobody waits.
        dropped: nobody wants it any more, or somebody else fetches it.
        complete: all of it is there, and was verified.
        attempt: counts them, from 1; what an earlier one left is not part of the block.
        tell: called when `awaited` is reached or the block complete, by the worker, and when it is dropped.
    """

    __slots__ = ("_buffer", "_plain", "_view", "attempt", "awaited", "block", "complete", "dropped", "filled", "tell")

    def __init__(self, block: BlockInfo, tell: Callable[[], object] | None = None) -> None:
        self.block = block
        self.filled = 0
        self.attempt = 0
        self.awaited = NOBODY
        self.dropped = False
        self.complete = False
        self.tell = tell
        self._buffer: io.BytesIO | None = None
        self._view: memoryview | None = None
        self._plain: bytes | None = None

    @property
    def extent(self) -> Extent:
        """Where it lies in the file."""
        return Extent(self.block.offset, self.block.offset + self.block.length)

    # --- the worker's -------------------------------------------------------------------------------------------------

    def start(self) -> memoryview:
        """An empty buffer of the block's length. What an earlier attempt left is not overwritten: it may be in use."""
        self.filled = 0
        self.attempt += 1
        self._plain = None
        self._buffer, self._view = room(self.block.length)
        return self._view

    def advance(self, count: int) -> None:
        """The next `count` bytes of the buffer are there."""
        self.filled += count
        if self.awaited <= self.filled < self.block.length:
            self._notify()

    def replace(self, plain: bytes) -> None:
        """The block was made elsewhere."""
        self.attempt += 1
        self._buffer = self._view = None
        self._plain, self.filled = plain, len(plain)

    def verify(self) -> None:
        """Raises:
        errors.BlockValidationException: it is not as long as it has to be.
        """
        if self.filled != self.block.length:
            raise errors.BlockValidationException(self.block, f"it holds {self.filled} bytes")

    def finish(self) -> None:
        """All is there, and the checks found nothing. Nobody is told who does not wait."""
        self.complete = True
        if self.awaited != NOBODY:
            self._notify()

    def _notify(self) -> None:
        self.awaited = NOBODY
        tell = self.tell  # the loop may take it away
        if tell is not None:
            tell()

    # --- the loop's ---------------------------------------------------------------------------------------------------

    def drop(self) -> None:
        """It is not fetched any more."""
        self.dropped = True
        self._notify()

    def part(self, start: int, stop: int) -> memoryview | None:
        """Bytes of the block, if they are there: another attempt may take them back at any moment.

        The last of them are not before all of it was verified.
        """
        plain, view = self._plain, self._view
        if self.filled < stop or (stop == self.block.length and not self.complete):
            return None
        if plain is not None:
            return memoryview(plain)[start:stop]
        return None if view is None else view[start:stop]

    def take(self) -> bytes:
        """The whole block, once it is complete: not a copy, unless a part of it is in use at this moment."""
        if self._plain is None:
            if self._view is None or self._buffer is None:
                raise IndexError("it is not there yet")
            self._view.release()
            self._plain = self._buffer.getvalue()
            self._buffer = self._view = None
        return self._plain
