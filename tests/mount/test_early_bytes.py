"""A block that is read while it arrives, and turns out to be wrong: nothing of it stays."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random
import threading
from collections.abc import AsyncIterator

from real_mount import Mount
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from cterafs.demo.encoder import Codec, Encoding
from cterafs.demo.server import EmbeddedPortal

CONTENT = random.Random(6).randbytes(4 << 20)
HALF = len(CONTENT) // 2


def test_pages_of_a_block_that_was_wrong_are_gone_at_the_next_open(mount: Mount, portal: EmbeddedPortal) -> None:
    """The kernel keeps what it was given early, unless it is told."""
    rest = threading.Event()
    checksum = base64.b64encode(hashlib.md5(CONTENT).digest()).decode()

    async def altered() -> AsyncIterator[bytes]:
        yield bytes(HALF)
        await asyncio.to_thread(rest.wait)
        yield CONTENT[HALF:]

    def answer(kind: str, request: Request) -> Response | None:
        if portal.faults.requests["block"] > 1:
            return None
        return StreamingResponse(altered(), headers={"Content-MD5": checksum, "Content-Length": str(len(CONTENT))})

    portal.faults.storage = answer
    folder = portal.namespace.create_folder("Folder")
    encoding = Encoding(block_size=len(CONTENT), codec=Codec.NONE, encrypted=False)
    portal.namespace.create(folder, "file", CONTENT, encoding=encoding)
    mount.start()
    with (mount.path / "Folder/file").open("rb", buffering=0) as early:
        assert early.read(100) == bytes(100)  # nobody can know yet
        rest.set()
        mount.wait_until(lambda status: status["reads"]["downloaded_blocks"])
        with (mount.path / "Folder/file").open("rb", buffering=0) as late:
            assert late.read(100) == CONTENT[:100]
    assert (mount.path / "Folder/file").read_bytes() == CONTENT
