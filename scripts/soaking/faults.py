"""What goes wrong meanwhile, one thing after the other, each followed by a time in which nothing does."""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from cterafs.demo import objects
from cterafs.demo.encoder import Codec, boundaries
from cterafs.demo.faultplan import FaultPlan
from cterafs.demo.injections import (
    Call,
    ContentType,
    Corrupt,
    Delay,
    Drip,
    Drop,
    Hang,
    Length,
    Redirect,
    Resize,
    Rule,
    Stall,
    Status,
    Swap,
    Truncate,
)
from cterafs.demo.replies import Answer, Reply
from cterafs.demo.server import EmbeddedPortal
from cterafs.direct.codec import PREFIX
from soaking.content import KIB, Version

LONGEST = 8.0
"""Seconds of one fault."""

STEP = 0.5
"""Seconds between two events of a fault that is made of events."""

LOGIN_PAGE = "/ServicesPortal/login.html"
METADATA_SERVICE = "http://169.254.169.254/latest/meta-data/"
FEED = ("list", "longpoll", "ancestors")
SOME = 0.3
"""Of the requests, so that every retry has its chance."""

SEEM_REPLACED = frozenset(("directio: another's", "block: HTTP 404"))
"""Faults that look as if storage had another version of a file: the list of other blocks, or a block that is gone."""


@dataclass(frozen=True, slots=True)
class Damage:
    """A block that was sent with other bytes, and seems to have as many as it has to have.

    Attributes:
        at: by the monotonic clock.
        checked: storage's checksum or the codec's shows it, once all of the block is there.
    """

    at: float
    key: int
    start: int
    stop: int
    checked: bool


Noted = Callable[[Call, Answer], None]


class _Noting:
    """Tells of each answer before an alteration makes something else of it."""

    __slots__ = ()
    noted: Noted

    def altered(self, call: Call, answer: Answer) -> Reply | None:
        self.noted(call, answer)
        return super().altered(call, answer)  # type: ignore[misc]  # of the alteration that this is mixed into


class NotedCorrupt(_Noting, Corrupt, tag="noted corrupt", kw_only=True):
    noted: Noted


class NotedSwap(_Noting, Swap, tag="noted swap", kw_only=True):
    noted: Noted


