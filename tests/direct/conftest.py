"""What the tests of the data plane share."""

from collections.abc import Iterator

import pytest
from direct_world import World
from scripted_server import ScriptedServer

from cterafs.direct import retry as retries


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(retries, "FIRST_PAUSE", 0.001)
    made = World()
    with ScriptedServer(made.block) as made.store, ScriptedServer(made.list) as made.server:
        yield made
