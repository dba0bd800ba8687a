"""One FUSE mount, from mounting to unmounting."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import pyfuse3
import trio

from cterafs.errors import MountError
from cterafs.kernel import mountpoint
from cterafs.kernel.guard import guard
from cterafs.kernel.notify import Notifier
from cterafs.kernel.operations import Operations
from cterafs.threads import patiently

log = logging.getLogger(__name__)

MAX_BACKGROUND = 256
"""Background requests (buffered read-ahead) that the kernel lets be in flight; its default of 12 would let 12 hung
reads stop every other buffered read. 256 is the most that it allows to an ordinary user."""

CONGESTED = MAX_BACKGROUND * 3 // 4
"""Background requests in flight from which on the kernel sends no read-ahead: it finds the pages, gives them back, and
the reader waits for them later. That is its usual share of the maximum; what it starts with is 9, which does not grow
with the maximum. Eight readers together are 1.1 times as fast with this."""

READ_AHEAD_KIB = 512
"""KiB that the kernel reads ahead of a program, and so asks for at once; its default is 128. A cold read of 4 MiB
blocks takes 1.7 times longer with 128, 1.5 times with 256, and the same with 1024, with which each touch of a mapped
page would be a read of 1 MiB."""

MAX_TASKS = 1024
"""Requests handled at once, hung ones included: more than the kernel's background requests and the readers of a busy
machine, each of which has at most one request that it waits for."""

GRACE = 3.0
"""Seconds that readers get to finish when the mount is ended while it is in use."""

ANSWER_DEADLINE = 10.0
"""Seconds for the mount's first answer."""

