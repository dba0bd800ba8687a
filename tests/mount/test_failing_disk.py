"""An index that cannot be read, while it is in use and at the next mount."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from real_mount import Mount

from cterafs.demo.server import EmbeddedPortal

CONTENT = b"content" * 1000


@pytest.fixture
def held(portal: EmbeddedPortal, mount: Mount) -> Path:
    """A mount whose index is overwritten."""
    folder = portal.namespace.create_folder("Folder")
    portal.namespace.create(folder, "file", CONTENT)
    mount.start()
    for path in mount.state.glob("index.db*"):
        with path.open("r+b") as file:  # one that is cut short first is SIGBUS to who has it mapped
            file.write(b"\xff" * path.stat().st_size)
    portal.namespace.create(folder, "another", CONTENT)
    return mount.path / "Folder"


def test_a_damaged_index_is_an_error_of_each_request(mount: Mount, held: Path) -> None:
    for ask in (lambda: list(held.iterdir()), (held / "missing").stat, lambda: os.statvfs(held)):
        with pytest.raises(OSError, match="Input/output error") as failure:
            ask()
        assert failure.value.errno == errno.EIO
    status = mount.wait_until(lambda status: status["state"] == "offline")
    assert "cannot be read" in status["reason"]
    assert status["files"] is None
    assert "the index cannot be read" in mount.run("status", str(mount.path)).stdout
    assert any("lookup: " in line and "cannot be read" in line for line in mount.complaints())
    mount.stop()


def test_a_damaged_index_is_made_anew_by_the_next_mount(mount: Mount, held: Path) -> None:
    mount.stop()
    for file in mount.state.glob("index.db*"):
        file.write_bytes(b"\xff" * 10_000)
    mount.start()
    assert (held / "another").read_bytes() == CONTENT
    assert [file.name for file in mount.state.glob("*.corrupt-1")] == ["index.db.corrupt-1"]
    assert any("index.db.corrupt-1" in line for line in mount.complaints())


def test_an_index_that_was_cut_short_is_made_anew(portal: EmbeddedPortal, mount: Mount) -> None:
    folder = portal.namespace.create_folder("Folder")
    for number in range(200):
        portal.namespace.create(folder, f"file {number}", CONTENT)
    mount.start()
    for share in (0.0, 0.3, 0.99):
        mount.stop()
        index = mount.state / "index.db"
        os.truncate(index, int(index.stat().st_size * share))
        mount.start()
        assert (mount.path / "Folder/file 7").read_bytes() == CONTENT
        assert len(list((mount.path / "Folder").iterdir())) == 200
