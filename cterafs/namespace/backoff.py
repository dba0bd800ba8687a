"""How long the follower rests after a failure."""

from __future__ import annotations

import random
from typing import Final, NamedTuple

from cterafs.errors import CteraError

_LONGEST: Final = 900.0  # seconds, whatever the portal asks for


class _Pauses(NamedTuple):
    """Seconds: the first, by what factor each is longer than the one before it, and the longest."""

    first: float
    factor: float
    longest: float


_OF_FAILURES: Final = _Pauses(1.0, 2.0, 30.0)
# For what only a person can put right, unless it is a hiccup of the directory behind the portal, which is over soon. A
# portal may lock out who tries often: this is five attempts in half an hour.
_OF_REFUSALS: Final = _Pauses(5.0, 8.0, _LONGEST)


class Backoff:
    """Pauses that are longer each time, never in step with other mounts, and at least as long as the portal asks."""

    def __init__(self) -> None:
        self._pauses = _OF_FAILURES
        self._count = 0

    def succeeded(self) -> None:
        """Begins anew."""
        self._count = 0

    def failed(self, error: OSError, *, refused: bool) -> float:
        """Seconds until the next attempt.

        Args:
            refused: somebody has to do something before it can succeed.
        """
        pauses = _OF_REFUSALS if refused else _OF_FAILURES
        if pauses is not self._pauses:  # it fails in another way now, as a portal that starts again does
            self._pauses, self._count = pauses, 0
        pause = min(pauses.longest, pauses.first * pauses.factor ** min(self._count, 10))
        self._count += 1
        pause *= random.uniform(0.5, 1.0)  # noqa: S311  # nothing is kept secret by it
        asked = error.retry_after if isinstance(error, CteraError) else None
        return max(pause, min(asked or 0.0, _LONGEST))
