"""The log that a crash left, damaged at any place: what is served is what one of the commits made, and no mixture."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cterafs.model import Cursor, Event, Inode
from cterafs.namespace.health import open_or_rebuild
from cterafs.namespace.tree import Tree

PAGES = 4
PLACES = 60
WRITER = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from cterafs.model import Cursor
from cterafs.namespace.store import Store
from cterafs.namespace.tree import Tree
from test_damaged_log import *

tree = Tree(Store.open(Path(sys.argv[1])))
for number in range({PAGES}):
    tree.prepare(page(number), Cursor(str(number))).commit()
os.kill(os.getpid(), signal.SIGKILL)
"""


def page(number: int) -> list[Event]:
    """Files that come, and those of the page before, which are renamed."""
    told = [Event(guid="r", name="Docs", is_dir=True)] if number == 0 else []
    for of, name in ((number, "new"), (number - 1, "renamed")):
        for n in range(30 if of >= 0 else 0):
            guid = f"{of}.{n}"
            told.append(Event(guid=guid, name=f"{name} {guid}", is_dir=False, parent_guid="r", size=of + 1))
    return told


def shown(cursor: int) -> list[tuple[str, int]]:
    """Names and sizes after the page of this number; nothing after none."""
    found = [(f"renamed {of}.{n}", of + 1) for of in range(cursor) for n in range(30)]
    return sorted(found + [(f"new {cursor}.{n}", cursor + 1) for n in range(30)]) if cursor >= 0 else []


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("crashed")
    subprocess.run([sys.executable, "-c", WRITER, directory], check=False)
    assert (directory / "index.db-wal").stat().st_size > 50_000
    return directory


def check(directory: Path) -> int:
    """The page that is served as the last one; the feed goes on from there."""
    with open_or_rebuild(directory) as store:
        cursor = -1 if store.cursor is None else int(store.cursor)
        docs = store.resolve("/Docs")
        found = store.children(Inode(docs.inode), None, 1000) if docs is not None else []
        assert sorted((node.name, node.size) for node in found) == shown(cursor)
        with Tree(store) as tree:
            for number in range(cursor + 1, PAGES):
                tree.prepare(page(number), Cursor(str(number))).commit()
        docs = store.resolve("/Docs")
        assert docs is not None
        found = store.children(Inode(docs.inode), None, 1000)
        assert sorted((node.name, node.size) for node in found) == shown(PAGES - 1)
    return cursor


def test_an_undamaged_one(crashed: Path, tmp_path: Path) -> None:
    assert check(shutil.copytree(crashed, tmp_path / "copy")) == PAGES - 1


@pytest.mark.parametrize("how", ["flipped", "cut", "zeroed"])
def test_damaged_at_any_place(crashed: Path, tmp_path: Path, how: str) -> None:
    chance = random.Random(3)
    log = (crashed / "index.db-wal").read_bytes()
    places = [0, 1, 20, 31, 32, 40, *(chance.randrange(len(log)) for _ in range(PLACES))]
    served = set()
    for number, place in enumerate(places):
        directory = shutil.copytree(crashed, tmp_path / str(number))
        damaged = bytearray(log)
        if how == "flipped":
            damaged[place] ^= 1 << chance.randrange(8)
        elif how == "cut":
            del damaged[place:]
        else:
            damaged[place : place + 512] = bytes(len(damaged[place : place + 512]))
        (directory / "index.db-wal").write_bytes(damaged)
        if number % 2:
            (directory / "index.db-shm").unlink()  # as after a power failure
        served.add(check(directory))
        shutil.rmtree(directory)
    assert len(served) > 2, "places in the log of several pages"
