"""Who may read and who may write the files that secrets and commands come from, and the directories of state."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cterafs.errors import ConfigError

# A configuration or a secret is a few lines; more is a mistake, or a device that never ends.
MAX_FILE_SIZE = 1 << 20


def read(file: Path) -> tuple[bytes, os.stat_result]:
    """A small file's content, and the attributes of the very file that was read.

    Raises:
        OSError: as open and read do.
        ConfigError: it is larger than 1 MiB.
    """
    with file.open("rb") as stream:
        content = stream.read(MAX_FILE_SIZE + 1)
        if len(content) > MAX_FILE_SIZE:
            raise ConfigError(f"{file}: the file is larger than 1 MiB; is it the right one?")
        return content, os.fstat(stream.fileno())


def refuse_readable(file: Path, info: os.stat_result) -> None:
    """Refuse a file with secrets that the group or others can read."""
    if stat.S_IMODE(info.st_mode) & 0o044:
        raise ConfigError(f"{file}: others can read this file, and it holds secrets; run: chmod 600 {file}")


def refuse_writable(file: Path, info: os.stat_result) -> None:
    """Refuse a file that anybody but its user, or root, can change."""
    if stat.S_IMODE(info.st_mode) & 0o022:
        raise ConfigError(f"{file}: others can change this file; run: chmod go-w {file}")
    if info.st_uid not in (os.geteuid(), 0):
        raise ConfigError(f"{file}: this file belongs to another user; run: chown {os.geteuid()} {file}")


def private_directory(directory: Path, option: str) -> None:
    """Make a directory for this user alone, and what is missing above it likewise; one that others could have put files
    or links into is refused.

    Args:
        option: what names it in the configuration.

    Raises:
        OSError: it cannot be made.
        ConfigError: it belongs to another user, is open to others, or is none.
    """
    for path in (*reversed(directory.parents), directory):  # mkdir(parents=True) leaves the others to the umask
        path.mkdir(mode=0o700, exist_ok=True)
    info = directory.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid():
        raise ConfigError(f"{directory}: this is not a directory of our own; set another {option}")
    if stat.S_IMODE(info.st_mode) & 0o077:
        raise ConfigError(f"{directory}: others can use this directory; run: chmod 700 {directory}")
