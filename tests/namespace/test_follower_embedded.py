"""The follower with the real client, against the embedded portal."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import trio

from cterafs import Portal
from cterafs.demo.objects import Item
from cterafs.demo.server import EmbeddedPortal
from cterafs.model import Change, Inode
from cterafs.namespace.follower import Follower
from cterafs.namespace.store import Store
from cterafs.namespace.tree import Tree

DEADLINE = 60  # seconds; nothing here takes one of them, unless it hangs


class News:
    """Wakes a waiting test up whenever something was applied."""

    def __init__(self) -> None:
        self._published = trio.Event()

    def prepare(self, changes: Sequence[Change]) -> None:
        pass

    def publish(self, changes: Sequence[Change]) -> None:
        self._published.set()
        self._published = trio.Event()

    async def settle(self) -> None:
        pass

    async def until(self, condition: Callable[[], bool]) -> None:
        with trio.fail_after(DEADLINE):
            while not condition():
                await self._published.wait()


def shown(store: Store, parent: int = 1, path: str = "") -> set[str]:
    found: set[str] = set()
    for node in store.children(Inode(parent), None, 1000):
        found.add(f"{path}/{node.name}")
        if node.is_dir:
            found |= shown(store, node.inode, f"{path}/{node.name}")
    return found


def held(folder: Item) -> set[str]:
    """What a cloud folder holds, by path."""
    found: set[str] = set()
    pending = [("", folder)]
    while pending:
        path, item = pending.pop()
        found.add(f"{path}/{item.name}")
        pending += [(f"{path}/{item.name}", child) for child in item.children.values()]
    return found


@pytest.mark.trio
@pytest.mark.parametrize("seed", range(3))
async def test_the_tree_becomes_what_the_portal_holds(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    news = News()
    with EmbeddedPortal() as server, Store.open(tmp_path) as store, Tree(store) as tree:
        namespace = server.namespace
        folder = namespace.create_folder("Docs")
        directories = [folder]
        for number in range(30):
            directories.append(namespace.mkdir(dice.choice(directories), f"d{number}"))
            namespace.create(dice.choice(directories), f"f{number}", b"x" * number)
        namespace.sort_listing(lambda item: dice.random())  # children come before their parents
        async with (
            Portal(server.url, username=server.username, password=server.password) as portal,
            trio.open_nursery() as nursery,
        ):
            follower = Follower(portal.notifications, tree, listener=news, folders=portal.folders)
            nursery.start_soon(follower.run)
            await news.until(lambda: shown(store) == held(folder))
            with namespace.batch(lambda items: dice.sample(list(items), len(items))):
                for number in range(20):
                    namespace.create(dice.choice(directories), f"new{number}", b"new")
                namespace.rename(directories[1], "renamed")
                namespace.delete(directories[2])
            await news.until(lambda: shown(store) == held(folder))
            namespace.undelete(directories[2])
            await news.until(lambda: shown(store) == held(folder))
            inodes = {node.inode for node in store.children(Inode(1), None, 9)}
            namespace.feed.reset()
            namespace.create(folder, "after the reset", b"1")
            await news.until(lambda: "/Docs/after the reset" in shown(store))
            await news.until(lambda: store.relist == 0)
            assert shown(store) == held(folder)
            assert {node.inode for node in store.children(Inode(1), None, 9)} == inodes
            nursery.cancel_scope.cancel()
