"""A small tree that a mount knows, and what has to go on whatever fails: listing it, and reading what is cached."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path
from typing import Any

from real_mount import DEADLINE, Mount

from cterafs import control
from cterafs.demo.encoder import Encoding
from cterafs.demo.server import EmbeddedPortal

CONTENT = random.Random(11).randbytes(150_000)
FRESH = 12

GOES_ON = """
set -e
test "$(ls -l "$1" | wc -l)" -gt {files}
find "$1" -name 'fresh *' -size 150000c | grep -q 'fresh 3'
stat "$1/fresh 1" "$1" > "$2"
df "$1" > "$2"
if stat "$1/missing" 2> "$2"; then exit 9; fi
cmp "$1/cached" "$3"
dd if="$1/cached" of="$2" bs=64k iflag=direct status=none
"""


def fill(portal: EmbeddedPortal) -> None:
    """A folder with a file that `begin` reads, and others that nobody does."""
    portal.namespace.encoding = Encoding(block_size=100_000)
    folder = portal.namespace.create_folder("Folder")
    portal.namespace.create(folder, "cached", CONTENT)
    for number in range(FRESH):
        portal.namespace.create(folder, f"fresh {number}", CONTENT)


def begin(mount: Mount, *arguments: str) -> None:
    """Mounts, and reads one file."""
    mount.start(*arguments)
    assert (mount.path / "Folder/cached").read_bytes() == CONTENT
    mount.settle()


def fresh(mount: Mount, number: int) -> Path:
    """A file that was not read yet."""
    return mount.path / f"Folder/fresh {number}"


def goes_on(mount: Mount, beside: subprocess.Popen[bytes] | None = None) -> None:
    """What needs no network is answered; before the process `beside` has ended, if one is given."""
    copy = mount.home / "copy"
    copy.write_bytes(CONTENT)
    script = GOES_ON.format(files=FRESH)
    command = ["sh", "-c", script, "sh", mount.path / "Folder", "/dev/null", copy]
    subprocess.run(command, check=True, timeout=DEADLINE, stdout=subprocess.DEVNULL)
    assert beside is None or beside.poll() is None, "it did not hang for as long as it was meant to"


def reading(path: Path) -> subprocess.Popen[bytes]:
    """A process that reads a file."""
    return subprocess.Popen(["cat", path], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={"LC_ALL": "C"})


def error_of_reading(path: Path) -> int:
    """The errno that a read fails with; 0 if it gives the right bytes."""
    try:
        assert path.read_bytes() == CONTENT
    except OSError as error:
        return error.errno or 0
    return 0


def all_is_right(mount: Mount) -> None:
    """Every file that was not read yet can be."""
    assert [error_of_reading(fresh(mount, number)) for number in range(FRESH)] == [0] * FRESH


def status_of(mount: Mount) -> dict[str, Any]:
    """What `cterafs status --json` tells, without the time that a command takes."""
    record = control.find(mount.path)
    assert record is not None
    return control.ask_status(record)


def wait_for_state(mount: Mount, state: str, reason: str = "") -> dict[str, Any]:
    """The status, once it is in this state, and the reason of it has these words."""
    return mount.wait_until(lambda status: status["state"] == state and reason in (status["reason"] or ""))
