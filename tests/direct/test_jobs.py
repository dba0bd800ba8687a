"""Several blocks of one job: how many hands work on it, and what one that fails or hangs does to the others."""

import threading
from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from anyio import to_thread
from direct_world import SIZE, World, status
from scripted_server import Exchange

from cterafs import errors
from cterafs.direct import downloads, slots
from cterafs.direct import retry as retries
from cterafs.direct.client import DirectIO
from cterafs.direct.landing import Landing
from cterafs.direct.transfer import Aborted, Transfer
from cterafs.errors import BlockInfo
from cterafs.model import BlockMap

pytestmark = pytest.mark.anyio

PATIENCE = 100.0
NEAR = 10
"""Answers that came at once, after which storage is known to be near."""


def number(exchange: Exchange) -> int:
    return int(exchange.path.partition("?")[0].rpartition("/")[2])


async def listed(client: DirectIO) -> tuple[BlockMap, list[Landing]]:
    found = await client.block_map(7)
    return found, [Landing(BlockInfo.of(7, chunk)) for chunk in found.chunks]


async def begun(world: World, count: int = 1) -> None:
    """Until so many more requests have come."""
    with anyio.fail_after(PATIENCE):
        for _ in range(count):
            await to_thread.run_sync(world.store.begun.acquire, abandon_on_cancel=True)


def taken(landings: Sequence[Landing]) -> bytes:
    return b"".join(bytes(landing.take()) for landing in landings)


def bring_near(client: DirectIO) -> None:
    for _ in range(NEAR):
        client._downloads._pace.observe(0.0, 0.001)


async def test_where_storage_takes_its_time_the_blocks_of_a_job_are_asked_for_at_once(world: World) -> None:
    gate = threading.Event()
    world.storage = lambda exchange: not gate.wait(PATIENCE)
    async with world.client() as client:
        found, landings = await listed(client)
        async with anyio.create_task_group() as group:
            group.start_soon(client.land, found, landings)
            await begun(world, len(landings))
            gate.set()
        assert taken(landings) == world.plain


async def test_where_storage_is_near_they_come_one_after_the_other(world: World) -> None:
    gate = threading.Semaphore(0)
    world.storage = lambda exchange: not gate.acquire(timeout=PATIENCE)
    async with world.client() as client:
        bring_near(client)
        found, landings = await listed(client)
        async with anyio.create_task_group() as group:
            group.start_soon(client.land, found, landings)
            for done in range(len(landings)):
                await begun(world)
                assert [landing.complete for landing in landings] == [True] * done + [False] * (5 - done)
                assert not world.store.begun.acquire(blocking=False)
                gate.release()
        assert taken(landings) == world.plain
    assert [number(exchange) for exchange in world.store.exchanges] == [0, 1, 2, 3, 4]


async def test_a_block_that_is_refused_ends_the_job_though_another_hangs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "TO_FINISH", 0.01)

    def script(exchange: Exchange) -> bool:
        if number(exchange) == 0:
            exchange.hang()
        elif number(exchange) == 3:
            status("403 Forbidden")(exchange)
        return number(exchange) in (0, 3)

    world.storage = script
    async with world.client(timeout=600) as client:
        found, landings = await listed(client)
        with anyio.fail_after(PATIENCE), pytest.raises(errors.DownloadError, match="403") as caught:
            await client.land(found, landings)
        assert caught.value.block.offset == 3 * SIZE
        assert not landings[0].complete
        with anyio.fail_after(PATIENCE):
            await to_thread.run_sync(world.store.abandoned.acquire, abandon_on_cancel=True)


async def test_what_nobody_is_at_is_dropped_where_one_hangs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def script(exchange: Exchange) -> bool:
        if number(exchange) < 2:
            exchange.hang()
        return number(exchange) < 2

    world.storage = script
    monkeypatch.setattr(slots, "HUNG", 0.01)
    monkeypatch.setattr(slots, "TICK", 0.01)
    async with world.client(workers=4, timeout=600) as client:
        found, landings = await listed(client)
        dropped = anyio.Event()
        landings[4].tell = dropped.set
        async with anyio.create_task_group() as group:
            group.start_soon(client.land, found, landings)
            with anyio.fail_after(PATIENCE):
                await dropped.wait()
            assert [landing.dropped for landing in landings] == [False, False, True, True, True]
            group.cancel_scope.cancel()


