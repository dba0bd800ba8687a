from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from cterafs import EventQueue

pytestmark = pytest.mark.anyio


async def test_first_in_first_out() -> None:
    queue: EventQueue[int] = EventQueue()
    for number in range(3):
        await queue.put(number)
    assert len(queue) == 3
    assert [await queue.get() for _ in range(3)] == [0, 1, 2]


async def test_join_waits_until_all_is_done() -> None:
    queue: EventQueue[int] = EventQueue()
    log: list[str] = []

    async def join() -> None:
        await queue.join()
        log.append("joined")

    await queue.put(1)
    await queue.put(2)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(join)
            for number in (1, 2):
                assert await queue.get() == number
                await anyio.wait_all_tasks_blocked()
                log.append(f"done {number}")
                queue.task_done()
    assert log == ["done 1", "done 2", "joined"]


async def test_join_of_an_empty_queue_returns() -> None:
    await EventQueue[int]().join()


async def test_get_waits_for_an_item() -> None:
    queue: EventQueue[int] = EventQueue()
    taken: list[int] = []

    async def take() -> None:
        taken.append(await queue.get())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(take)
        tasks.start_soon(take)
        await anyio.wait_all_tasks_blocked()
        assert taken == []
        await queue.put(1)
        await queue.put(2)
    assert sorted(taken) == [1, 2]


async def test_put_waits_for_room() -> None:
    queue: EventQueue[int] = EventQueue(maxsize=1)
    await queue.put(1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(queue.put, 2)
        await anyio.wait_all_tasks_blocked()
        assert len(queue) == 1
        assert await queue.get() == 1
    assert await queue.get() == 2


async def test_a_cancelled_get_takes_nothing() -> None:
    queue: EventQueue[int] = EventQueue()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(queue.get)
        await anyio.wait_all_tasks_blocked()
        await queue.put(1)
        tasks.cancel_scope.cancel()
    with anyio.fail_after(5):
        if not len(queue):  # the other task was faster than its cancellation
            await queue.put(1)
        assert await queue.get() == 1


async def test_more_done_than_put() -> None:
    with pytest.raises(ValueError, match="task_done"):
        EventQueue[int]().task_done()
