"""Moves a staged import into the index: every row at once, then every index, sorted.

All of it happens in one transaction of the index, so that readers see what was there before until all is there, and a
crash leaves the staging as it was, to be built again. What the rows' order of arrival decided nowhere else, it does
not decide here: `staging.settle` has left one event per object, and names are shared out among all of a directory.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from cterafs.model import Change
from cterafs.namespace.findable import make_unfindable
from cterafs.namespace.names import distinct
from cterafs.namespace.rows import COLUMNS, Acls, node, read
from cterafs.namespace.schema import CLOUD_FOLDER, DIRECTORY, FILE, INDEXES, ROWS, UNKNOWN, statements

_ACLS: Final = (
    "INSERT OR IGNORE INTO main.acl (sddl) SELECT sddl FROM staged.acl",
    "CREATE TEMP TABLE acl_number (staged INTEGER PRIMARY KEY, id INTEGER NOT NULL) STRICT",
    "INSERT INTO acl_number SELECT staged.acl.id, main.acl.id FROM staged.acl JOIN main.acl USING (sddl)",
)
_ROWS: Final = """
INSERT INTO main.entry SELECT inode, guid, kind, parent, name, NULL, wire, folder_id, file_id, size, gvsn,
    acl_number.id, mtime_ns, ctime_ns, 0
FROM staged.event LEFT JOIN acl_number ON acl_number.staged = event.acl ORDER BY seq
"""
_TOTALS: Final = f"""
SELECT count(*) FILTER (WHERE kind = {FILE}), count(*) FILTER (WHERE kind = {DIRECTORY}),
    coalesce(sum(size >> 32), 0), coalesce(sum(size & 0xffffffff), 0)
FROM staged.event
"""
# Only guids that something names: the others were named by an event that a later one replaced.
_UNKNOWN_PARENTS: Final = f"""
INSERT INTO main.entry (id, guid, kind, folder_id, size, mtime_ns, ctime_ns)
SELECT inode, guid, {UNKNOWN},
    (SELECT min(below.folder_id) FROM main.entry AS below WHERE below.parent = place.inode), 0, 0, 0
FROM staged.place
WHERE known = 0 AND NOT EXISTS (SELECT 1 FROM main.entry WHERE entry.id = place.inode)
    AND EXISTS (SELECT 1 FROM main.entry AS below WHERE below.parent = place.inode)
"""
_CLASHES: Final = (
    "CREATE TEMP TABLE clash (parent INTEGER NOT NULL, name TEXT NOT NULL) STRICT",
    """INSERT INTO clash SELECT parent, name FROM main.entry WHERE parent IS NOT NULL
    GROUP BY parent, name HAVING count(*) > 1""",
    """CREATE TEMP TABLE clashing (id INTEGER PRIMARY KEY, guid BLOB, parent INTEGER NOT NULL, name TEXT NOT NULL)
    STRICT""",
    """INSERT INTO clashing SELECT entry.id, entry.guid, clash.parent, clash.name FROM clash
    CROSS JOIN main.entry ON entry.parent = clash.parent AND entry.name = clash.name""",
    """INSERT INTO clashing SELECT entry.id, entry.guid, clash.parent, clash.name FROM clash
    CROSS JOIN main.entry ON entry.parent = clash.parent AND entry.want = clash.name""",
)
_TEMPORARY: Final = ("acl_number", "clash", "clashing")
_SHOWN_AGAIN: Final = f"SELECT {COLUMNS} FROM entry WHERE id = ? AND kind >= {FILE} AND kind <> {CLOUD_FOLDER}"


class Built(NamedTuple):
    """What `build` added to the counts, and which rows that were there before it has renamed."""

    files: int
    directories: int
    bytes: int
    orphans: int
    changes: list[Change]


def attach(db: sqlite3.Connection, staging: Path) -> None:
    """Makes the staging readable through the index's connection; outside of a transaction."""
    detach(db)
    db.execute("ATTACH ? AS staged", (str(staging.absolute()),))


def detach(db: sqlite3.Connection) -> None:
    for table in _TEMPORARY:
        db.execute(f"DROP TABLE IF EXISTS temp.{table}")
    if any(name == "staged" for _, name, _ in db.execute("PRAGMA database_list").fetchall()):
        db.execute("DETACH staged")


def build(db: sqlite3.Connection, acls: Acls, *, first: int) -> Built:
    """Moves all that stands for itself, inside of the caller's transaction.

    Args:
        first: the first row number of the staging; those below are the index's.
    """
    for statement in _ACLS:
        db.execute(statement)
    make_unfindable(db)
    names = db.execute("SELECT name FROM sqlite_schema WHERE tbl_name = 'entry' AND type = 'index' AND sql IS NOT NULL")
    for (name,) in names.fetchall():
        db.execute(f"DROP INDEX {name}")
    db.execute(_ROWS)
    for statement in statements(INDEXES):
        db.execute(statement)
    orphans = db.execute(_UNKNOWN_PARENTS).rowcount
    changes = _share_names(db, acls, first)
    files, directories, high, low = db.execute(_TOTALS).fetchone()
    return Built(files, directories, (high << 32) + low, orphans, changes)


def folded(changes: Iterable[Change]) -> Iterator[Change]:
    """Each object's changes as one, from what it was at first to what it is in the end."""
    ends: dict[int, Change] = {}
    for change in changes:
        before = ends.pop(change.old.inode, None) if change.old is not None else None
        old = change.old if before is None else before.old
        if change.new is not None:
            ends[change.new.inode] = Change(old, change.new)
        elif old is not None:
            yield Change(old, None)
    yield from (change for change in ends.values() if change.old != change.new)


def concerns_readers(change: Change, first: int, last: int) -> bool:
    """Whether a change made while building is about something that could be seen before.

    Rows from `first` to `last` are new, and told of afterwards.
    """
    if change.old is not None:
        return change.old.inode & ROWS < first
    return change.new is not None and not first <= change.new.inode & ROWS < last and change.new.parent < first


def _share_names(db: sqlite3.Connection, acls: Acls, first: int) -> list[Change]:
    """As `naming` does: the smallest guid has the name that several want."""
    for statement in _CLASHES:
        db.execute(statement)
    changes: list[Change] = []
    rows: Iterator[tuple[int, bytes, int, str]] = db.execute(
        "SELECT id, guid, parent, name FROM clashing ORDER BY parent, name, guid"
    )
    for (_, name), group in itertools.groupby(rows, key=lambda row: row[2:]):
        for number, (row, guid, _, _) in enumerate(group):
            shown, want = (name, None) if number == 0 else (distinct(name, guid), name)
            before = db.execute(_SHOWN_AGAIN, (row,)).fetchone() if row < first else None
            db.execute("UPDATE entry SET name = ?, want = ? WHERE id = ?", (shown, want, row))
            if before is not None and before[4] != shown:
                old = node(read(before), acls.text(db, before[11]))
                after = db.execute(_SHOWN_AGAIN, (row,)).fetchone()
                changes.append(Change(old, node(read(after), old.acl)))
    return changes