@pytest.mark.parametrize(("turn", "order"), [(SIZE, [0, 4, 1, 2, 3]), (4 * SIZE, [0, 1, 2, 3, 4])])
async def test_a_long_job_makes_room_after_its_turn(
    world: World, monkeypatch: pytest.MonkeyPatch, turn: int, order: list[int]
) -> None:
    monkeypatch.setattr(downloads, "TURN", turn)
    gate = threading.Event()
    world.storage = lambda exchange: not gate.wait(PATIENCE)
    async with world.client(workers=1) as client:
        found, landings = await listed(client)
        async with anyio.create_task_group() as group:
            group.start_soon(client.land, found, landings[:4])
            await begun(world)
            group.start_soon(client.land, found, landings[4:])
            with anyio.fail_after(PATIENCE):
                while not client._downloads._slots.wanted:
                    await anyio.lowlevel.checkpoint()
            gate.set()
        assert taken(landings) == world.plain
    assert [number(exchange) for exchange in world.store.exchanges] == order


async def test_a_block_that_is_refused_leaves_others_the_time_to_finish(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    noticed = threading.Event()
    leave_the_rest = downloads._Hand.leave_the_rest

    def leave(hand: downloads._Hand) -> None:
        leave_the_rest(hand)
        noticed.set()

    monkeypatch.setattr(downloads._Hand, "leave_the_rest", leave)
    monkeypatch.setattr(downloads, "TO_FINISH", PATIENCE)

    def script(exchange: Exchange) -> bool:
        if number(exchange) == 3:
            status("403 Forbidden")(exchange)
        return number(exchange) == 3 or not noticed.wait(PATIENCE)

    world.storage = script
    async with world.client(workers=8) as client:  # four hands
        found, landings = await listed(client)
        with anyio.fail_after(PATIENCE), pytest.raises(errors.DownloadError, match="403"):
            await client.land(found, landings)
        assert [landing.complete for landing in landings] == [True, True, True, False, False]
    assert len(world.store.exchanges) == 4, "the fifth was not tried"


@pytest.mark.parametrize("wanted", [False, True], ids=["within a turn", "each in a turn of its own"])
async def test_each_block_has_its_own_attempts(world: World, monkeypatch: pytest.MonkeyPatch, wanted: bool) -> None:
    monkeypatch.setattr(downloads, "TURN", SIZE)
    monkeypatch.setattr(slots.Slots, "wanted", wanted)
    failures = [retries.ATTEMPTS - 1] * 5

    def script(exchange: Exchange) -> bool:
        failures[number(exchange)] -= 1
        if failures[number(exchange)] >= 0:
            status("503 Busy")(exchange)
        return failures[number(exchange)] >= 0

    world.storage = script
    async with world.client(workers=1) as client:
        found, landings = await listed(client)
        await client.land(found, landings)
        assert taken(landings) == world.plain


async def test_nobody_goes_back_to_the_queue_where_nobody_waits(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "TURN", 1)
    async with world.client(workers=1) as client:
        found, landings = await listed(client)
        trips: list[object] = []
        download = client._downloads._download

        def counted(*args: Any) -> None:
            trips.append(args)
            download(*args)

        monkeypatch.setattr(client._downloads, "_download", counted)
        await client.land(found, landings)
        assert taken(landings) == world.plain
    assert len(trips) == 1


def test_who_was_given_up_takes_nothing_more() -> None:
    transfer = Transfer(1.0)
    assert transfer.unless_aborted(lambda: 7) == 7
    transfer.abort()
    with pytest.raises(Aborted):
        transfer.unless_aborted(lambda: pytest.fail("it was given up"))
