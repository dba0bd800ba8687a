"""One version of one file: lists by parts, shared, renewed, compared."""

import dataclasses
import math
from collections.abc import Sequence
from types import SimpleNamespace

import anyio
import pytest
from anyio.lowlevel import checkpoint
from listing_portal import Portal

from cterafs import errors
from cterafs.direct import remote as remotes
from cterafs.direct.landing import Landing
from cterafs.direct.remote import RemoteFile
from cterafs.model import BlockMap, Chunk, Extent

pytestmark = pytest.mark.anyio


class Stubborn:
    """Says that the file is larger than its list."""

    def __init__(self, portal: Portal) -> None:
        self.tasks = portal.tasks
        self.land = portal.land
        self._portal = portal

    async def block_map(self, file_id: int, extent: Extent | None = None) -> BlockMap:
        found = await self._portal.block_map(file_id, Extent(100, 140))
        return BlockMap(file_id, 1000, found.chunks, None, None)


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remotes, "WHOLE", 100)
    monkeypatch.setattr(remotes, "WINDOW", 50)


def spans(chunks: object) -> list[tuple[int, int]]:
    return [(chunk.extent.start, chunk.extent.stop) for chunk in chunks]  # type: ignore[attr-defined]


async def test_the_list_of_a_small_file_is_fetched_once() -> None:
    async with anyio.create_task_group() as group:
        portal = Portal(group, 95)
        file = RemoteFile(portal, 7, 95)
        assert spans(await file.chunks(Extent(15, 31))) == [(10, 20), (20, 30), (30, 40)]
        assert spans(await file.chunks(Extent(90, 500))) == [(90, 95)]
        assert spans(await file.chunks(Extent(95, 500))) == []
        assert portal.asked == [None]


async def test_an_empty_file_is_not_asked_for() -> None:
    async with anyio.create_task_group() as group:
        portal = Portal(group, 0)
        assert await RemoteFile(portal, 7, 0).chunks(Extent(0, 10)) == ()
        assert portal.asked == []


@pytest.mark.usefixtures("small_windows")
async def test_the_list_of_a_large_file_is_fetched_by_parts() -> None:
    async with anyio.create_task_group() as group:
        portal = Portal(group, 1005)
        file = RemoteFile(portal, 7, 1005)
        assert spans(await file.chunks(Extent(45, 55))) == [(40, 50), (50, 60)]
        await file.chunks(Extent(60, 70))
        assert spans(await file.chunks(Extent(1003, 1010))) == [(1000, 1005)]
        assert portal.asked == [Extent(0, 50), Extent(50, 100), Extent(1000, 1005)]
        assert len([chunk async for chunk in file.walk(Extent(7, 10_000))]) == 101


@pytest.mark.usefixtures("small_windows")
async def test_only_a_few_parts_are_kept() -> None:
    async with anyio.create_task_group() as group:
        portal = Portal(group, 10_000)
        file = RemoteFile(portal, 7, 10_000)
        for start in range(0, 10_000, 50):
            await file.chunks(Extent(start, start + 10))
        assert len(file._windows) == remotes.WINDOWS
        portal.asked.clear()
        await file.chunks(Extent(9_990, 10_000))
        assert portal.asked == []
        await file.chunks(Extent(0, 10))
        assert portal.asked == [Extent(0, 50)]


@pytest.mark.usefixtures("small_windows")
async def test_the_part_that_was_not_used_for_the_longest_time_is_dropped() -> None:
    async with anyio.create_task_group() as group:
        portal = Portal(group, 10_000)
        file = RemoteFile(portal, 7, 10_000)
        for start in [*range(0, 50 * remotes.WINDOWS, 50), 0, 5000, 0]:
            await file.chunks(Extent(start, start + 10))
        assert portal.asked.count(Extent(0, 50)) == 1


@pytest.mark.usefixtures("small_windows")
async def test_a_portal_that_leaves_out_the_last_bytes_of_a_range() -> None:
    async with anyio.create_task_group() as group:
        portal = Portal(group, 1000)
        portal.short_by = 10
        file = RemoteFile(portal, 7, 1000)
        assert len(await file.chunks(Extent(0, 50))) == 5
        portal.size = 140
        with pytest.raises(errors.InvalidRequest, match="no block holds byte 145"):
            await RemoteFile(Stubborn(portal), 7, 1000).chunks(Extent(145, 146))


@pytest.mark.usefixtures("small_windows")
async def test_a_size_that_is_not_known_is_learned() -> None:
    async with anyio.create_task_group() as group:
        portal = Portal(group, 1000)
        file = RemoteFile(portal, 7)
        assert await file.chunks(Extent(5000, 6000)) == ()
        assert file.size == 1000
        assert portal.asked == [Extent(0, 50)]


