"""What to find, as SQL: conditions on `entry`, and which index serves them."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass
from typing import Final, Literal

from cterafs.errors import ConfigError
from cterafs.model import ROOT_INODE
from cterafs.namespace import schema
from cterafs.namespace.disk import PULSE
from cterafs.namespace.findable import NAMES, SIZES, TIMES, Order, is_findable
from cterafs.namespace.guid import guid_text

_PATTERN_LIMIT: Final = 4096  # characters; a name has 255 bytes at most
_TEXT_LIMIT: Final = 16 << 20  # bytes in one value of an expression: it cannot exhaust memory
_INT64: Final = 1 << 63
_SECOND: Final = 1_000_000_000
_FEW: Final = 10_000  # matches in an index: up to here, looking at each is quicker than anything else
_SURROGATES: Final = re.compile("[\ud800-\udfff]")
_WILDCARD: Final = re.compile(r"[*?[]")
_COMPARISONS: Final = {"+": ">", "-": "<", "=": "="}
_READABLE: Final = frozenset({"entry", "acl"} | {table for order in (NAMES, SIZES, TIMES) for table in order[:2]})
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
    {schema.INODE} AS inode
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


class Plan:
    """A query as SQL.

    Attributes:
        parameters: for every statement below.
        selective: few of all objects match, as far as one can tell.
    """

    def __init__(self, query: Query) -> None:
        self.parameters: Final[dict[str, object]] = {}
        self.selective: Final = any((query.name, query.size, query.newer_ns is not None, query.where))
        self._conditions: Final = [f"entry.kind >= {schema.FILE}", f"entry.id <> {ROOT_INODE}"]
        self._served: Final[dict[Order, str]] = {}  # what can serve, and the condition on its values
        if query.name is not None:
            self._add_name(query.name)
        if query.size is not None:
            sign, size = query.size
            self.parameters["size"] = _in_range(size)
            compared = f"{_COMPARISONS[sign]} :size"
            self._add(f"entry.kind = {schema.FILE} AND entry.size {compared}")
            self._served[SIZES] = f"value {compared}"
        if query.newer_ns is not None:
            self.parameters["newer"] = _in_range(query.newer_ns)
            self._add("entry.mtime_ns > :newer")
            self._served[TIMES] = f"value >= :newer / {_SECOND}"
        if query.kind is not None:
            self._add(f"entry.kind {'=' if query.kind == 'f' else '>'} {schema.FILE}")
        if query.where is not None:
            if _SURROGATES.search(query.where):
                raise ConfigError("the expression is not accepted: it is not valid UTF-8")
            self._add(_EXPRESSION % query.where)

    def select(self, columns: str, *, parent: bool = False) -> str:
        """The statement for what matches; with `parent`, for what lies in the directory `:parent`."""
        inside = ["entry.parent = :parent"] if parent else []
        hint = "" if parent else "NOT INDEXED"
        return f"SELECT {columns} FROM entry {hint} WHERE {' AND '.join(inside + self._conditions)}"

    def served(self, columns: str, order: Order) -> tuple[str, str]:
        """The same by an order that can serve, in two statements: what it tells, and what is stale in it."""
        conditions = " AND ".join(self._conditions)
        stale = f"SELECT id FROM {order.stale}"
        return (
            f"SELECT {columns} FROM {order.table} AS found CROSS JOIN entry USING (id)"
            f" WHERE {self._served[order]} AND found.id NOT IN ({stale}) AND {conditions}",
            f"SELECT {columns} FROM entry WHERE id IN ({stale}) AND {conditions}",
        )

    def best_order(self, db: sqlite3.Connection) -> tuple[Order | None, bool]:
        """The order with the fewest matches, and whether they are few; None where none can serve.

        SQLite would have to be told how the values are distributed; counting up to some thousand tells of these values.
        """
        if not is_findable(db):
            return None, False
        counts: dict[Order, int] = {}
        for order, condition in self._served.items():
            some = f"SELECT 1 FROM {order.table} WHERE {condition} LIMIT {_FEW}"
            counts[order] = db.execute(f"SELECT count(*) FROM ({some})", self.parameters).fetchone()[0]
        if not counts:
            return None, False
        order = min(counts, key=lambda each: counts[each])
        return order, counts[order] < _FEW

    def _add(self, condition: str) -> None:
        self._conditions.append(condition)

    def _add_name(self, pattern: str) -> None:
        if len(pattern) > _PATTERN_LIMIT:
            raise ConfigError(f"the name pattern is longer than {_PATTERN_LIMIT} characters")
        pattern = _SURROGATES.sub("\x01", pattern)  # no shown name has either
        prefix = _WILDCARD.split(pattern, maxsplit=1)[0]
        self.parameters["name"] = _glob(pattern)
        if not prefix:
            self._add("entry.name GLOB :name")
            return
        self.parameters["low"] = prefix
        self.parameters["high"] = _behind(prefix)
        self._add("entry.name >= :low AND entry.name < :high AND entry.name GLOB :name")
        self._served[NAMES] = "value >= :low AND value < :high"


def restrict(db: sqlite3.Connection) -> None:
    """Whatever an expression says, it reads the index and nothing else, and can be interrupted."""
    db.create_function("guid_text", 1, _guid_text, deterministic=True)
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _TEXT_LIMIT)
    db.set_progress_handler(lambda: 0, PULSE)  # lets Python see its signals
    db.set_authorizer(_authorize)


def _in_range(number: int) -> int:
    if not -_INT64 <= number < _INT64:
        raise ConfigError(f"{number} does not fit into 64 bits")
    return number


def _glob(pattern: str) -> str:
    """A shell pattern in SQLite's notation: negation is `[^`, and a bracket that is never closed stands for itself."""
    out, rest = "", pattern
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


def _behind(prefix: str) -> str:
    """The least text behind all that begin with `prefix`, in the order of UTF-8, which is that of code points."""
    last = ord(prefix[-1]) + 1
    if last > 0x10FFFF:
        return _behind(prefix[:-1]) if len(prefix) > 1 else "\U0010ffff" * 64  # a name has 63 such characters at most
    return prefix[:-1] + chr(0xE000 if last == 0xD800 else last)


def _authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    if action in _HARMLESS:
        return sqlite3.SQLITE_OK
    readable = action == sqlite3.SQLITE_READ and (not first or first in _READABLE)
    return sqlite3.SQLITE_OK if readable else sqlite3.SQLITE_DENY


def _guid_text(key: bytes | None) -> str | None:
    return None if key is None else guid_text(key).encode("utf-8", "replace").decode()
