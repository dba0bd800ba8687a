"""From the reads of one handle: what is worth fetching before it is asked for. Pure; no I/O, no clock.

A reader that goes forwards gets a window of bytes ahead of it, which doubles each time that it keeps up. The kernel
sends the reads of one sequential reader out of order and in parallel, and players jump between a few places, so a
handle may follow several streams, and a read counts as going on where its stream is expected, give or take `SLACK`.
"""

from __future__ import annotations

from dataclasses import dataclass

from cterafs.model import Extent

SLACK = 1 << 20
"""Bytes. The kernel has at most one read-ahead of 1 MiB (its limit per request) under way around a reader's place."""

STREAMS = 4
"""Places followed in one file: a player's audio and video, with room for an index and a probe."""

STREAK = 128 << 10
"""Bytes read in order, the first read of a place not counted, before anything is fetched ahead: one more read of the
kernel's default 128 KiB. One read alone may be a probe for the file's type."""

INITIAL = 2 << 20
"""Bytes of the first window: half a block of 4 MiB, or 8 of 256 KiB."""


@dataclass(slots=True)
class _Stream:
    """One place that a reader goes forwards from.

    `position` is behind the last byte read, `ahead` behind the last byte that was announced, `streak` the bytes read
    in order, `window` 0 until the streak is long enough.
    """

    position: int
    ahead: int
    streak: int = 0
    window: int = 0

    def expects(self, offset: int) -> bool:
        return self.position - SLACK <= offset <= max(self.position, self.ahead) + SLACK


class AccessPattern:
    """The reads of one handle, and what follows from them.

    Args:
        maximum: bytes of the largest window; 0 turns read-ahead off.
    """

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._streams: list[_Stream] = []

    def observe(self, read: Extent, size: int) -> Extent:
        """Takes note of one read of a file of `size` bytes; the answer is what to fetch now, empty if nothing."""
        stream = self._follow(read)
        if stream.streak < STREAK or not self._maximum:
            return Extent(read.stop, read.stop)
        stream.ahead = max(stream.ahead, stream.position)
        if stream.ahead - stream.position > stream.window // 2:
            return Extent(stream.ahead, stream.ahead)
        stream.window = min(max(INITIAL, stream.window * 2), self._maximum)
        wanted = Extent(stream.ahead, max(stream.ahead, min(stream.position + stream.window, size)))
        stream.ahead = wanted.stop
        return wanted

    def shrink(self) -> None:
        """Memory is short: every window is halved."""
        for stream in self._streams:
            stream.window //= 2

    def _follow(self, read: Extent) -> _Stream:
        for index, stream in enumerate(self._streams):
            if stream.expects(read.start):
                stream.position = max(stream.position, read.stop)
                stream.streak += len(read)
                self._streams.insert(0, self._streams.pop(index))
                return stream
        stream = _Stream(position=read.stop, ahead=read.stop)
        self._streams.insert(0, stream)
        del self._streams[STREAMS:]
        return stream
