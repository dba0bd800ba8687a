"""From the reads of one handle: what is worth fetching before it is asked for. Pure; no I/O, no clock.

A handle may follow several streams, since players and databases read a few places in turn. Each has a window of bytes
ahead of it, which starts small and doubles while the stream is read. The kernel sends the reads of one sequential
reader out of order and in parallel, so a read goes on where its stream is expected, give or take a few reads. A
stream that goes backwards is one that goes forwards in the mirrored file. One that takes a piece at regular distances
gets just the pieces to come.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from cterafs.model import Extent

STREAMS = 16
"""Places followed in one file: what DuckDB and pandas read in turn of a table, with as many columns and threads."""

STREAK = 128 << 10
"""Bytes read in order, the first read of a place not counted, before anything is fetched ahead: one more read of the
kernel's default 128 KiB. One read alone may be a probe for the file's type."""

INITIAL = 2 << 20
"""Bytes of the first window: half a block of 4 MiB, or 8 of 256 KiB."""

TRUST = 2
"""A window is this many times what was read in order: so a stream that ends cost no more than that in vain, and one
that goes on has 16 downloads of 4 MiB under way after 32 MiB."""

FILL_UP, FILL_UP_OF_MANY = 2, 4
"""A window is filled up when half of it is left, so that some of it is always under way. Where others read, too, theirs
is, so a quarter is enough: fewer and longer fetches make eight readers 1.035 times as fast, and would make one alone
0.95 times as fast."""

PARALLEL = 8
"""Reads that may be on their way at once and so arrive in any order: 1 MiB that a program asks for at once, in the
kernel's requests of 128 KiB."""

SLACK = 2 << 20
"""Bytes. The most that a read may lie off its stream, also where it is a large one."""

TURN = 3
"""Reads one below the other that make a stream go backwards; two or three may be a parallel read in disorder."""

DENSE = 256 << 10
"""Bytes. Pieces at smaller distances leave out no block, not even of the smallest size, so all of it is fetched."""

REGULAR = 3
"""Equal distances that make a stride."""

PLACES = 16
"""Pieces of a stride that are fetched ahead, at most."""

BEHIND, BEHIND_OF_MANY = 8 << 20, 2 << 20
"""Bytes behind a stream that it may come back to: requests overtake each other, and players go back a little. One that
has read twice as much in order is taken for steady: it does not come back for more than that. Where several files are
read, and a stream was in order so far, it is less, as new memory costs more than what was used before: eight readers of
eight files are 1.1 times as fast with 2 MiB each as with 8."""

PASSED = 4 << 20
"""Bytes left behind that are worth a word."""

SCATTERED = 8
"""Reads in a row without a stream that make an access random: from then on, a stream takes two reads that meet."""

LOYALTY = 64
"""Reads elsewhere, except those that wander, after which a stream that used to be returned to is taken for left."""

SMALL_READ = 512 << 10
"""Bytes of the largest read that can be a random one: of a page of a mapping that is touched, the kernel makes as much
as it would read ahead (READ_AHEAD_KIB of its session)."""

SMALL_HEAD = 16 << 10
"""Bytes of the smallest first read at a file's beginning that is taken for a beginning, and so not for random: what the
kernel makes of a program's first 4 KiB. Who begins at the beginning mostly goes on."""

SMALL_FILE = 1 << 20
"""Bytes of the largest file of which no part is worth a request of its own."""


NOTHING = Extent(0, 0)


class Advice(msgspec.Struct, frozen=True, gc=False):
    """What follows from a read.

    Attributes:
        extents: to fetch now, the most urgent first.
        random: the read belongs to no stream, so fetching more than its bytes is of no use. The first read of a place
            counts as random only if it has at most 512 KiB, at the file's beginning only if it has less than 16 KiB,
            and never in a file of at most 1 MiB.
        passed: the bytes that a steady stream has left behind since it was last said.
        expected: the read went on where its stream was, so what was announced before is wanted as it was.
    """

    extents: tuple[Extent, ...]
    random: bool
    passed: Extent = NOTHING
    expected: bool = False


