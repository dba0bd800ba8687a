"""Which index answers for a path that the user names."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

from cterafs import config, control
from cterafs.cli import settings
from cterafs.errors import MountError
from cterafs.kernel import mountpoint

LINKS = 40
"""Symbolic links in one path: as many as the kernel follows (path_resolution(7))."""


@dataclass(frozen=True, slots=True)
class Place:
    """A path of an index.

    Attributes:
        state: the state directory that the index lies in.
        path: below the mount's root, with a leading slash.
        shown: how the user names that path; what lies below it is shown with that in front.
    """

    state: Path
    path: str
    shown: str


def locate(path: str, args: argparse.Namespace) -> Place:
    """The place that `path` names: below a mountpoint of cterafs, or else in the index of the configuration.

    The mount is not touched, so it may be dead, or hung.

    Raises:
        MountError: the mount belongs to somebody else.
        ConfigError: the path is in no mount, and the configuration cannot be accepted.
    """
    mounted = in_mount(path)
    if mounted is None:
        return Place(config.state_directory(settings.load(args)), path, "/" + path.strip("/"))
    return Place(Path(record_of(mounted[0]).directory), f"/{mounted[1]}", path)


def record_of(mountpoint: Path) -> control.Record:
    """Where the mount can be asked.

    Raises:
        MountError: it belongs to somebody else.
    """
    record = control.find(mountpoint)
    if record is None:
        raise MountError(f"the cterafs at {mountpoint} belongs to another user; ask as that user")
    return record


def in_mount(path: str) -> tuple[Path, str] | None:
    """The mountpoint that a path leads into, and the rest of the path; links are followed up to there."""
    roots = {mounted.path for mounted in mountpoint.mounts() if mounted.fstype == mountpoint.FSTYPE}
    pending = list(reversed(os.path.abspath(path).split("/")))  # noqa: PTH100  # of names only, as the shell does it
    reached, links = Path("/"), 0
    while pending:
        reached /= pending.pop()
        if reached in roots:
            return reached, "/".join(reversed(pending))
        if reached.is_symlink() and (links := links + 1) <= LINKS:
            target = os.path.abspath(reached.parent / reached.readlink())  # noqa: PTH100
            pending += reversed(target.split("/"))
            reached = Path("/")
    return None
