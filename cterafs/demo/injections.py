"""What can be made wrong with an answer, and with which: the rules of a fault plan.

Rule
├── Replacement, before there is an answer: Delay  Hang  Drop  Status  Redirect
└── Alteration, of an answer that is no refusal: Stall  Truncate  Corrupt  Drip  Length  Resize  ContentType  Swap
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from random import Random
from typing import Annotated, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from cterafs.demo.replies import Answer, Cut, Dripping, Overrun, Reply, Stalled, gone

Kind = Literal[
    "login", "sso", "logout", "session", "user", "folders", "list", "longpoll", "ancestors", "directio", "block"
]
"""Of requests: all but "block" are the portal's."""

Target = Kind | Literal["portal", "any"]
Count = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]
Offset = Annotated[int, msgspec.Meta(ge=0)]
Place = Offset | Literal["anywhere"]
"""In a body: the number of bytes before it."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request that a rule was chosen for.

    Attributes:
        transports: of its connection.
        random: the plan's.
        other: the body of another answer of the same kind, if there was one.
    """

    request: Request
    transports: Sequence[asyncio.Transport]
    random: Random
    other: bytes | None = None


class Rule(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, tag_field="fault"):
    """A fault, and the requests that it strikes: those for which all of this holds.

    Attributes:
        kind: one or several; "portal" is all but "block".
        name: that it is counted by; without one, its kind and fault.
        path: a pattern, as in a shell, of the path that is asked for.
        every: the Nth of these, the 2Nth and so on.
        probability: of each.
        first: these, and no more, counted before `every` and `probability`.
        start, stop: seconds since the plan began; `from` and `to` in a file.
    """

    kind: Target | tuple[Target, ...]
    name: str = ""
    path: str = "*"
    every: Count = 1
    probability: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    first: Count | None = None
    start: Seconds = msgspec.field(default=0.0, name="from")
    stop: Seconds | None = msgspec.field(default=None, name="to")

    def __post_init__(self) -> None:
        if self.stop is not None and self.stop <= self.start:
            raise ValueError("`to` has to be after `from`")

    @property
    def label(self) -> str:
        kinds = (self.kind,) if isinstance(self.kind, str) else self.kind
        return self.name or f"{'+'.join(kinds)} {self.__struct_config__.tag}"

    def concerns(self, kind: Kind, path: str, elapsed: float) -> bool:
        """Whether such a request is one to count."""
        targets = (self.kind,) if isinstance(self.kind, str) else self.kind
        group = "any" if kind == "block" else "portal"
        during = self.start <= elapsed and (self.stop is None or elapsed < self.stop)
        return during and not {kind, group, "any"}.isdisjoint(targets) and fnmatchcase(path, self.path)

    def strikes(self, number: int, random: Random) -> bool:
        """Whether it is the turn of the request of this number, counted from 1."""
        within = self.first is None or number <= self.first
        return within and number % self.every == 0 and random.random() < self.probability


class Replacement(Rule):
    """Comes before the true answer, or in place of it."""

    async def instead(self, call: Call) -> Response | None:
        """What is answered in place of the true answer; None for that."""
        raise NotImplementedError


class Delay(Replacement, tag="delay", kw_only=True):
    """Answers after so long."""

    seconds: Seconds

    async def instead(self, call: Call) -> Response | None:
        await asyncio.sleep(self.seconds)
        return None


class Hang(Replacement, tag="hang"):
    """Answers nothing at all, for as long as the client waits."""

    async def instead(self, call: Call) -> Response | None:
        await gone(call.request.receive)
        return Response(status_code=503)  # to nobody


class Drop(Replacement, tag="drop"):
    """Resets the connection instead of answering."""

    async def instead(self, call: Call) -> Response | None:
        return Cut(call.transports, Answer(200, (), b""))


class Status(Replacement, tag="status", kw_only=True):
    """Answers this instead. `retry_after` is in seconds."""

    status: Annotated[int, msgspec.Meta(ge=200, le=599)]
    retry_after: Count | None = None
    content_type: str = "text/plain"
    body: str = "injected"

    async def instead(self, call: Call) -> Response | None:
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return Response(self.body, self.status, headers, self.content_type)


