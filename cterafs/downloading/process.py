"""The mount's side of the process that downloads."""

from __future__ import annotations

import contextlib
import logging
import socket
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter

import msgspec
import trio

from cterafs.direct.client import DirectIO
from cterafs.direct.landing import Landing
from cterafs.downloading.arena import STATES, Arena, Full, Segments
from cterafs.downloading.messages import (
    PACKET,
    Berth,
    Cancel,
    Crashed,
    Done,
    Failure,
    Job,
    Left,
    Ready,
    Settings,
    Told,
    decode_from_process,
    encode,
    receive,
)
from cterafs.model import BlockMap
from cterafs.threads import patiently

log = logging.getLogger(__name__)

BEGIN = """\
import sys
sys.path[:] = sys.argv[3:]
from cterafs.downloading import worker
worker.main(int(sys.argv[1]), int(sys.argv[2]))
"""
"""What the process runs: the code that this one runs, from wherever that was imported, be it installed or not."""

RESTART = 5.0
"""Seconds until another process is started in the place of one that ended."""

LONGEST_JOB = 64
"""Landings at most: 16 MiB of blocks of 256 KiB."""

BESIDES = 512
"""Bytes of a packet that a landing takes besides its URL, and more than that."""

ENDING = 2.0
"""Seconds that it may take to end by itself."""


@dataclass(eq=False)
class _Job:
    """What the process works at.

    Attributes:
        views: what keeps its segments from being used again.
        left: no thread writes there any more.
        lost: the process ended.
    """

    landings: Sequence[Landing]
    states: Sequence[int]
    views: Sequence[memoryview]
    over: trio.Event = field(default_factory=trio.Event)
    failure: Failure | None = None
    left: bool = False
    lost: bool = False


