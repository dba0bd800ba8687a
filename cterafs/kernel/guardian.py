"""A small process that ends the mount's connection to the kernel when the mount's own was killed.

A notification about a name waits in the kernel, where no signal reaches it, for whoever is looking up or listing in
that directory. If the mount is killed meanwhile, that thread of it stays, since nobody will answer what it waits for,
and with the thread all that the process had open, the connection too: who reads would hang for ever, and could not be
killed either. Only another process can end the connection then.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)

PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4  # <linux/prctl.h>
KILLED = signal.SIGUSR1
"""What the kernel sends when the thread that started the guardian has ended, whether or not others of it remain."""


@contextlib.contextmanager
def guarded(connection: Path) -> Iterator[None]:
    """The connection ends with the thread that enters this, which must be the one that lives longest.

    Args:
        connection: its directory of control files. One that cannot be used is warned of, and nobody guards.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_guardian(connection / "abort"))
        except OSError as error:
            log.warning("%s: nobody ends this connection should its process be killed: %s", connection, error.strerror)
        yield


@contextlib.contextmanager
def _guardian(abort: Path) -> Iterator[None]:
    """It is ready while the context lasts.

    Raises:
        OSError: it cannot be started.
    """
    with abort.open("wb") as control:  # of this very connection: its number may become another's
        guardian = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__], stdin=control, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    with guardian:
        try:
            if guardian.stdout is None or not guardian.stdout.read(1):
                raise OSError(errno.ECHILD, "its guardian ended at once")
            yield
        finally:
            guardian.kill()


def main() -> None:
    """Waits for the end of the parent, and ends the connection whose control file is the standard input."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # what ends a group of processes is not for us
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)  # as `process.conceal` does: it has the environment of the mount
    libc.prctl(PR_SET_PDEATHSIG, KILLED, 0, 0, 0)
    os.write(sys.stdout.fileno(), b"1")  # fails if the parent has gone before
    signal.sigwait((KILLED,))
    with contextlib.suppress(OSError):  # the connection has ended by itself, as it does if no thread stayed
        os.write(sys.stdin.fileno(), b"1")


if __name__ == "__main__":
    main()