async def test_readers_share_one_request_and_its_error() -> None:
    gate = anyio.Event()

    async def refuse() -> None:
        await gate.wait()
        raise errors.AuthorizationError(7)

    caught: list[BaseException] = []

    async def read(file: RemoteFile) -> None:
        try:
            await file.chunks(Extent(0, 10))
        except errors.AuthorizationError as error:
            caught.append(error)

    async with anyio.create_task_group() as group:
        portal = Portal(group, 50)
        portal.before_list = refuse
        file = RemoteFile(portal, 7, 50)
        async with anyio.create_task_group() as readers:
            for _ in range(5):
                readers.start_soon(read, file)
            for _ in range(10):
                await checkpoint()
            gate.set()
        assert len(caught) == 5
        assert len(portal.asked) == 1
        portal.before_list = checkpoint
        assert await file.chunks(Extent(0, 10))  # the error is not remembered


async def test_a_cancelled_reader_harms_no_other() -> None:
    gate = anyio.Event()
    async with anyio.create_task_group() as group:
        portal = Portal(group, 50)
        portal.before_list = gate.wait
        file = RemoteFile(portal, 7, 50)
        got: list[int] = []

        async def read() -> None:
            got.append(len(await file.chunks(Extent(0, 50))))

        async with anyio.create_task_group() as readers:
            async with anyio.create_task_group() as impatient:
                impatient.start_soon(file.chunks, Extent(0, 50))
                await checkpoint()
                await checkpoint()
                readers.start_soon(read)
                for _ in range(5):
                    await checkpoint()
                impatient.cancel_scope.cancel()
            gate.set()
        assert (got, len(portal.asked)) == ([5], 1)


async def test_expired_urls_are_renewed_once_for_all_readers() -> None:
    async with anyio.create_task_group() as group:
        portal = Portal(group, 100)
        file = RemoteFile(portal, 7, 100)
        chunks = await file.chunks(Extent(0, 100))
        portal.valid_from = 2
        async with anyio.create_task_group() as readers:
            for chunk in chunks:
                readers.start_soon(file.read, chunk)
        assert len(portal.asked) == 2
        assert set(portal.fetched.values()) == {2}
        assert await file.read(chunks[3]) == b"x" * 10  # an old chunk is read by its new URL
        assert len(portal.asked) == 2


async def test_a_reader_who_is_refused_late_takes_the_urls_that_came_meanwhile() -> None:
    renewed = anyio.Event()

    async def dawdle(start: int) -> None:
        if start == 0:
            await renewed.wait()

    async with anyio.create_task_group() as group:
        portal = Portal(group, 100)
        portal.before_fetch = dawdle
        file = RemoteFile(portal, 7, 100)
        first, second = await file.chunks(Extent(0, 20))
        portal.valid_from = 2
        group.start_soon(file.read, first)
        await anyio.wait_all_tasks_blocked()
        await file.read(second)
        renewed.set()
    assert (len(portal.asked), portal.fetched) == (2, {0: 2, 10: 2})


async def test_urls_that_are_refused_after_a_renewal_are_an_error() -> None:
    async with anyio.create_task_group() as group:
        portal = Portal(group, 100)
        file = RemoteFile(portal, 7, 100)
        [chunk] = await file.chunks(Extent(0, 10))
        portal.valid_from = 1000
        with pytest.raises(errors.DownloadError, match="403"):
            await file.read(chunk)
        assert (len(portal.asked), portal.fetched[0]) == (2, 2)
        portal.valid_from = 0
        assert await file.read(chunk)


async def test_a_part_that_is_refused_after_a_renewal_is_an_error() -> None:
    async with anyio.create_task_group() as group:
        portal = Portal(group, 100)
        file = RemoteFile(portal, 7, 100)
        [chunk] = await file.chunks(Extent(0, 10))

        async def refused(block_map: BlockMap, chunk: Chunk, extent: Extent) -> bytes | None:
            raise errors.DownloadError(errors.BlockInfo.of(7, chunk), "HTTP 403", 403)

        portal.fetch_part = refused  # type: ignore[attr-defined]
        with anyio.fail_after(60), pytest.raises(errors.DownloadError, match="403"):
            await file.read_part(chunk, Extent(0, 5))
        assert len(portal.asked) == 2


@pytest.mark.parametrize("status", [403, 404])
async def test_whichever_block_is_refused_first_after_a_renewal_that_is_the_end(status: int) -> None:
    """Several are asked for at once, so it need not be the one that was refused first before."""
    async with anyio.create_task_group() as group:
        portal = Portal(group, 100)
        file = RemoteFile(portal, 7, 100)
        landings = [Landing(errors.BlockInfo(7, None, start, 10)) for start in range(0, 100, 10)]
        refused = iter((30, 10, 50, 70))

        async def land(block_map: BlockMap, landings: Sequence[Landing]) -> None:
            raise errors.DownloadError(errors.BlockInfo(7, None, next(refused), 10), f"HTTP {status}", status)

        portal.land = land  # type: ignore[method-assign]
        with pytest.raises(errors.DownloadError if status == 403 else errors.VersionChangedError):
            await file.land(landings)
        assert len(portal.asked) == 2


