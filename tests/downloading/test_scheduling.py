"""How the threads that download are scheduled, beside those that answer."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
import trio
from scripted_server import Exchange
from told_storage import Store

from cterafs.direct.landing import Landing
from cterafs.downloading.process import DownloadProcess
from cterafs.errors import BlockInfo
from cterafs.model import BlockMap, Chunk, Compression, Extent

PATIENCE = 60.0
BODY = b"block"


@pytest.mark.trio
async def test_its_threads_interrupt_nobody(
    store: Store, running: Callable[..., AbstractAsyncContextManager[DownloadProcess]]
) -> None:
    gate = threading.Event()

    def answer(exchange: Exchange) -> None:
        gate.wait(PATIENCE)
        exchange.answer(BODY)

    store.script = answer
    chunk = Chunk(Extent(0, len(BODY)), f"{store.server.url}/0")
    source = BlockMap(7, len(BODY), (chunk,), None, Compression.NONE)
    landings = [Landing(BlockInfo.of(7, chunk))]
    async with running() as process, trio.open_nursery() as nursery:
        nursery.start_soon(process.land, source, landings)
        with trio.fail_after(PATIENCE):
            while not store.server.exchanges:
                await trio.lowlevel.checkpoint()
        threads = [int(name) for name in os.listdir(f"/proc/{process.pid}/task")]  # noqa: PTH208  # a directory of /proc
        policies = [os.sched_getscheduler(thread) for thread in threads]
        gate.set()
    assert set(policies) == {os.SCHED_BATCH}
    assert len(policies) > 1
    assert os.sched_getscheduler(0) == os.SCHED_OTHER, "that is for them alone"
