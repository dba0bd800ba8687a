"""The control socket: how other processes of the same user find a mount and ask it.

One JSON object per line each way, over a Unix socket in the state directory: a request, and one answer or several. Who
hangs up ends the request. A small record of each mount lies in the
user's run-time directory, so that `cterafs status MOUNTPOINT` finds the socket whatever configuration the mount had.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import trio

from cterafs.errors import ConfigError, CteraError, StateError

log = logging.getLogger(__name__)

Send = Callable[[dict[str, Any]], Awaitable[None]]
Command = Callable[[dict[str, Any], Send], Awaitable[None]]
"""Answers a request, whose `command` named it, by what it sends."""

SOCKET_NAME = "control.sock"
REQUEST_LIMIT = 8 << 20
"""Bytes. A command line has 2 MiB at most (execve(2)), and JSON may spell a byte with three."""
ANSWER_DEADLINE = 5.0
"""Seconds for a request to arrive, and for each answer to be taken."""
SILENCE = 60.0
"""Seconds without an answer after which a mount is given up; who takes long says so more often."""


@dataclass(frozen=True, slots=True)
class Record:
    """Where a running mount can be asked."""

    mountpoint: str
    pid: int
    directory: str


def run_directory() -> Path:
    """Where the records of this user's mounts lie; it goes with a reboot, as mounts do.

    Raises:
        StateError: it belongs to somebody else.
    """
    uid = os.geteuid()
    if uid == 0:
        path = Path("/run/cterafs")
    else:
        path = Path(f"/run/user/{uid}/cterafs")
        if not path.parent.is_dir():
            path = Path(f"/tmp/cterafs-{uid}")  # noqa: S108  # its owner is checked below
    path.mkdir(mode=0o700, exist_ok=True)
    owner = path.lstat()
    if owner.st_uid != uid or owner.st_mode & 0o077:
        raise StateError(f"{path} must belong to user {uid} and be closed to others; remove it or correct it")
    return path


def records() -> Iterator[Record]:
    """The mounts of this user that were made; one may have ended without a word since."""
    return (record for _, record in _written())


def _written() -> Iterator[tuple[Path, Record]]:
    for path in sorted(run_directory().glob("*.json")):
        with contextlib.suppress(OSError, ValueError, TypeError):  # written by another version, or just removed
            yield path, Record(**json.loads(path.read_text()))


def find(mountpoint: Path) -> Record | None:
    """The record of the mount at this path."""
    return next((record for record in records() if record.mountpoint == str(mountpoint)), None)


@asynccontextmanager
async def serve(mountpoint: Path, directory: Path, commands: Mapping[str, Command]) -> AsyncIterator[None]:
    """Answers on the socket in `directory`, which must be private, while the context lasts.

    Args:
        commands: by the name that a request has as `command`. An error of ours that one raises is its last answer.
    """
    record = Record(str(mountpoint), os.getpid(), str(directory))
    name = hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:16]
    path = run_directory() / f"{name}.json"
    with _listener(directory) as listening:
        for other, dead in _written():  # a mount that was killed elsewhere: whoever asks for it would be answered by us
            if dead.directory == record.directory:
                other.unlink(missing_ok=True)
        path.write_text(json.dumps(asdict(record)))
        try:
            async with trio.open_nursery() as nursery:
                listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))
                nursery.start_soon(trio.serve_listeners, lambda stream: _answer(stream, commands), [listener])
                yield
                nursery.cancel_scope.cancel()
        finally:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _listener(directory: Path) -> Iterator[socket.socket]:
    path = directory / SOCKET_NAME
    path.unlink(missing_ok=True)  # left by a crash: the state's lock says that nobody else serves it
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        with _short(directory) as short:
            listening.bind(f"{short}/{SOCKET_NAME}")
        path.chmod(0o600)
        listening.listen()
        listening.setblocking(False)
        yield listening
    finally:
        listening.close()
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _short(directory: Path) -> Iterator[str]:
    """A name of the directory that fits into the 108 bytes of a socket's address (unix(7))."""
    handle = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)


