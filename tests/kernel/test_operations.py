"""Translating the volume's answers, where a kernel would not show what went wrong."""

from __future__ import annotations

import errno
from collections.abc import Iterable

import pyfuse3
import pytest

from cterafs.kernel.operations import Operations, Presentation
from cterafs.model import ROOT_INODE, Dirent, Inode
from cterafs.namespace.store import Counts
from cterafs.stats import Stats


class Volume:
    """A directory of `total` files, and how many of them are referred to."""

    def __init__(self, total: int = 0) -> None:
        self.epoch = 0
        self.generation = 1
        self.stats = Stats()
        self.acquired: list[Inode] = []
        self.queries = 0
        self._total = total

    async def counts(self) -> Counts:
        return Counts(files=10_000, directories=1, bytes=10_000 * (2**63 - 1), orphans=0)

    async def parent(self, directory: Inode) -> Inode:
        return ROOT_INODE

    async def entries(self, directory: Inode, after: str | None, limit: int) -> list[Dirent]:
        self.queries += 1
        first = 0 if after is None else int(after) + 1
        return [Dirent(Inode(n + 2), f"{n:05}", 0, 1, 0, 0) for n in range(first, min(first + limit, self._total))]

    def acquire_all(self, inodes: Iterable[Inode]) -> None:
        self.acquired += inodes

    def ready(self, handle: int, offset: int, size: int) -> bytes:
        raise IndexError("unforeseen")


def operations(volume: Volume) -> Operations:
    return Operations(volume, Presentation(0, 0, 0o222))  # type: ignore[arg-type]


@pytest.mark.trio
async def test_sizes_that_no_disk_has_do_not_overflow() -> None:
    told = await operations(Volume()).statfs(None)  # type: ignore[arg-type]
    assert told.f_blocks * told.f_frsize < 2**63


@pytest.fixture
def replies(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The names that were put into the kernel's buffer, which has room for all."""
    names: list[bytes] = []

    def readdir_reply(token: object, name: bytes, attributes: object, following: int) -> bool:
        assert following == len(names) + 1
        names.append(name)
        return True

    monkeypatch.setattr(pyfuse3, "readdir_reply", readdir_reply)
    return names


@pytest.mark.trio
async def test_one_reply_holds_what_was_read_at_once(replies: list[bytes]) -> None:
    """Whatever changes while a second page is read could not be taken back: the kernel has not got the first one."""
    volume = Volume(700)
    asked = operations(volume)
    handle = await asked.opendir(pyfuse3.ROOT_INODE, None)  # type: ignore[arg-type]
    while True:
        before, volume.queries = len(replies), 0
        await asked.readdir(handle, before, None)  # type: ignore[arg-type]
        assert volume.queries <= 1
        if len(replies) == before:
            break
    assert replies == [b".", b"..", *(f"{n:05}".encode() for n in range(700))]
    assert len(volume.acquired) == 700


@pytest.mark.trio
async def test_an_unforeseen_failure_of_a_read_is_the_readers_and_not_the_mounts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(pyfuse3.FUSEError) as failed:
        await operations(Volume()).read(1, 0, 4096)  # type: ignore[arg-type]
    assert failed.value.errno == errno.EIO
    assert [record.getMessage() for record in caplog.records] == ["read failed unexpectedly"]
    caplog.clear()
