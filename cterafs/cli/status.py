"""`cterafs status`: how a mount is."""

from __future__ import annotations

import argparse
import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cterafs.cli.progress import readable

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
        print(json.dumps(status) if args.json else text(status))
    return 1 if any(status["state"] == DEAD for status in statuses) else 0


def _ask(record: Record) -> dict[str, Any] | None:
    """The mount's own answer, or what can be told of a dead one; None where it ended and nothing is mounted."""
    from cterafs import control

    is_mounted = _is_mounted(Path(record.mountpoint))
    try:
        status = control.ask_status(record)
    except (OSError, ValueError):
        if not is_mounted:
            return None
        reason = f"no process answers for it; unmount it with: cterafs umount {record.mountpoint}"
        return {"mountpoint": record.mountpoint, "pid": record.pid, "state": DEAD, "reason": reason}
    if not is_mounted:
        status["reason"] = "it is not mounted here any more, and ends when its last user has gone"
    return status


def _is_mounted(path: Path) -> bool:
    from cterafs.kernel import mountpoint

    mounted = mountpoint.mounted_at(path)
    return mounted is not None and mounted.fstype == mountpoint.FSTYPE


def text(status: dict[str, Any]) -> str:
    """A status for people, as `--json` gives it for programs."""
    from cterafs.cli.failures import printable

    lines = [f"{status['mountpoint']}: {status['state']}"]
    if status.get("reason"):
        lines[0] += f" ({status['reason']})"
    if status["state"] != DEAD:
        memory, reads = status["cache"]["memory"], status["reads"]
        errors = ", ".join(f"{count} {name}" for name, count in sorted(status["errors"].items())) or "none"
        lines += [
            f"  process    pid {status['pid']}, version {status['version']}, {readable(status['rss'])} resident",
            f"  feed       {_feed(status)}",
            f"  tree       {_tree(status)}",
            f"  memory     {readable(memory['used'])} of {readable(memory['limit'])}, {_share(memory)}",
            f"  disk       {_disk(status['cache']['disk'])}",
            f"  reads      {reads['requests']:,} requests, {readable(reads['bytes'])}; "
            f"{readable(reads['downloaded_bytes'])} downloaded, {reads['open_files']:,} files open",
            f"  errors     {errors}",
        ]
    return "\n".join(printable(line) for line in lines)


def _disk(disk: dict[str, Any]) -> str:
    if not disk["limit"]:
        return "off; cache.disk turns it on"
    if disk["reason"]:
        return f"not used for now: {disk['reason']}"
    used = "unknown" if disk["used"] is None else readable(disk["used"])
    return f"{used} of {readable(disk['limit'])}, {_share(disk)}"


def _tree(status: dict[str, Any]) -> str:
    if status["files"] is None:
        return "the index cannot be read; see the log"
    return f"{status['files']:,} files, {status['directories']:,} directories, {readable(status['bytes'])}"


def _feed(status: dict[str, Any]) -> str:
    lag, event_age = status["feed_lag_s"], status["last_event_age_s"]
    behind = "not up to date since it was mounted" if lag is None else f"{_age(lag)} behind"
    return f"{behind}, " + ("no event yet" if event_age is None else f"last event {_age(event_age)} ago")


def _share(cache: dict[str, Any]) -> str:
    asked = cache["hits"] + cache["misses"]
    return f"{100 * cache['hits'] / asked:.0f} % of {asked:,} blocks found" if asked else "not used yet"


def _age(seconds: float) -> str:
    """1.5 s, or from a minute on 0:01:30, or 2 days, 0:01:30."""
    return f"{seconds:.1f} s" if seconds < 60 else str(timedelta(seconds=round(seconds)))
