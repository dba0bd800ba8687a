"""A real mount of a user who is not root.

It lives in a mount namespace of its own, in which every user may open /dev/fuse and share a mount: on a machine where
people work, the administrator has seen to that. Whoever wants to see the mount has to enter that namespace.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from real_mount import CTERAFS, DEADLINE, Mount

from cterafs.demo.server import EmbeddedPortal

USER, STRANGER = 65534, 65533

# The interpreter may lie where only root gets to.
_MAY_SEARCH = ("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search")


def identity(uid: int, gid: int | None = None) -> tuple[str, ...]:
    """A command that runs another one as this user, in no group but this one, or else their own."""
    return ("setpriv", f"--reuid={uid}", f"--regid={uid if gid is None else gid}", "--clear-groups")


class OrdinaryMount(Mount):
    """Mounted and unmounted by `USER`."""

    def __init__(self, portal: EmbeddedPortal, home: Path, **options: object) -> None:
        self._init = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", "echo; exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._init.stdout is not None
        self._init.stdout.readline()  # now it is in its namespace
        super().__init__(portal, home, **options)
        device, rules = home / "fuse", home / "fuse.conf"
        os.mknod(device, 0o020666, Path("/dev/fuse").stat().st_rdev)
        device.chmod(0o666)
        rules.write_text("user_allow_other\n")
        self.bind(device, Path("/dev/fuse"))
        if Path("/etc/fuse.conf").exists():
            self.bind(rules, Path("/etc/fuse.conf"))

    @classmethod
    @contextlib.contextmanager
    def in_new_home(cls, portal: EmbeddedPortal) -> Iterator[OrdinaryMount]:
        """In a directory that every user gets to."""
        with tempfile.TemporaryDirectory() as scratch:
            Path(scratch).chmod(0o755)
            home = Path(scratch) / "home"
            home.mkdir()
            mount = cls(portal, home)
            try:
                yield mount
            finally:
                mount.leave()

    def leave(self) -> None:
        """The namespace goes with its last process, and what is mounted there with it."""
        self._init.communicate()

    @property
    def inside(self) -> tuple[str, ...]:
        """A command that runs another one in the namespace."""
        return ("nsenter", f"--mount=/proc/{self._init.pid}/ns/mnt", f"--wd={self.home}")

    def bind(self, source: Path, target: Path) -> None:
        subprocess.run([*self.inside, "mount", "--bind", source, target], check=True)

    def configure(self, **options: object) -> None:
        super().configure(**options)
        for path in (self.home, self.path, self.config):
            os.chown(path, USER, USER)

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.inside, "prlimit", "--core=unlimited", *identity(USER), *_MAY_SEARCH, *CTERAFS, *arguments],
            check=check,
            timeout=DEADLINE,
            capture_output=True,
            text=True,
            env={"PYTHONPATH": str(Path(__file__).parents[2]), **self.environment},
        )

    def as_user(self, *command: str, uid: int = USER) -> subprocess.CompletedProcess[bytes]:
        """Runs another program, as a user without any capabilities."""
        return subprocess.run([*self.inside, *identity(uid), *command], check=False, capture_output=True)

    def watch_helper(self) -> Path:
        """From now on, the arguments and the environment of each fusermount3 are appended to this file."""
        found = shutil.which("fusermount3")
        assert found is not None
        real, spy, seen = self.home / "fusermount3", self.home / "spy", self.home / "seen"
        for path in (real, spy, seen):
            path.touch()
        seen.chmod(0o666)
        spy.write_text(f'#!/bin/sh\n{{ echo "called with $*"; env; }} >>{seen}\nexec {real} "$@"\n')
        spy.chmod(0o755)
        self.bind(Path(found), real)
        self.bind(spy, Path(found))
        return seen

    @property
    def is_mounted(self) -> bool:
        mounts = Path(f"/proc/{self._init.pid}/mountinfo").read_bytes().splitlines()
        return any(line.split()[4] == os.fsencode(self.path) for line in mounts)
