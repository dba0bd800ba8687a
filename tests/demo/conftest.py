"""Portals to ask, and CTERA's own client, unchanged, to ask them with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import cterasdk
import httpx
import pytest

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


@dataclass
class Asker:
    """Asks a portal as a client would, and keeps nothing but the session."""

    portal: EmbeddedPortal
    http: httpx.Client = field(default_factory=httpx.Client)

    def login(self) -> httpx.Response:
        form = {"j_username": self.portal.username, "j_password": self.portal.password}
        return self.http.post(f"{self.portal.url}/ServicesPortal/api/login", data=form)

    def metadata(self, call: str, body: object) -> httpx.Response:
        return self.http.post(f"{self.portal.url}/ServicesPortal/v2/api/metadata/{call}", json=body)

    def page(self, cursor: str | None = None, folder_ids: tuple[int, ...] = (), max_results: int = 2000) -> Any:
        asked = {"folder_ids": folder_ids, "cursor": cursor, "max_results": max_results}
        return self.metadata("list", asked).raise_for_status().json()

    def everything(self) -> tuple[list[dict[str, Any]], str]:
        """All entries there are, and the cursor after them."""
        entries, cursor, more = [], None, True
        while more:
            page = self.page(cursor)
            entries += page["entries"]
            cursor, more = page["cursor"], page["has_more"]
        return entries, cursor

    def longpoll(self, cursor: str, timeout: int = 10_000) -> bool:
        asked = {"folder_ids": [], "cursor": cursor, "timeout": timeout}
        return bool(self.metadata("longpoll", asked).raise_for_status().json()["changes"])

    def next_changes(self, cursor: str) -> tuple[list[dict[str, Any]], str]:
        """Waits for the next changes."""
        assert self.longpoll(cursor)
        page = self.page(cursor)
        return page["entries"], page["cursor"]

    def blocks(self, file_id: int, **params: int) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.portal.access_key_id}"}
        return httpx.get(f"{self.portal.url}/directio/{file_id}", params=params, headers=headers)

    def urls(self, file_id: int) -> list[str]:
        return [chunk["url"] for chunk in self.blocks(file_id).raise_for_status().json()["chunks"]]


@pytest.fixture
def asker(portal: EmbeddedPortal) -> Iterator[Asker]:
    asker = Asker(portal)
    asker.login()
    with asker.http:
        yield asker
