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

import trio

from cterafs.kernel import guardian

log = logging.getLogger(__name__)

READY = 10.0
"""Seconds for the process to start, which takes 10 to 20 ms. Until then nothing is sent to the kernel."""

RESTART = 5.0
"""Seconds until another one is started in the place of one that ended."""


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
    with abort:
        while True:
            try:
                with _guardian(abort) as guarding:
                    with trio.move_on_after(READY):
                        await _heard(guarding)
                    task_status.started()
                    task_status = trio.TASK_STATUS_IGNORED
                    while await _heard(guarding):
                        pass
                log.warning("the process that guards %s ended; another one is started", connection)
            except OSError as error:
                log.warning("no process to guard %s: %s", connection, error.strerror)
                task_status.started()
                task_status = trio.TASK_STATUS_IGNORED
            await trio.sleep(RESTART)


@contextlib.contextmanager
def _guardian(abort: BufferedWriter) -> Iterator[subprocess.Popen[bytes]]:
    """One that is being started.

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
            yield process
        finally:
            process.kill()


async def _heard(guarding: subprocess.Popen[bytes]) -> bytes:
    """What it says; nothing once it has ended."""
    if guarding.stdout is None:
        return b""
    await trio.lowlevel.wait_readable(guarding.stdout)
    return guarding.stdout.read(1)
