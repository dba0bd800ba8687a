"""Blocks on the disk, behind a real mount."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest
from real_mount import Mount
from starlette.requests import Request
from starlette.responses import Response

from cterafs.demo.encoder import Encoding
from cterafs.demo.server import EmbeddedPortal

BLOCK = 100_000
CONTENT = random.Random(5).randbytes(3 * BLOCK - 17)


@pytest.fixture
def file(portal: EmbeddedPortal, mount: Mount) -> Path:
    """A file of three blocks, in a mount with a disk tier that was not made yet."""
    portal.namespace.encoding = Encoding(block_size=BLOCK)
    portal.namespace.create(portal.namespace.create_folder("Folder"), "file", CONTENT)
    mount.configure(cache_disk="1GiB")
    return mount.path / "Folder/file"


def cut_off(portal: EmbeddedPortal) -> None:
    """Storage refuses everything."""
    portal.faults.storage = lambda kind, request: Response(status_code=503)


def disk(mount: Mount) -> dict[str, object]:
    found = mount.status()["cache"]["disk"]
    assert isinstance(found, dict)
    return found


def leave(mount: Mount) -> None:
    """Unmounts when all of the file is on the disk: the end of a mount waits 2 s for that, which may be short."""
    mount.wait_until(lambda status: status["cache"]["disk"]["used"] >= len(CONTENT))
    mount.stop()


def test_what_was_read_once_is_read_after_a_remount_without_storage(
    portal: EmbeddedPortal, mount: Mount, file: Path, tmp_path: Path
) -> None:
    mount.start()
    (tmp_path / "copy").write_bytes(CONTENT)
    subprocess.run(["cmp", file, tmp_path / "copy"], check=True)
    leave(mount)
    cut_off(portal)
    mount.start()
    subprocess.run(["cmp", file, tmp_path / "copy"], check=True)
    found = disk(mount)
    assert (found["hits"], found["misses"], found["reason"]) == (3, 0, None)
    assert int(str(found["used"])) >= len(CONTENT)
    assert found["limit"] == 1 << 30
    assert mount.status()["reads"]["downloaded_blocks"] == 0
    assert "100 % of 3 blocks found" in mount.run("status", str(mount.path)).stdout
    assert mount.complaints() == []


def no_portal(kind: str, request: Request) -> Response:
    return Response(status_code=503)


def test_what_is_all_on_the_disk_is_read_without_the_portal(portal: EmbeddedPortal, mount: Mount, file: Path) -> None:
    mount.start()
    assert file.read_bytes() == CONTENT
    leave(mount)
    cut_off(portal)
    portal.faults.portal = no_portal
    mount.start()
    assert file.read_bytes() == CONTENT
    assert mount.status()["state"] == "offline"
    assert mount.status()["errors"] == {}
    mount.stop()
    portal.faults.portal = None


def test_what_is_left_of_a_replaced_version_is_not_mixed_with_the_new_one(
    portal: EmbeddedPortal, mount: Mount, file: Path
) -> None:
    """All of it was on the disk when it was opened, and a part of it is found damaged only then."""
    portal.namespace.keep_file_ids = True
    mount.start()
    assert file.read_bytes() == CONTENT
    leave(mount)
    other = random.Random(6).randbytes(len(CONTENT))
    with portal.namespace.silence():
        portal.namespace.write(portal.namespace.find("Folder/file"), other)
    mount.start()
    assert file.read_bytes() == CONTENT, "the version that the tree still tells of"
    mount.stop()
    for stored in blocks(mount):
        if stored.read_bytes() in CONTENT[2 * BLOCK :]:
            stored.write_bytes(bytes(stored.stat().st_size))  # one that is missing may be noticed before the open
    mount.start()
    with file.open("rb", buffering=0) as reading:
        assert os.pread(reading.fileno(), 10, 0) == CONTENT[:10]
        with pytest.raises(OSError, match="Stale file handle"):
            os.pread(reading.fileno(), 10, 2 * BLOCK)
    assert file.read_bytes() == other
    mount.stop()
    mount.start()
    assert file.read_bytes() == other


def blocks(mount: Mount) -> list[Path]:
    """The files of the blocks on the disk."""
    return [path for path in (mount.home / ".cache/cterafs").glob("??/*") if path.is_file()]


def test_a_damaged_block_is_downloaded_again(portal: EmbeddedPortal, mount: Mount, file: Path) -> None:
    mount.start()
    assert file.read_bytes() == CONTENT
    leave(mount)
    assert len(blocks(mount)) == 3
    for path in blocks(mount):
        path.write_bytes(bytes(100) + path.read_bytes()[100:])
    mount.start()
    assert file.read_bytes() == CONTENT
    assert disk(mount)["misses"] == 3
    mount.stop()
    cut_off(portal)
    mount.start()
    assert file.read_bytes() == CONTENT
    assert mount.complaints() == []


def test_no_reader_gets_blocks_of_two_versions(portal: EmbeddedPortal, mount: Mount, file: Path) -> None:
    """Storage holds another version that nobody was told of, with everything alike that the tree knows."""
    item = portal.namespace.find("Folder/file")
    portal.namespace.keep_file_ids = True
    mount.start()
    with file.open("rb", buffering=0) as reading:
        assert reading.read(10) == CONTENT[:10]
    mount.stop()
    other = random.Random(6).randbytes(len(CONTENT))
    with portal.namespace.silence():
        portal.namespace.write(item, other)
    mount.start()
    assert file.read_bytes() == other


def test_a_disk_that_cannot_be_used_is_a_warning_and_no_more(mount: Mount, file: Path) -> None:
    (mount.home / "blocked").write_bytes(b"")
    mount.configure(cache_disk="1GiB", cache_directory=str(mount.home / "blocked"))
    mount.start()
    assert file.read_bytes() == CONTENT
    assert disk(mount)["reason"] == "File exists"
    (complaint,) = mount.complaints()
    assert "cannot be used for now" in complaint


def test_a_directory_that_is_open_to_others_is_refused(mount: Mount, file: Path) -> None:
    directory = mount.home / "open"
    directory.mkdir(mode=0o755)
    mount.configure(cache_disk="1GiB", cache_directory=str(directory))
    done = mount.run("mount", "--config", str(mount.config), str(mount.path), check=False)
    assert done.returncode == 2
    assert f"chmod 700 {directory}" in done.stderr


def test_what_is_encrypted_there_is_read_after_a_remount_and_by_nobody_without_the_key(
    portal: EmbeddedPortal, mount: Mount, file: Path
) -> None:
    mount.configure(cache_disk="1GiB", cache_encrypt=True)
    mount.start()
    assert file.read_bytes() == CONTENT
    leave(mount)
    assert len(blocks(mount)) == 3
    assert not any(CONTENT[100:120] in stored.read_bytes() for stored in blocks(mount))
    cut_off(portal)
    mount.start()
    assert file.read_bytes() == CONTENT
    assert mount.status()["reads"]["downloaded_blocks"] == 0
    assert mount.complaints() == []
    mount.stop()
    keyless = {"direct_access_key_id": "", "direct_secret_access_key": "", "direct_bearer": portal.access_key_id}
    mount.configure(cache_disk="1GiB", cache_encrypt=True, **keyless)
    done = mount.run("mount", "--config", str(mount.config), str(mount.path), check=False)
    assert done.returncode == 2
    assert "cache.encrypt makes its key from direct.secret_access_key" in done.stderr
