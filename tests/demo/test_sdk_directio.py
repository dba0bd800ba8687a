"""CTERA's client downloads every format, byte for byte. (LZ4 is not its, and a portal never sends it.)"""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
from cterasdk.direct.client import DirectIO
from cterasdk.direct.types import ByteRange
from cterasdk.exceptions import direct

from cterafs.demo.encoder import Codec, Encoding
from cterafs.demo.objects import Item
from cterafs.demo.server import EmbeddedPortal

pytestmark = pytest.mark.anyio

RANDOM = random.Random(5)
DATA = (RANDOM.randbytes(150_000) + b"compressible " * 12_000) * 2
BLOCK = 65_537  # divides nothing, so that blocks end anywhere

ENCODINGS = [
    Encoding(BLOCK, codec, encrypted=encrypted, variable=variable)
    for codec in Codec
    if codec is not Codec.LZ4
    for encrypted in (True, False)
    for variable in (False, True)
]


def describe(encoding: Encoding) -> str:
    return "-".join(
        (encoding.codec.value, "aes" if encoding.encrypted else "clear", "variable" if encoding.variable else "fixed")
    )


def serve(portal: EmbeddedPortal, encoding: Encoding, data: bytes = DATA) -> Item:
    return portal.namespace.create(portal.namespace.create_folder("F"), "file", data, encoding=encoding)


def connect(portal: EmbeddedPortal) -> DirectIO:
    return DirectIO(portal.url, portal.access_key_id, portal.secret_access_key)


async def read(client: DirectIO, file_id: int, byte_range: ByteRange | None = None) -> bytes:
    streamer = await client.streamer(file_id, byte_range, max_workers=4)
    return b"".join([bytes(block.data) async for block in streamer.start()])


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client repeats whatever fails, seconds apart."""

    async def at_once(_: float) -> None:
        pass

    monkeypatch.setattr("cterasdk.lib.retries.asyncio", SimpleNamespace(sleep=at_once))


@pytest.mark.parametrize("encoding", ENCODINGS, ids=describe)
async def test_downloads_every_format(tls_portal: EmbeddedPortal, encoding: Encoding) -> None:
    file_id = serve(tls_portal, encoding).file.file_id
    async with connect(tls_portal) as client:
        metadata = await client.metadata(file_id)
        assert metadata.size == len(DATA)
        assert metadata.encrypted == encoding.encrypted
        blocks = [await download for download in await client.blocks(file_id, max_workers=4)]
        assert sum(block.length for block in blocks) == len(DATA)
        assert all(block.data == DATA[block.offset : block.offset + block.length] for block in blocks)
        assert await read(client, file_id) == DATA
        for start, end in ((0, 0), (1, BLOCK), (BLOCK - 1, BLOCK), (100_000, 299_999), (len(DATA) - 1, len(DATA) - 1)):
            assert await read(client, file_id, ByteRange(start, end)) == DATA[start : end + 1]


@pytest.mark.parametrize("size", [1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK])
async def test_downloads_sizes_about_a_block(tls_portal: EmbeddedPortal, size: int) -> None:
    file_id = serve(tls_portal, Encoding(BLOCK), DATA[:size]).file.file_id
    async with connect(tls_portal) as client:
        assert len((await client.metadata(file_id)).chunks) == -(-size // BLOCK)
        assert await read(client, file_id) == DATA[:size]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, direct.ObjectNotFoundError),
        (401, direct.AuthorizationError),
        (422, direct.UnsupportedStorageError),
        (500, direct.InvalidRequest),
    ],
)
@pytest.mark.usefixtures("impatient")
async def test_is_told_what_is_wrong_with_a_file(
    tls_portal: EmbeddedPortal, status: int, error: type[Exception]
) -> None:
    file = serve(tls_portal, Encoding(BLOCK))
    file.directio_status = status
    async with connect(tls_portal) as client:
        with pytest.raises(error):
            await client.blocks(file.file.file_id)


@pytest.mark.usefixtures("impatient")
async def test_is_refused_with_another_access_key(tls_portal: EmbeddedPortal) -> None:
    file_id = serve(tls_portal, Encoding(BLOCK)).file.file_id
    async with DirectIO(tls_portal.url, "other", tls_portal.secret_access_key) as client:
        with pytest.raises(direct.AuthorizationError):
            await client.blocks(file_id)


async def test_cannot_unwrap_with_another_secret(tls_portal: EmbeddedPortal) -> None:
    file_id = serve(tls_portal, Encoding(BLOCK)).file.file_id
    async with DirectIO(tls_portal.url, tls_portal.access_key_id, "b3RoZXI=") as client:
        with pytest.raises(direct.DecryptKeyError):
            await client.blocks(file_id)
