"""The process that ends a mount's connection to the kernel if the mount's own process is killed.

It is started by its file, with no packages to look for, so that it takes 4 MiB of its own and 10 ms: it imports nothing
of ours.
"""

from __future__ import annotations

import contextlib
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
    libc.prctl(PR_SET_PDEATHSIG, KILLED, 0, 0, 0)
    os.write(1, b"1")  # fails if the parent ended before: until it has read this, none of its threads can stay
    while signal.sigwaitinfo((KILLED,)).si_pid != parent:
        pass  # anybody may send it; what the kernel sends is from the parent
    with contextlib.suppress(OSError):  # the connection has ended by itself, as it does if no thread stayed
        os.write(0, b"1")


if __name__ == "__main__":
    main()
