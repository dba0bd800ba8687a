"""Finding objects in the index: by name, kind, size, time, or any SQL expression.

Results are streamed, in no particular order, from one read transaction: a search sees the tree as it was when it began.
What cannot be reached from the mount's root is left out. Memory does not grow with the number of results.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from cachetools import LRUCache

from cterafs.errors import ConfigError, NotFound, StateError
from cterafs.model import ROOT_INODE, Node
from cterafs.namespace import schema
from cterafs.namespace.guid import guid_text
from cterafs.namespace.rows import COLUMNS, Acls, Row, node
from cterafs.namespace.store import Store

__all__ = ["Found", "Query", "search"]

_DIRECTORIES_KEPT: Final = 50_000  # paths in memory: some 10 MB; objects of one directory mostly come together
_DEPTH_LIMIT: Final = 4096  # directories above an object; no path can name more
_PATTERN_LIMIT: Final = 4096  # characters; a name has 255 bytes at most
_TEXT_LIMIT: Final = 16 << 20  # bytes in one value of an expression: it cannot exhaust memory
_INT64: Final = 1 << 63
_PULSE: Final = 200_000  # steps of SQLite's machine between two looks at signals: some milliseconds
_SURROGATES: Final = re.compile("[\ud800-\udfff]")
_COMPARISONS: Final = {"+": ">", "-": "<", "=": "="}
_DISK: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOTADB})
_READABLE: Final = frozenset({"entry", "acl"})
_HARMLESS: Final = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_FUNCTION})

# What `where` may name. The innermost names win over the columns of `entry`.
_EXPRESSION: Final = f"""EXISTS (SELECT 1 FROM (SELECT
    entry.name AS name,
    CASE WHEN entry.kind >= {schema.DIRECTORY} THEN 'd' ELSE 'f' END AS kind,
    entry.size AS size,
    entry.mtime_ns / 1000000000 AS mtime,
    entry.ctime_ns / 1000000000 AS ctime,
    entry.mtime_ns AS mtime_ns,
    entry.ctime_ns AS ctime_ns,
    entry.file_id AS id,
    guid_text(entry.guid) AS guid,
    entry.folder_id AS folder_id,
    entry.gvsn AS gvsn,
    (SELECT sddl FROM acl WHERE acl.id = entry.acl) AS acl,
    entry.inode AS inode
) WHERE (%s
))"""


@dataclass(frozen=True, slots=True)
class Query:
    """What to find; every condition that is given must hold.

    Attributes:
        under: a path below the mount's root. What it names is found too if it matches, the mount's root is not.
        name: a shell pattern for the shown name: `*`, `?`, `[a-z]`, `[!a-z]`.
        kind: files or directories only.
        size: bytes: ("+", n) more than n, ("-", n) fewer, ("=", n) exactly; of files only.
        newer_ns: the file's own time is later; nanoseconds since 1970 UTC.
        where: an SQLite expression over name, kind ('f' or 'd'), size, mtime and ctime (seconds since 1970 UTC),
            mtime_ns, ctime_ns, id, guid, folder_id, gvsn, acl, inode.
    """

    under: str = "/"
    name: str | None = None
    kind: Literal["f", "d"] | None = None
    size: tuple[str, int] | None = None
    newer_ns: int | None = None
    where: str | None = None


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
    conditions, parameters = _conditions(query)
    with store.held() as db, _explained(store, query):
        under = _start(store, query.under)
        _restrict(db)
        paths = _Paths(db, Acls())
        statement = f"SELECT {COLUMNS} FROM entry WHERE {' AND '.join(conditions)}"
        for values in db.execute(statement, parameters):
            row = Row(*values)
            path = paths.of(row)
            if path is not None and (path == under or path.startswith(under + "/")):
                yield Found(path, paths.node(row))


def _start(store: Store, path: str) -> str:
    """`path` as the paths of results begin; empty for the mount's root."""
    start = store.resolve(path)
    above = None if start is None else store.path(start.inode)
    if above is None:
        raise NotFound(f"no such path in the index: {path!r}")
    return "" if above == "/" else above


