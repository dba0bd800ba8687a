"""Changes on the portal, seen through a mount while it is mounted."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_mount import DEADLINE, Mount

from cterafs.demo.namespace import Namespace
from cterafs.demo.objects import Item
from cterafs.demo.server import EmbeddedPortal

OLD, NEW = b"old content" * 1000, b"new, longer content" * 2000


@pytest.fixture
def folder(portal: EmbeddedPortal) -> Item:
    return portal.namespace.create_folder("Projects")


@pytest.fixture
def root(folder: Item, mount: Mount) -> Path:
    """The mounted cloud folder."""
    mount.start()
    return mount.path / "Projects"


@pytest.fixture
def namespace(portal: EmbeddedPortal) -> Namespace:
    return portal.namespace


def listing(root: Path) -> list[str]:
    """Every path below, by the kernel's own reading."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_a_new_file_appears_where_the_kernel_knew_that_there_was_none(
    namespace: Namespace, folder: Item, mount: Mount, root: Path
) -> None:
    assert not (root / "new.txt").exists()  # the kernel may keep this answer for ever
    assert listing(root) == []
    namespace.create(folder, "new.txt", NEW)
    mount.settle()
    assert (root / "new.txt").read_bytes() == NEW
    assert listing(root) == ["new.txt"]


def test_new_content_is_seen_by_the_next_open_and_not_by_an_old_handle(
    namespace: Namespace, folder: Item, mount: Mount, root: Path
) -> None:
    item = namespace.create(folder, "file", OLD)
    mount.settle()
    with (root / "file").open("rb", buffering=0) as held:
        assert held.read(100) == OLD[:100]
        before = os.fstat(held.fileno())
        namespace.write(item, NEW)
        mount.settle()
        assert (root / "file").read_bytes() == NEW
        assert (root / "file").stat().st_size == len(NEW)
        assert (root / "file").stat().st_ino != before.st_ino
        assert held.read() == OLD[100:]
        after = os.fstat(held.fileno())
        assert (after.st_ino, after.st_size) == (before.st_ino, len(OLD))


def test_a_rename_keeps_the_inode_and_open_handles(
    namespace: Namespace, folder: Item, mount: Mount, root: Path
) -> None:
    item = namespace.create(folder, "before", OLD)
    mount.settle()
    with (root / "before").open("rb") as held:
        inode = os.fstat(held.fileno()).st_ino
        namespace.rename(item, "after")
        mount.settle()
        assert os.fstat(held.fileno()).st_ctime_ns // 1000 == item.ctime_ns // 1000  # told in microseconds
        assert listing(root) == ["after"]
        assert not (root / "before").exists()
        assert (root / "after").stat().st_ino == inode
        assert held.read() == OLD


def test_a_directory_moves_with_all_below_it(namespace: Namespace, folder: Item, mount: Mount, root: Path) -> None:
    one, two = namespace.mkdir(folder, "one"), namespace.mkdir(folder, "two")
    sub = namespace.mkdir(one, "sub")
    namespace.create(sub, "file", OLD)
    mount.settle()
    assert listing(root) == ["one", "one/sub", "one/sub/file", "two"]
    assert not (root / "two/moved").exists()
    here = os.open(root / "one/sub", os.O_RDONLY | os.O_DIRECTORY)
    try:
        namespace.move(sub, two, "moved")
        mount.settle()
        assert listing(root) == ["one", "two", "two/moved", "two/moved/file"]
        assert (root / "two/moved/file").read_bytes() == OLD
        assert os.listdir(here) == ["file"]  # noqa: PTH208  # who stands in it stays in it
    finally:
        os.close(here)


def test_a_deleted_file_is_gone_but_readable_to_its_holder(
    namespace: Namespace, folder: Item, mount: Mount, root: Path
) -> None:
    item = namespace.create(folder, "file", OLD)
    mount.settle()
    with (root / "file").open("rb", buffering=0) as held:
        assert held.read(10) == OLD[:10]
        namespace.delete(item)
        mount.settle()
        assert listing(root) == []
        with pytest.raises(FileNotFoundError):
            (root / "file").stat()
        assert held.read() == OLD[10:]
        assert os.fstat(held.fileno()).st_size == len(OLD)


