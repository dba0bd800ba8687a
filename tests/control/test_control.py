"""The status socket, between a server and whoever may ask."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from cterafs import control
from cterafs.control import Record

pytestmark = pytest.mark.trio


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(control, "run_directory", lambda: tmp_path / "run")
    return tmp_path


async def status() -> dict[str, Any]:
    return {"state": "live"}


async def ask(record: Record) -> dict[str, Any]:
    return await trio.to_thread.run_sync(control.ask_status, record)


def send(directory: Path, request: bytes) -> Callable[[], bytes]:
    def exchange() -> bytes:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.connect(str(directory / control.SOCKET_NAME))
            asking.sendall(request)
            return asking.recv(100)

    return exchange


async def test_who_serves_is_asked_and_named(directory: Path) -> None:
    mountpoint = directory / "mnt"
    async with control.serve(mountpoint, directory, status):
        record = control.find(mountpoint)
        assert record is not None
        assert await ask(record) == {"state": "live"}
        assert control.serving(record) == os.getpid()
    assert control.find(mountpoint) is None
    assert control.serving(record) is None


@pytest.mark.parametrize("request_", [b"[" * 4000, b"{}\n", b"\xff", b"null"])
async def test_no_request_ends_the_server(directory: Path, request_: bytes) -> None:
    async with control.serve(directory / "mnt", directory, status):
        answer = await trio.to_thread.run_sync(send(directory, request_))
        assert answer in (b"", b'{"error": "unknown command"}\n')
        assert await ask(Record("", 0, str(directory))) == {"state": "live"}


async def test_a_status_that_fails_ends_nothing(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def fails() -> dict[str, Any]:
        raise ZeroDivisionError

    async with control.serve(directory / "mnt", directory, fails):
        for _ in range(2):
            with pytest.raises(ValueError, match="Expecting value"):
                await ask(Record("", 0, str(directory)))
    assert "failed unexpectedly" in caplog.text


async def test_a_server_without_descriptors_waits_for_some(directory: Path) -> None:
    """The kernel accepts connections for it meanwhile."""
    async with control.serve(directory / "mnt", directory, status):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.connect(str(directory / control.SOCKET_NAME))
            before = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
            try:
                for _ in range(5):
                    await trio.lowlevel.checkpoint()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert await ask(Record("", 0, str(directory))) == {"state": "live"}
