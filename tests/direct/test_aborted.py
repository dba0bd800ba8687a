"""A download that was given up, of which the system has received more."""

from __future__ import annotations

import pytest
from scripted_server import ScriptedServer

from cterafs.direct import http1
from cterafs.direct.storage import Answer, Storage, tls_context
from cterafs.direct.transfer import Aborted, Transfer
from cterafs.errors import BlockInfo

BODY = bytes(range(256)) * 400


def test_nothing_is_made_of_what_comes_after_an_abort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "LEAST", 100)
    transfer = Transfer(10.0)
    later: list[int] = []

    def take(answer: Answer) -> None:
        view = memoryview(bytearray(100))
        for _ in range(3):
            answer.readinto(view)
        transfer.abort()  # which does not take back what the system has received
        later.append(answer.readinto(view))

    storage = Storage("http://127.0.0.1:1", tls_context(True, None))
    with ScriptedServer(lambda exchange: exchange.answer(BODY)) as server, pytest.raises(Aborted):
        storage.get(server.url + "/", BlockInfo(1, None, 0, len(BODY)), transfer, take)
    storage.close()
    assert not later
