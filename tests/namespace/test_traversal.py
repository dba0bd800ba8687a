"""Which files come next, in the orders in which programs go through a tree."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cterafs.model import ROOT_INODE, Event, Node
from cterafs.namespace import traversal
from cterafs.namespace.store import Store
from cterafs.namespace.traversal import next_by_inode, next_by_name, next_in_tree
from cterafs.namespace.tree import Tree

PATHS = (
    "Docs/a", "Docs/b/1", "Docs/b/2", "Docs/b/c/3", "Docs/b/d/", "Docs/b/z", "Docs/c/", "Docs/e/f/g/4", "Docs/x",
    "Docs/y", "More/5",
)  # fmt: skip
FILES = [path for path in PATHS if not path.endswith("/")]


def events() -> Iterator[Event]:
    """What a portal would tell, files first."""
    seen: set[str] = set()
    for path in PATHS:
        parts = path.rstrip("/").split("/")
        for depth in range(1, len(parts) + 1):
            guid = "/".join(parts[:depth])
            if guid not in seen:
                seen.add(guid)
                yield Event(
                    guid=guid,
                    name=parts[depth - 1],
                    is_dir=depth < len(parts) or path.endswith("/"),
                    parent_guid="/".join(parts[: depth - 1]) or None,
                    folder_id=len(parts[0]) + ord(parts[0][0]),
                    file_id=len(seen),
                )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path) as opened, Tree(opened) as tree:
        told = list(events())
        tree.prepare([*told[:1], *reversed(told[1:])], listing=True, complete=True).commit()
        yield opened


def found(store: Store, path: str) -> Node:
    node = store.resolve("/" + path)
    assert node is not None
    return node


def paths(store: Store, nodes: list[Node]) -> list[str]:
    return [(store.path(node.inode) or "")[1:] for node in nodes]


@pytest.mark.parametrize("path", FILES)
def test_the_files_of_the_tree_in_order(store: Store, path: str) -> None:
    following = FILES[FILES.index(path) + 1 :]
    assert paths(store, next_in_tree(store, found(store, path), 100)) == following
    assert paths(store, next_in_tree(store, found(store, path), 2)) == following[:2]


def test_no_more_directories_are_looked_into_than_is_worth_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traversal, "DIRECTORIES", 3)
    assert paths(store, next_in_tree(store, found(store, "Docs/b/2"), 100)) == ["Docs/b/c/3"]


def test_the_files_of_a_directory_by_name(store: Store) -> None:
    assert paths(store, next_by_name(store, found(store, "Docs/a"), 100)) == ["Docs/x", "Docs/y"]
    assert paths(store, next_by_name(store, found(store, "Docs/b/1"), 1)) == ["Docs/b/2"]
    assert next_by_name(store, found(store, "More/5"), 100) == []


def test_the_files_of_a_directory_by_inode(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    files = sorted((found(store, path) for path in ("Docs/b/1", "Docs/b/2", "Docs/b/z")), key=lambda node: node.inode)
    assert [node.name for node in files] == ["z", "2", "1"]
    assert next_by_inode(store, files[0], 100) == files[1:]
    assert next_by_inode(store, files[0], 1) == files[1:2]
    assert next_by_inode(store, files[2], 100) == []
    monkeypatch.setattr(traversal, "SPAN", files[1].inode - files[0].inode)
    assert next_by_inode(store, files[0], 100) == files[1:2]


def test_the_root_has_nothing_behind_it(store: Store) -> None:
    root = store.get(ROOT_INODE)
    assert root is not None
    assert next_by_name(store, root, 10) == []
