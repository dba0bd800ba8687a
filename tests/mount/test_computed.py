"""A namespace of thousands of objects, mounted: all of it is there, and a storm of changes leaves it right."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_mount import Mount, finish

from cterafs.demo.server import EmbeddedPortal
from cterafs.demo.synthetic.churn import Churn
from cterafs.demo.synthetic.shape import Shape
from cterafs.demo.synthetic.tree import SyntheticNamespace

SHAPE = Shape(files=10_000, folders=3, largest=2_000, size=4_096, order="scattered")


@pytest.fixture
def namespace() -> SyntheticNamespace:
    return SyntheticNamespace(SHAPE)


@pytest.fixture
def mounted(namespace: SyntheticNamespace, tmp_path: Path) -> Iterator[Mount]:
    with EmbeddedPortal(inventory=namespace) as portal:
        mount = Mount(portal, tmp_path)
        mount.start()
        try:
            yield mount
            assert mount.complaints() == []
        finally:
            finish(mount)


def shown(path: Path) -> dict[str, int | None]:
    """The sizes of the files below a directory, None for directories, by path."""
    found: dict[str, int | None] = {}
    for directory, names, files in os.walk(path):
        place = Path(directory)
        found.update((str((place / name).relative_to(path)), None) for name in names)
        found.update((str((place / name).relative_to(path)), (place / name).stat().st_size) for name in files)
    return found


def held(namespace: SyntheticNamespace) -> dict[str, int | None]:
    """The same, of what the portal holds."""
    entries, _ = namespace.part(0, 1_000_000, ())
    known = {entry.guid: entry for entry in entries}
    paths: dict[str | None, str] = {None: ""}

    def path(guid: str | None) -> str:
        if guid not in paths:
            entry = known[guid]
            paths[guid] = f"{path(entry.parent_guid)}/{entry.name}".lstrip("/")
        return paths[guid]

    return {path(entry.guid): entry.size for entry in entries}


def test_all_of_it_is_shown_and_can_be_read(mounted: Mount, namespace: SyntheticNamespace) -> None:
    assert shown(mounted.path) == held(namespace)
    for number in namespace.plan.files[::2_500]:
        version = namespace.by_file_id(namespace.entry(number).id)
        assert (mounted.path / namespace.path(number)).read_bytes() == version.content.read(0, version.size)


def test_a_storm_of_changes_leaves_it_right(mounted: Mount, namespace: SyntheticNamespace) -> None:
    shown(mounted.path)  # the kernel caches all names
    churn = Churn(namespace, 0)
    for _ in range(20):
        with namespace.batch():
            for _ in range(100):
                churn.step()
        with contextlib.suppress(FileNotFoundError):  # what was listed may be gone before it is looked at
            shown(mounted.path / "Finance")
    mounted.settle()
    assert shown(mounted.path) == held(namespace)
