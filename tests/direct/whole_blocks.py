"""GET of a whole block, as the tests of storage ask for it."""

from __future__ import annotations

import threading

from block_encoder import block
from scripted_server import ScriptedServer

from cterafs.direct.storage import Answer, Storage
from cterafs.direct.transfer import Transfer

BODY = bytes(range(256)) * 400
PATIENCE = 10.0  # far longer than anything here takes
PORTAL = "http://127.0.0.1:1"


def whole(answer: Answer) -> bytes:
    return bytes(answer.readall())


def get(
    storage: Storage, server: ScriptedServer, path: str = "/blocks/1?sig=secret", patience: float = PATIENCE
) -> bytes:
    return storage.get(server.url + path, block(len(BODY)), Transfer(patience), whole)


def aborted_in_the_middle(storage: Storage, server: ScriptedServer) -> list[BaseException]:
    """What a download from a server that hangs raises when it is aborted from another thread: at once."""
    failures: list[BaseException] = []
    transfer = Transfer(PATIENCE)

    def run() -> None:
        try:
            storage.get(server.url + "/", block(len(BODY)), transfer, whole)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert server.hanging.acquire(timeout=PATIENCE)
    transfer.abort()
    thread.join(timeout=PATIENCE / 2)
    assert not thread.is_alive()
    return failures
