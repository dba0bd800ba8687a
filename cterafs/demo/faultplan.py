"""Which faults are injected, into what, and when."""

from __future__ import annotations

import time
import tomllib
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Self

import msgspec

from cterafs.demo.injections import AnyRule, Kind, Swap


class BadPlan(Exception):
    """The file is no plan; the text is one line that says what is wrong with it, and where."""


class _File(msgspec.Struct, forbid_unknown_fields=True):
    rule: list[AnyRule]
    seed: int = 0


class FaultPlan:
    """Rules in their order: of those that concern a request, the first whose turn it is strikes, and no other sees it.

    Not thread-safe but for `injected`: it belongs to the portal's event loop.

    Args:
        seed: of all that is left to chance.
        clock: seconds; the plan begins now.

    Attributes:
        injected: how often each rule struck, by its label.
        random: decides what is left to chance.
    """

    def __init__(self, rules: Sequence[AnyRule], seed: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self.injected: Counter[str] = Counter()
        self.random = Random(seed)  # noqa: S311
        self._rules = tuple(rules)
        self._seen: Counter[int] = Counter()
        self._clock = clock
        self._began = clock()
        self._swapping = [rule for rule in rules if isinstance(rule, Swap)]
        self._bodies: dict[Kind, deque[bytes]] = defaultdict(lambda: deque(maxlen=2))

    @classmethod
    def load(cls, file: Path) -> Self:
        """Reads a plan in TOML: a table `[[rule]]` for each rule, with `fault` and what else it has, and `seed`.

        Raises:
            BadPlan, OSError
        """
        try:
            plan = msgspec.toml.decode(file.read_bytes(), type=_File)
        except msgspec.ValidationError as error:
            raise BadPlan(_located(str(error))) from None
        except (tomllib.TOMLDecodeError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadPlan(f"not TOML: {error}") from None
        return cls(plan.rule, plan.seed)

    def choose(self, kind: Kind, path: str) -> AnyRule | None:
        """The rule that strikes this request."""
        elapsed = self._clock() - self._began
        for index, rule in enumerate(self._rules):
            if rule.concerns(kind, path, elapsed):
                self._seen[index] += 1
                if rule.strikes(self._seen[index], self.random):
                    return rule
        return None

    def keeps(self, kind: Kind) -> bool:
        """Whether it wants to see every answer of this kind."""
        return any(rule.concerns(kind, rule.path, rule.start) for rule in self._swapping)

    def keep(self, kind: Kind, body: bytes) -> None:
        """Remembers the body of a true answer."""
        bodies = self._bodies[kind]
        if body not in bodies:
            bodies.append(body)

    def other(self, kind: Kind, body: bytes) -> bytes | None:
        """The last body of this kind that is not this one."""
        return next((other for other in reversed(self._bodies[kind]) if other != body), None)


def _located(complaint: str) -> str:
    """`Expected int - at $.rule[0].every` as a reader counts: `rule 1, every: Expected int`."""
    what, _, where = complaint.partition(" - at ")
    _, _, inside = where.strip("`").partition("$.rule[")
    number, _, field = inside.partition("]")
    if not number:
        return complaint
    return f"rule {int(number) + 1}{f', {field[1:]}' if field else ''}: {what}"