def test_delete_and_recreate_under_the_same_name(namespace: Namespace, folder: Item, mount: Mount, root: Path) -> None:
    item = namespace.create(folder, "file", OLD)
    mount.settle()
    assert (root / "file").read_bytes() == OLD
    with namespace.batch():
        namespace.delete(item)
        namespace.create(folder, "file", NEW)
    mount.settle()
    assert (root / "file").read_bytes() == NEW


def test_a_deleted_directory_takes_its_tree_along_and_comes_back_with_it(
    namespace: Namespace, folder: Item, mount: Mount, root: Path
) -> None:
    namespace.tell_descendants = False
    top = namespace.mkdir(folder, "top")
    namespace.create(namespace.mkdir(top, "sub"), "file", OLD)
    mount.settle()
    assert (root / "top/sub/file").read_bytes() == OLD
    namespace.delete(top)
    mount.settle()
    assert listing(root) == []
    namespace.undelete(top)
    mount.settle()
    assert (root / "top/sub/file").read_bytes() == OLD


def test_names_denied_in_a_deleted_directory_come_back_with_it(
    namespace: Namespace, folder: Item, mount: Mount, root: Path
) -> None:
    """Who stands in the directory keeps its inode alive in the kernel, and with it every "there is none"."""
    namespace.tell_descendants = False
    top = namespace.mkdir(folder, "top")
    namespace.create(top, "file", OLD)
    mount.settle()
    here = os.open(root / "top", os.O_RDONLY | os.O_DIRECTORY)
    try:
        namespace.delete(top)
        mount.settle()
        with pytest.raises(FileNotFoundError):
            os.stat("file", dir_fd=here)
        namespace.undelete(top)
        mount.settle()
        assert (root / "top/file").read_bytes() == OLD
        assert os.stat("file", dir_fd=here).st_size == len(OLD)
    finally:
        os.close(here)


def test_two_files_swap_their_names(namespace: Namespace, folder: Item, mount: Mount, root: Path) -> None:
    one, two = namespace.create(folder, "one", OLD), namespace.create(folder, "two", NEW)
    mount.settle()
    assert (root / "one").read_bytes() == OLD
    with namespace.batch():
        namespace.rename(one, "between")
        namespace.rename(two, "one")
        namespace.rename(one, "two")
    mount.settle()
    assert ((root / "one").read_bytes(), (root / "two").read_bytes()) == (NEW, OLD)


def test_a_directory_replaces_a_file_and_back(namespace: Namespace, folder: Item, mount: Mount, root: Path) -> None:
    item = namespace.create(folder, "it", OLD)
    mount.settle()
    assert (root / "it").is_file()
    namespace.delete(item)
    directory = namespace.mkdir(folder, "it")
    namespace.create(directory, "inside", NEW)
    mount.settle()
    assert listing(root) == ["it", "it/inside"]
    namespace.delete(directory)
    namespace.create(folder, "it", NEW)
    mount.settle()
    assert (root / "it").read_bytes() == NEW


def test_a_process_holds_a_file_through_everything(
    namespace: Namespace, folder: Item, mount: Mount, root: Path
) -> None:
    other = namespace.mkdir(folder, "other")
    item = namespace.create(folder, "file", OLD)
    mount.settle()
    with (root / "file").open("rb", buffering=0) as held:
        namespace.rename(item, "renamed")
        mount.settle()
        assert os.pread(held.fileno(), 10, 0) == OLD[:10]
        namespace.move(item, other)
        mount.settle()
        assert os.pread(held.fileno(), 10, 500) == OLD[500:510]
        namespace.write(item, NEW)
        mount.settle()
        assert os.pread(held.fileno(), 10, 2000) == OLD[2000:2010]
        namespace.delete(item)
        mount.settle()
        assert os.pread(held.fileno(), len(OLD), 0) == OLD
    assert listing(root) == ["other"]


