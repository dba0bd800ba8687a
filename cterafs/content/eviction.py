"""Which blocks leave the disk: S3-FIFO, in SQL.

New blocks wait in a queue of their own. Those that are asked for again before they reach its end move on to the queue
of proven ones, the others leave; so one large scan passes through without displacing what is in use. Blocks whose
digest left the first queue not long ago are proven when they come back. A hit only counts one up, so it can be written
down later, many at once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

NEW, PROVEN = 0, 1

NEW_SHARE = 10
"""The queue of new blocks may always have this part of the limit; beyond that it is the first to give way."""

MOST_HITS = 3
"""Times that a proven block is passed over, at most: what was in use once must leave at some time."""

AT_ONCE = 32
"""Blocks looked at per query."""


def enter(db: sqlite3.Connection, digest: bytes, cost: int, *, proven: bool) -> int:
    """Adds a block that the index does not have, at the end of its queue; the answer is its number."""
    ghost = db.execute("DELETE FROM ghosts WHERE digest = ?", (digest,)).rowcount
    queue = PROVEN if proven or ghost else NEW
    row = db.execute(
        "INSERT INTO blocks (digest, cost, queue, turn) VALUES (?, ?, ?, ?)",
        (digest, cost, queue, _last_turn(db, queue) + 1),
    )
    return row.lastrowid or 0


def touch(db: sqlite3.Connection, digests: Iterable[bytes]) -> None:
    """These blocks were asked for."""
    db.executemany(
        "UPDATE blocks SET hits = min(hits + 1, ?) WHERE digest = ?", ((MOST_HITS, digest) for digest in digests)
    )


def used(db: sqlite3.Connection) -> int:
    """Bytes of disk that all blocks take."""
    return sum(_totals(db))


def make_room(db: sqlite3.Connection, need: int, limit: int) -> list[bytes]:
    """Drops blocks until `need` more bytes fit into `limit`, or none is left; the answer are their digests."""
    gone: list[bytes] = []
    while True:
        new, proven = _totals(db)
        if new + proven + need <= limit or not new + proven:
            break
        queue = NEW if new * NEW_SHARE > limit or not proven else PROVEN
        excess = new + proven + need - limit
        oldest = _oldest(db, queue)
        if not oldest:
            recount(db)  # damage to the index: the loop would never end
        for number, digest, cost, hits in oldest:
            if hits:
                turn = _last_turn(db, PROVEN) + 1
                left = 0 if queue == NEW else hits - 1
                db.execute("UPDATE blocks SET queue = ?, turn = ?, hits = ? WHERE id = ?", (PROVEN, turn, left, number))
                continue
            drop(db, number)
            if queue == NEW:
                db.execute("INSERT OR REPLACE INTO ghosts (digest) VALUES (?)", (digest,))
            gone.append(digest)
            excess -= cost
            if excess <= 0:
                break
    if gone:
        _forget_ghosts(db)
    return gone


def drop(db: sqlite3.Connection, number: int) -> None:
    """Removes a block, and what leads to it."""
    db.execute("DELETE FROM places WHERE block = ?", (number,))
    db.execute("DELETE FROM blocks WHERE id = ?", (number,))


def recount(db: sqlite3.Connection) -> None:
    """Counts anew what is there: the disk may have damaged the totals."""
    db.execute("DELETE FROM totals")
    for queue in (NEW, PROVEN):
        db.execute(
            "INSERT INTO totals SELECT ?, coalesce(sum(cost), 0), count(*) FROM blocks WHERE queue = ?", (queue, queue)
        )


def _totals(db: sqlite3.Connection) -> tuple[int, int]:
    totals = dict(db.execute("SELECT queue, bytes FROM totals"))
    return totals.get(NEW, 0), totals.get(PROVEN, 0)


def _oldest(db: sqlite3.Connection, queue: int) -> list[tuple[int, bytes, int, int]]:
    return db.execute(
        "SELECT id, digest, cost, hits FROM blocks WHERE queue = ? ORDER BY turn LIMIT ?", (queue, AT_ONCE)
    ).fetchall()


def _last_turn(db: sqlite3.Connection, queue: int) -> int:
    (turn,) = db.execute("SELECT coalesce(max(turn), 0) FROM blocks WHERE queue = ?", (queue,)).fetchone()
    return int(turn)


def _forget_ghosts(db: sqlite3.Connection) -> None:
    """As many are remembered as there are blocks."""
    (blocks,) = db.execute("SELECT sum(blocks) FROM totals").fetchone()
    db.execute(
        "DELETE FROM ghosts WHERE turn <= (SELECT turn FROM ghosts ORDER BY turn DESC LIMIT 1 OFFSET ?)", (blocks,)
    )