class DownloadProcess:
    """Fetches blocks into memory that this process sees, too.

    Args:
        arena: that memory.
        budget: bytes of blocks that are to be kept in it.
        settings: of the downloads.

    Attributes:
        ready: set when the first process can take jobs.
        pid: of the process, if there is one that can take jobs.
    """

    def __init__(self, arena: Arena, budget: int, settings: Settings) -> None:
        self._arena = arena
        self._settings = settings
        self._segments = Segments(arena, budget)
        self._states = deque(range(STATES))
        self._jobs: dict[int, _Job] = {}
        self._numbers = 0
        self._waiting = trio.Lock()
        self._socket: socket.socket | None = None  # to a process that is ready
        self.ready = trio.Event()
        self.pid: int | None = None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keeps a process running until cancelled. It is started when the first one was, or could not be."""
        first = task_status
        while True:
            try:
                async with self._started() as (sock, pid):
                    first = _told(first)
                    await self._listen(sock, pid)
                log.warning("the process that downloads ended; for now, the mount itself downloads")
            except (msgspec.DecodeError, LookupError):  # it decodes what storage sends, with libraries in C
                log.exception("the process that downloads made no sense; for now, the mount itself downloads")
            except OSError as error:
                log.warning("no process to download in: %s; for now, the mount itself downloads", error.strerror)
            first = _told(first)
            await trio.sleep(RESTART)

    async def land(self, block_map: BlockMap, landings: Sequence[Landing]) -> bool:
        """As `Downloads.land` does; False if somebody else has to do it: there is no process, or no room.

        Args:
            block_map: lists a block for each landing, and no others.

        Raises:
            errors.BlockError
        """
        longest_url = max((len(chunk.url) for chunk in block_map.chunks), default=0)
        longest = max(1, min(LONGEST_JOB, PACKET // (longest_url + BESIDES)))
        for first in range(0, len(landings), longest):
            last = first + longest
            if not await self._land(block_map.of(block_map.chunks[first:last]), landings[first:last]):
                return False
        return True

    async def _land(self, source: BlockMap, landings: Sequence[Landing]) -> bool:
        if self._socket is None or len(self._states) < len(landings):
            return False
        try:
            segments = [self._segments.allocate(landing.block.length) for landing in landings]
        except Full:
            return False
        if len({landing.block.length for landing in landings}) == 1:  # neighbours in the file lie together here, too
            segments.sort(key=itemgetter(0))
        self._numbers += 1
        number = self._numbers
        states = [self._states.popleft() for _ in landings]
        berths = tuple(Berth(state, place) for state, (place, _) in zip(states, segments, strict=True))
        packet = encode(Job(number, source, berths))
        job = self._jobs[number] = _Job(landings, states, [view for _, view in segments])
        for landing, state, view in zip(landings, states, job.views, strict=True):
            landing.moor(self._arena.state(state), view)
        sent = False
        try:
            sent = await self._send(packet)
            if sent:
                await job.over.wait()
        finally:
            for landing in landings:
                landing.cast_off()
            if not sent:
                self._forget(number)
            elif not job.over.is_set():
                self._cancel(number)
        if not sent:
            return False
        if job.failure is not None:
            raise job.failure.error()  # which this job does not refer to: a cycle would keep its memory
        return not job.lost

    async def _send(self, packet: bytes) -> bool:
        """Whether it is on its way."""
        while self._socket is not None and len(packet) <= PACKET:
            try:
                self._socket.send(packet, socket.MSG_DONTWAIT)
                return True
            except BlockingIOError:
                await self._wait_for_room()
            except OSError as error:
                log.debug("no job for the process that downloads: %s", error)
                break
        return False

    async def _wait_for_room(self) -> None:
        async with self._waiting:  # one task at a time may wait for a socket
            if self._socket is not None:
                await trio.lowlevel.wait_writable(self._socket)

    def _cancel(self, number: int) -> None:
        if self._socket is not None and number in self._jobs:
            with contextlib.suppress(OSError):  # then it does what nobody needs, and ends by itself
                self._socket.send(encode(Cancel(number)), socket.MSG_DONTWAIT)

    @asynccontextmanager
    async def _started(self) -> AsyncIterator[tuple[socket.socket, int]]:
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with mine:
            with its:
                files = (its.fileno(), self._arena.file)
                open_process = partial(
                    trio.lowlevel.open_process,
                    [sys.executable, "-P", "-c", BEGIN, *map(str, files), *sys.path],
                    pass_fds=files,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,  # whoever started the mount would wait for its end
                )
                process = await patiently(open_process)
            try:
                mine.send(encode(self._settings))
                yield mine, process.pid
            finally:
                self._lose()
                mine.close()
                with trio.CancelScope(shield=True):
                    with trio.move_on_after(ENDING):
                        await process.wait()
                    process.kill()
                    await process.wait()

    async def _listen(self, sock: socket.socket, pid: int) -> None:
        """Until the other end is closed."""
        while True:
            await trio.lowlevel.wait_readable(sock)
            with contextlib.suppress(BlockingIOError):
                while message := receive(sock, decode_from_process):
                    if isinstance(message, Ready):
                        self._socket, self.pid = sock, pid
                        self.ready.set()
                    else:
                        self._hear(message)
                return

    def _hear(self, message: Told | Done | Left | Crashed) -> None:
        if isinstance(message, Told):
            landing = self._jobs[message.job].landings[message.landing]
            if landing.tell is not None:
                landing.tell()
        elif isinstance(message, Done):
            job = self._jobs[message.job]
            job.failure = message.failure
            job.left |= message.left
            job.over.set()
            if job.left:
                self._forget(message.job)
        elif isinstance(message, Left):  # which may overtake the other one
            job = self._jobs[message.job]
            job.left = True
            if job.over.is_set():
                self._forget(message.job)
        else:
            log.error("the process that downloads failed unexpectedly: %s", message.trace)

    def _forget(self, number: int) -> None:
        """A job is done, and nobody writes there any more: so others may."""
        job = self._jobs.pop(number, None)
        if job is not None:
            self._states.extend(job.states)

    def _lose(self) -> None:
        """The process is gone, or will be at once."""
        self._socket = self.pid = None
        for number, job in tuple(self._jobs.items()):
            job.lost = not job.over.is_set()
            job.over.set()
            self._forget(number)


@contextmanager
def download_process(settings: Settings, budget: int) -> Iterator[DownloadProcess | None]:
    """One that is not started yet, for `budget` bytes of blocks; None where this system gives no memory to share."""
    try:
        arena = Arena.create(budget)
    except OSError as error:
        log.warning("no memory to share with a process that downloads: %s; the mount itself downloads", error.strerror)
        yield None
    else:
        with contextlib.closing(arena):
            yield DownloadProcess(arena, budget, settings)


class DownloadedApart:
    """Direct IO with its downloads in a process of their own, while there is one. Parts of blocks are small and urgent,
    so they are still fetched here."""

    def __init__(self, direct: DirectIO, process: DownloadProcess) -> None:
        self.tasks = direct.tasks
        self.block_map = direct.block_map
        self.fetch_part = direct.fetch_part
        self._direct = direct
        self._process = process

    async def land(self, block_map: BlockMap, landings: Sequence[Landing]) -> None:
        """As `DirectIO.land` does."""
        if not await self._process.land(block_map, landings):
            await self._direct.land(block_map, landings)


def _told(status: trio.TaskStatus[None]) -> trio.TaskStatus[None]:
    """Tells it, once."""
    status.started()
    return trio.TASK_STATUS_IGNORED