@dataclass(slots=True, eq=False)
class _Stream:
    """One place that a reader goes on from; in the coordinates of the mirrored file if it goes backwards.

    Attributes:
        first: the lowest byte read since the stream, or its present piece, began.
        position: behind the highest byte read.
        ahead: behind the last byte that was announced.
        length: bytes of the largest read.
        turn: number of the handle's read that was the stream's last.
        streak: bytes read in order, what the window follows from; halved where that was too large.
        below: reads in a row that each lay right below the one before.
        step: distance of a stride's pieces, 0 where there is none; `regular`: how often it was met.
        piece: bytes of a stride's pieces; `places`: the window in pieces; `placed`: those announced and not reached.
        left: it was given up; `loyal`: it was returned to then.
        passed: what lies before it was said to be left behind.
        ordered: each of its reads began where the one before had ended.
    """

    first: int
    position: int
    ahead: int
    length: int
    turn: int
    streak: int = 0
    below: int = 0
    step: int = 0
    regular: int = 0
    piece: int = 0
    places: int = 0
    placed: int = 0
    mirrored: bool = False
    left: bool = False
    loyal: bool = False
    passed: int = 0
    ordered: bool = True

    def local(self, extent: Extent, size: int) -> Extent:
        """The extent in the stream's coordinates; the other way round as well."""
        return Extent(size - extent.stop, size - extent.start) if self.mirrored else extent

    def distance(self, start: int) -> int | None:
        """How far a read lies from where it is expected, if not just there; None if it is not one of this stream."""
        if self.streak >= STREAK:
            off = start - self.position
            return abs(off) if abs(off) <= min(SLACK, PARALLEL * self.length) + self.length else None
        off = start - self.first  # a young one: only a read that is its neighbour in one and the same larger read
        return abs(off) if abs(off) <= min(SLACK, PARALLEL * self.length) and off % self.length == 0 else None

    def follow(self, read: Extent) -> None:
        """Takes note of a read that is one of this stream, in its coordinates."""
        if self.step and read.start == self.first + self.step:
            self.piece = self.position - self.first
            self.first, self.position, self.ahead = read.start, read.stop, read.stop
            self.regular += 1
            self.placed = max(0, self.placed - 1)
            return
        if read.stop == self.first:
            self.first = read.start
            self.below += 1
        elif read.start >= self.position:
            self.below = 0
        self.ordered &= read.start == self.position
        self.position = max(self.position, read.stop)
        self.length = max(self.length, len(read))
        self.streak += len(read)
        if self.step and self.position - self.first > 2 * self.piece:
            self.step = self.regular = 0  # it stays

    def turn_round(self, size: int) -> None:
        """From now on it goes the other way."""
        self.first, self.position = size - self.position, size - self.first
        self.ahead = self.position
        self.passed = self.first
        self.mirrored = not self.mirrored
        self.streak, self.below, self.ordered = min(self.streak, STREAK), 0, True

    def give_up(self) -> None:
        """What was announced and not read is not wanted any more."""
        self.ahead, self.placed = self.position, 0
        self.shrink()

    def shrink(self) -> None:
        """Its window is too large."""
        self.streak = max(self.streak // 2, min(self.streak, STREAK))
        self.places //= 2

    def announce(self, size: int, maximum: int, part: int) -> list[Extent]:
        """What is to be fetched now, in the stream's coordinates, if no more than a `part`-th of its window is left."""
        if self.step:
            return self._pieces(size, maximum) if self.regular >= REGULAR else []
        self.ahead = max(self.ahead, self.position)
        self.streak = min(self.streak, max(maximum, STREAK))
        window = min(max(INITIAL, TRUST * self.streak), maximum)
        if self.streak < STREAK or self.below or self.ahead - self.position > window // part:
            return []
        wanted = Extent(self.ahead, min(self.position + window, size))
        self.ahead = max(self.ahead, wanted.stop)
        return [wanted]

    def leave_behind(self, kept: int) -> Extent:
        """What it has come through by now, in its coordinates, but for the last `kept` bytes, or more if need be."""
        if not self.ordered:
            kept = max(kept, BEHIND)
        start, stop = self.passed, self.position - kept
        if self.step or self.position - self.first < 2 * kept or stop - start < PASSED:
            return NOTHING
        self.passed = stop
        return Extent(start, stop)

    def _pieces(self, size: int, maximum: int) -> list[Extent]:
        if self.placed > self.places // 2:
            return []
        self.places = min(max(2, self.places * 2), PLACES, maximum // max(self.piece, 1))
        starts = (self.first + number * self.step for number in range(self.placed + 1, self.places + 1))
        self.placed = max(self.placed, self.places)
        return [Extent(start, start + self.piece).intersect(Extent(0, size)) for start in starts]

    def wants(self, extent: Extent) -> bool:
        """Whether it will come to these bytes, in its coordinates, if it goes on so."""
        if self.step:
            number, within = divmod(extent.start - self.first, self.step)
            return 0 <= number <= self.placed and within < self.piece
        if self.left:
            return False
        return extent.start < self.ahead and extent.stop > self.position - self.length


class AccessPattern:
    """The reads of one handle, and what follows from them.

    Attributes:
        maximum: bytes of the largest window; 0 turns read-ahead off. May be changed at any time.
        behind: bytes that a steady stream may come back to. May be changed at any time.
        alone: nobody else reads. May be changed at any time.
    """

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self.behind = BEHIND
        self.alone = True
        self._streams: list[_Stream] = []  # the one read last at the front
        self._turn = 0
        self._scattered = 0
        # Where streams go on; empty, if more of them has to be looked at; None: not known since the last read.
        self._next: frozenset[int] | None = None

    def wanders(self, read: Extent, size: int) -> bool:
        """Whether the access is random and no stream goes on with this read. Where there is nothing to fetch for it
        either, it is not worth the 6 us of being observed: a stream that begins there is met when it comes to what has
        to be fetched."""
        if self._scattered < SCATTERED:
            return False
        if self._next is None:
            told = not any(stream.mirrored or stream.step or stream.streak >= STREAK for stream in self._streams)
            self._next = frozenset(stream.position for stream in self._streams if told)
        # Where all streams are young, this is `_expecting` in a fifth of its time: random reads of 4 KiB from memory
        # are 1.04 times as fast.
        return read.start not in self._next if self._next else self._expecting(read, size) is None

    def observe(self, read: Extent, size: int) -> Advice:
        """Takes note of one read of a file of `size` bytes."""
        self._turn += 1
        self._next = None
        stream = self._expecting(read, size)
        if stream is None:
            return self._begin(read, size)
        self._scattered = 0
        if stream is not self._streams[0]:
            self._streams.remove(stream)
            self._streams.insert(0, stream)
        local = stream.local(read, size)
        expected = local.start == stream.position and not stream.step
        stream.turn = self._turn
        stream.loyal |= stream.left
        stream.left = False
        stream.follow(local)
        if stream.below >= TURN:
            stream.turn_round(size)
        passed = stream.local(stream.leave_behind(self.behind), size)
        return Advice(self._announced(stream, size), random=False, passed=passed, expected=expected)

    def wants(self, extent: Extent, size: int) -> bool:
        """Whether a stream will come to these bytes if it goes on as it does."""
        mirrored = Extent(size - extent.stop, size - extent.start)
        for stream in self._streams:
            local = mirrored if stream.mirrored else extent
            if (stream.step or local.start < stream.ahead) and stream.wants(local):
                return True
        return False

    def shrink(self) -> None:
        """Memory is short: every window is halved."""
        for stream in self._streams:
            stream.shrink()

    def lost(self, read: Extent, size: int) -> None:
        """What had been fetched for this read was evicted before it came: its stream's window is too large."""
        stream = self._expecting(read, size)
        if stream is not None:
            stream.give_up()

    def _expecting(self, read: Extent, size: int) -> _Stream | None:
        """The stream that comes closest to this read."""
        exact = self._scattered >= SCATTERED
        best, least = None, SLACK * 2
        for stream in self._streams:
            start = size - read.stop if stream.mirrored else read.start
            if start == stream.position or (stream.step and start == stream.first + stream.step):
                return stream
            if exact and stream.streak < STREAK:
                continue
            distance = stream.distance(start)
            if distance == 0:
                return stream
            if distance is not None and distance < least:
                best, least = stream, distance
        return best

    def _begin(self, read: Extent, size: int) -> Advice:
        """A read that no stream expects begins one."""
        if self.wants(read, size):
            self._streams.insert(0, self._new(read))
            del self._streams[STREAMS:]
            return Advice((), random=False)
        self._scattered += 1
        self._leave()
        stream = self._strided(read) or self._new(read)
        self._streams.insert(0, stream)
        del self._streams[STREAMS:]
        extents = self._announced(stream, size)
        small = len(read) <= SMALL_READ if read.start else len(read) < SMALL_HEAD
        return Advice(extents, random=small and size > SMALL_FILE and not extents)

    def _leave(self) -> None:
        """The reader went elsewhere: what it left is fetched no further, unless it used to come back there."""
        for stream in self._streams:
            expected = stream.loyal and self._turn - stream.turn <= LOYALTY
            if not expected and (stream.ahead > stream.position or stream.placed):
                stream.give_up()
                stream.left = True

    def _new(self, read: Extent) -> _Stream:
        return _Stream(read.start, read.stop, read.stop, max(1, len(read)), self._turn, passed=read.start)

    def _strided(self, read: Extent) -> _Stream | None:
        """A stream through two earlier places, which it replaces, if all three are equally far apart."""
        places = {stream.first: stream for stream in self._streams if not stream.mirrored and not stream.step}
        for start, last in places.items():
            step = read.start - start
            before = places.get(start - step)
            if before is None or before is last:
                continue
            self._streams.remove(last)
            self._streams.remove(before)
            stream = self._new(read)
            if 0 < step <= DENSE:
                stream.streak = STREAK
                stream.length = max(stream.length, step)
            else:
                stream.step, stream.regular, stream.piece = step, 2, last.position - last.first
            return stream
        return None

    def _announced(self, stream: _Stream, size: int) -> tuple[Extent, ...]:
        if not self.maximum:
            return ()
        part = FILL_UP if self.alone else FILL_UP_OF_MANY
        extents: Iterable[Extent] = stream.announce(size, self.maximum, part)
        return tuple(stream.local(extent, size) for extent in extents if len(extent))
