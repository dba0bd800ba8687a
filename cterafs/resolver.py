"""Host names, looked up once for all who ask for the same at a time.

A name server that does not answer holds up a thread for each lookup, for as long as the C library has patience, whoever
has given up meanwhile. Trio has 40 threads for all who bring none of their own; without them a mount cannot even be
ended.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import trio

from cterafs.threads import patiently


@dataclass(eq=False, slots=True)
class _Lookup:
    """One that is under way: `found`, or `error`, once it is `over`."""

    over: trio.Event = field(default_factory=trio.Event)
    found: Any = None
    error: Exception | None = None


class Resolver(trio.abc.HostnameResolver):
    """To be set with `trio.socket.set_custom_hostname_resolver`."""

    def __init__(self) -> None:
        self._under_way: dict[tuple[object, ...], _Lookup] = {}
        self._threads = trio.CapacityLimiter(math.inf)

    async def getaddrinfo(  # noqa: PLR0917  # they are trio's
        self,
        host: bytes | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        """As `socket.getaddrinfo`."""
        question = (host, port, family, type, proto, flags)
        return await self._looked_up(partial(socket.getaddrinfo, *question), question)

    async def getnameinfo(self, sockaddr: tuple[str, int] | tuple[str, int, int, int], flags: int) -> Any:
        """As `socket.getnameinfo`."""
        return await self._looked_up(partial(socket.getnameinfo, sockaddr, flags), (sockaddr, flags))

    async def _looked_up(self, look_up: Callable[[], Any], question: tuple[object, ...]) -> Any:
        lookup = self._under_way.get(question)
        if lookup is None:
            lookup = self._under_way[question] = _Lookup()
            trio.lowlevel.spawn_system_task(self._run, look_up, question, lookup)
        await lookup.over.wait()
        if lookup.error is not None:
            raise type(lookup.error)(*lookup.error.args)  # one for each, since it collects where it was raised
        return lookup.found

    async def _run(self, look_up: Callable[[], Any], question: tuple[object, ...], lookup: _Lookup) -> None:
        start = partial(trio.to_thread.run_sync, look_up, abandon_on_cancel=True, limiter=self._threads)
        try:
            lookup.found = await patiently(start)
        except Exception as error:  # handed on, each and every one: here, it would end the mount
            lookup.error = error
        finally:
            del self._under_way[question]
            lookup.over.set()
