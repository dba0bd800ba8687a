"""What is known of a file from one open to the next."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
import trio.testing
from played_storage import PlayedStorage

from cterafs.content.cache import BlockCache
from cterafs.content.contents import IDLE, Contents
from cterafs.content.memory import BlockMemory
from cterafs.direct.landing import Landing
from cterafs.errors import DownloadError
from cterafs.model import ROOT_INODE, Chunk, Extent, Inode, Node
from cterafs.stats import Stats

SIZE = 1000
BLOCK = Chunk(Extent(0, SIZE), "https://s/0")
INODE = Inode(2)
NODE = Node(
    inode=INODE, parent=ROOT_INODE, name="f", wire_name="f", is_dir=False, file_id=9, size=SIZE, gvsn="1", mtime_ns=1
)

pytestmark = [pytest.mark.trio, pytest.mark.usefixtures("divided")]


class Remote(PlayedStorage):
    """A block that is half there until it `ends`, and then turns out to be wrong."""

    fingerprint = ((None, b"the list as it was"),)

    def __init__(self, listed: int) -> None:
        self.listed = listed
        self.ends = trio.Event()
        self.expected: list[object] = []
        self.rests = 0

    def rest(self) -> None:
        self.rests += 1

    def __call__(self, file_id: int, size: int, fingerprint: object) -> Remote:
        self.expected.append(fingerprint)
        return self

    async def chunks(self, extent: Extent) -> Sequence[Chunk]:
        return (BLOCK,)

    async def land(self, landings: Sequence[Landing]) -> None:
        [landing] = landings
        landing.start()
        landing.advance(SIZE // 2)
        await self.ends.wait()
        raise DownloadError(landing.block, "broken")


@pytest.mark.parametrize("listed", [1, IDLE + 1], ids=["list remembered", "list forgotten"])
@pytest.mark.parametrize("closed", [False, True], ids=["while it is open", "after its last close"])
async def test_what_was_read_of_a_wrong_block_is_not_good_at_the_next_open(listed: int, closed: bool) -> None:
    remote = Remote(listed)
    async with trio.open_nursery() as nursery:
        cache = BlockCache(BlockMemory(10 * SIZE), nursery, Stats())
        contents = Contents(remote, cache, Stats())

        def is_good() -> bool:
            _, good = contents.open(NODE)
            contents.close(INODE, superseded=False)
            return good

        assert not is_good(), "nothing is known of it yet"
        assert is_good()
        source, _ = contents.open(NODE)
        await source.read(BLOCK, Extent(0, 10))
        if closed:
            contents.close(INODE, superseded=False)
        remote.ends.set()
        await trio.testing.wait_all_tasks_blocked()
        if not closed:
            contents.close(INODE, superseded=False)
        assert not is_good()
        assert is_good(), "it was dropped then"
    assert set(remote.expected[1:]) <= {Remote.fingerprint}, "the version is known all the time"


async def test_lists_are_no_longer_kept_when_the_last_one_closes(nursery: trio.Nursery) -> None:
    """What a file weighs is looked at then, and only then."""
    remote = Remote(1)
    contents = Contents(remote, BlockCache(BlockMemory(10 * SIZE), nursery, Stats()), Stats())
    contents.open(NODE)
    contents.open(NODE)
    contents.close(INODE, superseded=False)
    assert remote.rests == 0
    contents.close(INODE, superseded=False)
    assert remote.rests == 1
