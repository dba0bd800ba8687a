"""A portal that fails in every way: what is known is served meanwhile, and afterwards all is as it was."""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from known_tree import (
    CONTENT,
    FRESH,
    begin,
    error_of_reading,
    fill,
    fresh,
    goes_on,
    reading,
    status_of,
    wait_for_state,
)
from mount_processes import peak
from real_mount import DEADLINE, Mount
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from cterafs.demo.faultplan import FaultPlan
from cterafs.demo.injections import Delay, Hang, Resize, Status, Truncate
from cterafs.demo.server import EmbeddedPortal

MARGIN = 160 << 20
"""Bytes that a mount may grow by for a list of changes: two and a half times what the longest has."""
HTML = "<!DOCTYPE html><html><body>The portal is being upgraded</body></html>"


@pytest.fixture(autouse=True)
def files(portal: EmbeddedPortal, mount: Mount) -> None:
    fill(portal)
    mount.configure(direct_timeout="3s")


def test_away_for_a_while_and_back(portal: EmbeddedPortal, mount: Mount) -> None:
    """All that changed meanwhile is seen afterwards."""
    begin(mount)
    portal.stop()
    wait_for_state(mount, "offline", "the portal")
    portal.namespace.create(portal.namespace.find("Folder"), "new", b"new")
    portal.namespace.delete(portal.namespace.find("Folder/fresh 5"))
    portal.namespace.rename(portal.namespace.find("Folder/fresh 6"), "renamed")
    assert error_of_reading(fresh(mount, 1)) == errno.ENETRESET
    goes_on(mount)
    assert not (mount.path / "Folder/new").exists()
    portal.start()
    mount.settle()
    assert (mount.path / "Folder/new").read_bytes() == b"new"
    assert (mount.path / "Folder/renamed").read_bytes() == CONTENT
    assert not fresh(mount, 5).exists()
    assert error_of_reading(fresh(mount, 1)) == 0
    assert wait_for_state(mount, "live")["reason"] is None


def test_hanging_when_it_is_mounted(portal: EmbeddedPortal, mount: Mount) -> None:
    """The known tree is mounted at once; what was told of the portal is not that it is there."""
    begin(mount)
    mount.stop()
    portal.faults.plan = FaultPlan([Hang(kind="portal")])
    mount.start()
    assert len(list((mount.path / "Folder").iterdir())) == FRESH + 1
    assert status_of(mount)["state"] == "catching-up"
    assert error_of_reading(fresh(mount, 1)) == errno.ETIMEDOUT
    assert status_of(mount)["feed_lag_s"] > 3
    portal.faults.plan = None
    portal.stop()
    portal.start()
    mount.settle()
    assert error_of_reading(fresh(mount, 1)) == 0


def test_another_one_takes_its_place(portal: EmbeddedPortal, mount: Mount) -> None:
    """As one that was set up anew from a backup: it knows no cursor and no file id of before."""
    begin(mount)
    portal.stop()
    with EmbeddedPortal(port=portal.port, password=portal.password) as other:
        other.accounts.access_key_id = portal.access_key_id
        other.accounts.secret_access_key = portal.secret_access_key
        folder = other.namespace.create_folder("Folder")
        other.namespace.create(folder, "cached", b"another content")
        mount.portal = other
        mount.settle()
        wait_for_state(mount, "live")
        assert [path.name for path in (mount.path / "Folder").iterdir()] == ["cached"]
        assert (mount.path / "Folder/cached").read_bytes() == b"another content"
        mount.stop()


def test_sessions_that_expire_every_few_requests(portal: EmbeddedPortal, mount: Mount) -> None:
    begin(mount)
    requests = 0

    def expire(kind: str, request: Request) -> None:
        nonlocal requests
        if kind != "login":
            requests += 1
            if requests % 3 == 0:
                portal.expire_sessions()

    portal.faults.portal = expire
    before = portal.faults.requests["login"]
    folder = portal.namespace.find("Folder")
    for number in range(8):
        portal.namespace.create(folder, f"new {number}", b"new")
        mount.settle()
        assert (mount.path / f"Folder/new {number}").read_bytes() == b"new"
    assert status_of(mount)["state"] == "live"
    assert 2 <= portal.faults.requests["login"] - before <= requests / 2
    assert mount.complaints() == []


