"""Bringing files and trees to the disk before they are read."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import trio

from cterafs.content.blockfiles import cost
from cterafs.content.fill import DiskFill
from cterafs.errors import CteraError, StateError
from cterafs.model import ROOT_INODE, Inode, Node
from cterafs.volume import Volume

FILES = 16
"""Files under way at a time: each of a small one's two requests takes a round trip."""

PAGE = 1000
"""Entries of a directory per query."""

TELL_INTERVAL = 0.5
"""Seconds between two words of how far it is."""

Tell = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class File:
    """A file below the volume's root; `path` begins with a slash."""

    path: str
    inode: Inode
    size: int


class Files:
    """The files at and below some paths, as they are when the walk gets there.

    Not a generator, which has to be closed.
    """

    def __init__(self, volume: Volume, starts: Iterable[tuple[str, Node]]) -> None:
        self._volume = volume
        self._found: deque[File] = deque()
        self._directories: list[tuple[str, Inode, str | None]] = []  # the last name of what was listed already
        for path, node in starts:
            self._meet(path, node.inode, node.size, is_dir=node.is_dir)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> File:
        while not self._found:
            if not self._directories:
                raise StopAsyncIteration
            path, inode, after = self._directories.pop()
            entries = await self._volume.entries(inode, after, PAGE)
            if len(entries) >= PAGE:
                self._directories.append((path, inode, entries[-1].name))
            for entry in entries:
                self._meet(f"{path.rstrip('/')}/{entry.name}", entry.inode, entry.size, is_dir=bool(entry.is_dir))
        return self._found.popleft()

    def _meet(self, path: str, inode: Inode, size: int, *, is_dir: bool) -> None:
        if is_dir:
            self._directories.append((path, inode, None))
        else:
            self._found.append(File(path, inode, size))


@dataclass(slots=True)
class Progress:
    """How far it is: bytes are those of blocks that are on the disk now, `downloaded` the ones that were not before."""

    files: int = 0
    bytes: int = 0
    downloaded: int = 0
    failed: int = 0
    of_files: int = 0
    of_bytes: int = 0

    def advance(self, count: int, downloaded: bool) -> None:
        self.bytes += count
        self.downloaded += count if downloaded else 0


class Warming:
    """One request to bring paths to the disk.

    Args:
        tell: gets a JSON object for each file that failed (`path`, `error`), and now and then, and at the end, one that
            says how far it is (`Progress`; the last one has `done`).
    """

    def __init__(self, volume: Volume, fill: DiskFill, tell: Tell) -> None:
        self._volume = volume
        self._fill = fill
        self._tell = tell
        self._progress = Progress()
        self._refused: CteraError | None = None

    async def run(self, paths: Iterable[str]) -> None:
        """Returns when every file is on the disk or has failed.

        Args:
            paths: below the volume's root.

        Raises:
            StateError: the disk does not take them, or the index cannot be read.
        """
        starts = [(path, node) for path in paths if (node := await self._resolve(path)) is not None]
        need = 0
        async for file in Files(self._volume, starts):
            self._progress.of_files += 1
            self._progress.of_bytes += file.size
            need += cost(file.size)
        await self._refuse_beyond_capacity(need)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell_now_and_then)
            await self._bring(starts)
            nursery.cancel_scope.cancel()
        if self._refused is not None:
            raise self._refused
        await self._tell({**asdict(self._progress), "done": True})

    async def _resolve(self, path: str) -> Node | None:
        inode = ROOT_INODE
        try:
            for name in path.split("/"):
                if name:
                    inode = (await self._volume.lookup(inode, name)).inode
            return await self._volume.node(inode)
        except CteraError as error:
            self._progress.of_files += 1
            await self._fail(path, error)
            return None

    async def _refuse_beyond_capacity(self, need: int) -> None:
        """What comes first would leave again for what comes last."""
        capacity = await trio.to_thread.run_sync(self._fill.disk.capacity, abandon_on_cancel=True)
        if self._fill.disk.reason is not None:
            raise StateError(f"the disk cache cannot be used: {self._fill.disk.reason}")
        if need > capacity:
            raise StateError(
                f"these files may take {need} bytes, and the disk cache {capacity}; "
                "raise cache.disk, make room on its disk, or name fewer files"
            )

    async def _bring(self, starts: Sequence[tuple[str, Node]]) -> None:
        sending, receiving = trio.open_memory_channel[File](0)
        async with trio.open_nursery() as nursery, sending:
            for _ in range(FILES):
                nursery.start_soon(self._work, receiving, nursery.cancel_scope)
            try:
                async for file in Files(self._volume, starts):
                    await sending.send(file)
            except CteraError as error:
                self._refused = error
                nursery.cancel_scope.cancel()

    async def _work(self, files: trio.MemoryReceiveChannel[File], scope: trio.CancelScope) -> None:
        async for file in files:
            try:
                await self._fill.file(self._volume.source(await self._volume.node(file.inode)), self._progress.advance)
            except StateError as error:  # so it is for every file
                self._refused = error
                scope.cancel()
            except CteraError as error:
                await self._fail(file.path, error)
            else:
                self._progress.files += 1

    async def _fail(self, path: str, error: CteraError) -> None:
        self._progress.files += 1
        self._progress.failed += 1
        await self._tell({"path": path, "error": str(error)})

    async def _tell_now_and_then(self) -> None:
        while True:
            await self._tell(asdict(self._progress))
            await trio.sleep(TELL_INTERVAL)
