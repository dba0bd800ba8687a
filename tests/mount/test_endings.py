"""Ways for a mount to end that its user did not plan, and mountpoints with unusual names."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from mount_processes import family
from real_mount import CTERAFS, DEADLINE, Mount

from cterafs.demo.server import EmbeddedPortal

CONTENT = b"content" * 1000


@pytest.fixture(autouse=True)
def file(portal: EmbeddedPortal, mount: Mount) -> Path:
    portal.namespace.create(portal.namespace.create_folder("Folder"), "file", CONTENT)
    return mount.path / "Folder/file"


@pytest.fixture
def starting(mount: Mount) -> Iterator[subprocess.Popen[str]]:
    """A mount in the foreground that is just made."""
    command = [*CTERAFS, "mount", "-f", "--config", str(mount.config), str(mount.path)]
    with subprocess.Popen(command, env=mount.environment, stderr=subprocess.PIPE, text=True) as process:
        while not mount.is_mounted:
            assert process.poll() is None, process.communicate()
        yield process
        process.kill()


@pytest.fixture
def process(mount: Mount, starting: subprocess.Popen[str]) -> subprocess.Popen[str]:
    """A mount in the foreground."""
    while not (mount.path / "Folder").is_dir():
        assert starting.poll() is None, starting.communicate()
    return starting


@contextlib.contextmanager
def opened(file: Path) -> Iterator[int]:
    """Holds a file; when it is closed, there may be nobody to tell any more."""
    held = os.open(file, os.O_RDONLY)
    try:
        yield held
    finally:
        with contextlib.suppress(OSError):
            os.close(held)


@pytest.mark.parametrize("processes", [2, 3])
def test_a_signal_as_soon_as_it_is_mounted_leaves_no_dead_mount(
    mount: Mount, starting: subprocess.Popen[str], processes: int
) -> None:
    """Or as soon as the third of its processes, the guardian, is made."""
    while len(family(starting.pid)) < processes:
        assert starting.poll() is None, starting.communicate()
    starting.terminate()
    assert starting.wait(DEADLINE) == 0
    assert not mount.is_mounted


def test_a_second_signal_does_not_wait_for_readers(mount: Mount, file: Path, process: subprocess.Popen[str]) -> None:
    with opened(file) as held:
        process.terminate()
        while mount.is_mounted:
            pass
        assert os.pread(held, 10, 0) == CONTENT[:10]  # after the first signal, readers may finish
        process.terminate()
        _, complaints = process.communicate(timeout=DEADLINE)
        assert process.returncode == 0, complaints


def test_an_aborted_connection_leaves_no_dead_mount(mount: Mount, process: subprocess.Popen[str]) -> None:
    minor = mount.path.stat().st_dev & 0xFF
    Path(f"/sys/fs/fuse/connections/{minor}/abort").write_text("1")
    assert process.wait(DEADLINE) == 0
    assert not mount.is_mounted


def test_a_mount_that_was_detached_does_not_unmount_what_took_its_place(
    mount: Mount, file: Path, process: subprocess.Popen[str], tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    with opened(file):
        subprocess.run(["umount", "--lazy", str(mount.path)], check=True)
        subprocess.run(["mount", "--bind", str(tmp_path / "other"), str(mount.path)], check=True)
        try:
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE) == 0
            assert mount.is_mounted
        finally:
            subprocess.run(["umount", str(mount.path)], check=True)


@pytest.mark.parametrize("name", ["two words", "共有　フォルダ", "line\u2028separator", os.fsdecode(b"\xe9t\xe9")])
def test_mountpoints_with_unusual_names(mount: Mount, name: str) -> None:
    mount.path = mount.home / name
    mount.path.mkdir()
    mount.start()
    assert (mount.path / "Folder/file").read_bytes() == CONTENT
    mount.stop()
    mount.start()
    assert mount.status()["state"] == "live"
    mount.stop()


def test_a_link_to_the_mountpoint_stands_for_it(mount: Mount) -> None:
    link, indirect = mount.home / "link", mount.home / "indirect"
    link.symlink_to(mount.path)
    indirect.symlink_to("link")
    assert mount.run("mount", "--config", str(mount.config), str(link)).returncode == 0
    assert mount.status()["mountpoint"] == str(mount.path)
    mount.run("umount", str(indirect))
    assert not mount.is_mounted


def test_a_link_to_itself_is_told(mount: Mount) -> None:
    loop = mount.home / "loop"
    loop.symlink_to(loop)
    done = mount.run("mount", "--config", str(mount.config), str(loop), check=False)
    assert done.returncode == 5
    assert "leads to itself" in done.stderr


def test_umount_does_not_wait_for_another_process_of_the_same_number(mount: Mount) -> None:
    """After a crash, what was written down of the mount names a process that may be any other's by now."""
    mount.start()
    mount.signal(signal.SIGKILL)
    (record,) = [file for file in Path("/run/cterafs").glob("*.json") if str(mount.path) in file.read_text()]
    record.write_text(record.read_text().replace(f'"pid": {mount.pid}', f'"pid": {os.getpid()}'))
    assert mount.run("umount", str(mount.path)).returncode == 0
    assert not mount.is_mounted