class NotedResize(_Noting, Resize, tag="noted resize", kw_only=True):
    noted: Noted


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong: rules for requests, or an event again and again, or a state of the portal."""

    name: str
    rules: Sequence[Rule] = ()
    event: Callable[[], None] | None = None
    begin: Callable[[], None] = lambda: None
    end: Callable[[], None] = lambda: None


@dataclass(slots=True)
class Span:
    """When a fault was at work; `ended` is infinite while it is."""

    name: str
    began: float
    ended: float = float("inf")


class Schedule:
    """Injects each fault in turn, in an order of chance.

    Attributes:
        spans: of the faults so far.
        injected: how often each struck.
        damages: blocks that were sent with wrong bytes.
    """

    def __init__(self, portal: EmbeddedPortal, seed: int) -> None:
        self.spans: list[Span] = []
        self.injected: Counter[str] = Counter()
        self.damages: list[Damage] = []
        self._portal = portal
        self._seed = seed
        self._faults = self._all()

    def run(self, seconds: float, calm: float, ending: threading.Event) -> None:
        """All of them in about `seconds`, and at least once each.

        Args:
            calm: seconds between two, where there is the time.
        """
        order = random.Random(self._seed).sample(self._faults, len(self._faults))
        each = min(LONGEST + calm, seconds / len(order))
        length = each * LONGEST / (LONGEST + calm)
        stop = time.monotonic() + seconds - each / 2
        for number, fault in enumerate(itertools.cycle(order)):
            if number >= len(order) and time.monotonic() > stop:
                return
            with self._at_work(fault):
                deadline = time.monotonic() + length
                while (left := deadline - time.monotonic()) > 0 and not ending.wait(min(left, STEP)):
                    if fault.event is not None:
                        fault.event()
                        self.injected[fault.name] += 1
            if ending.wait(each - length):
                return

    @contextlib.contextmanager
    def _at_work(self, fault: Fault) -> Iterator[None]:
        plan = FaultPlan(fault.rules, self._seed) if fault.rules else None  # type: ignore[arg-type]  # subclasses
        span = Span(fault.name, time.monotonic())
        self.spans.append(span)
        fault.begin()
        self._portal.faults.plan = plan
        try:
            yield
        finally:
            self._portal.faults.plan = None
            fault.end()
            span.ended = time.monotonic()
            self.injected[fault.name] += plan.injected.total() if plan else fault.event is None

    def _note_shorter(self, call: Call, answer: Answer) -> None:
        """A block is about to be sent without its last 16 bytes. If it has an MD5 in front, it seems to have none, and
        so other bytes, until its padding is seen to be wrong. Of a part, everybody knows the length."""
        version, whole = self._version(call), "range" not in call.request.headers
        if whole and version is not None and version.encoding.md5_prefix and version.encoding.codec is Codec.NONE:
            self._note(call, answer)

    def _note(self, call: Call, answer: Answer) -> None:
        """A block is about to be damaged."""
        version = self._version(call)
        if version is None or not isinstance(version.content, Version):
            return
        index = int(call.request.url.path.rpartition("-")[2])
        offsets = boundaries(version.size, version.encoding, version.seed)
        whole = "range" not in call.request.headers
        summed = any(header.lower() == b"content-md5" for header, _ in answer.headers)
        checked = whole and (summed or version.content.verifiable)
        damage = Damage(time.monotonic(), version.content.key, offsets[index], offsets[index + 1], checked)
        self.damages.append(damage)

    def _version(self, call: Call) -> objects.Version | None:
        """What the block that is asked for belongs to."""
        return self._portal.inventory.version(int(call.request.url.path.split("/")[-2]))

    def _checksums(self, sent: bool) -> None:
        self._portal.store.checksums = sent

    def _all(self) -> Sequence[Fault]:
        portal, block, lists = self._portal, "block", "directio"
        faults = [
            *(fault for kind in (block, lists) for fault in _of_answers(kind)),
            *(Fault(f"{block}: HTTP {status}", [_status(block, status)]) for status in (403, 404, 429, 500, 503)),
            *(Fault(f"{lists}: HTTP {status}", [_status(lists, status)]) for status in (400, 401, 403, 422, 429, 503)),
            Fault(
                "block: resized",
                [
                    NotedResize(kind=block, by=-PREFIX, probability=SOME, noted=self._note_shorter),
                    Resize(kind=block, by=5, probability=SOME),
                ],
            ),
            Fault("block: redirected", [Redirect(kind=block, location=METADATA_SERVICE, probability=SOME)]),
            Fault("block: another type", [ContentType(kind=block, content_type="text/html")]),
            Fault("block: altered", [NotedCorrupt(kind=block, probability=SOME, bytes=3, noted=self._note)]),
            Fault("block: another's", [NotedSwap(kind=block, probability=SOME, noted=self._note)]),
            Fault(
                "block: altered, without checksums",
                [NotedCorrupt(kind=block, probability=SOME, bytes=3, noted=self._note)],
                begin=lambda: self._checksums(False),
                end=lambda: self._checksums(True),
            ),
            Fault("directio: garbled", [Corrupt(kind=lists, probability=SOME)]),
            Fault("directio: another's", [Swap(kind=lists, probability=SOME)]),
            Fault("directio: HTML", [_html(lists)]),
            Fault("directio: redirected", [Redirect(kind=lists, location=LOGIN_PAGE, probability=SOME)]),
            Fault("feed: slow", [Delay(kind=FEED, seconds=1)]),
            Fault("feed: hangs", [Hang(kind=FEED)]),
            Fault("feed: dropped", [Drop(kind=FEED, probability=SOME)]),
            Fault("feed: cut short", [Truncate(kind=FEED, probability=SOME)]),
            Fault("feed: HTTP 500", [_status("list", 500), _status("longpoll", 503)]),
            Fault("feed: HTML", [_html("list")]),
            Fault("login refused", [_status("login", 403)], event=portal.expire_sessions),
            Fault("sessions expire", event=portal.expire_sessions),
            Fault("addresses expire", event=portal.expire_urls),
            Fault("cursors expire", begin=portal.inventory.feed.reset),
            Fault("all is away", begin=portal.stop, end=portal.start),
        ]
        self._checksums(True)
        return faults


def _of_answers(kind: str) -> Iterator[Fault]:
    yield Fault(f"{kind}: slow", [Delay(kind=kind, seconds=0.5, probability=SOME)])
    yield Fault(f"{kind}: hangs", [Hang(kind=kind, probability=SOME)])
    yield Fault(f"{kind}: dropped", [Drop(kind=kind, probability=SOME)])
    yield Fault(f"{kind}: stalls", [Stall(kind=kind, probability=SOME)])
    yield Fault(f"{kind}: cut short", [Truncate(kind=kind, probability=SOME)])
    yield Fault(f"{kind}: another length", [Length(kind=kind, by=by, probability=SOME) for by in (7, -7)])
    yield Fault(f"{kind}: dripping", [Drip(kind=kind, rate=64 * KIB, probability=SOME)])


def _status(kind: str, status: int) -> Rule:
    return Status(kind=kind, status=status, retry_after=1 if status in (429, 503) else None, probability=SOME)


def _html(kind: str) -> Rule:
    return Status(kind=kind, status=200, content_type="text/html", body="<html>Sign in</html>", probability=SOME)
