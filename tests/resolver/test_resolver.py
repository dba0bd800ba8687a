"""Names are looked up once for all who ask, and nobody is held up by a name server that does not answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import trio

from cterafs.resolver import Resolver
from cterafs.threads import REFUSED

pytestmark = pytest.mark.trio
MANY = 100  # trio has 40 threads of its own


class Library:
    """The C library, which answers when it is told to."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.asked: list[object] = []
        self.answers = threading.Event()
        self.error: Exception | None = None
        patch.setattr(socket, "getaddrinfo", self.getaddrinfo)

    def getaddrinfo(self, host: bytes, *more: object) -> Any:
        self.asked.append(host)
        assert self.answers.wait(10)
        if self.error is not None:
            raise self.error
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 80))]


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[Library]:
    library = Library(monkeypatch)
    yield library
    library.answers.set()


async def test_who_asks_for_the_same_waits_for_one_lookup(library: Library) -> None:
    resolver, found = Resolver(), list[Any]()

    async def ask() -> None:
        found.extend(await resolver.getaddrinfo(b"portal.example", 80))

    async with trio.open_nursery() as nursery:
        for _ in range(MANY):
            nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        await trio.to_thread.run_sync(library.answers.set)
    assert len(found) == MANY
    assert library.asked == [b"portal.example"]
    await ask()
    assert len(library.asked) == 2, "it is asked anew, since names move"


async def test_who_gives_up_is_free_at_once_and_harms_nobody(library: Library) -> None:
    resolver, found = Resolver(), list[Any]()

    async def ask() -> None:
        found.extend(await resolver.getaddrinfo(b"portal.example", 80))

    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as impatient:
            impatient.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            impatient.cancel_scope.cancel()
        library.answers.set()
    assert len(found) == len(library.asked) == 1


@pytest.mark.parametrize("error", [socket.gaierror(-2, "Name or service not known"), UnicodeError("label too long")])
async def test_everybody_is_told_why_a_name_is_not_found(library: Library, error: Exception) -> None:
    resolver, errors = Resolver(), list[Exception]()
    library.error = error

    async def ask() -> None:
        try:
            await resolver.getaddrinfo(b"portal.example", 80)
        except type(error) as caught:
            errors.append(caught)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        library.answers.set()
    assert [caught.args for caught in errors] == [error.args] * 2
    assert errors[0] is not errors[1]


async def test_a_system_that_lets_no_thread_be_started_is_waited_for(
    library: Library, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    resolver, hosts, found = Resolver(), list[bytes](), list[Any]()
    start, refused = threading.Thread.start, list[threading.Thread]()

    def refuse(thread: threading.Thread) -> None:
        if not refused:
            refused.append(thread)
            raise RuntimeError(REFUSED)
        start(thread)

    async def ask(host: bytes) -> None:
        found.extend(await resolver.getaddrinfo(host, 80))

    monkeypatch.setattr(threading.Thread, "start", refuse)
    async with trio.open_nursery() as nursery:
        while not refused:  # threads that have nothing to do are used first
            hosts.append(b"%d.example" % len(hosts))
            nursery.start_soon(ask, hosts[-1])
            await trio.testing.wait_all_tasks_blocked()
        library.answers.set()
    assert len(found) == len(hosts)
