"""A block that is read while it arrives, and turns out to be wrong: nothing of it stays, and of a short one nothing is
ever seen."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random
import threading
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

from real_mount import Mount
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from cterafs.demo.encoder import Codec, Encoding
from cterafs.demo.server import EmbeddedPortal
from cterafs.direct.landing import UNDIVIDED

CONTENT = random.Random(6).randbytes(4 << 20)
EARLY = 3 * 0.2
"""Seconds in which somebody could be given what has arrived. It is received after 0.2 s at the latest (`http1.PAUSE`);
nothing tells that nobody is given it."""


def send_wrong_first(portal: EmbeddedPortal, content: bytes, wait: Callable[[], object]) -> Path:
    """A file of one block. The first time, its first half is zeros, and the other comes after `wait`."""
    checksum = base64.b64encode(hashlib.md5(content).digest()).decode()
    half = len(content) // 2

    async def altered() -> AsyncIterator[bytes]:
        yield bytes(half)
        await asyncio.to_thread(wait)
        yield content[half:]

    def answer(kind: str, request: Request) -> Response | None:
        if portal.faults.requests["block"] > 1:
            return None
        return StreamingResponse(altered(), headers={"Content-MD5": checksum, "Content-Length": str(len(content))})

    portal.faults.storage = answer
    folder = portal.namespace.create_folder("Folder")
    encoding = Encoding(block_size=len(content), codec=Codec.NONE, encrypted=False)
    portal.namespace.create(folder, "file", content, encoding=encoding)
    return Path("Folder/file")


def test_pages_of_a_block_that_was_wrong_are_gone_at_the_next_open(mount: Mount, portal: EmbeddedPortal) -> None:
    """The kernel keeps what it was given early, unless it is told."""
    rest = threading.Event()
    file = send_wrong_first(portal, CONTENT, rest.wait)
    mount.start()
    with (mount.path / file).open("rb", buffering=0) as early:
        assert early.read(100) == bytes(100)  # nobody can know yet
        rest.set()
        mount.wait_until(lambda status: status["reads"]["downloaded_blocks"])
        with (mount.path / file).open("rb", buffering=0) as late:
            assert late.read(100) == CONTENT[:100]
    assert (mount.path / file).read_bytes() == CONTENT


def test_nobody_sees_what_is_wrong_with_a_short_block(mount: Mount, portal: EmbeddedPortal) -> None:
    file = send_wrong_first(portal, CONTENT[:UNDIVIDED], partial(time.sleep, EARLY))
    mount.start()
    with (mount.path / file).open("rb", buffering=0) as early:
        assert early.read(100) == CONTENT[:100]
    assert portal.faults.requests["block"] > 1
