"""Requests counted by kind, and what is made wrong with them: a plan of faults, and hooks for all that no plan can."""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cterafs.demo.faultplan import FaultPlan
from cterafs.demo.injections import Alteration, Call, Kind, Replacement
from cterafs.demo.replies import Answer, Cut, Reply

Hook = Callable[[str, Request], Response | Awaitable[Response | None] | None]
"""Called with the kind of a request before it is answered, in the server's event loop. A response that it returns is
sent instead; None lets the request go on. A coroutine function may take its time, or never end."""

Connections = Callable[[], Iterable[tuple[tuple[str, int] | None, asyncio.Transport]]]
"""The connections that are open: the client's address and the transport of each."""


@dataclass(frozen=True, slots=True)
class _Watched:
    """What a plan wants of a request's answer: to alter it, by `rule`, or to see it."""

    plan: FaultPlan
    kind: Kind
    rule: Alteration | None
    call: Call

    def sent(self, answer: Answer) -> Response:
        """What is sent for the true answer."""
        if answer.status >= 300:
            return Reply(answer)
        other = self.plan.other(self.kind, answer.body)
        if self.plan.keeps(self.kind):
            self.plan.keep(self.kind, answer.body)
        altered = self.rule.altered(replace(self.call, other=other), answer) if self.rule else None
        if altered is None or self.rule is None:
            return Reply(answer)
        self.plan.injected[self.rule.label] += 1
        return altered


class Faults:
    """What is wrong with the portal and its storage; nothing, until a plan or a hook is set.

    Attributes:
        plan: what is injected into requests; it may be replaced at any time.
        portal: asked about each request to the portal, before the plan is.
        storage: asked about each request to storage; its only kind is "block".
        requests: how many requests of each kind came in.
        connections: set by the server.
    """

    def __init__(self) -> None:
        self.plan: FaultPlan | None = None
        self.portal: Hook | None = None
        self.storage: Hook | None = None
        self.requests: Counter[str] = Counter()
        self.connections: Connections = lambda: ()
        self._held: set[asyncio.Future[Response | None]] = set()

    async def portal_request(self, kind: Kind, request: Request) -> Response | None:
        return await self._ask(self.portal, kind, request)

    async def storage_request(self, request: Request) -> Response | None:
        return await self._ask(self.storage, "block", request)

    def cut(self, request: Request, body: bytes = b"", announced: int = 0) -> Response:
        """An answer that breaks off: the connection ends after `body`, of `announced` bytes; at once, with neither."""
        return Cut(self._transports(request), Answer(200, (), body), announced)

    def release(self) -> None:
        """Answer 503 to the requests that are held; called in the server's event loop when it stops."""
        for held in self._held:
            held.cancel()

    def exposed(self, app: ASGIApp) -> ASGIApp:
        """`app`, with the answers altered that a plan has chosen."""

        async def exposed(scope: Scope, receive: Receive, send: Send) -> None:
            kept: list[Message] = []

            async def forward(message: Message) -> None:
                if "watched" in scope.get("state", {}):
                    kept.append(message)
                else:
                    await send(message)

            await app(scope, receive, forward)
            if kept:
                watched: _Watched = scope["state"]["watched"]
                await watched.sent(Answer.of(kept))(scope, receive, send)

        return exposed

    async def _ask(self, hook: Hook | None, kind: Kind, request: Request) -> Response | None:
        self.requests[kind] += 1
        answer = hook(kind, request) if hook else None
        if inspect.isawaitable(answer):
            answer = await self._hold(answer)
        return answer or (await self._planned(self.plan, kind, request) if self.plan else None)

    async def _planned(self, plan: FaultPlan, kind: Kind, request: Request) -> Response | None:
        rule = plan.choose(kind, request.url.path)
        call = Call(request, self._transports(request), plan.random)
        if isinstance(rule, Replacement):
            plan.injected[rule.label] += 1
            return await self._hold(rule.instead(call))
        if rule is not None or plan.keeps(kind):
            request.state.watched = _Watched(plan, kind, rule, call)
        return None

    async def _hold(self, answer: Awaitable[Response | None]) -> Response | None:
        held = asyncio.ensure_future(answer)
        self._held.add(held)
        try:
            await asyncio.wait([held])
        finally:
            self._held.discard(held)
        return Response(status_code=503) if held.cancelled() else held.result()

    def _transports(self, request: Request) -> list[asyncio.Transport]:
        return [transport for client, transport in self.connections() if client == request.client]
