"""The client against the embedded portal, whose encoder it shares nothing with: every format, byte for byte."""

import itertools
import random
from collections.abc import Iterator

import pytest

from cterafs import errors
from cterafs.demo.encoder import Codec, Encoding
from cterafs.demo.server import EmbeddedPortal
from cterafs.direct import remote as remotes
from cterafs.direct.client import DirectIO
from cterafs.direct.remote import RemoteFile
from cterafs.model import ByteRange, Extent

pytestmark = pytest.mark.anyio
RANDOM = random.Random(5)
DATA = RANDOM.randbytes(100_000) + b"compressible " * 10_000 + RANDOM.randbytes(77)


@pytest.fixture(scope="module")
def portal() -> Iterator[EmbeddedPortal]:
    with EmbeddedPortal() as made:
        made.namespace.create_folder("files")
        yield made


def client(portal: EmbeddedPortal) -> DirectIO:
    ca_file = str(portal.ca_file) if portal.ca_file else None
    return DirectIO(
        portal.url, portal.access_key_id, portal.secret_access_key, ca_file=ca_file, storage_ca_file=ca_file
    )


FORMATS = [
    Encoding(block_size=size, codec=codec, encrypted=encrypted, variable=variable, md5_prefix=prefix)
    for codec in Codec
    for encrypted, prefix in ((False, False), (True, False), (True, True))
    for size, variable in ((65_536, False), (33_333, True))
]
names = map(str, itertools.count())


@pytest.mark.parametrize("encoding", FORMATS, ids=str)
@pytest.mark.parametrize("old_shape", [False, True])
async def test_every_format(portal: EmbeddedPortal, encoding: Encoding, old_shape: bool) -> None:
    portal.directio.old_shape = old_shape
    item = portal.namespace.create(portal.namespace.find("files"), next(names), DATA, encoding=encoding)
    async with client(portal) as direct:
        stream = direct.streamer(item.file.file_id)
        assert b"".join([bytes(block.data) async for block in stream]) == DATA
        part = direct.streamer(item.file.file_id, ByteRange(70_001, 199_999))
        assert b"".join([bytes(block.data) async for block in part]) == DATA[70_001:200_000]
        assert [block async for block in direct.streamer(item.file.file_id, ByteRange(len(DATA)))] == []


@pytest.mark.parametrize("size", [1, 65_536, 65_537, 65_535])
async def test_sizes_around_a_block(portal: EmbeddedPortal, size: int) -> None:
    portal.directio.old_shape = False
    encoding = Encoding(block_size=65_536)
    item = portal.namespace.create(portal.namespace.find("files"), next(names), DATA[:size], encoding=encoding)
    async with client(portal) as direct:
        blocks = [block async for block in direct.blocks(item.file.file_id)]
    assert b"".join(bytes(block.data) for block in sorted(blocks, key=lambda block: block.offset)) == DATA[:size]


async def test_a_file_by_parts_and_with_urls_that_expire(
    portal: EmbeddedPortal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remotes, "WHOLE", 100_000)
    monkeypatch.setattr(remotes, "WINDOW", 150_000)
    portal.directio.old_shape = False
    encoding = Encoding(block_size=33_333, variable=True)
    item = portal.namespace.create(portal.namespace.find("files"), next(names), DATA, encoding=encoding)
    async with client(portal) as direct:
        file = RemoteFile(direct, item.file.file_id, len(DATA))
        chunks = await file.chunks(Extent(0, len(DATA)))
        portal.expire_urls()
        assert b"".join([await file.read(chunk) for chunk in chunks]) == DATA


async def test_tls() -> None:
    with EmbeddedPortal(tls=True) as portal:
        item = portal.namespace.create(portal.namespace.create_folder("files"), "file", DATA)
        async with client(portal) as direct:
            assert b"".join([bytes(block.data) async for block in direct.streamer(item.file.file_id)]) == DATA


async def test_a_file_that_is_not_there(portal: EmbeddedPortal) -> None:
    async with client(portal) as direct:
        with pytest.raises(errors.ObjectNotFoundError):
            await direct.block_map(1)
