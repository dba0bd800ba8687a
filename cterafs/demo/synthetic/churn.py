"""Changes that go on and on: files are made, written, renamed, moved and deleted at a steady rate."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from types import TracebackType
from typing import Self

from cterafs.demo.synthetic.tree import SyntheticNamespace

TICK = 0.01
"""Seconds between two batches: changes come in small groups, as from many users."""

WORKING_SET = 10_000
"""Files that change again and again; the others rest, as in real trees. It bounds what has to be remembered."""

MADE = 5_000
"""Files made by changes that exist at a time: then the oldest is deleted whenever one is made."""

LARGEST_CHANGE = 1 << 20
"""Bytes of new contents, at most."""


class Churn:
    """Changes a namespace, alone, in a thread of its own. A context manager.

    Args:
        rate: changes in a second.

    Attributes:
        changes: how many there have been.
    """

    def __init__(self, namespace: SyntheticNamespace, rate: float, seed: int = 1) -> None:
        self._namespace = namespace
        self._rate = rate
        self._dice = random.Random(seed)  # noqa: S311  # not meant to be secret
        files = namespace.plan.files
        self._working_set = files[:: max(1, len(files) // WORKING_SET)][:WORKING_SET]
        self._made: deque[int] = deque()
        self.changes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="churn", daemon=True)

    def step(self) -> None:
        """One change."""
        self.changes += 1
        kind = self._dice.random()
        if kind < 0.2 or not self._working_set:
            self._create_or_delete()
        else:
            number = self._dice.choice(self._working_set)
            if kind < 0.6:
                self._namespace.write(number, self._size())
            elif kind < 0.8:
                self._move(number, self._namespace.plan.parent(number))
            else:
                self._move(number, self._neighbour(number))

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _run(self) -> None:
        begun = time.monotonic()
        while not self._stop.wait(TICK):
            due = int((time.monotonic() - begun) * self._rate) - self.changes
            with self._namespace.batch():
                for _ in range(due):
                    self.step()

    def _create_or_delete(self) -> None:
        if len(self._made) >= MADE:
            self._namespace.delete(self._made.popleft())
        else:
            self._made.append(self._namespace.create(self._directory(), f"New {self.changes}.txt", self._size()))

    def _move(self, number: int, parent: int) -> None:
        # The count makes the name unique wherever it comes to lie.
        self._namespace.move(number, parent, f"{self.changes} of {number}.docx")

    def _neighbour(self, number: int) -> int:
        """The directory of another file, where that lies in the same cloud folder; else the cloud folder's root."""
        plan = self._namespace.plan
        parent, folder = plan.parent(self._dice.choice(self._working_set)), plan.folder(number)
        return parent if plan.folder(parent) == folder else folder

    def _directory(self) -> int:
        plan = self._namespace.plan
        return self._dice.choice(plan.directories if plan.directories else plan.roots)

    def _size(self) -> int:
        return self._dice.randrange(LARGEST_CHANGE)
