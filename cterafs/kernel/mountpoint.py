"""Mountpoints: what is mounted there, and unmounting it."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import select
import shutil
import stat
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

from cterafs.errors import MountError
from cterafs.kernel.guardian import ended

FUSECTL = Path("/sys/fs/fuse/connections")
FSTYPE = "fuse.cterafs"

LINKS = 40
"""Symbolic links that lead to one another, as many as the kernel follows (path_resolution(7))."""

ALIVE_DEADLINE = 5.0
"""Seconds for a mount that is there already to show that it is alive."""

MNT_DETACH = 2  # <sys/mount.h>
HELPER_TIMEOUT = 30.0
"""Seconds for fusermount3, which only calls umount(2)."""


@dataclass(frozen=True, slots=True)
class Mounted:
    """A line of /proc/self/mountinfo (proc_pid_mountinfo(5)): `minor` of the device names FUSE's connection."""

    path: Path
    fstype: str
    device: str

    @property
    def connection(self) -> Path:
        """The directory of the connection's control files, where fusectl is mounted."""
        return FUSECTL / self.device.partition(":")[2]

    def abort(self) -> None:
        """Ends the connection: whoever waits for an answer gets ECONNABORTED.

        Raises:
            OSError: ended already, or fusectl is not mounted.
        """
        (self.connection / "abort").write_text("1")


def mounts() -> list[Mounted]:
    """Everything that is mounted, the topmost of a path last."""
    found = []
    text = os.fsdecode(Path("/proc/self/mountinfo").read_bytes())
    # Not splitlines() and split(): they know more blanks than the kernel escapes.
    for line in text.removesuffix("\n").split("\n"):
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        found.append(Mounted(Path(_unescape(fields[4])), after.split(" ")[0], fields[2]))
    return found


def mounted_at(path: Path) -> Mounted | None:
    """What is mounted at exactly this path; it is not touched, so a dead or hung mount does no harm."""
    return next((mount for mount in reversed(mounts()) if mount.path == path), None)


def absolute(mountpoint: str | Path) -> Path:
    """The path as the kernel lists it. Links are followed, but not into the mount, which may be dead or hung.

    Raises:
        MountError: the links lead nowhere.
    """
    path = Path(os.path.abspath(mountpoint))  # noqa: PTH100  # Path.resolve would follow into the mount
    for _ in range(LINKS):
        path = Path(os.path.realpath(path.parent)) / path.name
        try:
            target = path.readlink()
        except OSError:  # not a link
            return path
        path = Path(os.path.abspath(path.parent / target))  # noqa: PTH100
    raise MountError(f"{mountpoint} is a link that leads to itself")


def prepare(path: Path, serving: int | None = None) -> None:
    """Makes sure that something can be mounted here, and clears what a crash left.

    Args:
        serving: the process whose socket answers for what is mounted here.

    Raises:
        MountError: it cannot.
    """
    if serving is not None:
        end_killed(path, serving)
    mounted = mounted_at(path)
    if mounted is not None and mounted.fstype == FSTYPE:
        if is_alive(path):
            raise MountError(f"{path} is mounted already; unmount it first with: cterafs umount {path}")
        unmount(path, lazy=True)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise MountError(f"{path} does not exist; create it with: mkdir -p {path}") from None
    except OSError as error:
        raise MountError(f"{path} cannot be used as a mountpoint: {error.strerror}") from None
    if not stat.S_ISDIR(mode):
        raise MountError(f"{path} is not a directory; choose one to mount on")


def end_killed(path: Path, pid: int) -> bool:
    """Ends the connection of a mount whose process was killed, and its guardian with it, while a thread of it waited in
    the kernel: that stays, and keeps all that the process had open.

    Args:
        pid: of the process that serves what is mounted here, going by its socket.

    Returns:
        Whether it was such a mount; its readers may take a moment to go.

    Raises:
        MountError: it is, and the connection cannot be ended.
    """
    mounted = mounted_at(path)
    if mounted is None or mounted.fstype != FSTYPE:
        return False
    try:
        if not ended(pid):
            return False
        process = os.pidfd_open(pid)
    except OSError:  # all of it is gone, or of another namespace
        return False
    try:
        _abort(mounted)
        if not select.select([process], [], [], ALIVE_DEADLINE)[0]:
            raise MountError(f"{path} was killed, and its process {pid} has not ended yet; try again in a while")
    finally:
        os.close(process)
    return True


def _abort(mounted: Mounted) -> None:
    """
    Raises:
        MountError: the connection cannot be ended.
    """
    try:
        if not mounted.connection.is_dir():
            mount_fusectl()
        mounted.abort()
    except OSError as error:
        raise MountError(
            f"{mounted.path} was killed, and its connection cannot be ended ({error.strerror}); as root: "
            f"mount -t fusectl none {FUSECTL}; echo 1 > {mounted.connection}/abort"
        ) from None


def is_alive(path: Path) -> bool:
    """Whether a process serves the mount. A dead one answers ENOTCONN at once; one that hangs is taken for alive."""
    dead: list[bool] = []

    def ask() -> None:
        try:
            os.statvfs(path)
        except OSError as error:
            dead.append(error.errno in (errno.ENOTCONN, errno.ECONNABORTED))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(ALIVE_DEADLINE)
    return not any(dead)


def unmount(path: Path, *, lazy: bool = False) -> None:
    """Unmounts; `lazy` takes the name away at once and leaves the rest to the last user.

    Raises:
        MountError: busy, not allowed, or not mounted.
    """
    if os.geteuid() == 0:
        code = _umount2(path, MNT_DETACH if lazy else 0)
        problem = os.strerror(code) if code else ""
    else:
        code, problem = _fusermount(path, lazy)
    if code == errno.EBUSY:
        raise MountError(f"{path} is in use; close what uses it (see: fuser -vm {path}), or use --lazy")
    if problem:
        raise MountError(f"{path} cannot be unmounted: {problem}")


def mount_fusectl() -> None:
    """Mounts the control files of FUSE connections where the system has not, as root.

    Raises:
        OSError: it cannot be mounted.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"fusectl", os.fsencode(FUSECTL), b"fusectl", 0, None) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _umount2(path: Path, flags: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    return 0 if libc.umount2(os.fsencode(path), flags) == 0 else ctypes.get_errno()


def _fusermount(path: Path, lazy: bool) -> tuple[int, str]:
    program = shutil.which("fusermount3")
    if program is None:
        return errno.ENOENT, "fusermount3 is not installed; install the package fuse3"
    try:
        done = subprocess.run(
            [program, "-u", *(["-z"] if lazy else []), "--", str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=HELPER_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return errno.ETIMEDOUT, f"fusermount3 did not answer in {HELPER_TIMEOUT:.0f} s"
    if done.returncode == 0:
        return 0, ""
    busy = os.strerror(errno.EBUSY) in done.stderr
    return (errno.EBUSY if busy else errno.EIO), done.stderr.strip() or f"fusermount3 failed with {done.returncode}"


def _unescape(field: str) -> str:
    """mountinfo writes blanks and backslashes as three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
