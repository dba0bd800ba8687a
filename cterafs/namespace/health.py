"""An index that a crash or a failing disk has damaged: found, set aside, and imported again.

Nothing in the index is lost for good: the portal tells all of it again. So a damaged one is only ever renamed, for
whoever wants to look at it, and an empty one takes its place.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from pathlib import Path
from typing import Final

from cterafs.errors import StateError
from cterafs.namespace import schema
from cterafs.namespace.opening import UnusableIndex, set_aside
from cterafs.namespace.store import Store

log = logging.getLogger(__name__)

_FINDINGS: Final = 10  # of one check: the first ones tell as much as all
_LONGEST: Final = 300  # characters of one in a log


def open_or_rebuild(directory: Path) -> Store:
    """Opens the index in a state directory; one that is damaged is set aside with a warning, and a new one made.

    Raises:
        StateError: it cannot be used, and importing again would not help; the message says what to do.
    """
    try:
        return Store.open(directory)
    except UnusableIndex as error:
        aside = set_aside(directory)
        log.warning("%s; it is kept as %s, and the namespace is imported again", error, aside)
    return Store.open(directory)


def verify(store: Store) -> list[str]:
    """Reads all of the index and says what is wrong with it; nothing, if the store is closed meanwhile.

    For a thread, after a crash (`Store.crashed`): it takes a minute for ten million entries. What it finds is logged,
    and the next `open_or_rebuild` sets the index aside.
    """
    try:
        with store.held() as db:
            rows = db.execute(f"PRAGMA integrity_check({_FINDINGS})").fetchall()
        findings = [" ".join(str(text).split())[:_LONGEST] for (text,) in rows if text != "ok"]
    except (StateError, sqlite3.Error) as error:
        if store.closed:
            return []
        findings = [str(error)]
    if findings:
        log.error("%s is damaged (%s); the next mount imports the namespace again", store.database, findings[0])
        with contextlib.suppress(StateError, sqlite3.Error), contextlib.closing(store.writer()) as db:
            db.execute(f"UPDATE state SET open = {schema.DAMAGED}")  # too damaged for that, it is found when opened
    return findings
