"""The walk that finds what is to be warmed."""

from __future__ import annotations

import random

import pytest

from cterafs import warming
from cterafs.errors import StaleInode
from cterafs.model import Dirent, Inode, Node
from cterafs.warming import Files

pytestmark = pytest.mark.trio


class Tree:
    """A volume of names alone; `entries` as the volume's, from behind a name."""

    def __init__(self, shape: dict[str, object]) -> None:
        self.directories: dict[Inode, dict[str, Dirent]] = {}
        self.root = self._add(shape)

    def _add(self, shape: dict[str, object]) -> Inode:
        inode = Inode(len(self.directories) + 1)
        entries = self.directories[inode] = {}
        for name, inner in sorted(shape.items()):
            is_dir = isinstance(inner, dict)
            below = self._add(inner) if isinstance(inner, dict) else Inode(10_000 + random.getrandbits(40))
            entries[name] = Dirent(below, name, int(is_dir), 0 if is_dir else int(str(inner)), 0, 0)
        return inode

    async def entries(self, directory: Inode, after: str | None, limit: int) -> list[Dirent]:
        if directory not in self.directories:
            raise StaleInode("gone")
        return [entry for name, entry in self.directories[directory].items() if after is None or name > after][:limit]

    async def files(self, *starts: tuple[str, Node]) -> list[tuple[str, int]]:
        return [(file.path, file.size) async for file in Files(self, starts)]  # type: ignore[arg-type]

    def node(self, inode: Inode, *, is_dir: bool = True, size: int = 0) -> Node:
        return Node(inode=inode, parent=Inode(1), name="n", wire_name="n", is_dir=is_dir, size=size)


async def test_everything_below_once_with_its_path() -> None:
    tree = Tree({"a": 1, "b": {"c": 2, "d": {"e": 3, "empty": {}}}, "f": 0})
    expected = [("/a", 1), ("/b/c", 2), ("/b/d/e", 3), ("/f", 0)]
    assert sorted(await tree.files(("/", tree.node(tree.root)))) == expected
    assert sorted(await tree.files(("", tree.node(tree.root)))) == expected


async def test_directories_larger_than_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warming, "PAGE", 7)
    for count in (6, 7, 8, 14, 100):
        tree = Tree({"d": {f"{number:03}": number for number in range(count)} | {"sub": {"x": 1000}}})
        found = await tree.files(("/d", tree.node(tree.directories[tree.root]["d"].inode)))
        assert sorted(found) == [*((f"/d/{number:03}", number) for number in range(count)), ("/d/sub/x", 1000)]


async def test_files_and_directories_side_by_side() -> None:
    tree = Tree({"a": {"b": 2}})
    below = tree.node(tree.directories[tree.root]["a"].inode)
    found = await tree.files(("/x", tree.node(Inode(77), is_dir=False, size=5)), ("/a", below))
    assert sorted(found) == [("/a/b", 2), ("/x", 5)]
