"""The process that downloads: `main` is what it runs.

It ends when the other end of the socket is closed, and upon nothing else: who mounts decides when that is.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import threading
import traceback
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Self

import trio

from cterafs import process
from cterafs.direct.downloads import Downloads
from cterafs.direct.landing import ATTEMPT, FILLED, Landing, State
from cterafs.direct.storage import Storage, tls_context
from cterafs.direct.transfer import Aborted
from cterafs.downloading.arena import Arena
from cterafs.downloading.messages import (
    Cancel,
    Crashed,
    Done,
    Failure,
    FromProcess,
    Job,
    Left,
    Ready,
    Told,
    decode_settings,
    decode_to_process,
    encode,
    receive,
)
from cterafs.errors import BlockError, BlockInfo

log = logging.getLogger(__name__)

LONGEST_TRACE = 16 << 10
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""A terminal, and systemd, send them to all processes of a group; the mount still serves while it ends."""


class Berthed(Landing):
    """A landing in the arena. The first attempt writes where readers look; a further one must not, since what the first
    left may be in use, or still be written by a thread that was given up. So that is copied when it is complete."""

    __slots__ = ("_aside", "_berth", "_filled")

    def __init__(self, block: BlockInfo, state: State, view: memoryview, tell: Callable[[], object]) -> None:
        super().__init__(block, tell)
        self._state = state
        self._berth = view
        self._filled = 0
        self._aside: memoryview | None = None

    @property
    def filled(self) -> int:
        return self._filled

    def start(self) -> memoryview:
        self._filled = self._state[FILLED] = 0
        self._state[ATTEMPT] += 1
        if self._view is None:
            self._view = self._berth
        else:
            self._view = self._aside = memoryview(bytearray(self.block.length))
        return self._view

    def advance(self, count: int) -> None:
        self._filled += count
        if self._aside is None:
            super().advance(count)

    def replace(self, plain: bytes) -> None:
        self._state[FILLED] = 0
        self._state[ATTEMPT] += 1
        self._view = self._aside = memoryview(plain)
        self._filled = len(plain)

    def finish(self) -> None:
        if self._aside is not None:
            self._berth[:] = self._aside
            self._state[FILLED] = self._filled
            self._aside = None
        super().finish()


class Crew:
    """The threads that work on a job, each of which enters it.

    Args:
        left: called by the last to leave, if that is after `dismiss`.
    """

    def __init__(self, left: Callable[[], object]) -> None:
        self._left = left
        self._present = 0
        self._dismissed = False
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        with self._lock:
            if self._dismissed:
                raise Aborted
            self._present += 1
        return self

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._present -= 1
            last = self._dismissed and not self._present
        if last:
            self._left()

    def dismiss(self) -> bool:
        """The job is done: whoever would only enter now is turned away. Returns whether all have left."""
        with self._lock:
            self._dismissed = True
            return not self._present


class Worker:
    """Does jobs until the socket ends."""

    def __init__(self, sock: socket.socket, arena: Arena, downloads: Downloads) -> None:
        self._socket = sock
        self._arena = arena
        self._downloads = downloads
        self._jobs: dict[int, trio.CancelScope] = {}

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            self._send(Ready())
            async for message in self._messages():
                if isinstance(message, Job):
                    scope = self._jobs[message.number] = trio.CancelScope()
                    nursery.start_soon(self._do, message, scope)
                elif isinstance(message, Cancel) and message.job in self._jobs:
                    self._jobs[message.job].cancel()
            nursery.cancel_scope.cancel()

    async def _messages(self) -> AsyncIterator[Job | Cancel]:
        """Until the other end is closed."""
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            with contextlib.suppress(BlockingIOError):
                message = receive(self._socket, decode_to_process)
                if message is None:
                    return
                yield message

    async def _do(self, job: Job, scope: trio.CancelScope) -> None:
        crew = Crew(partial(self._send, Left(job.number)))
        failure = None
        try:
            with scope:
                await self._downloads.land(job.source, self._landings(job), crew)
        except BlockError as error:
            failure = Failure.of(error)
        del self._jobs[job.number]
        self._send(Done(job.number, failure, left=crew.dismiss()))

    def _landings(self, job: Job) -> list[Berthed]:
        landings = []
        for index, (chunk, berth) in enumerate(zip(job.source.chunks, job.berths, strict=True)):
            block = BlockInfo.of(job.source.file_id, chunk)
            view = self._arena.view(berth.place, block.length)
            tell = partial(self._send, Told(job.number, index))
            landings.append(Berthed(block, self._arena.state(berth.state), view, tell))
        return landings

    def _send(self, message: FromProcess) -> None:
        """From any thread, since a packet is sent whole. Waits until there is room for it."""
        try:
            self._socket.send(encode(message))
        except (BrokenPipeError, ConnectionResetError):
            log.debug("the mount is gone")


async def work(sock: socket.socket, arena_file: int) -> None:
    """Downloads as the first message says, until the socket ends."""
    await trio.lowlevel.wait_readable(sock)
    settings = receive(sock, decode_settings)
    if settings is None:
        return
    storage = Storage(
        settings.portal_url, tls_context(settings.verify_tls, settings.ca_file, "direct.ca_file"), settings.hosts
    )
    arena = Arena(arena_file)
    async with Downloads(storage, workers=settings.workers, timeout=settings.timeout) as downloads:
        await Worker(sock, arena, downloads).run()


def main(sock: int, arena_file: int) -> None:
    """
    Args:
        sock, arena_file: inherited descriptors: of the socket to the mount, and of the arena's file.
    """
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    process.conceal()
    process.tune()
    process.stand_back()
    mount = socket.socket(fileno=sock)
    try:
        trio.run(work, mount, arena_file)
    except Exception:
        mount.send(encode(Crashed(traceback.format_exc()[-LONGEST_TRACE:])))