HOLDER = """
import mmap, sys
with open(sys.argv[1], "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
    print(mapped[:10].hex(), flush=True)
    sys.stdin.readline()
    print(mapped[:].hex())
"""


def test_a_mapping_keeps_the_version_that_was_mapped(
    namespace: Namespace, folder: Item, mount: Mount, root: Path
) -> None:
    item = namespace.create(folder, "file", OLD)
    mount.settle()
    command = [sys.executable, "-c", HOLDER, str(root / "file")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == OLD[:10].hex()
        namespace.write(item, NEW)
        mount.settle()
        assert (root / "file").read_bytes() == NEW
        seen, _ = holder.communicate("go on\n", timeout=DEADLINE)
    assert seen.strip() == OLD.hex()


def test_content_that_storage_no_longer_has_is_estale(
    namespace: Namespace, folder: Item, mount: Mount, root: Path
) -> None:
    item = namespace.create(folder, "file", OLD)
    mount.settle()
    with (root / "file").open("rb", buffering=0) as held:
        old = item.file.content
        namespace.write(item, NEW)
        old.drop()
        mount.settle()
        with pytest.raises(OSError, match="Stale file handle"):
            held.read(10)
    assert (root / "file").read_bytes() == NEW


def test_the_access_list_and_other_attributes_follow(
    namespace: Namespace, folder: Item, mount: Mount, root: Path
) -> None:
    item = namespace.create(folder, "file", OLD)
    mount.settle()
    before = (root / "file").stat()
    namespace.set_acl(item, "O:SYG:SYD:(A;;FA;;;SY)")
    mount.settle()
    after = (root / "file").stat()
    assert os.getxattr(root / "file", "user.ctera.acl") == b"O:SYG:SYD:(A;;FA;;;SY)"
    assert after.st_ino == before.st_ino
    assert after.st_ctime_ns > before.st_ctime_ns


@contextlib.contextmanager
def watching(path: Path, mask: int) -> Iterator[int]:
    """An inotify watch (inotify(7))."""
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(os.O_CLOEXEC)
    assert libc.inotify_add_watch(watch, os.fsencode(path), mask) >= 0
    try:
        yield watch
    finally:
        os.close(watch)


def test_who_watches_a_file_hears_of_its_deletion(namespace: Namespace, folder: Item, mount: Mount, root: Path) -> None:
    item = namespace.create(folder, "file", OLD)
    mount.settle()
    delete_self = 0x400
    with watching(root / "file", delete_self) as watch:
        namespace.delete(item)
        assert select.select([watch], [], [], DEADLINE)[0], "no event"
        assert int.from_bytes(os.read(watch, 4096)[4:8], sys.byteorder) & delete_self


def test_a_new_cloud_folder_appears_and_goes(namespace: Namespace, folder: Item, mount: Mount, root: Path) -> None:
    assert not (mount.path / "Second").exists()
    second = namespace.create_folder("Second")
    namespace.create(second, "file", NEW)
    mount.settle()
    assert (mount.path / "Second/file").read_bytes() == NEW
    namespace.delete(second)
    mount.settle()
    assert [path.name for path in mount.path.iterdir()] == ["Projects"]


def test_a_listing_under_way_neither_repeats_nor_loses_what_does_not_change(
    namespace: Namespace, folder: Item, mount: Mount, root: Path
) -> None:
    kept = {f"kept {number:04}" for number in range(0, 3000, 2)}
    with namespace.batch():
        items = {f"kept {number:04}": namespace.create(folder, f"kept {number:04}") for number in range(3000)}
    mount.settle()
    seen = []
    with os.scandir(root) as entries:
        for count, entry in enumerate(entries):
            seen.append(entry.name)
            if count % 500 == 250:
                for name in [f"kept {number:04}" for number in range(count - 99, count + 1500, 100) if number % 2]:
                    if name in items:
                        namespace.delete(items.pop(name))
                namespace.create(folder, f"extra {count}")
                mount.settle()
    assert len(seen) == len(set(seen))
    assert kept <= set(seen)