class Redirect(Replacement, tag="redirect", kw_only=True):
    """Sends the client elsewhere."""

    location: str
    status: Literal[301, 302, 303, 307, 308] = 302

    async def instead(self, call: Call) -> Response | None:
        return Response(None, self.status, {"Location": self.location})


class Alteration(Rule):
    """Makes something else of the true answer."""

    def altered(self, call: Call, answer: Answer) -> Response | None:
        """What is sent for it; None where it cannot be altered so."""
        raise NotImplementedError


class Stall(Alteration, tag="stall", kw_only=True):
    """Sends the beginning of the body, and then nothing for as long as the client waits."""

    after: Place = "anywhere"

    def altered(self, call: Call, answer: Answer) -> Response | None:
        stop = _place(self.after, answer, call.random)
        return Stalled(_with(answer, answer.body[:stop]), announced=len(answer.body))


class Truncate(Alteration, tag="truncate", kw_only=True):
    """Sends the beginning of the body, and ends the connection."""

    after: Place = "anywhere"

    def altered(self, call: Call, answer: Answer) -> Response | None:
        stop = _place(self.after, answer, call.random)
        return Cut(call.transports, _with(answer, answer.body[:stop]), announced=len(answer.body))


class Corrupt(Alteration, tag="corrupt", kw_only=True):
    """Flips all bits of so many bytes, one after the other, from `at` on."""

    bytes: Count = 1
    at: Place = "anywhere"

    def altered(self, call: Call, answer: Answer) -> Response | None:
        if not answer.body:
            return None
        start = _place(self.at, answer, call.random)
        flipped = (byte ^ 0xFF for byte in answer.body[start : start + self.bytes])
        body = bytearray(answer.body)
        body[start : start + self.bytes] = flipped
        return Reply(_with(answer, body))


class Drip(Alteration, tag="drip", kw_only=True):
    """Sends the body at so many bytes per second."""

    rate: Annotated[float, msgspec.Meta(gt=0)]

    def altered(self, call: Call, answer: Answer) -> Response | None:
        return Dripping(answer, self.rate)


class Length(Alteration, tag="length", kw_only=True):
    """Announces a body that is `by` bytes longer or, negative, shorter than what comes.

    The connection ends where more was announced; where less was, the surplus comes where the next answer should.
    """

    by: int

    def altered(self, call: Call, answer: Answer) -> Response | None:
        announced = max(0, len(answer.body) + self.by)
        if self.by > 0:
            return Cut(call.transports, answer, announced)
        return Overrun(call.transports, answer, announced)


class Resize(Alteration, tag="resize", kw_only=True):
    """Sends a body that is `by` bytes longer (they are zeros) or, negative, shorter; and announces that rightly."""

    by: int

    def altered(self, call: Call, answer: Answer) -> Response | None:
        length = max(0, len(answer.body) + self.by)
        return Reply(_with(answer, answer.body[:length].ljust(length, b"\0")))


class ContentType(Alteration, tag="content-type", kw_only=True):
    """Says that the body is of this type."""

    content_type: str

    def altered(self, call: Call, answer: Answer) -> Response | None:
        others = [(name, value) for name, value in answer.headers if name.lower() != b"content-type"]
        headers = (*others, (b"content-type", self.content_type.encode("latin-1")))
        return Reply(Answer(answer.status, headers, answer.body))


class Swap(Alteration, tag="swap"):
    """Sends the body of another answer of the same kind, under the headers of the true one."""

    def altered(self, call: Call, answer: Answer) -> Response | None:
        return None if call.other is None else Reply(_with(answer, call.other))


AnyRule = (
    Delay | Hang | Drop | Status | Redirect | Stall | Truncate | Corrupt | Drip | Length | Resize | ContentType | Swap
)


def _place(place: Place, answer: Answer, random: Random) -> int:
    """An offset that the body has, so that there is something left behind it."""
    last = max(0, len(answer.body) - 1)
    return random.randint(0, last) if place == "anywhere" else min(place, last)


def _with(answer: Answer, body: bytes | bytearray) -> Answer:
    return Answer(answer.status, answer.headers, bytes(body))
