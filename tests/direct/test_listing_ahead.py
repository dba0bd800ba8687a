"""The list of a larger file: first that of the part that is read, then the whole."""

from collections.abc import Awaitable, Callable

import anyio
import pytest
from anyio.lowlevel import checkpoint
from listing_portal import Portal

from cterafs import errors
from cterafs.direct import remote as remotes
from cterafs.direct.remote import RemoteFile
from cterafs.model import Extent

pytestmark = pytest.mark.anyio

SIZE = 1000
PART = Extent(200, 300)


@pytest.fixture(autouse=True)
def small_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remotes, "PART", 100)


class Gate:
    """Keeps lists back, but the first."""

    def __init__(self) -> None:
        self.opened = anyio.Event()
        self._first = True

    async def __call__(self) -> None:
        first, self._first = self._first, False
        if not first:
            await self.opened.wait()


def gated(portal: Portal) -> Gate:
    gate = Gate()
    portal.before_list = gate
    return gate


async def until(condition: Callable[[], bool], step: Callable[[], Awaitable[object]] = checkpoint) -> None:
    with anyio.fail_after(60):
        while not condition():
            await step()


async def test_the_first_blocks_do_not_wait_for_the_list_of_all() -> None:
    async with anyio.create_task_group() as group:
        portal = Portal(group, SIZE)
        gate = gated(portal)
        file = RemoteFile(portal, 7, SIZE)
        [chunk] = await file.chunks(Extent(250, 260))
        assert await file.read(chunk)
        await until(lambda: portal.asked == [PART, None])
        await file.chunks(PART)
        assert not file.known(Extent(0, 10))
        gate.opened.set()
        assert len(await file.chunks(Extent(0, SIZE))) == 100
        assert file.listed == 100
        assert portal.asked == [PART, None]


async def test_who_reads_elsewhere_meanwhile_waits_for_the_list_of_all() -> None:
    async with anyio.create_task_group() as group:
        portal = Portal(group, SIZE)
        gate = gated(portal)
        file = RemoteFile(portal, 7, SIZE)
        await file.chunks(Extent(250, 260))
        group.start_soon(file.chunks, Extent(700, 710))
        await anyio.wait_all_tasks_blocked()
        gate.opened.set()
        await file.chunks(Extent(700, 710))
        assert portal.asked == [PART, None]


@pytest.mark.parametrize("size", [95, 100])
async def test_the_list_of_a_small_file_is_asked_for_as_a_whole(size: int) -> None:
    async with anyio.create_task_group() as group:
        portal = Portal(group, size)
        await RemoteFile(portal, 7, size).chunks(Extent(0, 10))
        assert portal.asked == [None]


async def test_a_list_of_all_that_shows_another_version_ends_the_file() -> None:
    """Nobody gets the beginning of one version and the rest of another."""
    async with anyio.create_task_group() as group:
        portal = Portal(group, SIZE)
        gate = gated(portal)
        file = RemoteFile(portal, 7, SIZE)
        await file.chunks(Extent(250, 260))
        await until(lambda: len(portal.asked) == 2)
        portal.content = "v2"
        gate.opened.set()
        with pytest.raises(errors.VersionChangedError, match="its blocks are others now"):
            await file.chunks(Extent(700, 710))
        with pytest.raises(errors.VersionChangedError):
            await file.chunks(Extent(250, 260))


async def test_what_was_seen_as_a_whole_before_is_compared_as_a_whole() -> None:
    async with anyio.create_task_group() as group:
        portal = Portal(group, SIZE)
        file = RemoteFile(portal, 7, SIZE)
        await file.chunks(Extent(250, 260))
        await file.chunks(Extent(700, 710))
        portal.asked.clear()
        portal.content = "v2"
        with pytest.raises(errors.VersionChangedError):
            await RemoteFile(portal, 7, SIZE, file.fingerprint).chunks(Extent(0, 10))
        assert portal.asked == [None]


async def test_the_list_of_all_that_fails_is_asked_for_again_by_who_needs_it() -> None:
    async with anyio.create_task_group() as group:
        portal = Portal(group, SIZE)
        file = RemoteFile(portal, 7, SIZE)
        failing = iter((False, True, False, False))

        async def fail() -> None:
            if next(failing):
                raise errors.BlockListTimeout(7)
            await checkpoint()

        portal.before_list = fail
        await file.chunks(Extent(250, 260))
        await until(lambda: portal.asked == [PART, None] and not file._flights)
        assert await file.chunks(Extent(250, 260))
        assert await file.chunks(Extent(700, 710))
        assert portal.asked[:3] == [PART, None, Extent(700, 800)]


async def test_a_portal_that_answers_with_the_whole_is_asked_once() -> None:
    async with anyio.create_task_group() as group:
        portal = Portal(group, SIZE)
        listed = portal.block_map

        async def whole(file_id: int, extent: Extent | None = None) -> remotes.BlockMap:
            return await listed(file_id, None)

        portal.block_map = whole  # type: ignore[method-assign]
        file = RemoteFile(portal, 7, SIZE)
        await file.chunks(Extent(250, 260))
        await file.chunks(Extent(700, 710))
        assert portal.asked == [None]


async def test_urls_of_a_part_that_expired_are_renewed_with_those_of_all() -> None:
    async with anyio.create_task_group() as group:
        portal = Portal(group, SIZE)
        file = RemoteFile(portal, 7, SIZE)
        [chunk] = await file.chunks(Extent(250, 260))
        fetch = portal.before_fetch

        async def expire(start: int) -> None:
            """While this block is on its way, the list of all comes, and the URLs of the part are over."""
            portal.before_fetch = fetch
            await until(lambda: None in file._windows)
            portal.valid_from = 2

        portal.before_fetch = expire
        assert await file.read(chunk)
        assert portal.asked == [PART, None]


@pytest.mark.parametrize("again", [False, True])
async def test_a_list_of_all_that_comes_when_nobody_reads_any_more_is_not_kept(again: bool) -> None:
    """It may be large, and whoever keeps the file for later has looked at how much it takes."""
    async with anyio.create_task_group() as group:
        portal = Portal(group, SIZE)
        gate = gated(portal)
        file = RemoteFile(portal, 7, SIZE)
        await file.chunks(Extent(250, 260))
        await until(lambda: len(portal.asked) == 2)
        file.rest()
        if again:
            await file.chunks(Extent(250, 260))
        gate.opened.set()
        await until(lambda: not file._flights)
        assert file.listed == (100 if again else 10)
        assert len(await file.chunks(Extent(0, SIZE))) == 100
