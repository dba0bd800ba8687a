"""Fetches small files before they are opened, for those who open one file of a directory after the other."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence

import trio

from cterafs.content.budget import Budget
from cterafs.content.memory import BlockMemory
from cterafs.content.siblings import Forecast, Question, Siblings
from cterafs.errors import CteraError
from cterafs.model import Inode, Node

log = logging.getLogger(__name__)


class WalkAhead:
    """What `Siblings` foresees, done. It makes nobody wait, and its failures are left for readers to meet.

    Args:
        siblings: tells what to fetch.
        nursery: runs the fetching.
        budget: tells how many bytes may be ahead.
        find: answers a question.
        fetch: brings a file into the cache.
    """

    def __init__(
        self,
        siblings: Siblings,
        nursery: trio.Nursery,
        budget: Budget,
        memory: BlockMemory,
        *,
        find: Callable[[Question], Awaitable[Sequence[Node]]],
        fetch: Callable[[Node], Awaitable[None]],
    ) -> None:
        self._siblings = siblings
        self._nursery = nursery
        self._budget = budget
        self._memory = memory
        self._find = find
        self._fetch = fetch
        self._fetching: dict[Inode, trio.CancelScope] = {}

    def opened(self, file: Node) -> None:
        """Takes note of an open, and starts to fetch what should follow."""
        self._do(self._siblings.opened(file, self._room()))

    def forget(self, inodes: Iterable[Inode]) -> None:
        """These are gone, or something else now."""
        self._cancel(self._siblings.forget(inodes))

    def _room(self) -> int:
        return 0 if self._memory.contended else self._budget.share(self)

    def _do(self, forecast: Forecast) -> None:
        self._cancel(forecast.cancel)
        for question in forecast.ask:
            self._nursery.start_soon(self._answer, question)
        for file in forecast.fetch:
            scope = self._fetching[file.inode] = trio.CancelScope()
            self._nursery.start_soon(self._run, file, scope)

    def _cancel(self, inodes: Iterable[Inode]) -> None:
        for inode in inodes:
            scope = self._fetching.pop(inode, None)
            if scope is not None:
                scope.cancel()

    async def _answer(self, question: Question) -> None:
        files: Sequence[Node] = ()
        try:
            files = await self._find(question)
        except CteraError as error:
            log.debug("what follows %s is not known: %s", question.after.inode, error)
        self._do(self._siblings.learn(question, files, self._room()))

    async def _run(self, file: Node, scope: trio.CancelScope) -> None:
        try:
            with scope:
                await self._fetch(file)
        except CteraError as error:
            log.debug("inode %s was not fetched ahead: %s", file.inode, error)
        except Exception:  # whoever opens the file meets it, and their own request ends with it; the mount must not
            log.exception("inode %s was not fetched ahead", file.inode)
        finally:
            if self._fetching.get(file.inode) is scope:
                del self._fetching[file.inode]
