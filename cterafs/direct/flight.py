"""Single flight: one task does the work, any number wait for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, Protocol, TypeVar

import anyio

from cterafs import errors

T = TypeVar("T")


class Spawner(Protocol):
    """Where tasks are started: an anyio task group or a trio nursery that outlives them."""

    def start_soon(self, func: Callable[..., Coroutine[Any, Any, Any]], /, *args: Any) -> object: ...


class Flight(Generic[T]):
    """The result to come of a task that belongs to none of those who wait for it: cancelling one harms no other."""

    def __init__(self) -> None:
        self._done = anyio.Event()
        self._value: T | None = None
        self._error: Exception | None = errors.DirectIOError(detail="the client was closed")

    async def run(self, work: Callable[[], Awaitable[T]]) -> None:
        """Does the work; its error goes to those who wait, not to the caller."""
        try:
            self._value = await work()
            self._error = None
        except Exception as error:  # handed on, each and every one
            self._error = error
        finally:
            self._done.set()

    async def wait(self) -> T:
        """The result, or the error, of the work."""
        await self._done.wait()
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # there is no error, so it is what `work` returned
