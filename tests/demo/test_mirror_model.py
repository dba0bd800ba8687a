"""Whatever happens in the directory, the namespace is like it afterwards, and so is the tree that the events tell."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cterafs.demo.mirror import Mirror
from cterafs.demo.namespace import Namespace
from cterafs.demo.objects import Entry, Item

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["mkdir", "write", "overwrite", "rename", "rename", "replace", "exchange", "remove", "link"]),
        st.integers(0, 99),  # which of the objects that are there
        st.integers(0, 99),  # which directory, for those that make a name
        st.sampled_from("FGab"),
    ),
    max_size=10,
)


class Directory:
    """Does what it is told, if that is possible, and notes the paths that the kernel would tell of."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.touched: set[Path] = set()
        self.clock = 1_700_000_000_000_000_000

    def do(self, step: tuple[str, int, int, str]) -> None:
        operation, which, where, name = step
        there = sorted(self.root.rglob("*"))
        directories = [self.root, *(path for path in there if path.is_dir())]
        new = directories[where % len(directories)] / name
        old = there[which % len(there)] if there else new
        with contextlib.suppress(OSError):  # what is not possible does not happen
            getattr(self, operation)(old, new)
            self.touched |= {old, new}

    def mkdir(self, _: Path, new: Path) -> None:
        new.mkdir()

    def write(self, _: Path, new: Path) -> None:
        if new.exists() and new.stat().st_nlink > 1:
            return  # what is written under one name is not noticed under the others
        self.clock += 1
        new.write_bytes(b"x" * (self.clock % 10))
        os.utime(new, ns=(self.clock, self.clock))  # older kernels' clocks tick too slowly to tell two writes apart

    def overwrite(self, old: Path, _: Path) -> None:
        self.write(old, old)

    def rename(self, old: Path, new: Path) -> None:
        if not new.exists():
            old.rename(new)

    def replace(self, old: Path, new: Path) -> None:
        old.rename(new)

    def exchange(self, old: Path, new: Path) -> None:
        between = self.root / "between"
        self.touched.add(between)
        new.rename(between)
        try:
            old.rename(new)
        except OSError:  # into itself
            between.rename(new)
        else:
            between.rename(old)

    def remove(self, old: Path, _: Path) -> None:
        if old.is_dir():
            self.touched.update(old.rglob("*"))
            shutil.rmtree(old)
        else:
            old.unlink()

    def link(self, old: Path, new: Path) -> None:
        os.link(old, new)

    def tree(self) -> dict[str, bytes | None]:
        """All that a portal shows of it."""
        return {
            str(path.relative_to(self.root)): None if path.is_dir() else path.read_bytes()
            for path in self.root.rglob("*")
            if path.is_dir() or path.parent != self.root
        }


def shown(namespace: Namespace) -> dict[str, bytes | None]:
    """What the namespace holds, read through it."""

    def content(item: Item) -> bytes | None:
        return None if item.is_dir else item.file.content.read(0, item.file.size)

    return {item.path: content(item) for folder in namespace.folders for item in folder.root.subtree()}


class Listener:
    """Believes the events, the last for each object."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.cursor: str | None = None
        self.known: dict[str, Entry] = {}

    def listen(self) -> None:
        more = True
        while more:
            entries, self.cursor, more = self.namespace.feed.page((), self.cursor, 3)
            self.known.update((entry.guid, entry) for entry in entries)

    def tree(self) -> dict[str, int | None]:
        alive = {guid: entry for guid, entry in self.known.items() if not entry.deleted}

        def path(entry: Entry) -> str:
            return f"{path(alive[entry.parent_guid])}/{entry.name}" if entry.parent_guid else entry.name

        return {path(entry): entry.size for entry in alive.values()}


@settings(max_examples=150)
@given(batches=st.lists(STEPS, max_size=4))
def test_the_namespace_follows_the_directory(batches: list[list[tuple[str, int, int, str]]]) -> None:
    with tempfile.TemporaryDirectory() as root:
        directory, namespace = Directory(Path(root)), Namespace()
        for name in ("F/a/b", "G"):
            (directory.root / name).mkdir(parents=True)
        mirror, listener = Mirror(directory.root, namespace, owner=1), Listener(namespace)
        mirror.update_all()
        for steps in batches:
            listener.listen()
            directory.touched.clear()
            for step in steps:
                directory.do(step)
            mirror.update(directory.touched)
            expected = directory.tree()
            assert shown(namespace) == expected
            listener.listen()
            sizes = {path: None if data is None else len(data) for path, data in expected.items()}
            assert listener.tree() == sizes
        mirror.close()


def test_a_file_is_moved_and_written_at_once(tmp_path: Path) -> None:
    (tmp_path / "F" / "a").mkdir(parents=True)
    (tmp_path / "F" / "old").write_bytes(b"old")
    namespace = Namespace()
    mirror = Mirror(tmp_path, namespace, owner=1)
    mirror.update_all()
    guid = namespace.find("F/old").guid
    (tmp_path / "F" / "old").rename(tmp_path / "F" / "a" / "new")
    (tmp_path / "F" / "a" / "new").write_bytes(b"content")
    mirror.update([tmp_path / "F" / "old", tmp_path / "F" / "a" / "new"])
    assert shown(namespace) == {"F": None, "F/a": None, "F/a/new": b"content"}
    assert namespace.find("F/a/new").guid == guid
    mirror.close()


def test_a_directory_that_changed_is_looked_into_whatever_was_told(tmp_path: Path) -> None:
    (tmp_path / "F" / "a").mkdir(parents=True)
    os.utime(tmp_path / "F" / "a", ns=(0, 0))
    namespace = Namespace()
    mirror = Mirror(tmp_path, namespace, owner=1)
    mirror.update_all()
    (tmp_path / "F" / "a" / "new").write_bytes(b"content")
    mirror.update([tmp_path / "F" / "told"])
    assert namespace.exists("F/a/new")
    mirror.close()


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_only_so_many_files_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cterafs.demo.files.MAX_OPEN", 3)
    (tmp_path / "F").mkdir()
    for number in range(10):
        (tmp_path / "F" / str(number)).write_bytes(b"x")
    namespace = Namespace()
    mirror = Mirror(tmp_path, namespace, owner=1)
    mirror.update_all()
    before = open_files()
    assert set(shown(namespace).values()) == {None, b"x"}
    assert open_files() == before + 3
    mirror.close()
    assert open_files() == before
