"""The control socket, between a server and whoever may ask."""

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
from cterafs.control import Record, Send
from cterafs.errors import ConfigError

pytestmark = pytest.mark.trio


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(control, "run_directory", lambda: tmp_path / "run")
    return tmp_path


async def status(_: dict[str, Any], send: Send) -> None:
    await send({"state": "live"})


COMMANDS = {"status": status}


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
    async with control.serve(mountpoint, directory, COMMANDS):
        record = control.find(mountpoint)
        assert record is not None
        assert await ask(record) == {"state": "live"}
        assert control.serving(record) == os.getpid()
    assert control.find(mountpoint) is None
    assert control.serving(record) is None


async def test_nobody_answers_for_a_mount_that_was_killed(directory: Path) -> None:
    """Its state is another mount's now; a record of yet another state stays."""
    for name in ("killed", "beside"):
        (directory / name).mkdir()
        async with control.serve(directory / name, directory / name, COMMANDS):
            (record,) = (directory / "run").glob("*.json")
            text = record.read_text()
        (directory / f"{name}.json").write_text(text)
    for name in ("killed", "beside"):  # as a SIGKILL leaves them
        (directory / f"{name}.json").rename(directory / "run" / f"{name}.json")
    async with control.serve(directory / "new", directory / "killed", COMMANDS):
        assert {record.mountpoint for record in control.records()} == {
            str(directory / name) for name in ("beside", "new")
        }


@pytest.mark.parametrize("request_", [b"[" * 4000 + b"\n", b"{}\n", b"\xff\n", b"null\n", b'{"command": []}\n'])
async def test_no_request_ends_the_server(directory: Path, request_: bytes) -> None:
    async with control.serve(directory / "mnt", directory, COMMANDS):
        answer = await trio.to_thread.run_sync(send(directory, request_))
        assert answer in (b"", b'{"error": "unknown command"}\n')
        assert await ask(Record("", 0, str(directory))) == {"state": "live"}


async def test_a_status_that_fails_ends_nothing(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def fails(_: dict[str, Any], __: Send) -> None:
        raise ZeroDivisionError

    async with control.serve(directory / "mnt", directory, {"status": fails}):
        for _ in range(2):
            with pytest.raises(ValueError, match="no answer"):
                await ask(Record("", 0, str(directory)))
    assert "failed unexpectedly" in caplog.text


async def test_a_server_without_descriptors_waits_for_some(directory: Path) -> None:
    """The kernel accepts connections for it meanwhile."""
    async with control.serve(directory / "mnt", directory, COMMANDS):
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


def everything(record: Record, **request: Any) -> list[dict[str, Any]]:
    return list(control.ask(record, {"command": "stream", **request}))


async def test_several_answers_come_one_by_one_from_any_number_of_tasks(directory: Path) -> None:
    async def stream(request: dict[str, Any], send: Send) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(request["count"]):
                nursery.start_soon(send, {"number": number, "text": "x" * 10_000})

    async with control.serve(directory / "mnt", directory, {"stream": stream}):
        answers = await trio.to_thread.run_sync(lambda: everything(Record("", 0, str(directory)), count=50))
    assert sorted(answer["number"] for answer in answers) == list(range(50))


async def test_an_error_of_ours_is_the_last_answer(directory: Path) -> None:
    async def refuses(_: dict[str, Any], send: Send) -> None:
        await send({"number": 1})
        raise ConfigError("set something")

    async with control.serve(directory / "mnt", directory, {"stream": refuses}):
        answers = await trio.to_thread.run_sync(lambda: everything(Record("", 0, str(directory))))
    assert answers == [{"number": 1}, {"error": "set something", "type": "ConfigError"}]


async def test_who_hangs_up_ends_the_request(directory: Path) -> None:
    ended = trio.Event()

    async def endless(_: dict[str, Any], send: Send) -> None:
        try:
            await send({"number": 1})
            await trio.sleep_forever()
        finally:
            ended.set()

    def ask_once() -> None:
        answers = control.ask(Record("", 0, str(directory)), {"command": "stream"})
        assert next(answers) == {"number": 1}
        answers.close()

    async with control.serve(directory / "mnt", directory, {"stream": endless}):
        await trio.to_thread.run_sync(ask_once)
        with trio.fail_after(30):
            await ended.wait()


async def test_a_long_request_arrives_whole(directory: Path) -> None:
    async def measure(request: dict[str, Any], send: Send) -> None:
        await send({"length": len(request["text"])})

    async with control.serve(directory / "mnt", directory, {"stream": measure}):
        answers = await trio.to_thread.run_sync(
            lambda: everything(Record("", 0, str(directory)), text="\udcff" * 300_000)
        )
    assert answers == [{"length": 300_000}]
