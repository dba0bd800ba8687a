"""`cterafs status`: how a mount is."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cterafs.control import Record

DEAD = "dead"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "status",
        help="show how a mount is",
        description="Shows whether a mount is alive and live, how far behind the portal, what is cached and what "
        "failed. Without a mountpoint: of all mounts of this user.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per mount")
    parser.add_argument("mountpoint", type=Path, nargs="?", metavar="MOUNTPOINT")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from cterafs import control
    from cterafs.errors import MountError
    from cterafs.kernel import mountpoint

    if args.mountpoint is None:
        statuses = [status for record in control.records() if (status := _ask(record)) is not None]
    else:
        path = mountpoint.absolute(args.mountpoint)
        record = control.find(path)
        status = _ask(record) if record is not None else None
        if status is None and _is_mounted(path):
            raise MountError(f"the cterafs at {path} belongs to another user, or is dead; see: fuser -vm {path}")
        if status is None:
            raise MountError(f"no cterafs is mounted at {path}")
        statuses = [status]
    for status in statuses:
        print(json.dumps(status) if args.json else _text(status))
    return 1 if any(status["state"] == DEAD for status in statuses) else 0


def _ask(record: Record) -> dict[str, Any] | None:
    """The mount's own answer, or what can be told of a dead one; None where it ended and nothing is mounted."""
    from cterafs import control

    try:
        return control.ask_status(record)
    except (OSError, ValueError) as error:
        if not _is_mounted(Path(record.mountpoint)):
            return None
        reason = f"{error}; unmount it with: cterafs umount {record.mountpoint}"
        return {"mountpoint": record.mountpoint, "pid": record.pid, "state": DEAD, "reason": reason}


def _is_mounted(path: Path) -> bool:
    from cterafs.kernel import mountpoint

    mounted = mountpoint.mounted_at(path)
    return mounted is not None and mounted.fstype == mountpoint.FSTYPE


def _text(status: dict[str, Any]) -> str:
    from cterafs.cli.failures import printable

    lines = [f"{status['mountpoint']}: {status['state']}"]
    if status.get("reason"):
        lines[0] += f" ({status['reason']})"
    if status["state"] != DEAD:
        memory, reads = status["cache"]["memory"], status["reads"]
        errors = ", ".join(f"{count} {name}" for name, count in sorted(status["errors"].items())) or "none"
        lines += [
            f"  process    pid {status['pid']}, version {status['version']}, {_size(status['rss'])} resident",
            f"  feed       {_age(status['feed_lag_s'])} behind, last event {_age(status['last_event_age_s'])} ago",
            f"  tree       {_tree(status)}",
            f"  memory     {_size(memory['used'])} of {_size(memory['limit'])}, {_share(memory)}",
            f"  reads      {reads['requests']:,} requests, {_size(reads['bytes'])}; "
            f"{_size(reads['downloaded_bytes'])} downloaded, {reads['open_files']:,} files open",
            f"  errors     {errors}",
        ]
    return "\n".join(printable(line) for line in lines)


def _tree(status: dict[str, Any]) -> str:
    if status["files"] is None:
        return "the index cannot be read; see the log"
    return f"{status['files']:,} files, {status['directories']:,} directories, {_size(status['bytes'])}"


def _share(cache: dict[str, Any]) -> str:
    asked = cache["hits"] + cache["misses"]
    return f"{100 * cache['hits'] / asked:.0f} % of {asked:,} blocks found" if asked else "not used yet"


def _age(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.1f} s"


def _size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
