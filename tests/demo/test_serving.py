"""The server starts, stops, and fails on demand."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
import urllib.request

import httpx
import pytest
from asking import Asker
from starlette.requests import Request
from starlette.responses import Response

from cterafs.demo.server import EmbeddedPortal


def test_the_certificate_is_good_for_the_authority_that_is_given() -> None:
    with EmbeddedPortal(tls=True) as portal:
        assert portal.ca_file is not None
        context = ssl.create_default_context(cafile=portal.ca_file)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        with urllib.request.urlopen(f"{portal.url}/ServicesPortal/login.html", context=context) as answer:
            assert answer.status == 200
        with pytest.raises(httpx.ConnectError):
            httpx.get(portal.url)
    assert not portal.ca_file.exists()


def test_it_comes_back_as_it_was(portal: EmbeddedPortal, asker: Asker) -> None:
    portal.namespace.create_folder("F")
    cursor, urls = asker.page()["cursor"], (portal.url, portal.storage_url)
    portal.stop()
    with pytest.raises(httpx.ConnectError):
        asker.page(cursor)
    portal.start()
    assert (portal.url, portal.storage_url) == urls
    assert asker.page(cursor)["entries"] == []


def test_it_stops_under_a_long_poll(portal: EmbeddedPortal, asker: Asker, caplog: pytest.LogCaptureFixture) -> None:
    cursor = asker.page()["cursor"]
    asked = threading.Event()
    portal.faults.portal = lambda *_: asked.set()
    failures: list[Exception] = []

    def poll() -> None:
        try:
            asker.longpoll(cursor, 60_000)
        except httpx.TransportError as error:
            failures.append(error)

    thread = threading.Thread(target=poll)
    thread.start()
    assert asked.wait(10)
    portal.stop()
    thread.join(10)
    assert len(failures) == 1
    assert not [record for record in caplog.records if record.levelno > logging.INFO]  # nothing had to be cancelled


def test_a_client_may_go_away_in_the_middle(portal: EmbeddedPortal, caplog: pytest.LogCaptureFixture) -> None:
    asked = threading.Event()
    portal.faults.portal = lambda *_: asked.set()
    with socket.create_connection((portal.host, portal.port)) as connection:
        connection.sendall(b"POST /admin/api/login HTTP/1.1\r\nHost: portal\r\nContent-Length: 100\r\n\r\nj_user")
        assert asked.wait(10)
    portal.stop()
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


def test_a_taken_port_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        portal = EmbeddedPortal(port=taken.getsockname()[1])
        with pytest.raises(OSError, match="cannot listen on 127"), portal:
            pass


def test_requests_are_counted(portal: EmbeddedPortal, asker: Asker) -> None:
    asker.page()
    asker.page()
    assert (portal.faults.requests["login"], portal.faults.requests["list"]) == (1, 2)


def test_any_answer_can_be_replaced(portal: EmbeddedPortal, asker: Asker) -> None:
    portal.faults.portal = lambda kind, _: Response(status_code=500) if kind == "list" else None
    assert asker.metadata("list", {"folder_ids": []}).status_code == 500
    assert asker.login().status_code == 200


def test_any_answer_can_be_delayed(portal: EmbeddedPortal) -> None:
    order = []

    async def later(_: str, __: Request) -> None:
        await asyncio.sleep(0)
        order.append("hook")

    portal.faults.storage = later
    assert httpx.get(f"{portal.storage_url}/blocks/00000001/x").status_code == 403
    assert order == ["hook"]


def test_answers_are_not_held_back_by_nagles_algorithm(portal: EmbeddedPortal) -> None:
    found = []

    def look(_: str, __: Request) -> None:
        for _, transport in portal.faults.connections():
            found.append(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    portal.faults.storage = look
    httpx.get(f"{portal.storage_url}/blocks/00000001/x")
    assert len(found) == 1
    assert found[0]


def test_a_connection_can_be_cut(portal: EmbeddedPortal) -> None:
    portal.faults.storage = lambda _, request: portal.faults.cut(request)
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{portal.storage_url}/blocks/00000001/x")


def test_an_answer_can_break_off(portal: EmbeddedPortal) -> None:
    portal.faults.storage = lambda _, request: portal.faults.cut(request, b"some", announced=10)
    with httpx.stream("GET", f"{portal.storage_url}/blocks/00000001/x") as answer:
        assert answer.headers["content-length"] == "10"
        with pytest.raises(httpx.RemoteProtocolError):
            answer.read()


def test_it_stops_while_a_hook_holds_a_request(portal: EmbeddedPortal, caplog: pytest.LogCaptureFixture) -> None:
    asked = threading.Event()

    async def hold(_: str, __: Request) -> None:
        asked.set()
        await asyncio.Event().wait()

    portal.faults.storage = hold
    failures: list[Exception] = []

    def get() -> None:
        try:
            httpx.get(f"{portal.storage_url}/blocks/00000001/x", timeout=30)
        except httpx.TransportError as error:
            failures.append(error)

    thread = threading.Thread(target=get)
    thread.start()
    assert asked.wait(10)
    portal.stop()
    thread.join(10)
    assert len(failures) == 1
    assert not [record for record in caplog.records if record.levelno > logging.INFO]  # nothing had to be cancelled