async def test_as_long_as_blocks_come_refused_urls_are_renewed_but_once_for_each_block() -> None:
    async with anyio.create_task_group() as group:
        portal = Portal(group, 40)
        file = RemoteFile(portal, 7, 40)
        landings = [Landing(errors.BlockInfo(7, None, start, 10)) for start in range(0, 40, 10)]

        async def land(block_map: BlockMap, landings: Sequence[Landing]) -> None:
            """The last comes, and the first is refused."""
            landings[-1].replace(b"x" * 10)
            landings[-1].finish()
            raise errors.DownloadError(landings[0].block, "HTTP 403", 403)

        portal.land = land  # type: ignore[method-assign]
        with pytest.raises(errors.DownloadError):
            await file.land(landings)
        assert len(portal.asked) == 2


@pytest.mark.parametrize("change", ["size", "path", "cut"])
async def test_a_renewed_list_of_another_version_ends_the_file(change: str) -> None:
    async with anyio.create_task_group() as group:
        portal = Portal(group, 100)
        file = RemoteFile(portal, 7, 100)
        [chunk, *_] = await file.chunks(Extent(0, 100))
        portal.valid_from = 2
        if change == "size":
            portal.size = 101
        elif change == "path":
            portal.content = "v2"
        else:
            portal.short_by = 10
        for _ in range(2):
            with pytest.raises(errors.VersionChangedError):
                await file.read(chunk)
        portal.size, portal.content, portal.short_by = 100, "v1", 0
        with pytest.raises(errors.VersionChangedError):  # for good
            await file.chunks(Extent(0, 10))


async def test_a_list_of_another_size_than_was_asked_for_is_another_version() -> None:
    async with anyio.create_task_group() as group:
        with pytest.raises(errors.VersionChangedError, match="100 bytes now, not 99"):
            await RemoteFile(Portal(group, 100), 7, 99).chunks(Extent(0, 10))


async def test_a_fingerprint_tells_another_version_to_a_new_object() -> None:
    async with anyio.create_task_group() as tasks:
        portal = Portal(tasks, 100)
        first = RemoteFile(portal, 7, 100)
        await first.chunks(Extent(0, 100))
        same = RemoteFile(portal, 7, 100, first.fingerprint)
        assert len(await same.chunks(Extent(0, 100))) == 10
        portal.content = "v2"
        with pytest.raises(errors.VersionChangedError):
            await RemoteFile(portal, 7, 100, first.fingerprint).chunks(Extent(0, 100))


@pytest.mark.usefixtures("small_windows")
async def test_a_part_that_was_dropped_is_still_compared() -> None:
    async with anyio.create_task_group() as group:
        portal = Portal(group, 10_000)
        file = RemoteFile(portal, 7, 10_000)
        for start in range(0, 1000, 50):
            await file.chunks(Extent(start, start + 10))
        await file.chunks(Extent(0, 10))  # the same version: no complaint
        portal.content = "v2"
        with pytest.raises(errors.VersionChangedError):
            await file.chunks(Extent(50, 60))


@pytest.mark.parametrize("first", [403, 404])
async def test_a_block_that_storage_does_not_know_after_a_renewal_ends_the_file(first: int) -> None:
    async with anyio.create_task_group() as group:
        portal = Portal(group, 100)
        file = RemoteFile(portal, 7, 100)
        [chunk] = await file.chunks(Extent(0, 10))
        portal.status = first

        async def gone() -> None:
            portal.status = 404

        portal.before_list = gone
        with pytest.raises(errors.VersionChangedError, match="no longer"):
            await file.read(chunk)


@pytest.mark.parametrize("status", [400, 500, None])
async def test_other_errors_of_storage_renew_nothing(status: int | None) -> None:
    async with anyio.create_task_group() as group:
        portal = Portal(group, 100)
        file = RemoteFile(portal, 7, 100)
        [chunk] = await file.chunks(Extent(0, 10))
        portal.status = status or 0
        if status:
            with pytest.raises(errors.DownloadError):
                await file.read(chunk)
        else:
            await file.read(chunk)
        assert len(portal.asked) == 1


async def test_urls_that_tell_their_end_are_renewed_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(remotes, "time", SimpleNamespace(monotonic=lambda: now[0], time=lambda: 0.0))
    async with anyio.create_task_group() as group:
        portal = Portal(group, 100)
        portal.query = "&X-Amz-Expires=3600"
        file = RemoteFile(portal, 7, 100)
        await file.chunks(Extent(0, 10))
        now[0] += 3500
        await file.chunks(Extent(0, 10))
        assert len(portal.asked) == 1
        now[0] += 80
        await file.chunks(Extent(0, 10))
        await file.chunks(Extent(0, 10))
        assert len(portal.asked) == 2


async def test_a_portal_that_is_away_does_not_keep_good_urls_from_being_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async def away() -> None:
        raise errors.BlockListConnectionError(7)

    async with anyio.create_task_group() as group:
        portal = Portal(group, 100)
        portal.query = "&X-Amz-Expires=3600"
        file = RemoteFile(portal, 7, 100)
        [chunk] = await file.chunks(Extent(0, 10))
        monkeypatch.setattr(remotes, "RENEW_AHEAD", math.inf)
        portal.before_list = away
        file._windows[None] = dataclasses.replace(file._windows[None], renew_at=-math.inf)
        assert await file.read(chunk) == b"x" * 10
        assert len(portal.asked) == 2
