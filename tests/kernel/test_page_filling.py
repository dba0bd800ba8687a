"""Bytes on their way into the page cache. That programs find them there is seen through real mounts (tests/mount)."""

from __future__ import annotations

import threading

import pyfuse3
import pytest
import trio
import trio.testing

from cterafs.kernel.pages import Pages
from cterafs.model import Inode


@pytest.mark.trio
async def test_a_copy_that_waits_for_a_locked_page_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    unlocked, heard = threading.Event(), trio.Event()
    stored: list[int] = []

    def notify_store(inode: int, offset: int, data: memoryview) -> None:
        if inode == 1:
            assert unlocked.wait(60)
        stored.append(inode)
        trio.from_thread.run_sync(heard.set)

    monkeypatch.setattr(pyfuse3, "notify_store", notify_store)
    pages = Pages()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pages.run)
            await trio.testing.wait_all_tasks_blocked()
            try:
                assert pages.fill(Inode(1), 0, memoryview(b"locked"))
                await trio.testing.wait_all_tasks_blocked()
                assert pages.fill(Inode(2), 0, memoryview(b"other"))
                await heard.wait()
            finally:
                unlocked.set()
            await pages.settled(Inode(1))
            assert stored == [2, 1]
            nursery.cancel_scope.cancel()
