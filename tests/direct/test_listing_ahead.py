"""The list of a larger file: first that of the part that is read, then the whole."""

from collections.abc import Callable

import anyio
import pytest
from anyio.abc import TaskGroup
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


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(60):
        while not condition():
            await checkpoint()


async def begun(tasks: TaskGroup) -> tuple[Portal, RemoteFile, Gate]:
    """A file of which one part is listed, and the whole on its way until the gate is opened."""
    portal, gate = Portal(tasks, SIZE), Gate()
    portal.before_list = gate
    file = RemoteFile(portal, 7, SIZE)
    assert len(await file.chunks(Extent(250, 260))) == 1
    await until(lambda: portal.asked == [PART, None])
    return portal, file, gate


async def test_the_first_blocks_do_not_wait_for_the_list_of_all() -> None:
    async with anyio.create_task_group() as group:
        portal, file, gate = await begun(group)
        [chunk, *_] = await file.chunks(PART)
        assert await file.read(chunk)
        assert not file.known(Extent(0, 10))
        gate.opened.set()
        assert len(await file.chunks(Extent(0, SIZE))) == 100
        assert file.listed == 100
        assert portal.asked == [PART, None]


async def test_readers_of_one_part_share_its_list() -> None:
    async with anyio.create_task_group() as group:
        portal, gate = Portal(group, SIZE), Gate()
        portal.before_list = gate
        file = RemoteFile(portal, 7, SIZE)
        with anyio.fail_after(60):
            async with anyio.create_task_group() as readers:
                for start in (250, 260, 270):
                    readers.start_soon(file.chunks, Extent(start, start + 10))
        gate.opened.set()
    assert portal.asked == [PART, None]


async def test_who_reads_elsewhere_meanwhile_waits_for_the_list_of_all() -> None:
    async with anyio.create_task_group() as group:
        portal, file, gate = await begun(group)
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
        portal, file, gate = await begun(group)
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
        portal.changed_from = 700
        with pytest.raises(errors.VersionChangedError):
            await RemoteFile(portal, 7, SIZE, file.fingerprint).chunks(Extent(250, 260))
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
        assert portal.asked == [PART, None, None]


async def test_a_portal_that_answers_with_the_whole_is_asked_once() -> None:
    async with anyio.create_task_group() as group:
        portal = Portal(group, SIZE)
        portal.knows_ranges = False
        file = RemoteFile(portal, 7, SIZE)
        await file.chunks(Extent(250, 260))
        await file.chunks(Extent(700, 710))
        assert portal.asked == [PART]


async def test_urls_of_a_part_that_expired_are_renewed_by_its_own_list() -> None:
    """Those of all may have been signed at the same time."""
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
        assert portal.asked == [PART, None, PART]


@pytest.mark.parametrize("again", [False, True])
async def test_a_list_of_all_that_comes_when_nobody_reads_any_more_is_not_kept(again: bool) -> None:
    """It may be large, and whoever keeps the file for later has looked at how much it takes."""
    async with anyio.create_task_group() as group:
        _, file, gate = await begun(group)
        file.rest()
        if again:
            await file.chunks(Extent(250, 260))
        gate.opened.set()
        await until(lambda: not file._flights)
        assert file.listed == (100 if again else 10)
        assert len(await file.chunks(Extent(0, SIZE))) == 100


async def test_of_two_parts_that_are_read_at_once_one_waits_for_the_list_of_all() -> None:
    """Nothing would compare what they are of."""
    async with anyio.create_task_group() as group:
        portal = Portal(group, SIZE)
        file = RemoteFile(portal, 7, SIZE)
        group.start_soon(file.chunks, Extent(250, 260))
        group.start_soon(file.chunks, Extent(700, 710))
        group.start_soon(file.chunks, Extent(260, 270))
        await anyio.wait_all_tasks_blocked()
        assert len(portal.asked) == 2, "whichever came first"
        assert None in portal.asked


async def test_a_list_of_all_that_came_for_a_part_is_compared_as_a_whole() -> None:
    async with anyio.create_task_group() as group:
        portal = Portal(group, SIZE)
        portal.knows_ranges = False
        file = RemoteFile(portal, 7, SIZE)
        [chunk] = await file.chunks(Extent(250, 260))
        portal.changed_from = 700
        portal.valid_from = 2
        with pytest.raises(errors.VersionChangedError):
            await file.read(chunk)


async def test_a_part_that_comes_without_its_last_bytes_is_of_no_use() -> None:
    async with anyio.create_task_group() as group:
        portal = Portal(group, SIZE)

        async def cut() -> None:
            portal.short_by = 10 if portal.asked[-1] else 0
            await checkpoint()

        portal.before_list = cut
        file = RemoteFile(portal, 7, SIZE)
        assert len(await file.chunks(Extent(250, 260))) == 1
        assert len(await file.chunks(Extent(0, SIZE))) == 100
        assert portal.asked == [PART, None]


@pytest.mark.parametrize("refusal", [errors.InvalidRequest, errors.BlocksNotFoundError])
async def test_a_portal_that_gives_no_parts_is_asked_for_all(refusal: type[errors.DirectIOAPIError]) -> None:
    async with anyio.create_task_group() as group:
        portal = Portal(group, SIZE)

        async def refuse() -> None:
            if portal.asked[-1] is not None:
                raise refusal(7)
            await checkpoint()

        portal.before_list = refuse
        file = RemoteFile(portal, 7, SIZE)
        assert len(await file.chunks(Extent(250, 260))) == 1
        assert portal.asked == [PART, None]