async def _answer(stream: trio.SocketStream, commands: Mapping[str, Command]) -> None:
    try:
        if _trusted(stream.socket):
            with trio.fail_after(ANSWER_DEADLINE):
                request = json.loads(await _line(stream))
            await _run(stream, commands, request)
    except (ValueError, RecursionError, OSError, trio.BrokenResourceError, trio.TooSlowError) as error:
        log.debug("a request on the control socket failed: %s", error)


async def _line(stream: trio.SocketStream) -> bytes:
    received = bytearray()
    while not received.endswith(b"\n"):
        part = await stream.receive_some()
        received += part
        if not part or len(received) > REQUEST_LIMIT:
            raise ValueError("the request is cut short, or too long")
    return bytes(received)


async def _run(stream: trio.SocketStream, commands: Mapping[str, Command], request: Any) -> None:
    """One request, until it is answered or nobody listens any more."""
    one_at_a_time = trio.Lock()
    async with trio.open_nursery() as nursery:

        async def send(answer: dict[str, Any]) -> None:
            async with one_at_a_time:
                try:
                    with trio.fail_after(ANSWER_DEADLINE):
                        await stream.send_all(json.dumps(answer).encode() + b"\n")
                except (OSError, trio.BrokenResourceError, trio.TooSlowError):
                    nursery.cancel_scope.cancel()

        nursery.start_soon(_until_gone, stream, nursery.cancel_scope)
        command = commands.get(str(request.get("command"))) if isinstance(request, dict) else None
        try:
            if command is not None:
                await command(request, send)
            else:
                await send({"error": "unknown command"})
        except (ConfigError, CteraError) as error:
            await send({"error": str(error), "type": type(error).__name__})
        except Exception:  # whoever asks must not end the mount
            log.exception("a request on the control socket failed unexpectedly")
        nursery.cancel_scope.cancel()


async def _until_gone(stream: trio.SocketStream, scope: trio.CancelScope) -> None:
    with contextlib.suppress(OSError, trio.BrokenResourceError):
        while await stream.receive_some():
            pass
    scope.cancel()


def _trusted(connection: trio.socket.SocketType) -> bool:
    """The peer is the same user, or root."""
    _, uid = _peer(connection)
    return uid in (0, os.geteuid())


def _peer(connection: socket.socket | trio.socket.SocketType) -> tuple[int, int]:
    """Process and user on the other side, as the kernel has seen them (SO_PEERCRED, unix(7): pid, uid, gid)."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("3i", credentials)
    return pid, uid


def serving(record: Record) -> int | None:
    """The process that serves a mount; None where it has ended, after which its number may be another's."""
    try:
        with _connected(record) as asking:
            return _peer(asking)[0]
    except BlockingIOError:  # too many ask already, so it is there: the one that wrote the record
        return record.pid
    except OSError:
        return None


def ask_status(record: Record) -> dict[str, Any]:
    """The status of a running mount. Blocks, for at most `ANSWER_DEADLINE`.

    Raises:
        OSError: nobody answers.
        ValueError: the answer is not JSON.
    """
    with contextlib.closing(ask(record, {"command": "status"}, ANSWER_DEADLINE)) as answers:
        for status in answers:
            return status
    raise ValueError("no answer")


def ask(record: Record, request: dict[str, Any], patience: float = SILENCE) -> Generator[dict[str, Any]]:
    """The answers of a running mount, as they come. Closing the generator ends the request there.

    Args:
        patience: seconds to wait for each.

    Raises:
        OSError: nobody answers.
        ValueError: an answer is not JSON.
    """
    with _connected(record) as asking:
        asking.settimeout(patience)
        asking.sendall(json.dumps(request).encode() + b"\n")
        with asking.makefile("rb") as answers:
            for answer in answers:
                yield json.loads(answer)


@contextlib.contextmanager
def _connected(record: Record) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(ANSWER_DEADLINE)
        with _short(Path(record.directory)) as short:
            asking.connect(f"{short}/{SOCKET_NAME}")
        yield asking
