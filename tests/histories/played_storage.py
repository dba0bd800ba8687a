"""The storage side of a file, for tests that make up its blocks."""

from __future__ import annotations

from collections.abc import Sequence

from cterafs.direct.landing import Landing
from cterafs.model import Chunk, Extent


class PlayedStorage:
    """Whoever inherits this only has to say what the blocks are."""

    async def read(self, chunk: Chunk) -> bytes:
        raise NotImplementedError

    def known(self, extent: Extent) -> Sequence[Chunk]:
        return ()

    async def read_part(self, chunk: Chunk, extent: Extent) -> bytes | None:
        return None

    def rest(self) -> None:
        pass

    async def land(self, landings: Sequence[Landing]) -> None:
        for landing in landings:
            landing.replace(await self.read(Chunk(landing.extent, "")))
            landing.verify()
            landing.finish()
