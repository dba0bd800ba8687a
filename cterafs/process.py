"""What is set for a whole process: what it is tuned to, and that nobody looks into it."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import sys

log = logging.getLogger(__name__)

SWITCH_INTERVAL = 0.001
"""Seconds that a thread may keep the interpreter when another one wants it. With Python's 5 ms, a page of events that
is being applied delays a read by up to 17 ms, with 1 ms by up to 6."""

GARBAGE = 10_000
"""Objects that may be made until cycles are looked for: with Python's 700, that is 3 % of the time of a fast read."""

# Of mallopt(3). Blocks come and go all the time; by default, the C library maps new memory for each of them and gives
# it back, or spreads them over the heaps of many threads. To write into memory that was used before is twice as fast
# (12,700 instead of 5,600 MiB/s with blocks of 4 MiB in 4 threads), and one heap grows less than many.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
LARGEST_ON_HEAP = 32 << 20  # the most that the C library allows
KEPT_FREE = 64 << 20


PR_SET_DUMPABLE = 4  # <linux/prctl.h>


def conceal() -> None:
    """From now on this process leaves no core file, and no other process of the same user can read its memory or its
    first environment, or trace it; nor those that it forks. Root can.

    A limit on core files (RLIMIT_CORE) would not do: the kernel does not heed one of 0 where it pipes them to a program
    (core(5)), which then keeps them on the disk.
    """
    try:
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    except (OSError, AttributeError):
        log.warning("this C library has no prctl: a crash may leave a core file with secrets in it")


def tune() -> None:
    """Makes threads wait for each other less, and memory be used again."""
    sys.setswitchinterval(SWITCH_INTERVAL)
    gc.freeze()  # what was imported stays
    gc.set_threshold(GARBAGE)
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        log.debug("this C library has no mallopt")
        return
    mallopt(M_ARENA_MAX, 1)
    mallopt(M_MMAP_THRESHOLD, LARGEST_ON_HEAP)
    mallopt(M_TRIM_THRESHOLD, KEPT_FREE)


def stand_back() -> None:
    """Threads that this one starts from now on, and itself, do not interrupt others when they wake up: that is left to
    who waits for an answer. A cold read of blocks of 256 KiB is 1.07 times as fast if those who download do so."""
    try:
        if os.sched_getscheduler(0) == os.SCHED_OTHER:  # and nobody has chosen something else for us
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError as error:
        log.debug("this process may not choose how it is scheduled: %s", error)
