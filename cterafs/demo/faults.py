"""Requests counted by kind, and hooks that may delay, replace or cut off any answer."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

Hook = Callable[[str, Request], Response | Awaitable[Response | None] | None]
"""Called with the kind of a request before it is answered, in the server's event loop. A response that it returns is
sent instead; None lets the request go on. A coroutine function may take its time."""


class Faults:
    """What is wrong with the portal and its storage; nothing, until a hook is set.

    Attributes:
        portal: asked about each request to the portal.
        storage: asked about each request to storage.
        requests: how many requests of each kind came in.
    """

    def __init__(self) -> None:
        self.portal: Hook | None = None
        self.storage: Hook | None = None
        self.requests: Counter[str] = Counter()

    async def portal_request(self, kind: str, request: Request) -> Response | None:
        self.requests[kind] += 1
        return await _ask(self.portal, kind, request)

    async def storage_request(self, request: Request) -> Response | None:
        self.requests["block"] += 1
        return await _ask(self.storage, "block", request)


async def _ask(hook: Hook | None, kind: str, request: Request) -> Response | None:
    if hook is None:
        return None
    answer = hook(kind, request)
    return await answer if inspect.isawaitable(answer) else answer
