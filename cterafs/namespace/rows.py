"""A row of `entry` in memory, and what the mount sees of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from cterafs.model import ROOT_INODE, Event, Inode, Node
from cterafs.namespace.guid import guid_text
from cterafs.namespace.schema import CLOUD_FOLDER, DIRECTORY, FILE, INODE, ROWS

Text = str | bytes
"""Text as the database holds it: `bytes` where it has lone surrogates, which SQLite's text cannot have."""

_INT64: Final = 1 << 63
_ACLS_KEPT: Final = 4096  # access lists in memory; a tree has some dozens of them


class Row(msgspec.Struct, gc=False):
    """A row of `entry`; the fields are the columns, in their order, with the inode number for the two that make it."""

    inode: int
    guid: bytes | None
    kind: int
    parent: int | None = None
    name: str | None = None
    want: str | None = None
    wire: Text | None = None
    folder_id: int | None = None
    file_id: int | None = None
    size: int = 0
    gvsn: Text | None = None
    acl: int | None = None
    mtime_ns: int = 0
    ctime_ns: int = 0

    @property
    def id(self) -> int:
        return self.inode & ROWS

    @property
    def shown(self) -> bool:
        return self.kind >= FILE

    @property
    def is_directory(self) -> bool:
        return self.kind >= DIRECTORY

    @property
    def wanted(self) -> str:
        """The name that it has, or would have if a smaller guid did not have it."""
        return self.want if self.want is not None else self.name or ""


COLUMNS: Final = ", ".join([INODE, *(f"entry.{field}" for field in Row.__struct_fields__[1:])])
MARKS: Final = tuple("nullif(?, 0)" if field in {"want", "wire", "acl"} else "?" for field in Row.__struct_fields__)
"""For each column, the SQL that takes its value from `parameters`."""


_ABSENT: Final = type(None)
_INTEGER: Final = frozenset({int, _ABSENT})
_TEXT: Final = frozenset({str, _ABSENT})
_ANY: Final = frozenset({str, bytes, _ABSENT})


def read(values: Sequence[Any]) -> Row:
    """A row as the database gives it.

    Raises:
        sqlite3.DatabaseError: its values are not of their columns' types. SQLite looks at them only when it writes, so
            this is how damage inside of a page shows.
    """
    row = Row(*values)
    if not (
        type(row.inode) is type(row.kind) is type(row.size) is type(row.mtime_ns) is type(row.ctime_ns) is int
        and (type(row.guid) is bytes or row.guid is None)
        and type(row.parent) in _INTEGER
        and type(row.name) in _TEXT
        and type(row.want) in _TEXT
        and type(row.wire) in _ANY
        and type(row.folder_id) in _INTEGER
        and type(row.file_id) in _INTEGER
        and type(row.gvsn) in _ANY
        and type(row.acl) in _INTEGER
    ):
        raise sqlite3.DatabaseError("a row is damaged")
    return row


def parameters(row: Row) -> tuple[object, ...]:
    """A row's values as `MARKS` take them.

    The sqlite3 module takes 0.2 us for each None or bytes, ten times as long as for a number or a bytearray, so what is
    nearly always None goes as 0, which it can never be.
    """
    return (
        row.inode,
        row.guid if row.guid is None else bytearray(row.guid),
        row.kind,
        row.parent,
        row.name,
        0 if row.want is None else row.want,
        0 if row.wire is None else row.wire,
        row.folder_id,
        row.file_id,
        row.size,
        row.gvsn,
        row.acl or 0,
        row.mtime_ns,
        row.ctime_ns,
    )


def stored(text: str) -> Text:
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
    return text


def stored_or_none(text: str | None) -> Text | None:
    return None if text is None else stored(text)


def told(text: Text) -> str:
    """
    Raises:
        sqlite3.DatabaseError: it is no text: the database is damaged.
    """
    if isinstance(text, str):
        return text
    try:
        return text.decode("utf-8", "surrogatepass")
    except (UnicodeDecodeError, AttributeError) as error:
        raise sqlite3.DatabaseError(f"a text is damaged ({error})") from error


def told_or_none(text: Text | None) -> str | None:
    return None if text is None else told(text)


def integer(value: int | None) -> int | None:
    """`value`, or None where it does not fit into 64 bits: the portal's numbers are not trusted."""
    return value if value is not None and -_INT64 <= value < _INT64 else None


def kind_of(event: Event) -> int:
    """What an event that is no deletion makes of an object."""
    if not event.is_dir:
        return FILE
    return DIRECTORY if event.parent_guid else CLOUD_FOLDER


def size_of(event: Event) -> int:
    return 0 if event.is_dir else max(0, integer(event.size) or 0)


Described = tuple[int | None, int | None, int, Text | None, int, int]
"""What an event says of an object, but for its place, its name and its access list: folder_id, file_id, size, gvsn,
mtime_ns and ctime_ns, as columns."""


def described(event: Event) -> Described:
    gvsn = event.gvsn
    return (
        integer(event.folder_id),
        integer(event.file_id),
        size_of(event),
        None if gvsn is None else stored(gvsn),
        integer(event.mtime_ns) or 0,
        integer(event.ctime_ns) or 0,
    )


class Acls:
    """Access lists by their number, through one connection. Thread-safe as the connection is."""

    def __init__(self) -> None:
        self._by_id: dict[int, str] = {}
        self._by_text: dict[str, int] = {}

    def text(self, db: sqlite3.Connection, acl: int | None) -> str | None:
        if acl is None:
            return None
        text = self._by_id.get(acl)
        if text is None:
            row = db.execute("SELECT sddl FROM acl WHERE id = ?", (acl,)).fetchone()
            if row is None:
                return None
            text = told(row[0])
            if len(self._by_id) >= _ACLS_KEPT:
                self._by_id.clear()
            self._by_id[acl] = text
        return text

    def intern(self, db: sqlite3.Connection, text: str | None) -> int | None:
        """The number of an access list, drawn where it is new."""
        if text is None:
            return None
        acl = self._by_text.get(text)
        if acl is None:
            value = stored(text)
            row = db.execute("SELECT id FROM acl WHERE sddl = ?", (value,)).fetchone()
            acl = int(row[0]) if row else int(db.execute("INSERT INTO acl (sddl) VALUES (?)", (value,)).lastrowid or 0)
            if len(self._by_text) >= _ACLS_KEPT:
                self._by_text.clear()
            self._by_text[text] = acl
        return acl

    def forget(self) -> None:
        """After a rollback: numbers that were drawn in it may be drawn again for others."""
        self._by_id.clear()
        self._by_text.clear()


def node(row: Row, acl: str | None, guid: str | None = None) -> Node:
    """What the mount sees of a row that is shown, or of the root. `guid` is given where it is at hand as text."""
    name = row.name or ""
    if guid is None:
        guid = guid_text(row.guid) if row.guid is not None else ""
    return Node(
        inode=Inode(row.inode),
        parent=Inode(row.parent) if row.parent is not None else ROOT_INODE,
        name=name,
        wire_name=told(row.wire) if row.wire is not None else row.wanted,
        is_dir=row.kind >= DIRECTORY,
        guid=guid,
        folder_id=row.folder_id,
        file_id=row.file_id,
        size=row.size,
        gvsn=told_or_none(row.gvsn),
        acl=acl,
        mtime_ns=row.mtime_ns,
        ctime_ns=row.ctime_ns,
    )
