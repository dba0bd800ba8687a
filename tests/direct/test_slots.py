"""Slots: how many at once, and who watches."""

import anyio
import pytest
from anyio.lowlevel import checkpoint

from cterafs.direct import slots
from cterafs.direct.slots import Slots

pytestmark = pytest.mark.anyio


async def test_as_many_at_once_as_there_are_slots() -> None:
    limited = Slots(lambda: 2)
    begun: list[int] = []
    gate = anyio.Event()

    async def download(number: int) -> None:
        async with limited.transfer(10):
            begun.append(number)
            await gate.wait()

    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(download, number)
        await anyio.wait_all_tasks_blocked()
        assert len(begun) == 2
        gate.set()
    assert len(begun) == 5


async def test_a_cancelled_wait_takes_no_slot() -> None:
    limited = Slots(lambda: 1)
    async with limited.transfer(10):
        with anyio.move_on_after(0):
            async with limited.transfer(10):
                pytest.fail("there is one slot only")
    async with limited.transfer(10):
        pass


async def test_a_slot_that_was_given_up_is_not_given_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "STALLED", 0.0)
    monkeypatch.setattr(slots, "TICK", 0.0)
    limited = Slots(lambda: 1)
    async with anyio.create_task_group() as group:
        group.start_soon(limited.watch)
        async with limited.transfer(1000), limited.transfer(1000), limited.transfer(1000):
            pass
        monkeypatch.setattr(slots, "STALLED", 1000.0)
        async with limited.transfer(1000):
            with anyio.move_on_after(0.01) as scope:
                async with limited.transfer(1000):
                    pytest.fail("there is one slot only")
        assert scope.cancelled_caught
        group.cancel_scope.cancel()


async def test_the_watch_sleeps_while_there_is_nothing_to_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "TICK", 0.0)
    limited = Slots(lambda: 1)
    async with anyio.create_task_group() as group:
        group.start_soon(limited.watch)
        for _ in range(2):
            async with limited.transfer(10):
                await checkpoint()
            with anyio.fail_after(10):
                await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()


async def test_who_waits_behind_one_that_hangs_is_told_once_and_not_when_it_is_merely_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slots, "STALLED", 0.0)
    monkeypatch.setattr(slots, "TICK", 0.0)
    limited = Slots(lambda: 1)
    told: list[str] = []
    async with anyio.create_task_group() as group:
        group.start_soon(limited.watch)
        async with limited.transfer(1000, lambda: told.append("slow")), limited.transfer(1000):
            assert told == []  # though its slot was given up
            monkeypatch.setattr(slots, "HUNG", 0.0)
            while not told:
                await checkpoint()
            for _ in range(20):
                await checkpoint()
            assert told == ["slow"]
        group.cancel_scope.cancel()
