"""Which name each entry of an edit is shown under: a function of the final state, whatever the order of events.

Cloud folders first: two of one name in one directory both become `Name (owner)`, or `Name [folder id]` where the owner
is unknown (or is their directory already). Then every name that two entries of a directory want: the smallest guid (in
the order of the keys) has it, the others show `names.distinct` of it; when the holder leaves, the next one has it.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from cterafs.namespace.edit import Edit
from cterafs.namespace.names import distinct, safe
from cterafs.namespace.rows import COLUMNS, Row, Text, told, told_or_none
from cterafs.namespace.schema import CLOUD_FOLDER, DETACHED, FILE, ROOT

Place = tuple[int, str]
"""A directory's row and the name that is wanted in it."""

_BATCH: Final = 100  # places in one query
_CLOUD_FOLDERS: Final = f"SELECT {COLUMNS} FROM entry WHERE kind = {CLOUD_FOLDER} AND parent = ? AND wire = ? LIMIT ?"


def settle(edit: Edit) -> None:
    """Gives all rows of the edit, and the siblings that this concerns, the names that they shall have."""
    _place_cloud_folders(edit)
    _name_cloud_folders(edit)
    _leave_empty_owners(edit)
    _share_names(edit)


def _place_cloud_folders(edit: Edit) -> None:
    """Below the root, or below their owners' directories."""
    if edit.layout != "owner":
        for item in list(edit.items.values()):
            if item.new.kind == CLOUD_FOLDER:
                item.new.parent = ROOT
        return
    for item in list(edit.items.values()):
        if item.new.kind == CLOUD_FOLDER:
            owner = _owner(edit, item.new.folder_id)
            item.new.parent = edit.owner_directory(owner) if owner else ROOT


def _name_cloud_folders(edit: Edit) -> None:
    groups: set[tuple[int, Text]] = set()
    members: defaultdict[tuple[int, Text], list[Row]] = defaultdict(list)
    for item in edit.items.values():
        for row in (item.old, item.new):
            if row is not None and row.kind == CLOUD_FOLDER and row.parent is not None and row.wire is not None:
                groups.add((row.parent, row.wire))
                if row is item.new:
                    members[row.parent, row.wire].append(row)
    for parent, wire in groups:
        inside = members[parent, wire]
        # Two more than the edit may know tell whether there is none, one, or several that it does not.
        found = edit.db.execute(_CLOUD_FOLDERS, (parent, wire, len(edit.items) + 2)).fetchall()
        others = [row for row in found if row[1] not in edit.items]
        if len(others) == 1:  # the only one that a change of this edit's can give another name
            inside = inside + [item.new for item in edit.add_rows(others)]
            others = []
        alone = len(inside) + len(others) == 1
        for row in inside:
            edit.place(row, safe(told(wire)) if alone else safe(_qualified(edit, row, told(wire))))


def _qualified(edit: Edit, row: Row, name: str) -> str:
    owner = _owner(edit, row.folder_id) if edit.layout != "owner" else None
    if owner:
        return f"{name} ({owner})"
    return f"{name} [{row.folder_id}]" if row.folder_id is not None else name


def _owner(edit: Edit, folder_id: int | None) -> str | None:
    if folder_id is None:
        return None
    row = edit.db.execute("SELECT owner FROM folder WHERE folder_id = ?", (folder_id,)).fetchone()
    return told_or_none(row[0]) if row else None


def _leave_empty_owners(edit: Edit) -> None:
    """An owner's directory goes with the last cloud folder in it."""
    left = {
        item.old.parent
        for item in edit.items.values()
        if item.old is not None and item.old.kind == CLOUD_FOLDER and item.old.parent != item.new.parent
    } - {ROOT, None}
    arrived = {item.new.parent for item in edit.items.values()}
    for owner in left - arrived:
        below = edit.db.execute("SELECT guid FROM entry WHERE parent = ? LIMIT ?", (owner, len(edit.items) + 1))
        if all(key in edit.items for (key,) in below):
            edit.add_rows(edit.db.execute(f"SELECT {COLUMNS} FROM entry WHERE id = ?", (owner,)))
            for item in edit.items.values():
                if item.new.id == owner:
                    item.new = Row(item.new.inode, item.new.guid, DETACHED)


def _share_names(edit: Edit) -> None:
    places: set[Place] = set()
    held: set[Place] = set()  # by what left them: nobody else has these names
    for item in edit.items.values():
        place = _place(item.new)
        before = _place(item.old) if item.old is not None else None
        if place != before:
            places.update(one for one in (place, before) if one is not None)
            if before is not None and item.old is not None and item.old.want is None:
                held.add(before)
    _bring_siblings(edit, places, held)
    holders: dict[Place, Row] = {}
    others: defaultdict[Place, list[Row]] = defaultdict(list)
    for item in edit.items.values():
        place = _place(item.new)
        if place is not None and place in places and holders.setdefault(place, item.new) is not item.new:
            others[place].append(item.new)
    for place, holder in holders.items():
        rows = sorted([holder, *others[place]], key=_key) if place in others else [holder]
        rows[0].name, rows[0].want = place[1], None
        for row in rows[1:]:
            row.name, row.want = distinct(place[1], _key(row)), place[1]


def _bring_siblings(edit: Edit, places: set[Place], held: set[Place]) -> None:
    """Takes those into the edit that want one of these names too. A directory that the edit made has none."""
    clashes = edit.db.execute("SELECT EXISTS (SELECT 1 FROM entry WHERE want IS NOT NULL)").fetchone()[0]
    for column, sought in (("name", places - held), ("want", places if clashes else ())):
        asked = [place for place in sought if place[0] < edit.first_id]
        for start in range(0, len(asked), _BATCH):
            part = asked[start : start + _BATCH]
            edit.add_rows(
                edit.db.execute(
                    f"WITH place (parent, name) AS (VALUES {', '.join(['(?, ?)'] * len(part))}) SELECT {COLUMNS}"
                    f" FROM place CROSS JOIN entry ON entry.parent = place.parent AND entry.{column} = place.name",
                    [value for place in part for value in place],
                )
            )


def _place(row: Row) -> Place | None:
    if row.parent is None or row.kind < FILE:
        return None
    return row.parent, row.name if row.want is None else row.want  # type: ignore[return-value]  # placed rows are named


def _key(row: Row) -> bytes:
    return row.guid or b""
