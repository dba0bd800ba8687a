"""`cterafs find`: searches the index, mounted or not."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from cterafs.cli import settings
from cterafs.cli.failures import printable
from cterafs.cli.timestamps import iso_time
from cterafs.errors import ConfigError

if TYPE_CHECKING:
    from cterafs.model import Node
    from cterafs.namespace.search import Found

UNITS = {"": 1, "c": 1, "k": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
"""As in find(1), but for the number alone, which is bytes and not blocks."""

_SIZE = re.compile(r"([+-]?)([0-9]{1,18})([ckMGT]?)")
_NEGATIVE = re.compile(r"-[0-9]+[ckMGT]?$")
_MICROSECOND = timedelta(microseconds=1)

AT_ONCE = 1000
"""So many results are written one by one, for whoever wants only the first ones; then a buffer at a time."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "find",
        help="search the index, mounted or not",
        description="Prints the path of every file and directory for which all conditions hold, in no particular "
        "order. The index answers, whether or not anything is mounted; the portal is not asked.",
    )
    parser.add_argument(
        "path",
        nargs="?",
        default="/",
        metavar="PATH",
        help="search below it: a path in a mount of cterafs, or one below the mount's root (default: /)",
    )
    parser.add_argument("--name", metavar="GLOB", help="the name matches the shell pattern")
    parser.add_argument("--type", choices=("f", "d"), help="f: files, d: directories")
    parser.add_argument(
        "--size",
        type=_size,
        metavar="[+-]N[ckMGT]",
        help="files of more (+), fewer (-) or exactly N bytes; k, M, G and T are powers of 1024",
    )
    parser.add_argument(
        "--newer",
        type=_time,
        metavar="DATE",
        help="modified later than a date, like 2026-11-20 or 2026-11-20T08:30, in local time, or than a file",
    )
    parser.add_argument("--where", metavar="SQL", help="an SQL expression holds; see cterafs(1) for its columns")
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    parser.add_argument("-0", "--print0", action="store_true", help="end each path with a NUL instead of a newline")
    settings.add_config(parser)
    parser.set_defaults(run=run)
    # For "--size -1M": argparse takes a negative number for a value, but none with a unit, nor where -0 is an option.
    parser._negative_number_matcher = _NEGATIVE
    parser._has_negative_number_optionals.clear()


def run(args: argparse.Namespace) -> int:
    from cterafs.cli import indexes
    from cterafs.namespace.search import Query, search
    from cterafs.namespace.store import Store

    if args.json and args.print0:
        raise ConfigError("--json and --print0 exclude each other")
    place = indexes.locate(args.path, args)
    query = Query(
        under=place.path, name=args.name, kind=args.type, size=args.size, newer_ns=args.newer, where=args.where
    )
    form = _form(args)
    with Store.open(place.state, read_only=True) as store:
        start = store.resolve(place.path)
        prefix = "/" if start is None else store.path(start.inode) or "/"
        for number, found in enumerate(search(store, query)):
            path = place.shown.rstrip("/") + found.path.removeprefix(prefix.rstrip("/"))
            sys.stdout.buffer.write(form(path, found))
            if number < AT_ONCE:
                sys.stdout.buffer.flush()
    return 0


def _form(args: argparse.Namespace) -> Callable[[str, Found], bytes]:
    """How a result is printed."""
    if args.json:
        return lambda path, found: json.dumps(_fields(path, found.node)).encode() + b"\n"
    if args.print0:
        return lambda path, found: os.fsencode(path) + b"\0"
    if sys.stdout.isatty():  # names must not drive the terminal
        return lambda path, found: os.fsencode(printable(path)) + b"\n"
    return lambda path, found: os.fsencode(path) + b"\n"


def _fields(path: str, node: Node) -> dict[str, object]:
    return {
        "path": path,
        "name": node.wire_name,
        "type": "d" if node.is_dir else "f",
        "size": node.size,
        "mtime": iso_time(node.mtime_ns),
        "mtime_ns": node.mtime_ns,
        "ctime": iso_time(node.ctime_ns),
        "ctime_ns": node.ctime_ns,
        "id": node.file_id,
        "guid": node.guid,
        "folder_id": node.folder_id,
        "gvsn": node.gvsn,
        "acl": node.acl,
        "inode": node.inode,
    }


def _size(text: str) -> tuple[str, int]:
    match = _SIZE.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; write it like +1M, -4k or 0")
    return match[1] or "=", int(match[2]) * UNITS[match[3]]


def _time(text: str) -> int:
    """Nanoseconds since 1970 UTC of a date, or of a file's last change."""
    try:
        moment = datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        try:
            return Path(text).stat().st_mtime_ns
        except (OSError, ValueError):
            problem = f"{text!r} is neither a date like 2026-11-20T08:30 nor a file"
            raise argparse.ArgumentTypeError(problem) from None
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // _MICROSECOND * 1000