def test_a_password_that_was_changed(portal: EmbeddedPortal, mount: Mount) -> None:
    """The portal is not stormed with the old one, and what the access key is for goes on."""
    begin(mount)
    before = portal.faults.requests["login"]
    portal.accounts.add(portal.username, password="another")
    portal.expire_sessions()
    portal.namespace.create(portal.namespace.find("Folder"), "new", b"new")
    wait_for_state(mount, "offline", "refused the user name or the password")
    goes_on(mount)
    assert error_of_reading(fresh(mount, 1)) == 0
    assert portal.faults.requests["login"] - before <= 2
    portal.accounts.add(portal.username, password=portal.password)
    mount.settle()
    assert (mount.path / "Folder/new").read_bytes() == b"new"
    assert len(mount.complaints()) == 1


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        (Status(kind="portal", status=200, content_type="text/html", body=HTML), errno.EIO),
        (Status(kind="portal", status=403), errno.EACCES),
        (Status(kind="portal", status=503, content_type="text/html", body=HTML, retry_after=1), errno.EIO),
        (Truncate(kind="portal", after=30), errno.ENETRESET),
        (Resize(kind="portal", by=-20), errno.EIO),
    ],
    ids=["html", "forbidden", "unavailable", "cut off", "shortened"],
)
def test_nonsense(portal: EmbeddedPortal, mount: Mount, rule: Any, code: int) -> None:
    begin(mount)
    portal.faults.plan = FaultPlan([rule])
    portal.namespace.create(portal.namespace.find("Folder"), "new", b"new")
    assert wait_for_state(mount, "offline")["reason"]
    assert error_of_reading(fresh(mount, 1)) == code
    goes_on(mount)
    portal.faults.plan = None
    mount.settle()
    assert (mount.path / "Folder/new").read_bytes() == b"new"
    assert error_of_reading(fresh(mount, 1)) == 0
    assert sum("not following" in line for line in mount.complaints()) == 1


def test_slow(portal: EmbeddedPortal, mount: Mount) -> None:
    """Nothing that is known waits for it, and a read does not fail for it."""
    begin(mount)
    mount.stop()
    mount.configure(direct_timeout="20s")
    portal.faults.plan = FaultPlan([Delay(kind="portal", seconds=3)])
    mount.start()
    assert (mount.path / "Folder/cached").read_bytes() == CONTENT
    with reading(fresh(mount, 1)) as reader:
        goes_on(mount, beside=reader)
        assert reader.wait(DEADLINE) == 0
    portal.faults.plan = None


async def endless() -> AsyncIterator[bytes]:
    """A list of changes."""
    yield b'{"has_more":false,"cursor":"c","entries":['
    while True:
        entry = {"type": "file", "guid": "g" * 40, "name": "n" * 1000, "deleted": False, "folder_id": 1, "size": 1}
        yield (json.dumps(entry).encode() + b",") * 1000
        await asyncio.sleep(0)  # in which it is heard that the client is gone


def test_an_endless_list_of_changes(portal: EmbeddedPortal, mount: Mount) -> None:
    begin(mount)
    before = peak([mount.pid])

    def answer(kind: str, request: Request) -> Response | None:
        return StreamingResponse(endless(), media_type="application/json") if kind == "list" else None

    portal.faults.portal = answer
    portal.namespace.create(portal.namespace.find("Folder"), "new", b"new")
    wait_for_state(mount, "offline", "longer than 64 MiB")
    goes_on(mount)
    portal.faults.portal = None
    mount.settle()
    assert (mount.path / "Folder/new").read_bytes() == b"new"
    assert peak([mount.pid]) - before < MARGIN
