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
    """What the changes of the transaction under way make stale, and what is on the lists already.

    The first change alone tells where an entry is found, so what changes again and again is appended once. Twice does
    no harm: after a rollback, and in a new process, nothing is known of the lists.
    """

    def __init__(self) -> None:
        self._names: Final = _List(NAMES)
        self._sizes: Final = _List(SIZES)
        self._times: Final = _List(TIMES, "? / 1000000000")
        self._lists: Final = (self._names, self._sizes, self._times)

    def add(self, row: int, old: Row | None, new: Row | None) -> None:
        """The row of this number becomes another, appears, or disappears."""
        if row not in self._names.known:
            name = old.name if old is not None else None
            if name != (new.name if new is not None else None):
                self._names.add(row, name)
        if row not in self._sizes.known:
            size = old.size if old is not None and old.kind == FILE else None
            if size != (new.size if new is not None and new.kind == FILE else None):
                self._sizes.add(row, size)
        if row not in self._times.known:
            time = old.mtime_ns if old is not None and old.kind >= FILE else None
            if time != (new.mtime_ns if new is not None and new.kind >= FILE else None):
                self._times.add(row, time)

    def write(self, db: sqlite3.Connection) -> None:
        """Appends it to the lists."""
        if not is_findable(db):
            self.forget()
            return
        for each in self._lists:
            each.write(db)

    def merge(self, db: sqlite3.Connection) -> None:
        """Brings the first order up to date whose list is long, inside of the caller's transaction."""
        for each in self._lists:
            if each.is_long(db):
                each.merge(db)
                return

    def forget(self) -> None:
        """The lists may hold less than is known here."""
        for each in self._lists:
            each.forget()


class _List:
    """The list of one order.

    Args:
        given: the SQL that makes the value of what `add` is given.

    Attributes:
        known: rows that are on it; of those that an earlier process put there, nothing is known.
    """

    def __init__(self, order: Order, given: str = "?") -> None:
        self.known: Final[set[int]] = set()
        self._order: Final = order
        self._insert: Final = f"INSERT INTO {order.stale} (id, value) VALUES (?, {given})"
        self._new: Final[list[tuple[int, str | int | None]]] = []

    def add(self, row: int, value: str | int | None) -> None:
        self.known.add(row)
        self._new.append((row, value))

    def write(self, db: sqlite3.Connection) -> None:
        db.executemany(self._insert, self._new)
        self._new.clear()

    def is_long(self, db: sqlite3.Connection) -> bool:
        length = db.execute(f"SELECT coalesce(max(seq), 0) FROM {self._order.stale}").fetchone()[0]
        return bool(length >= _LONGEST_LIST)

    def merge(self, db: sqlite3.Connection) -> None:
        order = self._order
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
        self.forget()

    def forget(self) -> None:
        self.known.clear()
        self._new.clear()
