"""Answers as they go over the wire, and how they can go wrong there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

STEP = 0.1
"""Seconds between the pieces of a slow drip."""
LENGTH = (b"content-length", b"transfer-encoding")


@dataclass(frozen=True, slots=True)
class Answer:
    """One whole answer. What tells the body's length is not among the headers."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    @classmethod
    def of(cls, messages: Sequence[Message]) -> Answer:
        """The answer that an ASGI application sent."""
        head, *rest = messages
        headers = tuple((name, value) for name, value in head["headers"] if name.lower() not in LENGTH)
        return cls(head["status"], headers, b"".join(message.get("body", b"") for message in rest))


class Reply(Response):
    """Sends an answer; as the length of its body it tells `announced`, if that is given."""

    def __init__(self, answer: Answer, announced: int | None = None) -> None:
        super().__init__(answer.body, answer.status)
        length = len(answer.body) if announced is None else announced
        self.raw_headers = [*answer.headers, (b"content-length", b"%d" % length)]

    async def begin(self, send: Send, body: bytes) -> None:
        """Sends the head, and `body`, which is not all."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": body, "more_body": True})


class Cut(Reply):
    """Breaks off: the connection ends after the body, of `announced` bytes; at once, if the body is empty."""

    def __init__(self, transports: Sequence[asyncio.Transport], answer: Answer, announced: int = 0) -> None:
        super().__init__(answer, announced)
        self._transports = transports

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.body:
            await self.begin(send, bytes(self.body))
        for transport in self._transports:
            if self.body:
                transport.close()  # sends what was written first
            else:
                transport.abort()
        await gone(receive)


class Stalled(Reply):
    """Sends the head and the body, of `announced` bytes, and then nothing for as long as the client waits."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.begin(send, bytes(self.body))
        await gone(receive)


class Overrun(Reply):
    """Announces less than it sends: the surplus comes where the next answer should."""

    def __init__(self, transports: Sequence[asyncio.Transport], answer: Answer, announced: int) -> None:
        super().__init__(answer, announced)
        self._announced = announced
        self._transports = transports

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = bytes(self.body)
        await self.begin(send, body[: self._announced])
        await send({"type": "http.response.body", "body": b""})
        for transport in self._transports:
            transport.write(body[self._announced :])


class Dripping(Reply):
    """Sends the body at `rate` bytes per second."""

    def __init__(self, answer: Answer, rate: float) -> None:
        super().__init__(answer)
        self._piece = max(1, round(rate * STEP))
        self._pause = self._piece / rate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ended = asyncio.ensure_future(gone(receive))
        try:
            await self.begin(send, b"")
            for start in range(0, len(self.body), self._piece):
                piece = bytes(self.body[start : start + self._piece])
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                if (await asyncio.wait([ended], timeout=self._pause))[0]:
                    return
            await send({"type": "http.response.body", "body": b""})
        finally:
            ended.cancel()


async def gone(receive: Receive) -> None:
    """Waits until the client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass
