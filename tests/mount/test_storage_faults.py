"""What goes wrong between storage and a mount, and passes: the read that met it does not notice."""

from __future__ import annotations

import base64
import hashlib
import mmap
import os
import random
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_mount import Mount
from starlette.responses import Response

from cterafs.demo.encoder import Codec, Encoding
from cterafs.demo.faultplan import FaultPlan
from cterafs.demo.injections import (
    AnyRule,
    ContentType,
    Corrupt,
    Drip,
    Drop,
    Hang,
    Length,
    Resize,
    Stall,
    Status,
    Swap,
    Truncate,
)
from cterafs.demo.server import EmbeddedPortal

BLOCK = 64 << 10
BLOCKS = 4
CONTENT = random.Random(12).randbytes(BLOCK * BLOCKS)

REFUSALS: list[AnyRule] = [
    Status(kind="block", status=403, first=1),
    Status(kind="block", status=404, first=1),
    Status(kind="block", status=429, retry_after=1, first=1),
    Status(kind="block", status=500, first=2),
    Status(kind="block", status=503, retry_after=1, first=1),
    Drop(kind="block", first=2),
    Drip(kind="block", rate=300_000, first=2),
    Hang(kind="block", first=1),
    Stall(kind="block", first=1),
    Stall(kind="block", after=BLOCK - 1, first=1),
]
BAD_BODIES: list[AnyRule] = [
    Truncate(kind="block", first=2),
    Corrupt(kind="block", first=2),
    Swap(kind="block", first=3),
    Resize(kind="block", by=-1, first=2),
    Resize(kind="block", by=1, first=2),
    Resize(kind="block", by=BLOCK, first=2),
    Length(kind="block", by=1, first=2),
    Length(kind="block", by=-1, first=2),
    Length(kind="block", by=-BLOCK, first=2),
    ContentType(kind="block", content_type="text/html"),
]


def read_past_the_page_cache(file: Path) -> bytes:
    """All of it at once: every block is read to its end, and so no byte of it before it was verified."""
    buffer = mmap.mmap(-1, len(CONTENT))
    opened = os.open(file, os.O_RDONLY | os.O_DIRECT)
    try:
        return buffer[: os.preadv(opened, [buffer], 0)]
    finally:
        os.close(opened)


@pytest.fixture
def portal(request: pytest.FixtureRequest) -> Iterator[EmbeddedPortal]:
    with EmbeddedPortal(tls=getattr(request, "param", False)) as portal:
        yield portal


@pytest.mark.parametrize(
    ("rules", "codec", "portal"),
    [
        (REFUSALS, Codec.NONE, False),
        (REFUSALS, Codec.GZIP, True),
        (BAD_BODIES, Codec.NONE, True),
        (BAD_BODIES, Codec.GZIP, False),
        (BAD_BODIES, Codec.SNAPPY, False),
    ],
    indirect=["portal"],
    ids=lambda value: {True: "tls", False: "plain"}.get(value) if isinstance(value, bool) else None,
)
def test_what_passes_is_made_good(mount: Mount, portal: EmbeddedPortal, rules: list[AnyRule], codec: Codec) -> None:
    """Every fault in turn, at the first attempts: with a checksum, all of them show."""
    portal.store.checksums = True
    mount.configure(direct_timeout="6s")
    folder = portal.namespace.create_folder("Folder")
    encoding = Encoding(block_size=BLOCK, codec=codec, encrypted=codec is not Codec.NONE)
    mount.start()
    for number, rule in enumerate(rules):
        portal.namespace.create(folder, f"{number}", CONTENT, encoding=encoding)
        mount.settle()
        portal.faults.plan = FaultPlan([rule], seed=number)
        assert read_past_the_page_cache(mount.path / "Folder" / f"{number}") == CONTENT, rule
        assert portal.faults.plan.injected[rule.label], rule
    assert mount.status()["errors"] == {}
    assert mount.complaints() == []


def base64_of(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Content-MD5", base64_of(hashlib.md5(CONTENT, usedforsecurity=False).digest())),
        ("x-ms-blob-content-md5", base64_of(hashlib.md5(CONTENT, usedforsecurity=False).digest())),
        ("x-amz-checksum-crc32", base64_of(zlib.crc32(CONTENT).to_bytes(4, "big"))),
        ("x-amz-checksum-sha1", base64_of(hashlib.sha1(CONTENT, usedforsecurity=False).digest())),
        ("x-amz-checksum-sha256", base64_of(hashlib.sha256(CONTENT).digest())),
    ],
)
def test_what_only_a_checksum_of_storage_shows(mount: Mount, portal: EmbeddedPortal, header: str, value: str) -> None:
    altered = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    bodies = iter([altered, altered, CONTENT])
    portal.faults.storage = lambda kind, request: Response(next(bodies), headers={header: value})
    encoding = Encoding(block_size=len(CONTENT), codec=Codec.NONE, encrypted=False)
    portal.namespace.create(portal.namespace.create_folder("Folder"), "file", CONTENT, encoding=encoding)
    mount.start()
    assert read_past_the_page_cache(mount.path / "Folder/file") == CONTENT
    assert next(bodies, None) is None
