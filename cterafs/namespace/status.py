"""How the feed does: what `cterafs status` tells of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

FeedState = Literal["importing", "catching-up", "live", "offline"]


@dataclass(frozen=True, slots=True)
class FeedStatus:
    """A snapshot. All times are seconds since 1970 UTC, by the wall clock.

    Attributes:
        state: `importing` until the first listing is complete; `catching-up` while more is known to come, or while the
            namespace is listed again; `live` while the portal has nothing more; `offline` while it cannot be asked,
            or the index cannot be written.
        since: when this state began.
        reason: one line that says why it is offline; None otherwise.
        last_event_at: when an event was last applied.
        last_contact_at: when the portal last answered.
        current_at: when all that the portal had to tell had last been applied.
        entries_seen: events taken from the portal since the start, repeated ones included: for a progress bar.
        entries_skipped: those that could not be understood.
        patience: seconds within which a portal that is there answers a long poll.
    """

    state: FeedState
    since: float
    reason: str | None
    last_event_at: float | None
    last_contact_at: float | None
    current_at: float | None
    entries_seen: int
    entries_skipped: int
    patience: float = math.inf

    def lag(self, now: float) -> float | None:
        """Seconds for which changes may have been missed so far; None where the tree was never complete.

        While it is live, none; unless the portal has been silent for longer than a long poll takes.
        """
        if self.state == "live" and now - (self.last_contact_at or self.since) <= self.patience:
            return 0.0
        return None if self.current_at is None else round(max(0.0, now - self.current_at), 3)
