"""Who gets at the files of a mount: whom the options let in, and nobody else."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from mount_processes import family
from ordinary_mount import STRANGER, USER, OrdinaryMount, identity
from real_mount import Mount, finish

from cterafs.demo.server import EmbeddedPortal

CONTENT = b"for some eyes only"
ASK = """
import socket, sys
asking = socket.socket(socket.AF_UNIX)
asking.settimeout(20)
asking.connect(sys.argv[1])
asking.sendall(b'{"command": "status"}\\n')
answer = asking.recv(10000)
print(answer or "Error: hung up")
"""
OWNER, MEMBER = 4001, 4002
"""Nobody's numbers: the kernel asks for no account."""


def reads(file: Path, uid: int, gid: int | None = None) -> bool:
    """Whether this user, in this group, gets the content; and then in a directory that is listed as well."""
    change = identity(uid, gid)
    cat = subprocess.run([*change, "cat", file], capture_output=True, check=False)
    ls = subprocess.run([*change, "ls", file.parent], capture_output=True, check=False)
    assert cat.stdout == (CONTENT if cat.returncode == 0 else b"")
    assert (ls.returncode == 0) == (cat.returncode == 0)
    return cat.returncode == 0


@pytest.fixture
def portal(portal: EmbeddedPortal) -> EmbeddedPortal:
    portal.namespace.create(portal.namespace.create_folder("Folder"), "file", CONTENT)
    return portal


@pytest.fixture
def shared(portal: EmbeddedPortal, tmp_path: Path) -> Iterator[Mount]:
    """A mountpoint that every user gets to."""
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    mount = Mount(portal, tmp_path)
    yield mount
    finish(mount)


@pytest.mark.parametrize(
    ("options", "owner", "member", "stranger"),
    [
        ("uid=4001", False, False, False),
        ("allow_other", True, True, True),
        ("allow_other,umask=0277", False, False, False),
        ("allow_other,uid=4001,umask=0277", True, False, False),
        ("allow_other,uid=4001,gid=4002,umask=0227", True, True, False),
        ("allow_other,uid=4001,gid=4002,umask=0272", True, False, True),
    ],
)
def test_who_reads_a_mount_of_root(shared: Mount, options: str, owner: bool, member: bool, stranger: bool) -> None:
    shared.start("-o", options)
    file = shared.path / "Folder/file"
    assert reads(file, OWNER) == owner
    assert reads(file, STRANGER, MEMBER) == member
    assert reads(file, STRANGER) == stranger
    assert file.read_bytes() == CONTENT, "root may"


def test_what_was_read_by_one_is_not_read_by_another(shared: Mount) -> None:
    """All of it is in the kernel's caches by then."""
    shared.start("-o", "allow_other,uid=4001,umask=0277")
    file = shared.path / "Folder/file"
    assert reads(file, OWNER)
    assert not reads(file, STRANGER)
    stranger = [*identity(STRANGER), "getfattr", "-d", "-m", "-", str(file)]
    assert subprocess.run(stranger, capture_output=True, check=False).stdout == b""


def test_what_lies_beside_a_mount_is_closed_to_others(shared: Mount) -> None:
    """Index, log, socket and blocks, whatever the caller's umask was."""
    shared.configure(cache_disk="1GiB")
    before = os.umask(0)
    try:
        shared.start("-o", "allow_other")
    finally:
        os.umask(before)
    assert reads(shared.path / "Folder/file", STRANGER)
    shared.stop()
    for top in (shared.home / "state", shared.home / ".cache/cterafs"):
        assert [path for path in top.rglob("*") if path.is_file()] != []
        for path in (top, *top.rglob("*")):
            assert path.stat().st_mode & 0o077 == 0, path
    shared.start("-o", "allow_other")
    for found in (shared.state / "control.sock", shared.state / "index.db"):
        assert subprocess.run([*identity(STRANGER), "cat", found], check=False, capture_output=True).returncode != 0
    asked = shared.run("status", "--json", str(shared.path))
    assert asked.returncode == 0


# --- of a user who is not root ----------------------------------------------------------------------------------------


@pytest.fixture
def ordinary(portal: EmbeddedPortal) -> Iterator[OrdinaryMount]:
    with OrdinaryMount.in_new_home(portal) as mount:
        yield mount
        finish(mount)


@pytest.mark.parametrize(("options", "stranger", "root"), [("umask=0222", False, False), ("allow_other", True, True)])
def test_who_reads_a_mount_of_another_user(ordinary: OrdinaryMount, options: str, stranger: bool, root: bool) -> None:
    ordinary.start("-o", options)
    file = str(ordinary.path / "Folder/file")
    assert ordinary.as_user("cat", file).stdout == CONTENT
    assert (ordinary.as_user("cat", file, uid=STRANGER).stdout == CONTENT) == stranger
    assert (ordinary.as_user("cat", file, uid=0).stdout == CONTENT) == root


def test_another_user_gets_no_answer_from_a_mount(ordinary: OrdinaryMount) -> None:
    """Not even one who is let into the directory: the kernel tells who asks."""
    ordinary.start()
    socket = ordinary.state / "control.sock"
    for path in (socket, *socket.parents[:3]):
        path.chmod(0o777)
    for uid, answer in ((STRANGER, "Error"), (USER, ordinary.path.name)):
        told = ordinary.as_user("/usr/bin/python3", "-c", ASK, str(socket), uid=uid)
        assert answer in (told.stdout + told.stderr).decode()


def test_no_privilege_is_needed_to_be_guarded_and_to_have_many_requests_in_flight(ordinary: OrdinaryMount) -> None:
    ordinary.start()
    assert len(family(ordinary.pid)) == 3
    limits = ordinary.as_user("sh", "-c", "cat /sys/fs/fuse/connections/*/congestion_threshold")
    assert limits.stdout.split() == [b"192"]
    assert ordinary.complaints() == []
