"""Has a small process end the mount's connection to the kernel should the mount's own be killed.

A notification about a name waits in the kernel, where no signal reaches it, for whoever is looking up or listing in
that directory. If the mount is killed meanwhile, that thread of it stays, since nobody will answer what it waits for,
and with the thread all that the process had open, the connection too: who reads would hang for ever, and could not be
killed either. Only another process can end the connection then.
"""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
from collections.abc import Iterator
from io import BufferedWriter
from pathlib import Path
from typing import IO, cast

import trio

from cterafs.kernel import guardian

log = logging.getLogger(__name__)

READY = 10.0
"""Seconds for the process to start, which takes 10 to 20 ms."""

RESTART, LONGEST = 5.0, 300.0
"""Seconds until another one is started in the place of one that ended, and twice as many each time that it is not."""


async def guard(connection: Path, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Keeps a guardian running until cancelled. It is started when the first one is ready, or cannot be had.

    To be run by the thread that lives longest: the guardian takes its end for that of the process.

    Args:
        connection: its directory of control files.
    """
    try:
        abort = (connection / "abort").open("wb")  # of this very connection: its number may become another's
    except OSError as error:
        log.warning("%s is not guarded (%s): should this be killed, its readers may hang", connection, error.strerror)
        task_status.started()
        return
    pause = RESTART
    with abort:
        while True:
            try:
                with _guardian(abort) as said:
                    with trio.move_on_after(READY) as starting:
                        if await _heard(said):
                            pause = RESTART
                    if starting.cancelled_caught:
                        log.warning("the process that guards %s takes long to start", connection)
                    task_status.started()
                    task_status = trio.TASK_STATUS_IGNORED
                    while await _heard(said):
                        pass
                log.warning("the process that guards %s ended; another one follows in %.0f s", connection, pause)
            except OSError as error:
                log.warning("no process guards %s: %s; the next try is in %.0f s", connection, error.strerror, pause)
                task_status.started()
                task_status = trio.TASK_STATUS_IGNORED
            await trio.sleep(pause)
            pause = min(2 * pause, LONGEST)


@contextlib.contextmanager
def _guardian(abort: BufferedWriter) -> Iterator[IO[bytes]]:
    """What one says that is being started.

    Raises:
        OSError: it cannot be.
    """
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", guardian.__file__],
        bufsize=0,
        stdin=abort,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # what is sent to our group is not for it
    )
    with process:
        try:
            yield cast(IO[bytes], process.stdout)
        finally:
            process.kill()


async def _heard(said: IO[bytes]) -> bytes:
    """The next of it; nothing at its end."""
    await trio.lowlevel.wait_readable(said)
    return said.read(1)
