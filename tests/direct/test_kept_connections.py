"""Connections to storage that were kept, after the network came back without them."""

from __future__ import annotations

import socket
import threading

import pytest
from block_encoder import block
from scripted_server import Exchange, ScriptedServer

from cterafs import errors
from cterafs.direct.storage import Answer, Storage, tls_context
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


def test_what_comes_is_acknowledged_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel puts that off for whoever asks and answers in turn, and storage may wait for it."""
    at_once = []

    def take(answer: Answer) -> bytes:
        [sock] = transfer_sockets
        at_once.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK))
        return bytes(answer.readall())

    transfer_sockets: list[socket.socket] = []
    attach = Transfer.attach

    def attached(transfer: Transfer, connection: socket.socket) -> None:
        transfer_sockets[:] = [connection]
        attach(transfer, connection)

    monkeypatch.setattr(Transfer, "attach", attached)
    storage = Storage("http://127.0.0.1:1", tls_context(True, None))
    with ScriptedServer(lambda exchange: exchange.answer(BODY)) as server:
        for _ in range(8):
            storage.get(f"{server.url}/blocks/1", block(len(BODY)), Transfer(PATIENCE), take)
        storage.close()
    assert at_once == [1] * 8
