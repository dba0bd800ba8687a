"""Large `bytes` without copies.

`BytesIO` hands its buffer out for writing, and then as `bytes`, without copying it. A copy of 4 MiB costs more than
receiving them: both of two such allocations that come and go are new pages each time (1,100 against 9,300 MiB/s).
"""

from __future__ import annotations

import io
from collections.abc import Callable


def room(size: int) -> tuple[io.BytesIO, memoryview]:
    """A buffer of `size` bytes. Once the view and its slices are released, `getvalue` gives it away uncopied."""
    buffer = io.BytesIO()
    if size:
        buffer.seek(size - 1)
        buffer.write(b"\0")
        buffer.truncate()  # gives back what the buffer has grown beyond that, which `getvalue` would have to copy
    return buffer, buffer.getbuffer()


def written(size: int, write: Callable[[memoryview], int]) -> bytes:
    """What `write` puts at the beginning of a buffer of `size` bytes; it returns how much that is."""
    buffer, view = room(size)
    with view:
        used = write(view)
    buffer.truncate(used)
    return buffer.getvalue()
