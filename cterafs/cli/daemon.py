"""Running a mount: in the foreground, or in the background with a parent that waits until it answers."""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import trio

from cterafs import app
from cterafs.cli import logsetup
from cterafs.cli.failures import INTERRUPTED, failure
from cterafs.config import Config, state_directory, trust
from cterafs.errors import MountError
from cterafs.namespace.follower import FeedStatus

log = logging.getLogger(__name__)

LOG_NAME = "mount.log"
PLAIN_INTERVAL = 10.0
"""Seconds between two lines of progress where it is not a terminal that shows them."""


def mount(config: Config, credentials: app.Credentials, path: Path, *, wait: bool, ready: Callable[[], None]) -> int:
    """Serves a mount until it is unmounted; `ready` is called when it answers."""
    os.umask(0o077)  # what a mount writes is for nobody else: its index has every name, whatever it shows to whom
    progress = ImportProgress()

    def mounted() -> None:
        progress.end()
        ready()

    async def main() -> None:
        await app.mount(config, credentials, path, wait=wait, progress=progress.show, ready=mounted)

    try:
        trio.run(main, strict_exception_groups=True)
    finally:
        progress.end()
    return 0


def detach(serve: Callable[[Callable[[], None]], int]) -> int:
    """Runs `serve` in a child process, and returns when that says that it is ready, or how it failed.

    Must be called before any thread is started. The child keeps the terminal's standard error until it is ready, so
    that progress and errors are seen.

    Args:
        serve: gets a function to call when it is ready.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return _wait_for(child, reading)
    os.close(reading)
    os.setsid()

    is_ready = False

    def ready() -> None:
        nonlocal is_ready
        is_ready = True
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        os.close(null)
        os.write(writing, b"1")
        os.close(writing)

    try:
        return serve(ready)
    except BaseException as error:
        if is_ready:  # nobody sees standard error any more
            log.critical("the mount ended: %s", failure(error).message, exc_info=error)
        raise


def _wait_for(child: int, reading: int) -> int:
    try:
        if os.read(reading, 1):
            return 0
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if code < 0:
            raise MountError(f"the process in the background was ended by {signal.Signals(-code).name}")
        return code
    except KeyboardInterrupt:
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
        if sys.stderr.isatty():
            print(file=sys.stderr)  # it ended in the middle of a line that tells how far it was
        return INTERRUPTED
    finally:
        os.close(reading)


def log_to_file(config: Config, *, verbose: bool) -> None:
    """A mount in the background logs to a file: the configured one, or one beside its state."""
    if config.log.file is not None:
        return
    directory = state_directory(config)
    trust.private_directory(directory, "state.directory")
    logsetup.configure(dataclasses.replace(config.log, file=directory / LOG_NAME), verbose=verbose, bounded=True)


class ImportProgress:
    """The import's progress on standard error: one line that changes on a terminal, a line now and then elsewhere.

    The portal does not tell how many entries there are, so it is a count and a rate, not a percentage.
    """

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._started = time.monotonic()
        self._printed = self._started
        self._shown = False

    def show(self, status: FeedStatus) -> None:
        now = time.monotonic()
        if not self._terminal and now - self._printed < PLAIN_INTERVAL:
            return
        self._printed, self._shown = now, True
        rate = status.entries_seen / max(now - self._started, 0.001)
        text = f"importing the namespace: {status.entries_seen:,} entries, {rate:,.0f}/s"
        if status.reason:
            text += f" ({status.reason})"
        if self._terminal:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leaves the line to what follows."""
        if self._shown and self._terminal:
            print(file=sys.stderr)
        self._shown = False
