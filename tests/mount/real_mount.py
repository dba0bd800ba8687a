"""Real kernel mounts of an embedded portal, made by the real command.

The portal runs in a thread of the test's process and the mount in a process of its own. A test may read the mount by
system calls, which let go of the interpreter's lock; it must not touch memory mapped from it, since a page fault does
not, and the portal could never answer it: mmap tests run in a child process.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from cterafs.demo.server import EmbeddedPortal

CTERAFS = (sys.executable, "-m", "cterafs.cli.main")
DEADLINE = 60.0


class Mount:
    """One mountpoint with its configuration; `start` and `stop` it as a user would.

    Attributes:
        prefix: a command that runs ours, in surroundings of its own.
    """

    def __init__(self, portal: EmbeddedPortal, home: Path, **options: object) -> None:
        self.portal = portal
        self.home = home
        self.path = home / "mnt"
        self.path.mkdir(parents=True)
        self.config = home / "config.toml"
        self.pid = 0
        self.prefix: Sequence[str] = ()
        self.configure(**options)

    def configure(self, **options: object) -> None:
        """Writes the configuration; `options` are `section_key=value`."""
        values: dict[str, dict[str, object]] = {
            "portal": {
                "url": self.portal.url,
                "context": "admin",
                "username": self.portal.username,
                "password": self.portal.password,
            },
            "direct": {
                "access_key_id": self.portal.access_key_id,
                "secret_access_key": self.portal.secret_access_key,
                "timeout": "10s",
            },
            "state": {"directory": str(self.home / "state")},
        }
        if self.portal.ca_file is not None:
            values["portal"]["ca_file"] = values["direct"]["ca_file"] = str(self.portal.ca_file)
        for name, value in options.items():
            section, _, key = name.partition("_")
            values.setdefault(section, {})[key] = value
        text = "".join(
            f"[{section}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
            for section, keys in values.items()
        )
        self.config.touch(mode=0o600)
        self.config.write_text(text)

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs a cterafs command to its end."""
        return subprocess.run(
            [*self.prefix, *CTERAFS, *arguments],
            check=check,
            timeout=DEADLINE,
            capture_output=True,
            text=True,
            env=self.environment,
        )

    @property
    def environment(self) -> Mapping[str, str]:
        return {**os.environ, "HOME": str(self.home)}

    def start(self, *arguments: str) -> None:
        done = self.run("mount", "--config", str(self.config), *arguments, str(self.path), check=False)
        assert done.returncode == 0, done.stderr
        self.pid = int(self.status()["pid"])

    def stop(self) -> None:
        self.run("umount", str(self.path))

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.run("status", "--json", str(self.path)).stdout)
        return status

    def wait_until(self, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """The status, once it is as it should be; no event tells of it."""
        deadline = time.monotonic() + DEADLINE
        while not condition(status := self.status()):
            assert time.monotonic() < deadline, f"the status does not become as it should be: {status}"
        return status

    def download_pid(self, other_than: int | None = None) -> int:
        """The process that downloads, once it can."""
        status = self.wait_until(lambda status: status["download_pid"] not in (None, other_than))
        return int(status["download_pid"])

    def settle(self) -> None:
        """Waits until every change that the portal knows is visible through the mount."""
        assert self.portal.inventory.feed.wait_until_followed(DEADLINE), "the mount does not follow"

    def signal(self, number: int) -> None:
        """Sends a signal and waits for the process to end."""
        process = os.pidfd_open(self.pid)
        try:
            signal.pidfd_send_signal(process, number)
            assert select.select([process], [], [], DEADLINE)[0], "the process did not end"
        finally:
            os.close(process)

    @property
    def is_mounted(self) -> bool:
        mounts = Path("/proc/self/mountinfo").read_bytes().splitlines()  # a mountpoint need not be UTF-8
        return any(line.split()[4] == os.fsencode(self.path) for line in mounts)

    @property
    def state(self) -> Path:
        """The state directory of this mount's portal and user."""
        (state,) = (self.home / "state").iterdir()
        return state

    def complaints(self) -> list[str]:
        """What the mount logged at WARNING or above."""
        file = self.state / "mount.log"
        lines = file.read_text().splitlines() if file.exists() else []
        return [line for line in lines if " INFO " not in line and " DEBUG " not in line]


def finish(mount: Mount) -> None:
    """Unmounts what a test left mounted."""
    if mount.is_mounted:
        done = mount.run("umount", str(mount.path), check=False)
        if done.returncode != 0:
            subprocess.run(["umount", "-l", str(mount.path)], check=False)
            pytest.fail(f"the mount could not be ended: {done.stderr}")
