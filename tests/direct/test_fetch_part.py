"""Parts of blocks by the client: retries, renewal and versions as with whole blocks."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from block_encoder import encrypt, wrap
from direct_world import KEY, SECRET, SIZE, World, always, once, status
from scripted_server import Exchange

from cterafs import errors
from cterafs.direct import retry as retries
from cterafs.direct.remote import RemoteFile
from cterafs.model import Extent

pytestmark = pytest.mark.anyio

WANTED = Extent(1234, 1300)


class Ranged:
    """Makes a world's file one of uncompressed blocks, and its storage one that knows ranges."""

    def __init__(self, world: World, *, encrypted: bool = True, prefix: bool = False) -> None:
        self.world = world
        self.encrypted, self.prefix = encrypted, prefix
        self.compression: str | None = "NONE"
        self.version = "v1"
        self.first: Callable[[Exchange], bool] = lambda exchange: False
        world.portal, world.storage = self._list, self._block

    def stored(self, index: int) -> bytes:
        plain = self.world.plain[index * SIZE : (index + 1) * SIZE]
        return encrypt(plain, KEY, prefix=self.prefix) if self.encrypted else plain

    def _list(self, exchange: Exchange) -> bool:
        url = f"{self.world.store.url}/blocks/{self.version}"
        body = {
            "encrypt_info": {"wrapped_key": wrap(KEY, SECRET), "data_encrypted": self.encrypted},
            "actual_blocks_range": {"file_size": 5 * SIZE, "range": "0-4999"},
            "chunks": [{"url": f"{url}/{i}?sig={len(self.world.server.exchanges)}", "len": SIZE} for i in range(5)],
        }
        if self.compression is not None:
            body["compression_type"] = self.compression
        exchange.answer(json.dumps(body).encode())
        return True

    def _block(self, exchange: Exchange) -> bool:
        if self.first(exchange):
            return True
        stored = self.stored(int(exchange.path.partition("?")[0].rpartition("/")[2]))
        asked = exchange.header("range")
        if asked is None:
            exchange.answer(stored)
            return True
        start, stop = (int(number) for number in asked.removeprefix("bytes=").split("-"))
        said = f"bytes {start}-{stop}/{len(stored)}"
        exchange.answer(stored[start : stop + 1], "206 Partial Content", Content_Range=said)
        return True

    @property
    def sent_whole(self) -> int:
        return sum(exchange.header("range") is None for exchange in self.world.store.exchanges)


async def part(world: World, wanted: Extent = WANTED) -> bytes | None:
    async with world.client() as client:
        file = RemoteFile(client, 7)
        [chunk] = await file.chunks(wanted)
        return await file.read_part(chunk, wanted)


@pytest.mark.parametrize("prefix", [False, True])
@pytest.mark.parametrize("encrypted", [False, True])
async def test_a_part(world: World, encrypted: bool, prefix: bool) -> None:
    ranged = Ranged(world, encrypted=encrypted, prefix=prefix and encrypted)
    for wanted in (WANTED, Extent(1000, 1001), Extent(1990, 2000), Extent(1000, 2000)):
        assert await part(world, wanted) == world.plain[wanted.start : wanted.stop]
    assert ranged.sent_whole == 0


@pytest.mark.parametrize("compression", ["GZIP", "SNAPPY", None])
async def test_what_is_or_may_be_compressed_is_not_asked_for_by_parts(world: World, compression: str | None) -> None:
    Ranged(world).compression = compression
    assert await part(world) is None
    assert world.store.exchanges == []


@pytest.mark.parametrize(
    "failure", [Exchange.reset, status("500 Oops"), status("429 Wait", Retry_After="0"), status("206 Partial Content")]
)
async def test_a_part_that_fails_is_fetched_again(world: World, failure: Callable[[Exchange], None]) -> None:
    Ranged(world).first = once(failure, 2)
    assert await part(world) == world.plain[WANTED.start : WANTED.stop]
    assert len(world.store.exchanges) == 3


async def test_a_part_that_fails_for_good(world: World) -> None:
    Ranged(world).first = always(status("206 Partial Content"))
    with pytest.raises(errors.DownloadError, match="range") as caught:
        await part(world)
    assert caught.value.block == errors.BlockInfo(7, 2, 1000, 1000)
    assert len(world.store.exchanges) == retries.ATTEMPTS


@pytest.mark.parametrize("line", ["403 Expired", "404 Gone"])
async def test_a_refused_url_is_renewed(world: World, line: str) -> None:
    Ranged(world).first = once(status(line))
    assert await part(world) == world.plain[WANTED.start : WANTED.stop]
    assert len({exchange.path for exchange in world.store.exchanges}) == 2


@pytest.mark.parametrize(
    ("line", "error"), [("403 Expired", errors.DownloadError), ("404 Gone", errors.VersionChangedError)]
)
async def test_a_url_that_is_refused_again(world: World, line: str, error: type[errors.DirectIOError]) -> None:
    Ranged(world).first = always(status(line))
    with pytest.raises(error):
        await part(world)
    assert len(world.store.exchanges) == 2


async def test_a_part_of_another_version_is_never_handed_on(world: World) -> None:
    ranged = Ranged(world)

    def replaced(exchange: Exchange) -> bool:
        ranged.version = "v2"
        if "v1" in exchange.path:
            exchange.answer(b"", "404 Gone")
            return True
        return False

    ranged.first = replaced
    with pytest.raises(errors.VersionChangedError):
        await part(world)
    assert len(world.store.exchanges) == 1


async def test_storage_without_ranges(world: World) -> None:
    ranged = Ranged(world)
    ranged.first = lambda exchange: bool(exchange.answer(ranged.stored(1)) or True)
    async with world.client() as client:
        file = RemoteFile(client, 7)
        [chunk] = await file.chunks(WANTED)
        assert [await file.read_part(chunk, WANTED) for _ in range(3)] == [None] * 3
        assert await file.read(chunk) == world.plain[1000:2000]
    assert len(world.store.exchanges) == 2
