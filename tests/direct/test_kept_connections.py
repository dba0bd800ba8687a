"""Connections to storage that were kept, after the network came back without them."""

from __future__ import annotations

import threading

import pytest
from block_encoder import block
from scripted_server import Exchange, ScriptedServer

from cterafs import errors
from cterafs.direct.storage import Storage, tls_context
from cterafs.direct.transfer import Transfer

BODY = bytes(range(256))
PATIENCE = 10.0  # far longer than anything here takes


def get(storage: Storage, server: ScriptedServer, patience: float) -> bytes:
    url = f"{server.url}/blocks/1"
    return storage.get(url, block(len(BODY)), Transfer(patience), lambda answer: bytes(answer.readall()))


def test_of_many_connections_that_went_silent_only_one_is_waited_for() -> None:
    storage = Storage("http://127.0.0.1:1", tls_context(True, None))
    together = threading.Barrier(4)

    def script(exchange: Exchange) -> None:
        if len(server.exchanges) > together.parties and exchange.connection <= together.parties:
            exchange.hang()
            return
        if exchange.connection <= together.parties:
            together.wait(10)
        exchange.answer(BODY)

    with ScriptedServer(script) as server:
        readers = [threading.Thread(target=get, args=(storage, server, PATIENCE)) for _ in range(together.parties)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        with pytest.raises(errors.DownloadTimeout):
            get(storage, server, patience=0.05)
        assert get(storage, server, PATIENCE) == BODY
        assert server.connections == together.parties + 1
        storage.close()