def _conditions(query: Query) -> tuple[list[str], dict[str, object]]:
    conditions = [f"entry.kind >= {schema.FILE}", f"entry.inode <> {ROOT_INODE}"]
    parameters: dict[str, object] = {}
    if query.name is not None:
        if len(query.name) > _PATTERN_LIMIT:
            raise ConfigError(f"the name pattern is longer than {_PATTERN_LIMIT} characters")
        conditions.append("entry.name GLOB :name")
        parameters["name"] = _glob(query.name)
    if query.kind is not None:
        conditions.append(f"entry.kind {'=' if query.kind == 'f' else '>'} {schema.FILE}")
    if query.size is not None:
        sign, size = query.size
        conditions.append(f"entry.kind = {schema.FILE} AND entry.size {_COMPARISONS[sign]} :size")
        parameters["size"] = _in_range(size)
    if query.newer_ns is not None:
        conditions.append("entry.mtime_ns > :newer")
        parameters["newer"] = _in_range(query.newer_ns)
    if query.where is not None:
        if _SURROGATES.search(query.where):
            raise ConfigError("the expression is not accepted: it is not valid UTF-8")
        conditions.append(_EXPRESSION % query.where)
    return conditions, parameters


def _in_range(number: int) -> int:
    if not -_INT64 <= number < _INT64:
        raise ConfigError(f"{number} does not fit into 64 bits")
    return number


def _glob(pattern: str) -> str:
    """A shell pattern in SQLite's notation: negation is `[^`, and a bracket that is never closed stands for itself."""
    out, rest = "", _SURROGATES.sub("\x01", pattern)  # no shown name has either
    while rest:
        first, rest = rest[0], rest[1:]
        if first == "[":
            negated = rest[:1] in {"!", "^"}
            end = rest.find("]", 2 if negated else 1)
            if end < 0:
                out += "[[]"
                continue
            out += "[" + ("^" + rest[1:end] if negated else rest[:end]) + "]"
            rest = rest[end + 1 :]
        else:
            out += first
    return out


def _restrict(db: sqlite3.Connection) -> None:
    """Whatever an expression says, it reads the index and nothing else, and can be interrupted."""
    db.create_function("guid_text", 1, _guid_text, deterministic=True)
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _TEXT_LIMIT)
    db.set_progress_handler(lambda: 0, _PULSE)  # lets Python see its signals
    db.set_authorizer(_authorize)


def _authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    if action in _HARMLESS:
        return sqlite3.SQLITE_OK
    readable = action == sqlite3.SQLITE_READ and (not first or first in _READABLE)
    return sqlite3.SQLITE_OK if readable else sqlite3.SQLITE_DENY


def _guid_text(key: bytes | None) -> str | None:
    return None if key is None else guid_text(key).encode("utf-8", "replace").decode()


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
        if query.where is not None and code not in {
            sqlite3.SQLITE_CORRUPT,
            sqlite3.SQLITE_IOERR,
            sqlite3.SQLITE_NOTADB,
        }:
            raise ConfigError(f"the expression is not accepted: {error}") from error
        raise


class _Paths:
    """Where the objects of a search are; the paths of directories are remembered."""

    def __init__(self, db: sqlite3.Connection, acls: Acls) -> None:
        self._db: Final = db
        self._acls: Final = acls
        self._known: Final[LRUCache[int, str | None]] = LRUCache(_DIRECTORIES_KEPT)

    def of(self, row: Row) -> str | None:
        above = self._directory(row.parent)
        return None if above is None else f"{above}/{row.name}"

    def node(self, row: Row) -> Node:
        return node(row, self._acls.text(self._db, row.acl))

    def _directory(self, inode: int | None) -> str | None:
        """The path of a directory; None where it cannot be reached."""
        below: list[tuple[int, str]] = []
        path: str | None = None
        while inode is not None and len(below) < _DEPTH_LIMIT:
            if inode == ROOT_INODE:
                path = ""
                break
            if inode in self._known:
                path = self._known[inode]
                break
            step = self._db.execute(
                f"SELECT parent, name FROM entry WHERE inode = ? AND kind >= {schema.DIRECTORY}", (inode,)
            ).fetchone()
            below.append((inode, step[1] if step else ""))
            inode = step[0] if step else None
        for number, name in reversed(below):
            path = None if path is None else f"{path}/{name}"
            self._known[number] = path
        return path