WAKE_INTERVAL = 0.25
"""Seconds. pyfuse3 reads a request when there was one a moment ago. If that was taken back since, because whoever made
it was killed, the read waits for the next request, and all of this process with it. A signal interrupts it."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def serve(
    operations: Operations, notifier: Notifier, path: Path, options: Iterable[str], ready: Callable[[], None]
) -> None:
    """Mounts, answers until somebody unmounts or a signal ends it, and leaves nothing mounted.

    Args:
        options: FUSE mount options.
        ready: called when the mount has answered.

    Raises:
        MountError: it could not be mounted.
    """
    heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # nohup ignores one
    with trio.open_signal_receiver(*heeded) as signals:  # before it is mounted, or one might leave it so
        _mount(operations, path, options)
        try:
            session = _Session(notifier, path)
            try:
                await session.run(signals, ready)
            finally:
                session.leave()
        finally:
            pyfuse3.close(unmount=False)


class _Session:
    """The tasks of a mount."""

    def __init__(self, notifier: Notifier, path: Path) -> None:
        self._notifier = notifier
        self._path = path
        self._answering = trio.CancelScope()
        self._mounted = mountpoint.mounted_at(path)

    async def run(self, signals: AsyncIterator[int], ready: Callable[[], None]) -> None:
        if self._mounted is not None:
            _allow_background(self._mounted.connection)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_on_signal, signals)
            nursery.start_soon(self._notify, nursery)
            nursery.start_soon(self._announce, ready)
            await self._answer()
            self._notifier.stop()
            nursery.cancel_scope.cancel()

    async def _notify(self, nursery: trio.Nursery) -> None:
        """Not before somebody guards the connection: a notification may be what waits when this is killed."""
        if self._mounted is not None:
            await nursery.start(guard, self._mounted.connection)
        else:
            log.warning("%s is not among the mounts: its connection is not guarded", self._path)
        await self._notifier.run()

    async def _answer(self) -> None:
        """Handles requests until the kernel ends the connection, or the grace of readers is over."""
        with self._answering, _interrupted_reads():
            try:
                await pyfuse3.main(max_tasks=MAX_TASKS)
            finally:
                # A notification may wait for a request that nobody answers any more: without this, for ever.
                self._abort()

    def _abort(self) -> None:
        self._notifier.stop()
        if self._mounted is None:
            return
        try:
            self._mounted.abort()
        except OSError as error:  # ended already, or fusectl is not mounted
            log.debug("the connection was not aborted: %s", error.strerror)

    async def _announce(self, ready: Callable[[], None]) -> None:
        try:
            with trio.fail_after(ANSWER_DEADLINE):
                await trio.to_thread.run_sync(os.statvfs, self._path, abandon_on_cancel=True)
        except trio.TooSlowError:
            raise MountError(f"{self._path} is mounted but did not answer in {ANSWER_DEADLINE:.0f} s") from None
        except OSError as error:
            raise MountError(f"{self._path} is mounted but does not answer: {error.strerror}") from None
        if self._mounted is not None:  # not before the first answer, upon which the kernel sets this itself
            _read_ahead(self._mounted.device)
        ready()

    async def _end_on_signal(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            log.info("ending on %s", signal.Signals(number).name)
            await self._end()

    async def _end(self) -> None:
        """Cleanly if nobody uses the mount; otherwise its name goes at once, and its users have a moment to finish.

        A second signal cuts that moment short.
        """
        if self._is_mounted():
            try:
                await patiently(partial(trio.to_thread.run_sync, mountpoint.unmount, self._path))
            except MountError as error:
                log.info("%s; detaching it", error)
                await patiently(partial(trio.to_thread.run_sync, self.leave))
            else:
                return
        again = self._answering.deadline < math.inf
        self._answering.deadline = trio.current_time() + (0 if again else GRACE)

    def leave(self) -> None:
        """Takes the mount away from the path, whoever uses it.

        Raises:
            MountError: it cannot be unmounted.
        """
        if self._is_mounted():
            mountpoint.unmount(self._path, lazy=True)

    def _is_mounted(self) -> bool:
        """It is still at the path: somebody may have detached it, and another mount may have taken its place."""
        mounted = mountpoint.mounted_at(self._path)
        return mounted is not None and self._mounted is not None and mounted.device == self._mounted.device


def _mount(operations: Operations, path: Path, options: Iterable[str]) -> None:
    """libfuse and fusermount3 say on standard error why they fail; it becomes our one line.

    Raises:
        MountError: it could not be mounted.
    """
    with tempfile.TemporaryFile() as said:
        error_output = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            pyfuse3.init(operations, str(path), set(options))
            mounted = True
        except RuntimeError:
            mounted = False
        finally:
            os.dup2(error_output, 2)
            os.close(error_output)
        said.seek(0)
        lines = said.read().decode(errors="replace").splitlines()
    if not mounted:
        reason = lines[-1].strip() if lines else "check that /dev/fuse can be opened and that fuse3 is installed"
        raise MountError(f"{path} cannot be mounted: {reason}")
    for line in lines:
        log.info("while mounting: %s", line)


@contextlib.contextmanager
def _interrupted_reads() -> Iterator[None]:
    """A signal that does nothing arrives every `WAKE_INTERVAL`. Python repeats its own system calls (PEP 475)."""
    before = signal.signal(signal.SIGALRM, lambda _number, _frame: None)
    signal.setitimer(signal.ITIMER_REAL, WAKE_INTERVAL, WAKE_INTERVAL)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _read_ahead(device: str) -> None:
    control = Path(f"/sys/class/bdi/{device}/read_ahead_kb")
    try:
        control.write_text(str(READ_AHEAD_KIB))
    except OSError as error:  # only root may
        log.debug("%s cannot be raised (%s)", control, error.strerror)


def _allow_background(connection: Path) -> None:
    control = connection
    try:
        if not connection.is_dir():
            mountpoint.mount_fusectl()
        for name, least in (("max_background", MAX_BACKGROUND), ("congestion_threshold", CONGESTED)):
            control = connection / name
            if int(control.read_text()) < least:
                control.write_text(str(least))
    except OSError as error:
        log.warning("%s cannot be raised (%s): a dozen reads can hold up others", control, error.strerror)
