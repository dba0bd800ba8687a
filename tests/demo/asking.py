"""What a client asks of a portal, as plain HTTP requests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import httpx

from cterafs.demo.server import EmbeddedPortal


@dataclass
class Asker:
    """Asks a portal as a client would, and keeps nothing but the session."""

    portal: EmbeddedPortal
    http: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=30))

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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
