"""The change log, the cursors that point into it, and waiting for it to grow."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import itertools
import json
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from cterafs.demo.objects import Entry

LOG_LIMIT = 1_000_000
"""Entries that the log keeps, about 400 MB; older ones, and the cursors that point at them, expire."""


class CursorRejected(Exception):
    """The cursor was not issued here, or for other folders, or it has expired."""


class Listing(Protocol):
    """The namespace as it is now, in an order that does not change."""

    def part(self, start: int, limit: int, folders: Sequence[int]) -> tuple[list[Entry], int | None]:
        """Up to `limit` entries for these folders (none: all), from the place `start` on; 0 is the beginning.

        Returns:
            The entries, and the place behind them; None at the end.
        """


@dataclass(frozen=True, slots=True)
class _Position:
    """What a cursor stands for.

    Attributes:
        listing: the next place to list from; None when the namespace has been listed.
        log: number of the next log entry to tell, counted since the start.
    """

    folders: tuple[int, ...]
    resets: int
    listing: int | None
    log: int


class Feed:
    """Pages of the namespace and of its changes.

    Thread-safe: the namespace changes in any thread, and pages are read in the server's.

    Args:
        listing: what exists.
        lock: guards it, and the change log.
    """

    def __init__(self, listing: Listing, lock: threading.RLock) -> None:
        self._listing = listing
        self._changed = threading.Condition(lock)
        self._key = secrets.token_bytes(16)
        self._log: list[Entry] = []
        self._dropped = 0
        self._resets: dict[int | None, int] = {}
        self._waiters: dict[Callable[[], None], _Position | None] = {}
        self._open = True

    def publish(self, entries: Iterable[Entry]) -> None:
        with self._changed:
            self._log.extend(entries)
            if len(self._log) > LOG_LIMIT:
                self._dropped += LOG_LIMIT // 2
                del self._log[: LOG_LIMIT // 2]
            self._wake()

    def reset(self, folder_id: int | None = None) -> None:
        """Reject the cursors that cover this cloud folder; without one, all cursors."""
        with self._changed:
            self._resets[folder_id] = self._resets.get(folder_id, 0) + 1
            self._wake()

    def open(self) -> None:
        """Let long polls wait."""
        with self._changed:
            self._open = True

    def close(self) -> None:
        """Answer the long polls that wait, at once."""
        with self._changed:
            self._open = False
            self._wake()

    def page(self, folders: Iterable[int], cursor: str | None, limit: int) -> tuple[list[Entry], str, bool]:
        """The next entries for these folders (none: all), the cursor after them, and whether there are more.

        Raises:
            CursorRejected: list again, from a null cursor.
        """
        with self._changed:
            position = self._locate(tuple(sorted(set(folders))), cursor)
            entries: list[Entry] = []
            if position.listing is not None:
                entries, place = self._listing.part(position.listing, limit, position.folders)
                position = replace(position, listing=place)
            if position.listing is None and len(entries) < limit:
                changes, position = self._told(position, limit - len(entries))
                entries += changes
            more = position.listing is not None or self._has_changes(position)
            return entries, self._issue(position), more

    async def wait(self, folders: Iterable[int], cursor: str, patience: float) -> bool:
        """Whether there is something to list after `cursor`, waiting for it up to `patience` seconds.

        Raises:
            CursorRejected: also when the cursor is rejected while it waits.
        """
        selection = tuple(sorted(set(folders)))
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(changed.set)

        with self._changed:
            self._waiters[wake] = None
        try:
            async with asyncio.timeout(patience):
                while True:
                    changed.clear()
                    with self._changed:
                        position = self._locate(selection, cursor)
                        if position.listing is not None or self._has_changes(position):
                            return True
                        if not self._open:
                            return False
                        self._waiters[wake] = position
                        self._changed.notify_all()
                    await changed.wait()
        except TimeoutError:
            return False
        finally:
            with self._changed:
                del self._waiters[wake]

    def wait_until(self, reached: Callable[[], bool], timeout: float) -> bool:
        """For other threads: waits until `reached`, which is asked after each change, or for `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(reached, timeout)

    def wait_until_followed(self, timeout: float) -> bool:
        """For other threads: waits until a long poll waits with nothing left to tell it, so that whoever polls has
        applied every change so far; False after `timeout` seconds."""

        def followed() -> bool:
            return any(position and not self._has_changes(position) for position in self._waiters.values())

        return self.wait_until(followed, timeout)

    def _wake(self) -> None:
        self._changed.notify_all()
        for wake in self._waiters:
            wake()

    def _told(self, position: _Position, limit: int) -> tuple[list[Entry], _Position]:
        found = list(itertools.islice(self._after(position), limit))
        last = found[-1][0] + 1 if len(found) == limit else self._dropped + len(self._log)
        return [entry for _, entry in found], replace(position, log=last)

    def _has_changes(self, position: _Position) -> bool:
        return next(self._after(position), None) is not None

    def _after(self, position: _Position) -> Iterator[tuple[int, Entry]]:
        for number in range(position.log - self._dropped, len(self._log)):
            entry = self._log[number]
            if _selected(entry.folder_id, position):
                yield number + self._dropped, entry

    def _locate(self, folders: tuple[int, ...], cursor: str | None) -> _Position:
        covered = (None, *folders) if folders else tuple(self._resets)
        resets = sum(self._resets.get(folder, 0) for folder in covered)
        if cursor is None:
            return _Position(folders, resets, 0, self._dropped + len(self._log))
        position = self._parse(cursor)
        if (position.folders, position.resets) != (folders, resets) or position.log < self._dropped:
            raise CursorRejected
        return position

    def _issue(self, position: _Position) -> str:
        text = json.dumps([position.folders, position.resets, position.listing, position.log]).encode()
        return base64.b64encode(self._seal(text) + text).decode()

    def _parse(self, cursor: str) -> _Position:
        try:
            raw = base64.b64decode(cursor, validate=True)
        except (ValueError, binascii.Error):
            raise CursorRejected from None
        if not hmac.compare_digest(raw[:8], self._seal(raw[8:])):
            raise CursorRejected
        folders, resets, listing, log = json.loads(raw[8:])
        return _Position(tuple(folders), resets, listing, log)

    def _seal(self, text: bytes) -> bytes:
        return hmac.digest(self._key, text, "sha256")[:8]


def _selected(folder_id: int, position: _Position) -> bool:
    return not position.folders or folder_id in position.folders
