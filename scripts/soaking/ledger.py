"""What became of everything that was asked for: what was right, what had to fail, and what was wrong."""

from __future__ import annotations

import errno
import os
import threading
from collections import Counter
from collections.abc import Sequence

from cterafs.direct.landing import UNDIVIDED
from soaking.faults import SEEM_REPLACED, Damage, Span
from soaking.reader import Incident
from soaking.tree import CHANGING

FAILURES = frozenset(
    (errno.EACCES, errno.EIO, errno.ENODATA, errno.ENETRESET, errno.ENOTSUP, errno.ESTALE, errno.ETIMEDOUT)
)
"""What cterafs(7) says that a read can fail with."""

PAGE_FAULT = errno.EFAULT
"""That populating a mapping fails with, whatever the reason."""

READS = frozenset(("read", "direct read", "mmap"))
GONE = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ESTALE))
"""That a program meets where files are replaced and deleted while it looks for them."""

MOST_TOLD = 20
"""Incidents that are described, of all that were wrong."""


class Ledger:
    """Counts what readers tell, and judges their incidents. Thread-safe.

    Args:
        grace: seconds after a fault in which a read may still fail for it.

    Attributes:
        done: operations, by their kind.
        bytes: that were read, and compared.
        expected: errors that faults and changes explain, by their cause and kind.
        unseen: reads of bytes that no check can find to be wrong.
        wrong: everything else, described.
        wrongs: how many there were.
    """

    def __init__(self, spans: Sequence[Span], damages: Sequence[Damage], grace: float) -> None:
        self.done: Counter[str] = Counter()
        self.bytes = 0
        self.expected: Counter[str] = Counter()
        self.unseen = 0
        self.wrong: list[str] = []
        self.wrongs = 0
        self._spans = spans
        self._damages = damages
        self._grace = grace
        self._lock = threading.Lock()

    def count(self, done: dict[str, int], read: int) -> None:
        with self._lock:
            self.done.update(done)
            self.bytes += read

    def complain(self, text: str) -> None:
        """Something is wrong."""
        with self._lock:
            self.wrongs += 1
            if len(self.wrong) < MOST_TOLD:
                self.wrong.append(text)

    def judge(self, incident: Incident) -> None:
        """Explains an incident, or finds it wrong."""
        if incident.kind == "error" and (cause := self._cause(incident)):
            with self._lock:
                self.expected[f"{cause}: {errno.errorcode.get(incident.errno, incident.errno)}"] += 1
        elif incident.kind == "bytes" and self._is_unseen(incident):
            with self._lock:
                self.unseen += 1
        else:
            self.complain(self._described(incident))

    def _cause(self, incident: Incident) -> str | None:
        if incident.errno in GONE and incident.path.startswith(CHANGING):
            return "changes"
        if incident.what == "mmap" and incident.path.startswith(CHANGING) and incident.errno == PAGE_FAULT:
            return "changes"
        spans = self._spans
        if incident.what == "open" and incident.errno == errno.ESTALE:
            # As long as somebody has a file open that seems to be replaced, nobody else can open it.
            spans = [span for span in spans if span.name in SEEM_REPLACED]
        elif incident.what not in READS or incident.errno not in FAILURES | {PAGE_FAULT}:
            return None
        return next((span.name for span in reversed(spans) if self._explains(span, incident)), None)

    def _explains(self, span: Span, incident: Incident) -> bool:
        return span.began < incident.ended and incident.began < span.ended + self._grace

    def _is_unseen(self, incident: Incident) -> bool:
        """A block without a checksum; or a long one that was read before it was all there, by who has the file open
        since."""
        return incident.length > 0 and any(  # damage is never to a file's length
            damage.at < incident.ended and (not damage.checked or self._is_early(incident, damage))
            for damage in self._damages_of(incident)
        )

    def _is_early(self, incident: Incident, damage: Damage) -> bool:
        return damage.stop - damage.start > UNDIVIDED and incident.opened < damage.at + self._grace

    def _damages_of(self, incident: Incident) -> list[Damage]:
        return [
            damage
            for damage in self._damages
            if damage.key == incident.key
            and damage.start < incident.offset + incident.length
            and incident.offset < damage.stop
        ]

    def _described(self, incident: Incident) -> str:
        at = ", ".join(span.name for span in self._spans if self._explains(span, incident)) or "no fault"
        number = f" {os.strerror(incident.errno)}" if incident.errno else ""
        damages = [f"{incident.began - damage.at:.1f} s before" for damage in self._damages_of(incident)]
        return (
            f"{incident.kind}: {incident.what} of {incident.path} (version {incident.key}) at {incident.offset}, "
            f"{incident.length} bytes, {incident.ended - incident.began:.1f} s,{number} during {at}"
            + (f"; damaged {', '.join(damages)}" if damages else "")
        )
