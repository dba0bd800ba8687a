"""`cterafs umount`: unmounts, and waits until the process that served the mount has ended."""

from __future__ import annotations

import argparse
import os
import select
from pathlib import Path

END_DEADLINE = 30.0
"""Seconds. A process whose mount is gone has nothing left to wait for but its threads' time-outs."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "umount",
        help="unmount",
        description="Unmounts, and waits until the process that served the mount has ended.",
    )
    parser.add_argument(
        "--lazy", action="store_true", help="take the mount away at once, and end it when its last user has gone"
    )
    parser.add_argument("mountpoint", type=Path, metavar="MOUNTPOINT")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from cterafs import config, control
    from cterafs.errors import MountError
    from cterafs.kernel import mountpoint

    config.strip_secrets(os.environ)  # fusermount3 has no use for them
    path = mountpoint.absolute(args.mountpoint)
    mounted = mountpoint.mounted_at(path)
    if mounted is None or mounted.fstype != mountpoint.FSTYPE:
        raise MountError(f"no cterafs is mounted at {path}; see: cterafs status")
    record = control.find(path)
    pid = control.serving(record) if record is not None else None
    killed = pid is not None and mountpoint.end_killed(path, pid)
    lazy = args.lazy or killed
    process = _open_process(pid) if pid is not None and not lazy else None
    try:
        mountpoint.unmount(path, lazy=lazy)
        if process is not None and not select.select([process], [], [], END_DEADLINE)[0]:
            raise MountError(
                f"{path} is unmounted, but its process did not end in {END_DEADLINE:.0f} s; look at its log"
            )
    finally:
        if process is not None:
            os.close(process)
    return 0


def _open_process(pid: int) -> int | None:
    """A handle that becomes readable when the process ends; None where it has ended already, or cannot be seen."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None
