"""What the tests of the process that downloads share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import trio
from scripted_server import ScriptedServer
from told_storage import Store

from cterafs.downloading.arena import Arena
from cterafs.downloading.messages import Settings
from cterafs.downloading.process import DownloadProcess


@pytest.fixture
def store() -> Iterator[Store]:
    store = Store()
    with ScriptedServer(store.answer) as store.server:
        yield store


BUDGET = 64 << 20

Running = Callable[..., AbstractAsyncContextManager[DownloadProcess]]


@pytest.fixture
def running(store: Store) -> Running:
    """A process that is ready, for as long as the context lasts. With one worker, blocks come one after the other."""

    @asynccontextmanager
    async def run(workers: int = 4) -> AsyncIterator[DownloadProcess]:
        settings = Settings(
            portal_url="http://127.0.0.1", hosts=(), verify_tls=True, ca_file=None, workers=workers, timeout=20.0
        )
        arena = Arena.create(BUDGET)
        process = DownloadProcess(arena, BUDGET, settings)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(process.run)
            with trio.fail_after(60):
                await process.ready.wait()
            yield process
            nursery.cancel_scope.cancel()
        arena.close()

    return run
