"""A disk of its own, which can be full, fail, or hang: ext4 in a file. It takes root and a loop device."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

SIZE = 24 << 20
"""Bytes. Some 17 MiB of them are left for files."""


@contextlib.contextmanager
def _until_full() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


class SmallDisk:
    """A context manager. `path` is where it is mounted."""

    def __init__(self, directory: Path) -> None:
        self._image = directory / "image"
        self.path = directory / "disk"

    def __enter__(self) -> SmallDisk:
        self.path.mkdir(parents=True)
        with self._image.open("wb") as image:
            image.truncate(SIZE)
        subprocess.run(["mkfs.ext4", "-q", "-F", self._image], check=True)
        subprocess.run(["mount", "-o", "loop,errors=remount-ro", self._image, self.path], check=True)
        self.path.chmod(0o700)
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "-l", self.path], check=True)

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """There is no room on it; for who deletes something there may be some at once, or when ext4 commits that."""
        filler = self.path / "filler"
        try:
            with filler.open("wb", buffering=0) as file:
                for size in (1 << 20, 1 << 10):
                    with _until_full():
                        while True:
                            os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), size)
            yield
        finally:
            filler.unlink()

    @contextlib.contextmanager
    def full_of_files(self) -> Iterator[None]:
        """There is room on it, which statvfs(2) tells of, and none for another file: all inodes are taken."""
        fillers = self.path / "fillers"
        fillers.mkdir()
        try:
            with _until_full():
                for number in itertools.count():
                    (fillers / str(number)).touch()
            yield
        finally:
            shutil.rmtree(fillers)

    def fail(self) -> None:
        """An error that makes it read-only, for ever."""
        device = subprocess.run(["findmnt", "-no", "SOURCE", self.path], check=True, capture_output=True, text=True)
        Path(f"/sys/fs/ext4/{Path(device.stdout.strip()).name}/trigger_fs_error").write_text("injected")

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """Who writes waits, and nothing ends that."""
        subprocess.run(["fsfreeze", "--freeze", self.path], check=True)
        try:
            yield
        finally:
            subprocess.run(["fsfreeze", "--unfreeze", self.path], check=True)
