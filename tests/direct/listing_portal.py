"""A portal that lists the blocks of one file, and their storage, both without a network."""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from cterafs import errors
from cterafs.direct.landing import Landing
from cterafs.model import BlockMap, Chunk, Compression, Extent


class Portal:
    """A file of `size` bytes in blocks of 10, whose URLs carry a signature that counts up with each list."""

    def __init__(self, tasks: TaskGroup, size: int) -> None:
        self.tasks = tasks
        self.size = size
        self.content = "v1"
        self.changed_from = size  # from here on, the content is another
        self.signature = 0
        self.valid_from = 0
        self.status: int | None = None
        self.asked: list[Extent | None] = []
        self.fetched: Counter[int] = Counter()
        self.query = ""
        self.before_list: Callable[[], Awaitable[object]] = checkpoint
        self.before_fetch: Callable[[int], Awaitable[object]] = lambda start: checkpoint()
        self.knows_ranges = True
        self.short_by = 0  # bytes at the end of a range that the portal leaves out

    async def block_map(self, file_id: int, extent: Extent | None = None) -> BlockMap:
        self.asked.append(extent)
        await self.before_list()
        self.signature += 1
        wanted = extent if extent and self.knows_ranges else Extent(0, self.size)
        first = wanted.start // 10 * 10
        chunks = tuple(
            Chunk(
                Extent(start, min(start + 10, self.size)),
                f"https://s{self.signature}/blocks/{start}-{self._content(start)}?n={self.signature}{self.query}",
            )
            for start in range(first, min(max(wanted.stop - self.short_by, first + 1), self.size), 10)
        )
        return BlockMap(file_id, self.size, chunks, None, Compression.NONE)

    def _content(self, start: int) -> str:
        return self.content if start < self.changed_from else f"not {self.content}"

    async def land(self, block_map: BlockMap, landings: Sequence[Landing]) -> None:
        for landing in landings:
            [chunk] = block_map.span(landing.extent)
            landing.replace(await self._fetch(chunk))
            landing.finish()

    async def _fetch(self, chunk: Chunk) -> bytes:
        self.fetched[chunk.extent.start] += 1
        await self.before_fetch(chunk.extent.start)
        block = errors.BlockInfo(7, None, chunk.extent.start, len(chunk.extent))
        if self.status:
            raise errors.DownloadError(block, f"HTTP {self.status}", self.status)
        if int(chunk.url.partition("n=")[2].partition("&")[0]) < self.valid_from:
            raise errors.DownloadError(block, "HTTP 403", 403)
        return b"x" * len(chunk.extent)
