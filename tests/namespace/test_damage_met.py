"""Damage that is met while the feed is followed, in pages that nobody has read before."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import pytest
import trio
from played_portal import Setting, directory, eventually, file, folder, live
from trio.testing import MockClock

from cterafs.model import Change
from cterafs.namespace import tree as tree_module
from cterafs.namespace.disk import DamagedDatabase
from cterafs.namespace.health import open_or_rebuild
from cterafs.namespace.tree import Tree

pytestmark = pytest.mark.trio

FILES = 2000


def overwrite_guids(setting: Setting) -> None:
    """The index of guids, from its second page on; while nobody writes."""
    with setting.store.held() as db:
        [root] = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'entry_guid'").fetchone()
        size = db.execute("PRAGMA page_size").fetchone()[0]
    with setting.store.database.open("r+b") as database:
        database.seek((root - 1) * size)
        database.write(b"\x0d" + bytes(size - 1))  # a leaf of a table, where there was an index


async def test_a_damaged_index_is_served_until_the_next_mount(
    setting: Setting, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    setting.portal.pages = [[folder("r", "Docs"), *(file(f"f{n}", f"f{n}", "r") for n in range(FILES))]]
    async with setting.following() as follower:
        await live(follower)
    setting.tree.checkpoint()  # what is in the log hides what is below it
    setting.tree.close()
    overwrite_guids(setting)
    with Tree(setting.store) as setting.tree:
        async with setting.following() as follower:
            setting.portal.tell(file("new", "new", "r"))
            await eventually(lambda: follower.status.state == "offline")
            assert "the next mount imports the namespace again" in (follower.status.reason or "")
            assert isinstance(follower.error, DamagedDatabase)
            assert "malformed" in caplog.text
            asked = len(setting.portal.calls)
            await trio.sleep(10_000)
            assert len(setting.portal.calls) == asked
            assert setting.store.resolve("/Docs/f7") is not None
    setting.store.close()
    with open_or_rebuild(setting.store.database.parent) as store:
        assert store.cursor is None
    assert (store.database.parent / "index.db.corrupt-1").exists()


async def test_a_damaged_staging_is_listed_again(
    setting: Setting, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tree_module, "_STAGED_FROM", 3)
    publish, damages = setting.watcher.publish, [True]

    def damage(changes: Sequence[Change]) -> None:
        publish(changes)
        if setting.store.staging.exists() and damages:
            damages.pop()
            db = sqlite3.connect(setting.store.staging)
            with db:
                db.execute(
                    "INSERT INTO event (seq, inode, guid, kind, size, mtime_ns, ctime_ns)"
                    " SELECT next_inode, 0, x'', 2, 0, 0, 0 FROM state"
                )
            db.close()

    monkeypatch.setattr(setting.watcher, "publish", damage)
    setting.portal.pages = [[folder("r", "Docs"), *(directory(f"d{n}", f"d{n}", "r") for n in range(3))]]
    setting.portal.pages += [[file(f"f{n}", f"f{n}", "d1")] for n in range(40)]
    async with setting.following() as follower:
        await live(follower)
    assert "listed again" in caplog.text
    assert setting.store.counts.files == 40
