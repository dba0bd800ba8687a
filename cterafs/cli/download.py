"""One file by Direct IO, into a file or a stream."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import BinaryIO

from anyio import to_thread

from cterafs.cli.partial import Partial, block_digest
from cterafs.cli.progress import Progress
from cterafs.direct.client import DirectIO
from cterafs.direct.presigned import stable_path
from cterafs.direct.remote import RemoteFile
from cterafs.direct.streamer import Streamer
from cterafs.errors import ConfigError
from cterafs.model import ByteRange, Chunk, Extent

# Bytes that may be under way or waiting to be written: as much as DirectIO's own streams have.
AHEAD = 64 << 20

Write = Callable[[bytes | memoryview, str], Awaitable[None]]
"""Takes the next bytes, and the digest of the block that they are from."""


async def download(
    client: DirectIO, file_id: int, byte_range: ByteRange, destination: Path | BinaryIO, *, workers: int
) -> None:
    """Fetch a range of a file.

    Args:
        destination: a path, whose file appears when it is complete, and is taken up where an earlier call left off;
            or a stream, written as the bytes come.
        workers: blocks that may be under way.

    Raises:
        ConfigError: the range begins beyond the end of the file.
        DirectIOError: the portal or storage does not give it.
        StateError: another process writes to the same path.
        OSError: it cannot be written.
    """
    remote = RemoteFile(client, file_id)
    await remote.chunks(Extent(0, 1))
    size = remote.size or 0
    wanted = byte_range.extent(size)
    if not len(wanted):
        raise ConfigError(f"the range begins at {byte_range.start}, and the file has only {size} bytes")
    if isinstance(destination, Path):
        await _to_file(remote, wanted, destination, workers)
    else:
        await _to_stream(remote, wanted, destination, workers)


async def _to_stream(remote: RemoteFile, wanted: Extent, stream: BinaryIO, workers: int) -> None:
    async def write(data: bytes | memoryview, _: str) -> None:
        # A pipe may be full for ever; an interrupt must end us all the same.
        await to_thread.run_sync(stream.write, data, abandon_on_cancel=True)

    with Progress(len(wanted)) as progress:
        await _copy(remote, wanted, write, progress, workers)
    await to_thread.run_sync(stream.flush, abandon_on_cancel=True)


async def _to_file(remote: RemoteFile, wanted: Extent, destination: Path, workers: int) -> None:
    identity = {"file_id": remote.file_id, "size": remote.size or 0, "start": wanted.start, "stop": wanted.stop}
    with Partial(destination, identity) as partial:
        done = partial.keep(await _matching(remote, wanted, partial))

        async def write(data: bytes | memoryview, digest: str) -> None:
            await to_thread.run_sync(partial.write, data, digest)

        with Progress(len(wanted), done) as progress:
            await _copy(remote, Extent(wanted.start + done, wanted.stop), write, progress, workers)
        await to_thread.run_sync(partial.finish)


async def _matching(remote: RemoteFile, wanted: Extent, partial: Partial) -> int:
    """How many blocks of the part can be kept: all, or, where the portal lists one of them differently, none."""
    if not partial.marks:
        return 0
    remaining = deque(partial.marks)
    have = Extent(wanted.start, wanted.start + remaining[-1].size)
    async for chunk in remote.walk(have):
        mark = remaining.popleft() if remaining else None
        end = min(chunk.extent.stop, wanted.stop) - wanted.start
        if mark is None or (mark.size, mark.digest) != (end, _digest(chunk)):
            return 0
    return 0 if remaining else len(partial.marks)


async def _copy(remote: RemoteFile, wanted: Extent, write: Write, progress: Progress, workers: int) -> None:
    drawn = _Drawn(remote, wanted)
    async with Streamer(remote.file_id, drawn, remote.read, ahead=AHEAD, wanted=wanted, workers=workers) as stream:
        async for block in stream:
            await write(block.data, drawn.digests.popleft())
            progress.advance(block.length)


class _Drawn:
    """The blocks of a range, with the digests of those that were drawn, for who gets them in the same order."""

    def __init__(self, remote: RemoteFile, wanted: Extent) -> None:
        self._walk = remote.walk(wanted)
        self.digests: deque[str] = deque()

    def __aiter__(self) -> _Drawn:
        return self

    async def __anext__(self) -> Chunk:
        chunk = await anext(self._walk)
        self.digests.append(_digest(chunk))
        return chunk


def _digest(chunk: Chunk) -> str:
    return block_digest(stable_path(chunk.url), len(chunk.extent))


def write_empty(destination: Path | BinaryIO) -> None:
    """What downloading a file of no bytes comes to; there are no blocks to ask for."""
    if isinstance(destination, Path):
        os.close(os.open(destination, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666))
