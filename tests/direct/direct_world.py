"""A portal and a storage of one file, both on real sockets, both with hooks."""

import base64
import json
from collections.abc import Callable
from typing import Any

from block_encoder import compress, encrypt, wrap
from scripted_server import Exchange, ScriptedServer

from cterafs.direct.client import DirectIO
from cterafs.model import ByteRange

KEY = bytes(range(32))
SECRET = b"the secret access key"
ACCESS = "access-key-id"
SIZE = 1000


class World:
    """A portal and a storage of one file of five blocks.

    Attributes:
        portal, storage: hooks that may answer a request; True means that they did.
    """

    def __init__(self) -> None:
        self.plain = bytes(range(250)) * (5 * SIZE // 250)
        self.encrypted = True
        self.portal: Callable[[Exchange], bool] = lambda exchange: False
        self.storage: Callable[[Exchange], bool] = lambda exchange: False
        self.store: ScriptedServer
        self.server: ScriptedServer

    def list(self, exchange: Exchange) -> None:
        if self.portal(exchange):
            return
        chunks = [{"url": f"{self.store.url}/blocks/{i}?sig=presigned", "len": SIZE} for i in range(5)]
        body = {
            "encrypt_info": {"wrapped_key": wrap(KEY, SECRET), "data_encrypted": self.encrypted},
            "compression_type": "GZIP",
            "actual_blocks_range": {"file_size": 5 * SIZE, "range": "0-4999"},
            "chunks": chunks,
        }
        exchange.answer(json.dumps(body).encode())

    def block(self, exchange: Exchange) -> None:
        assert "authorization" not in exchange.head.lower()
        if not self.storage(exchange):
            exchange.answer(self.stored(int(exchange.path.partition("?")[0].rpartition("/")[2])))

    def stored(self, index: int) -> bytes:
        data = compress(self.plain[index * SIZE : (index + 1) * SIZE], "gzip")
        return encrypt(data, KEY) if self.encrypted else data

    def client(self, **options: Any) -> DirectIO:
        options = {"access_key_id": ACCESS, "secret_access_key": base64.b64encode(SECRET).decode(), **options}
        return DirectIO(self.server.url, **options)


def once(answer: Callable[[Exchange], None], times: int = 1) -> Callable[[Exchange], bool]:
    left = [times]

    def hook(exchange: Exchange) -> bool:
        left[0] -= 1
        if left[0] >= 0:
            answer(exchange)
        return left[0] >= 0

    return hook


def always(answer: Callable[[Exchange], None]) -> Callable[[Exchange], bool]:
    def hook(exchange: Exchange) -> bool:
        answer(exchange)
        return True

    return hook


def status(line: str, **headers: str) -> Callable[[Exchange], None]:
    return lambda exchange: exchange.answer(b"{}", line, **headers)


async def read(client: DirectIO, byte_range: ByteRange | None = None) -> bytes:
    return b"".join([bytes(block.data) async for block in client.streamer(7, byte_range)])


def wrong_block(exchange: Exchange) -> None:
    exchange.answer(b"rubbish")
