"""The process that ends a mount's connection to the kernel if the mount's own process is killed.

It is started by its file, with no packages to look for, so that it takes 4 MiB of its own and 10 ms: it imports nothing
of ours.
"""

from __future__ import annotations

import ctypes
import os
import signal

PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4  # <linux/prctl.h>
KILLED = signal.SIGUSR1
"""What the kernel sends when the thread that started this process has ended, whether or not others of it remain."""


def main() -> None:
    """Waits for the end of the parent, and ends the connection whose control file is the standard input.

    A byte on the standard output says that it waits.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # what ends all of a service is not for us
    parent = os.getppid()
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)  # as `process.conceal` does
    if libc.prctl(PR_SET_PDEATHSIG, KILLED, 0, 0, 0) != 0:
        return
    if not _gone(parent):  # before the kernel was asked to tell of it
        os.write(1, b"1")
        # Anybody may send it, just when the kernel does, too; what the kernel sends is from the parent, and comes a
        # moment before it has ended.
        while signal.sigwaitinfo((KILLED,)).si_pid != parent and not _gone(parent):
            pass
    os.write(0, b"1")  # does nothing if the connection has ended, as it has if no thread stayed


def ended(process: int) -> bool:
    """The first thread of a process has; others may remain.

    Of proc_pid_stat(5): the state follows the name, which may hold any character.

    Raises:
        OSError: all of it is gone, or hidden from us.
    """
    with open(f"/proc/{process}/stat", "rb") as file:  # noqa: PTH123  # pathlib takes longer than all the rest
        return file.read().rpartition(b") ")[2].startswith((b"Z", b"X"))


def _gone(parent: int) -> bool:
    try:
        return ended(parent)
    except OSError:
        return os.getppid() != parent


if __name__ == "__main__":
    main()
