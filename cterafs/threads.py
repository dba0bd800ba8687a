"""Worker threads where the system may refuse to start one: a limit of processes, or of memory, is reached."""

from __future__ import annotations

import errno
import math
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from cterafs.errors import StateError

T = TypeVar("T")

REFUSED = "can't start new thread"
"""What CPython says of it, in a `RuntimeError` like many others."""

PAUSE = 0.1
"""Seconds until it is tried again: threads of our own that have nothing to do are used first, so one may be free."""


class OutOfThreads(StateError):
    """No thread could be started for too long."""

    code = errno.EAGAIN


async def patiently(start: Callable[[], Awaitable[T]], patience: float = math.inf) -> T:
    """What `start` gives, which needs a thread; it is called again while there is none to be had.

    Args:
        patience: seconds for which it is called again.

    Raises:
        OutOfThreads: that long.
    """
    deadline = anyio.current_time() + patience
    while True:
        try:
            return await start()
        except RuntimeError as error:
            if str(error) != REFUSED:
                raise
        if anyio.current_time() >= deadline:
            raise OutOfThreads("the system lets no thread be started; raise its limits of processes and memory")
        await anyio.sleep(PAUSE)
