"""`cterafs events`: the portal's feed of changes."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cterafs import config as configuration
from cterafs.cli import settings
from cterafs.cli.failures import printable
from cterafs.cli.timestamps import iso_time
from cterafs.config import Config, PortalCredentials
from cterafs.errors import ConfigError, StateError
from cterafs.model import Cursor, Event

if TYPE_CHECKING:
    from cterafs.cli.eventpaths import EventPaths
    from cterafs.namespace.store import Store

FROM_INDEX = "index"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "events",
        help="print the portal's feed of changes",
        description="Prints what the portal tells of its objects, and in the end the cursor to go on from. Without a "
        "cursor that is the whole namespace, and then the changes since.",
    )
    parser.add_argument("--follow", action="store_true", help="go on for ever, and print changes as they happen")
    parser.add_argument(
        "--cursor",
        metavar="C",
        help=f"only what came after this cursor; {FROM_INDEX!r}: after what the index of the last mount has",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    settings.add_config(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    import anyio

    config, environment = settings.load_for_portal(args)
    credentials = configuration.portal_credentials(config.portal, environment)
    with _index(config, args.cursor) as (cursor, index), _quiet(verbose=args.verbose):
        work = partial(_events, config, credentials, cursor, index, follow=args.follow, as_json=args.json)
        anyio.run(work, backend="trio")
    return 0


@contextlib.contextmanager
def _quiet(*, verbose: bool) -> Iterator[None]:
    """A login is no event, and how following ends is told where the program ends."""

    def is_told(record: logging.LogRecord) -> bool:
        return verbose or logging.WARNING <= record.levelno < logging.ERROR

    loggers = [logging.getLogger(f"cterafs.portal.{name}") for name in ("session", "service")]
    for logger in loggers:
        logger.addFilter(is_told)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(is_told)


async def _events(
    config: Config,
    credentials: PortalCredentials,
    cursor: Cursor | None,
    index: Store | None,
    *,
    follow: bool,
    as_json: bool,
) -> None:
    from cterafs.cli.eventpaths import EventPaths
    from cterafs.clients import portal_client

    async with portal_client(config, credentials) as portal:
        printer = Printer(EventPaths(portal.notifications.ancestors_of, index), as_json=as_json)
        folder_ids = await portal.folders.resolve(config.portal.folders)
        has_more = True
        while has_more:
            page = await portal.notifications.list(cursor, folder_ids=folder_ids)
            await printer.page(page.events)
            cursor, has_more = page.cursor, page.has_more
            if as_json or not (has_more or follow):
                await printer.cursor(cursor)
        if follow:
            service = portal.notifications.service
            await service.run(printer, printer.cursor if as_json else _ignore, cursor=cursor, folders=folder_ids)


class Printer:
    """Prints events, page by page. A sink for the notification service: `join` is the end of a page."""

    def __init__(self, paths: EventPaths, *, as_json: bool) -> None:
        self._paths = paths
        self._form: Callable[[Event, str | None], str] = _json if as_json else _text
        self._as_json = as_json
        self._waiting: list[Event] = []

    async def put(self, event: Event) -> None:
        self._waiting.append(event)

    def task_done(self) -> None:
        """Nothing: `join` handles what waits."""

    async def join(self) -> None:
        events, self._waiting = self._waiting, []
        await self.page(events)

    async def page(self, events: Sequence[Event]) -> None:
        """Prints events with the paths that they have when the whole page has happened."""
        self._paths.learn(events)
        for event in events:
            self._print(self._form(event, await self._paths.of(event)))
        sys.stdout.buffer.flush()

    async def cursor(self, cursor: Cursor) -> None:
        """Prints where to go on."""
        self._print(json.dumps({"cursor": cursor}) if self._as_json else f"# cursor {printable(cursor)}")
        sys.stdout.buffer.flush()

    @staticmethod
    def _print(line: str) -> None:
        sys.stdout.buffer.write(os.fsencode(line) + b"\n")


def _json(event: Event, path: str | None) -> str:
    fields = {
        "event": _what(event),
        "path": path,
        "name": event.name,
        "type": "d" if event.is_dir else "f",
        "size": event.size,
        "mtime": None if event.mtime_ns is None else iso_time(event.mtime_ns),
        "mtime_ns": event.mtime_ns,
        "ctime": None if event.ctime_ns is None else iso_time(event.ctime_ns),
        "ctime_ns": event.ctime_ns,
        "id": event.file_id,
        "guid": event.guid,
        "parent_guid": event.parent_guid,
        "folder_id": event.folder_id,
        "gvsn": event.gvsn,
        "acl": event.acl,
    }
    return json.dumps(fields)


def _text(event: Event, path: str | None) -> str:
    time = None if event.ctime_ns is None else iso_time(event.ctime_ns)
    where = f"?/{event.name}" if path is None else path
    moment = "-" if time is None else f"{time[:19]}Z"
    return printable(f"{moment:20} {_what(event):7} {event.size:>12} {where}{'/' if event.is_dir else ''}")


def _what(event: Event) -> str:
    """The feed tells what an object is now; whether it is new, changed or moved, it does not tell."""
    return "deleted" if event.deleted else "present"


async def _ignore(_: Cursor) -> None:
    pass


@contextlib.contextmanager
def _index(config: Config, cursor: str | None) -> Iterator[tuple[Cursor | None, Store | None]]:
    """The cursor to begin with, and the index if it can tell the paths of what comes after it."""
    from cterafs.namespace.store import Store

    directory = configuration.state_directory(config)
    with contextlib.ExitStack() as stack:
        try:
            store = stack.enter_context(Store.open(directory, read_only=True))
            position = store.cursor
        except StateError as error:
            if cursor == FROM_INDEX:
                raise
            logging.getLogger(__name__).debug("paths are asked for: %s", error)
            yield None if cursor is None else Cursor(cursor), None
            return
        if cursor == FROM_INDEX:
            if position is None:
                raise ConfigError("the index has no cursor yet; mount once to fill it, or leave out --cursor")
            cursor = position
        is_current = position is not None and (cursor == position or _is_followed(directory))
        yield None if cursor is None else Cursor(cursor), store if is_current else None


def _is_followed(directory: Path) -> bool:
    """A mount keeps the index up to date."""
    from cterafs import control

    for record in control.records():
        if Path(record.directory) == directory:
            with contextlib.suppress(OSError, ValueError):  # it has ended, or just ends
                return control.ask_status(record).get("state") == "live"
    return False
