"""Several blocks of one job: how many hands work on it, and what one that fails or hangs does to the others."""

import threading
from collections.abc import Sequence

import anyio
import pytest
from anyio import to_thread
from direct_world import SIZE, World, status
from scripted_server import Exchange

from cterafs import errors
from cterafs.direct import downloads, slots
from cterafs.direct.client import DirectIO
from cterafs.direct.landing import Landing
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
            with anyio.fail_after(PATIENCE):
                await to_thread.run_sync(lambda: [world.store.begun.acquire() for _ in landings])
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
                await to_thread.run_sync(world.store.begun.acquire)
                assert [landing.complete for landing in landings] == [True] * done + [False] * (5 - done)
                assert not world.store.begun.acquire(blocking=False)
                gate.release()
        assert taken(landings) == world.plain
    assert [number(exchange) for exchange in world.store.exchanges] == [0, 1, 2, 3, 4]


async def test_a_block_that_is_refused_ends_the_job_though_another_hangs(world: World) -> None:
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
            await to_thread.run_sync(world.store.abandoned.acquire)


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
            await to_thread.run_sync(world.store.begun.acquire)
            group.start_soon(client.land, found, landings[4:])
            with anyio.fail_after(PATIENCE):
                while not client._downloads._slots.wanted:
                    await anyio.lowlevel.checkpoint()
            gate.set()
        assert taken(landings) == world.plain
    assert [number(exchange) for exchange in world.store.exchanges] == order
