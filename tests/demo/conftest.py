"""Portals to ask, and CTERA's own client, unchanged, to ask them with."""

from __future__ import annotations

from collections.abc import Iterator

import cterasdk
import pytest
from asking import Asker

from cterafs.demo.server import EmbeddedPortal


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # all that the SDK runs on


@pytest.fixture
def portal() -> Iterator[EmbeddedPortal]:
    with EmbeddedPortal() as portal:
        yield portal


@pytest.fixture
def tls_portal(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedPortal]:
    """The SDK only reaches a portal's port by TLS; its own settings let it accept our authority."""
    settings = cterasdk.settings
    for client in (settings.core.asyn, settings.io.direct.api, settings.io.direct.storage):
        monkeypatch.setattr(client.settings.connector, "ssl", False)
    with EmbeddedPortal(tls=True) as portal:
        yield portal


@pytest.fixture
def asker(portal: EmbeddedPortal) -> Iterator[Asker]:
    with Asker(portal) as asker:
        asker.login()
        yield asker
