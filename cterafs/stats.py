"""What has happened so far: plain counters, read by `status`.

Counters are only ever added to, on the event loop, so that they need no lock; whoever wants a rate takes two snapshots.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Stats:
    """Counters of one mount since it started.

    Attributes:
        reads: read requests answered, and `read_bytes` their bytes.
        hits: blocks that were in memory when asked for, and `misses` those that were not.
        prefetched: blocks that were asked for before anybody read them.
        downloaded_bytes: plaintext bytes that came from storage, of whole blocks and of parts.
        ranges: parts of blocks that were downloaded without the rest.
        errors: failed operations, by the name of the exception.
    """

    opens: int = 0
    reads: int = 0
    read_bytes: int = 0
    hits: int = 0
    misses: int = 0
    prefetched: int = 0
    downloaded_blocks: int = 0
    downloaded_bytes: int = 0
    ranges: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    def failed(self, error: BaseException) -> None:
        """Counts one failed operation."""
        self.errors[type(error).__name__] += 1
