"""Real mounts to measure: of an embedded portal by the real command, and of other filesystems."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cterafs.demo.server import EmbeddedPortal

CTERAFS = (sys.executable, "-m", "cterafs.cli.main")
READY = 600.0
"""Seconds for another filesystem to mount; the baseline fills its memory first."""


class Mount:
    """A mount of a portal, with its state in a directory that stays when it is unmounted.

    Attributes:
        took: seconds of the last start, until it answered.
    """

    def __init__(self, portal: EmbeddedPortal, home: Path) -> None:
        self.home = home
        self.path = home / "mnt"
        self.path.mkdir(parents=True)
        self.took = 0.0
        self._config = home / "config.toml"
        self._config.touch(mode=0o600)
        self._config.write_text(
            f"[portal]\nurl = {json.dumps(portal.url)}\ncontext = 'admin'\n"
            f"username = {json.dumps(portal.username)}\npassword = {json.dumps(portal.password)}\n"
            f"[direct]\naccess_key_id = {json.dumps(portal.access_key_id)}\n"
            f"secret_access_key = {json.dumps(portal.secret_access_key)}\n"
            f"[state]\ndirectory = {json.dumps(str(home / 'state'))}\n"
        )

    def start(self, *options: str) -> float:
        """Mounts; gives the seconds until it answers."""
        began = time.perf_counter()
        self._run("mount", "--config", str(self._config), *options, str(self.path))
        os.listdir(self.path)  # noqa: PTH208  # the system call, and no objects
        self.took = time.perf_counter() - began
        return self.took

    def stop(self) -> None:
        if os.path.ismount(self.path):
            self._run("umount", str(self.path))

    def warm(self, path: Path) -> None:
        """Brings a file of it to the disk."""
        self._run("warm", str(path))

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self._run("status", "--json", str(self.path)))
        return status

    @property
    def pid(self) -> int:
        return int(self.status()["pid"])

    @property
    def database(self) -> int:
        """Bytes of the index on the disk."""
        return sum(file.stat().st_size for file in (self.home / "state").rglob("index.db*"))

    def _run(self, *arguments: str) -> str:
        environment = {**os.environ, "HOME": str(self.home)}
        done = subprocess.run([*CTERAFS, *arguments], env=environment, stdout=subprocess.PIPE, text=True, check=True)
        return done.stdout


@contextmanager
def mounted(portal: EmbeddedPortal, home: Path, *options: str) -> Iterator[Mount]:
    """A mount, unmounted at the end."""
    mount = Mount(portal, home)
    try:
        mount.start(*options)
        yield mount
    finally:
        mount.stop()


@contextmanager
def baseline(shape: str, path: Path) -> Iterator[Path]:
    """The baseline over the same entries, at its mountpoint."""
    with foreign([sys.executable, "-m", "benchmarks.baseline", shape, str(path)], path):
        yield path


@contextmanager
def foreign(command: Sequence[str], path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A filesystem that `command` serves in the foreground at `path`, unmounted at the end."""
    path.mkdir(exist_ok=True)
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + READY
        while not os.path.ismount(path):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"this does not mount: {' '.join(command)}")
            time.sleep(0.02)
        yield process
    finally:
        # In this order, for it may be about to mount; some unmount by themselves, which leaves nothing to do.
        process.terminate()
        process.wait(timeout=60)
        subprocess.run(["fusermount3", "-u", "-z", str(path)], stderr=subprocess.DEVNULL, check=False)
