"""How many downloads at once are of use. Pure; no I/O, no clock."""

from __future__ import annotations

from collections import deque

NEAR = 3
"""Downloads at once where storage answers at once: two for two cores, and one that is between two blocks. In
whichever process they are, they share an interpreter: with 16, they spend more time on handing its lock round than on
blocks of 256 KiB (2.2 against 0.8 s of system time for a GiB, where the same process served readers)."""

REMEMBERED = 64
"""Blocks of which the shortest wait counts: a thread that waits for its turn makes the others look slow."""


class Pace:
    """What is known of how storage answers.

    A download waits, and then there is work to do: to receive, decrypt and decompress. While some wait, others can
    work; so what is of use is as many as fit into one wait, and those that keep the processors busy.

    Args:
        most: downloads at once, whatever is learned.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._waits: deque[float] = deque(maxlen=REMEMBERED)
        self._work = 0.0

    def observe(self, wait: float, work: float) -> None:
        """One block: seconds until the answer began, and seconds of processor time in all."""
        self._waits.append(wait)
        self._work += (work - self._work) / len(self._waits)

    @property
    def useful(self) -> int:
        """Downloads at once that are of use; all that are allowed, while nothing is known."""
        if len(self._waits) < NEAR:
            return self._most
        return min(self._most, NEAR + int(min(self._waits) / max(self._work, 1e-6)))

    @property
    def hands(self) -> int:
        """Of these, as many as should work on one job. Where storage is near it is one: other jobs are under way, and
        each trip to a thread costs as much as several small blocks."""
        return max(1, self.useful // 2)
