"""What serves `find`: entries in the order of their names, sizes and times. These orders follow the changes later.

Kept up with each change they would cost as much as all the rest of it: a new size leaves one page and comes to
another, and so does a new time, in orders in which what changes together lies nowhere near each other. So a change only
appends to a list of what is stale by now: under which value an entry is still found. A search leaves these entries out
and looks at their rows instead. When a list is long, `merge` brings its order up to date in one go, page after page.

They are tables and not indexes, since SQLite keeps indexes up by itself.
"""

from __future__ import annotations

import sqlite3
from typing import Final, NamedTuple

from cterafs.namespace.rows import Row
from cterafs.namespace.schema import FILE, FINDABLE, statements

_LONGEST_LIST: Final = 20_000  # changes: a search looks at that many rows in 30 ms, and they are merged in 100 ms


class Order(NamedTuple):
    """One of the tables, the list of what is stale in it, and which rows of `entry` stand where in it."""

    table: str
    stale: str
    value: str
    condition: str


NAMES: Final = Order("find_name", "stale_name", "name", "name IS NOT NULL")
SIZES: Final = Order("find_size", "stale_size", "size", f"kind = {FILE}")
TIMES: Final = Order("find_time", "stale_time", "mtime_ns / 1000000000", f"kind >= {FILE}")
_ORDERS: Final = (NAMES, SIZES, TIMES)


def is_findable(db: sqlite3.Connection) -> bool:
    """The tables are there."""
    sql = f"SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = '{NAMES.table}')"
    return bool(db.execute(sql).fetchone()[0])


def make_findable(db: sqlite3.Connection) -> None:
    """Makes the tables where they are missing, inside of the caller's transaction."""
    if not is_findable(db):
        for statement in statements(FINDABLE):
            db.execute(statement)


def make_unfindable(db: sqlite3.Connection) -> None:
    """Drops the tables, inside of the caller's transaction, which changes all of `entry`."""
    for order in _ORDERS:
        db.execute(f"DROP TABLE IF EXISTS {order.table}")
        db.execute(f"DELETE FROM {order.stale}")


class Stale:
    """What the changes of one transaction make stale."""

    def __init__(self) -> None:
        self._names: Final[list[tuple[int, str | None]]] = []
        self._sizes: Final[list[tuple[int, int | None]]] = []
        self._times: Final[list[tuple[int, int | None]]] = []

    def add(self, row: int, old: Row | None, new: Row | None) -> None:
        """The row of this number becomes another, appears, or disappears."""
        name = old.name if old is not None else None
        if name != (new.name if new is not None else None):
            self._names.append((row, name))
        size = old.size if old is not None and old.kind == FILE else None
        if size != (new.size if new is not None and new.kind == FILE else None):
            self._sizes.append((row, size))
        time = old.mtime_ns if old is not None and old.shown else None
        if time != (new.mtime_ns if new is not None and new.shown else None):
            self._times.append((row, time))

    def write(self, db: sqlite3.Connection) -> None:
        """Appends it to the lists."""
        db.executemany(f"INSERT INTO {NAMES.stale} (id, value) VALUES (?, ?)", self._names)
        db.executemany(f"INSERT INTO {SIZES.stale} (id, value) VALUES (?, ?)", self._sizes)
        db.executemany(f"INSERT INTO {TIMES.stale} (id, value) VALUES (?, ? / 1000000000)", self._times)


def merge(db: sqlite3.Connection) -> None:
    """Brings the first order up to date whose list is long, inside of the caller's transaction."""
    order = next((each for each in _ORDERS if _length(db, each) >= _LONGEST_LIST), None)
    if order is None:
        return
    # With min(), SQLite takes the other columns of the same row: the first change tells where the entry is found.
    db.execute(
        f"DELETE FROM {order.table} WHERE (value, id) IN (SELECT value, id FROM"
        f" (SELECT value, id, min(seq) FROM {order.stale} GROUP BY id) WHERE value IS NOT NULL)"
    )
    db.execute(
        f"INSERT INTO {order.table} SELECT {order.value}, id FROM entry"
        f" WHERE id IN (SELECT id FROM {order.stale}) AND {order.condition} ORDER BY 1, 2"
    )
    db.execute(f"DELETE FROM {order.stale}")


def _length(db: sqlite3.Connection, order: Order) -> int:
    return int(db.execute(f"SELECT coalesce(max(seq), 0) FROM {order.stale}").fetchone()[0])
