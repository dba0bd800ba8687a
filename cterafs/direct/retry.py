"""When to make a request again, and when to give up."""

from __future__ import annotations

import random

import anyio

from cterafs import errors

ATTEMPTS = 5
"""At most. The pauses between them take some 3 s: a restarted server is back, a corrupt block has had its chances."""
TRIES = 3
"""Attempts that a request which hangs shall have within the timeout."""
FIRST_PAUSE = 0.25
LONGEST_PAUSE = 8.0


class Patience:
    """One request's attempts: a deadline that moves on with progress, and pauses that double between them.

    Up to half of each pause is random, so that readers who failed together do not come back together.
    """

    def __init__(self, timeout: float) -> None:
        """`timeout`: seconds without progress until the request has failed, over all attempts."""
        self.failures = 0
        self._timeout = timeout
        self._deadline = anyio.current_time() + timeout

    def left(self) -> float:
        """Seconds until the deadline; never none at all, which sockets take for something else."""
        return max(0.001, self._deadline - anyio.current_time())

    def progressed(self, ago: float) -> None:
        """Some bytes came, `ago` seconds before now."""
        self._deadline = max(self._deadline, anyio.current_time() - ago + self._timeout)

    async def after(self, error: errors.CteraError) -> None:
        """Waits until the next attempt is due, or raises `error` if there is none."""
        self.failures += 1
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (self.failures - 1)) * random.uniform(0.5, 1)  # noqa: S311
        pause = max(pause, error.retry_after or 0)
        if not error.retryable or self.failures >= ATTEMPTS or pause >= self.left():
            raise error
        await anyio.sleep(pause)


def retry_after(value: str | None) -> float | None:
    """`Retry-After` in seconds; its other form, a date, is not worth trusting two clocks."""
    return float(value) if value and value.isascii() and value.isdigit() and len(value) < 7 else None
