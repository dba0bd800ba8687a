"""A disk of its own, which can be full, fail, or hang: ext4 in a file. It takes root and a loop device."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

SIZE = 24 << 20
"""Bytes. Some 17 MiB of them are left for files."""


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
        """There is no room on it."""
        filler = self.path / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            for size in (1 << 20, 1 << 10):
                with contextlib.suppress(OSError):
                    while True:
                        os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), size)
        yield
        filler.unlink()

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
