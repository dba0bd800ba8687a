"""Finding objects in the index: by name, kind, size, time, or any SQL expression.

Results are streamed, in no particular order, from one read transaction: a search sees the tree as it was when it began.
What cannot be reached from the mount's root is left out. Memory does not grow with the number of results.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from cachetools import LRUCache

from cterafs.errors import ConfigError, NotFound, StateError
from cterafs.model import ROOT_INODE, Node
from cterafs.namespace import schema
from cterafs.namespace.findable import Order
from cterafs.namespace.predicates import Plan, Query, restrict
from cterafs.namespace.rows import COLUMNS, Acls, Row, node, read
from cterafs.namespace.store import Store

__all__ = ["Found", "Query", "search"]

_PATHS_KEPT: Final = 16 << 20  # bytes: those of 60,000 directories of a usual depth
_PATH_OVERHEAD: Final = 200  # bytes, beside its characters
_DEPTH_LIMIT: Final = 4096  # directories above an object; no path can name more
_DISK: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOTADB})

_STEP_DOWN: Final = (
    f"SELECT id FROM entry WHERE parent = ?1 AND name = ?2 AND kind >= {schema.FILE}"
    f" AND EXISTS (SELECT 1 FROM entry AS up WHERE up.id = ?1 AND up.kind >= {schema.DIRECTORY})"
)
_STEP_UP: Final = f"SELECT parent, name FROM entry WHERE id = ? AND kind >= {schema.DIRECTORY}"
_DIRECTORIES: Final = f"SELECT id FROM entry WHERE parent = ? AND kind >= {schema.DIRECTORY} AND id <> {ROOT_INODE}"


@dataclass(frozen=True, slots=True)
class Found:
    """An object, and its path below the mount's root with a leading slash."""

    path: str
    node: Node


def search(store: Store, query: Query) -> Iterator[Found]:
    """Finds objects; closing the iterator, or the store, ends the search.

    Raises:
        ConfigError: `where` is not an expression over these columns, or a value is out of range.
        NotFound: nothing has the path `under`.
        StateError: the index cannot be read, or was closed.
    """
    plan = Plan(query)
    with store.held() as db, _explained(store, query):
        paths = _Paths(db)
        start, under = paths.resolve(query.under)
        order, few = plan.best_order(db)
        restrict(db)
        acls = Acls()
        # Where most objects match, they come quickest with those of their directory, whose path is made once.
        walk = not plan.selective or (start != ROOT_INODE and not few)
        rows = _walk(db, plan, start) if walk else _scan(db, plan, order)
        for row in rows:
            path = paths.of(row)
            if path is not None and (path == under or path.startswith(under + "/")):
                yield Found(path, node(row, acls.text(db, row.acl)))


def _scan(db: sqlite3.Connection, plan: Plan, order: Order | None) -> Iterator[Row]:
    for statement in (plan.select(COLUMNS),) if order is None else plan.served(COLUMNS, order):
        for values in db.execute(statement, plan.parameters):
            yield read(values)


def _walk(db: sqlite3.Connection, plan: Plan, start: int) -> Iterator[Row]:
    """What matches at and below an object, directory by directory: a part of the tree is less than all of an index."""
    itself = plan.select(COLUMNS) + " AND entry.id = :start"
    for values in db.execute(itself, {**plan.parameters, "start": start}):
        yield read(values)
    inside = plan.select(COLUMNS, parent=True)
    depth = [iter([(start,)])]
    while depth:
        directory = next(depth[-1], None)
        if directory is None:
            depth.pop()
            continue
        for values in db.execute(inside, {**plan.parameters, "parent": directory[0]}):
            yield read(values)
        if len(depth) < _DEPTH_LIMIT:
            depth.append(db.execute(_DIRECTORIES, directory))


@contextlib.contextmanager
def _explained(store: Store, query: Query) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code == sqlite3.SQLITE_INTERRUPT:
            if store.closed:
                raise StateError(f"{store.database} is closed") from error
            raise KeyboardInterrupt from error  # it was raised in the progress handler, which cannot let it through
        if query.where is not None and code not in _DISK:
            raise ConfigError(f"the expression is not accepted: {error}") from error
        raise


class _Paths:
    """Where the objects of a search are; the paths of directories are remembered."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db: Final = db
        self._known: Final[LRUCache[int, str | None]] = LRUCache(
            _PATHS_KEPT, getsizeof=lambda path: _PATH_OVERHEAD + len(path or ())
        )

    def resolve(self, path: str) -> tuple[int, str]:
        """The row that a path names, and the path as those of results begin: the mount's root is empty.

        Raises:
            NotFound: nothing has this path.
        """
        names = [name for name in path.split("/") if name not in {"", "."}]
        row_id: int = ROOT_INODE
        for name in names:
            try:
                row = self._db.execute(_STEP_DOWN, (row_id, name)).fetchone()
            except UnicodeEncodeError:  # no shown name has lone surrogates
                row = None
            if row is None:
                raise NotFound(f"no such path in the index: {path!r}")
            row_id = row[0]
        return row_id, "".join(f"/{name}" for name in names)

    def of(self, row: Row) -> str | None:
        above = self._directory(row.parent)
        return None if above is None else f"{above}/{row.name}"

    def _directory(self, row_id: int | None) -> str | None:
        """The path of a directory; None where it cannot be reached."""
        below: list[tuple[int, str]] = []
        path: str | None = None
        while row_id is not None and len(below) < _DEPTH_LIMIT:
            if row_id == ROOT_INODE:
                path = ""
                break
            if row_id in self._known:
                path = self._known[row_id]
                break
            step = self._db.execute(_STEP_UP, (row_id,)).fetchone()
            below.append((row_id, step[1] if step else ""))
            row_id = step[0] if step else None
        for number, name in reversed(below):
            path = None if path is None else f"{path}/{name}"
            self._known[number] = path
        return path
