"""Where the blocks of a run land in the memory that both processes see."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
import trio
from told_storage import Store

from cterafs.content.adjacent import joined
from cterafs.direct.landing import Landing
from cterafs.downloading.process import DownloadProcess
from cterafs.errors import BlockInfo
from cterafs.model import BlockMap, Chunk, Compression, Extent

SIZE = 1 << 18
COUNT = 6

Running = Callable[[], AbstractAsyncContextManager[DownloadProcess]]


@pytest.mark.trio
async def test_neighbours_lie_together_in_memory_that_was_used_before_too(store: Store, running: Running) -> None:
    store.script = lambda exchange: exchange.answer(exchange.path.encode()[-1:] * SIZE)
    extents = [Extent(index * SIZE, (index + 1) * SIZE) for index in range(COUNT)]
    chunks = tuple(Chunk(extent, f"{store.server.url}/{index}") for index, extent in enumerate(extents))
    async with running() as process:
        for _ in range(3):
            landings = [Landing(BlockInfo(7, None, extent.start, SIZE)) for extent in extents]
            assert await process.land(BlockMap(7, COUNT * SIZE, chunks, None, Compression.NONE), landings)
            together = joined([memoryview(landing.take()) for landing in landings])
            assert isinstance(together, memoryview)
            assert together == b"".join(str(index).encode() * SIZE for index in range(COUNT))
            with trio.fail_after(60):
                while process._jobs:
                    await trio.lowlevel.checkpoint()
            del together
            while landings:
                del landings[0]  # in the order of the file, as a reader leaves them behind
