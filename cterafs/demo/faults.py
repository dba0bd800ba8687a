"""Requests counted by kind, and hooks that may delay, replace or cut off any answer."""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

Hook = Callable[[str, Request], Response | Awaitable[Response | None] | None]
"""Called with the kind of a request before it is answered, in the server's event loop. A response that it returns is
sent instead; None lets the request go on. A coroutine function may take its time, or never end."""

Connections = Callable[[], Iterable[tuple[tuple[str, int] | None, asyncio.Transport]]]
"""The connections that are open: the client's address and the transport of each."""


class Faults:
    """What is wrong with the portal and its storage; nothing, until a hook is set.

    Attributes:
        portal: asked about each request to the portal.
        storage: asked about each request to storage; its only kind is "block".
        requests: how many requests of each kind came in.
        connections: set by the server.
    """

    def __init__(self) -> None:
        self.portal: Hook | None = None
        self.storage: Hook | None = None
        self.requests: Counter[str] = Counter()
        self.connections: Connections = lambda: ()
        self._held: set[asyncio.Future[Response | None]] = set()

    async def portal_request(self, kind: str, request: Request) -> Response | None:
        self.requests[kind] += 1
        return await self._ask(self.portal, kind, request)

    async def storage_request(self, request: Request) -> Response | None:
        self.requests["block"] += 1
        return await self._ask(self.storage, "block", request)

    def cut(self, request: Request, body: bytes = b"", announced: int = 0) -> Response:
        """An answer that breaks off: the connection ends after `body`, of `announced` bytes; at once, with neither."""
        mine = [transport for client, transport in self.connections() if client == request.client]
        return _Cut(mine, body, announced)

    def release(self) -> None:
        """Answer 503 to the requests that hooks hold; called in the server's event loop when it stops."""
        for held in self._held:
            held.cancel()

    async def _ask(self, hook: Hook | None, kind: str, request: Request) -> Response | None:
        answer = hook(kind, request) if hook else None
        if not inspect.isawaitable(answer):
            return answer
        held = asyncio.ensure_future(answer)
        self._held.add(held)
        try:
            await asyncio.wait([held])
        finally:
            self._held.discard(held)
        return Response(status_code=503) if held.cancelled() else held.result()


class _Cut(Response):
    def __init__(self, transports: list[asyncio.Transport], body: bytes, announced: int) -> None:
        super().__init__(body, headers={"Content-Length": str(announced)})
        self._transports = transports

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.body:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": self.body, "more_body": True})
        for transport in self._transports:
            if self.body:
                transport.close()  # sends what was written first
            else:
                transport.abort()
        while (await receive())["type"] != "http.disconnect":
            pass
