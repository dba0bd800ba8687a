"""File handles, as an NFS server uses them to export the mount (open_by_handle_at(2))."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

import pytest
from real_mount import Mount

from cterafs.demo.objects import Item
from cterafs.demo.server import EmbeddedPortal

CONTENT = b"exported" * 1000
libc = ctypes.CDLL(None, use_errno=True)


class FileHandle(ctypes.Structure):
    """struct file_handle; MAX_HANDLE_SZ is 128."""

    _fields_ = (("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("handle", ctypes.c_ubyte * 128))


def handle_of(path: Path) -> FileHandle:
    handle, mount_id = FileHandle(bytes=128), ctypes.c_int()
    result = libc.name_to_handle_at(-100, os.fsencode(path), ctypes.byref(handle), ctypes.byref(mount_id), 0)
    assert result == 0, os.strerror(ctypes.get_errno())
    return handle


def open_handle(mount: Mount, handle: FileHandle, flags: int = os.O_RDONLY) -> int:
    root = os.open(mount.path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        file = libc.open_by_handle_at(root, ctypes.byref(handle), flags)
        if file < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return int(file)
    finally:
        os.close(root)


def read_handle(mount: Mount, handle: FileHandle) -> bytes:
    file = open_handle(mount, handle)
    with os.fdopen(file, "rb") as opened:
        return opened.read()


def drop_kernel_caches() -> None:
    """Makes the kernel forget the inodes that nobody uses."""
    Path("/proc/sys/vm/drop_caches").write_text("2")


@pytest.fixture
def item(portal: EmbeddedPortal) -> Item:
    folder = portal.namespace.create_folder("Folder")
    return portal.namespace.create(portal.namespace.mkdir(folder, "directory"), "file", CONTENT)


def test_a_handle_opens_the_file_also_when_the_kernel_forgot_it_and_after_a_remount(mount: Mount, item: Item) -> None:
    mount.start()
    path = mount.path / "Folder/directory/file"
    file, directory, inode = handle_of(path), handle_of(path.parent), path.stat().st_ino
    drop_kernel_caches()
    assert read_handle(mount, file) == CONTENT
    mount.stop()
    mount.start()
    assert read_handle(mount, file) == CONTENT
    assert path.stat().st_ino == inode
    opened = open_handle(mount, directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert os.listdir(opened) == ["file"]  # noqa: PTH208  # of a descriptor
        assert Path(f"/proc/self/fd/{opened}").readlink() == path.parent
    finally:
        os.close(opened)


def test_a_handle_of_content_that_was_replaced_is_stale(mount: Mount, item: Item) -> None:
    mount.start()
    handle = handle_of(mount.path / "Folder/directory/file")
    mount.portal.namespace.write(item, b"other")
    mount.settle()
    drop_kernel_caches()
    with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
        open_handle(mount, handle)


def test_a_handle_of_another_database_is_stale(mount: Mount, item: Item) -> None:
    """The same inode number can mean another file there: the generation tells."""
    mount.start()
    handle = handle_of(mount.path / "Folder/directory/file")
    mount.stop()
    (mount.state / "index.db").unlink()
    mount.start()
    with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
        open_handle(mount, handle)
