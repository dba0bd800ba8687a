"""The files that come after another one, in the orders in which programs go through a tree."""

from __future__ import annotations

from cterafs.model import Node
from cterafs.namespace.store import Store

DIRECTORIES = 32
"""Directories looked into at a time: as many may be empty, or hold nothing but others, between two files."""


SPAN = 16 << 10
"""Inode numbers looked through for the next files of a directory, 3 ms of work. Numbers are given in the order of the
portal's listing, which has the files of a directory together, or nearly so."""


def next_by_inode(store: Store, after: Node, limit: int) -> list[Node]:
    """Up to `limit` files of the directory of `after` with larger inode numbers."""
    return store.files_by_inode(after.parent, after.inode, SPAN, limit)


def next_by_name(store: Store, after: Node, limit: int) -> list[Node]:
    """Up to `limit` entries of the directory of `after`, less those that are directories."""
    return [node for node in store.children(after.parent, after.name, limit) if not node.is_dir]


def next_in_tree(store: Store, after: Node, limit: int) -> list[Node]:
    """Up to `limit` files that come next where each directory is gone through in the place of its name."""
    found: list[Node] = []
    directory = after.parent
    name: str | None = after.name
    for _ in range(DIRECTORIES):
        children = store.children(directory, name, limit - len(found))
        below = next((index for index, child in enumerate(children) if child.is_dir), None)
        found += children[:below]
        if len(found) >= limit:
            break
        if below is not None:
            directory, name = children[below].inode, None
        else:
            here = store.get(directory)
            if here is None or here.parent == here.inode:
                break
            directory, name = here.parent, here.name
    return found
