"""What the two processes tell each other: a message a packet, in MessagePack."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TypeVar

import msgspec

from cterafs import errors
from cterafs.errors import BlockError, BlockInfo
from cterafs.model import BlockMap

T = TypeVar("T")


class Settings(msgspec.Struct, frozen=True, tag=True):
    """How to download. The first message to the process.

    Attributes:
        portal_url, hosts: what decides which storage may be contacted (`direct.storage.Storage`).
        verify_tls, ca_file: how storage's certificate is verified.
    """

    portal_url: str
    hosts: tuple[str, ...]
    verify_tls: bool
    ca_file: str | None
    workers: int
    timeout: float


class Berth(msgspec.Struct, frozen=True, array_like=True):
    """Where a block's landing is: the number of its state and the place of its buffer in the arena."""

    state: int
    place: int


class Job(msgspec.Struct, frozen=True, tag=True):
    """Fetch the blocks that `source` lists, in their order; each has a berth."""

    number: int
    source: BlockMap
    berths: tuple[Berth, ...]


class Cancel(msgspec.Struct, frozen=True, tag=True):
    """Nobody wants a job's blocks any more."""

    job: int


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The process waits for jobs."""


class Told(msgspec.Struct, frozen=True, tag=True):
    """What was awaited of a landing is there, or it was dropped; counted from the job's first."""

    job: int
    landing: int


class Failure(msgspec.Struct, frozen=True):
    """A `BlockError`."""

    kind: str
    block: BlockInfo
    detail: str
    status: int | None
    retry_after: float | None

    @classmethod
    def of(cls, error: BlockError) -> Failure:
        status = error.status if isinstance(error, errors.DownloadError) else None
        return cls(type(error).__name__, error.block, error.detail, status, error.retry_after)

    def error(self) -> BlockError:
        kind = KINDS[self.kind]
        error = kind(self.block, self.detail)
        if isinstance(error, errors.DownloadError):
            error.status = self.status
        error.retry_after = self.retry_after
        return error


class Done(msgspec.Struct, frozen=True, tag=True):
    """A job ended: all is complete or dropped, or `failure` tells why not.

    Attributes:
        left: no thread writes to the job's berths any more; otherwise `Left` will follow.
    """

    job: int
    failure: Failure | None
    left: bool


class Left(msgspec.Struct, frozen=True, tag=True):
    """The last thread that was given up and still wrote to the job's berths does not any more."""

    job: int


class Crashed(msgspec.Struct, frozen=True, tag=True):
    """A fault of ours ended the process; `trace` tells where."""

    trace: str


ToProcess = Job | Cancel
FromProcess = Ready | Told | Done | Left | Crashed

KINDS: dict[str, type[BlockError]] = {
    kind.__name__: kind
    for kind in (
        errors.DownloadError,
        errors.StorageRefusedError,
        errors.DownloadTimeout,
        errors.DownloadConnectionError,
        errors.StorageUntrustedError,
        errors.DecryptBlockError,
        errors.DecompressBlockError,
        errors.BlockValidationException,
    )
}

PACKET = 192 << 10
"""Bytes of a message at most: a little less than a socket's buffer takes on any Linux (`net.core.wmem_default`)."""

encode = msgspec.msgpack.Encoder().encode
decode_settings = msgspec.msgpack.Decoder(Settings).decode
decode_to_process: Callable[[memoryview], ToProcess] = msgspec.msgpack.Decoder(ToProcess).decode
decode_from_process: Callable[[memoryview], FromProcess] = msgspec.msgpack.Decoder(FromProcess).decode

_packet = memoryview(bytearray(PACKET))  # one for all: it is decoded before anybody else gets one


def receive(sock: socket.socket, decode: Callable[[memoryview], T]) -> T | None:
    """The next message, in the event loop's thread; None if the other end is closed.

    Raises:
        BlockingIOError: there is none yet.
    """
    try:
        count = sock.recv_into(_packet, flags=socket.MSG_DONTWAIT)
    except ConnectionResetError:
        return None
    return decode(_packet[:count]) if count else None
