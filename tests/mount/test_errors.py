"""What a read fails with, by what went wrong; and that it works again when it is put right."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterator

import pytest
from real_mount import Mount
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cterafs.demo.encoder import Codec, Encoding
from cterafs.demo.faultplan import FaultPlan
from cterafs.demo.injections import AnyRule, Drip, Length, Redirect, Stall, Status, Truncate
from cterafs.demo.objects import Item
from cterafs.demo.server import EmbeddedPortal

CONTENT = random.Random(9).randbytes(200_000)


@pytest.fixture
def item(portal: EmbeddedPortal) -> Item:
    portal.namespace.encoding = Encoding(block_size=100_000, codec=Codec.GZIP)
    return portal.namespace.create(portal.namespace.create_folder("Folder"), "file", CONTENT)


@pytest.fixture
def broken(mount: Mount, item: Item) -> Iterator[Callable[[], int]]:
    """Reads the file, and gives the error of it."""
    mount.configure(direct_timeout="5s")  # all the attempts at a connection that is refused take up to 3.75 s
    mount.start()

    def read() -> int:
        file = os.open(mount.path / "Folder/file", os.O_RDONLY)
        try:
            os.pread(file, 10, 0)
        except OSError as error:
            return error.errno or 0
        finally:
            os.close(file)
        return 0

    yield read
    mount.portal.faults.portal = mount.portal.faults.storage = mount.portal.faults.plan = None
    item.directio_status = None
    assert (mount.path / "Folder/file").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, errno.EACCES),
        (403, errno.EACCES),
        (404, errno.EIO),
        (422, errno.ENOTSUP),
        (500, errno.EIO),
    ],
)
def test_the_portals_answer(broken: Callable[[], int], item: Item, status: int, code: int) -> None:
    item.directio_status = status
    assert broken() == code


def test_a_failed_read_is_counted_once(broken: Callable[[], int], mount: Mount, item: Item) -> None:
    """The kernel repeats it."""
    item.directio_status = 422
    assert broken() == errno.ENOTSUP
    assert mount.status()["errors"] == {"UnsupportedStorageError": 1}
    assert len(mount.complaints()) == 1


def test_no_blocks(broken: Callable[[], int], portal: EmbeddedPortal) -> None:
    def none(kind: str, request: Request) -> Response | None:
        return JSONResponse({"chunks": []}) if kind == "directio" else None

    portal.faults.portal = none
    assert broken() == errno.ENODATA


@pytest.mark.parametrize("status", [400, 403, 416, 500, 503])
def test_storages_answer(broken: Callable[[], int], portal: EmbeddedPortal, status: int) -> None:
    portal.faults.storage = lambda kind, request: Response(status_code=status)
    assert broken() == errno.EIO


@pytest.mark.parametrize(
    ("rule", "code", "attempts"),
    [
        (Status(kind="block", status=404), errno.ESTALE, 2),
        (Status(kind="block", status=429, retry_after=3600), errno.EIO, 1),
        (Redirect(kind="block", location="http://169.254.169.254/latest/meta-data"), errno.EIO, 1),
        (Redirect(kind="block", location="file:///etc/passwd"), errno.EIO, 1),
        (Truncate(kind="block", after=0), errno.ENETRESET, 5),
        (Length(kind="block", by=1), errno.ENETRESET, 5),
        (Stall(kind="block", after=0), errno.ETIMEDOUT, 3),
        (Drip(kind="block", rate=100), errno.ETIMEDOUT, 3),
    ],
    ids=lambda rule: getattr(rule, "label", None),
)
def test_storage_that_does_not_get_better(
    broken: Callable[[], int], portal: EmbeddedPortal, rule: AnyRule, code: int, attempts: int
) -> None:
    """The kernel repeats a failed read: storage is not asked again for it."""
    before = portal.faults.requests["block"]
    portal.faults.plan = FaultPlan([rule])
    assert broken() == code
    assert portal.faults.requests["block"] - before <= attempts


def test_storage_that_is_not_there(broken: Callable[[], int], mount: Mount, portal: EmbeddedPortal) -> None:
    with (mount.path / "Folder/file").open("rb") as file:
        file.seek(150_000)
        assert file.read(1) == CONTENT[150_000:150_001]  # the list of blocks is known now
    portal.stop()
    try:
        assert broken() == errno.ENETRESET
    finally:
        portal.start()


@pytest.mark.parametrize("body", [b"", b"garbage" * 1000, CONTENT[:100_000], b"\0" * 100_033])
def test_another_body(broken: Callable[[], int], portal: EmbeddedPortal, body: bytes) -> None:
    portal.faults.storage = lambda kind, request: Response(body)
    assert broken() == errno.EIO


def test_a_connection_that_breaks(broken: Callable[[], int], portal: EmbeddedPortal) -> None:
    portal.faults.storage = lambda kind, request: portal.faults.cut(request)
    assert broken() == errno.ENETRESET


def test_one_bad_answer_is_made_good_without_an_error(broken: Callable[[], int], portal: EmbeddedPortal) -> None:
    """The first attempt at every block fails in one way or another."""
    failures = iter(
        [Response(status_code=500), Response(b"garbage"), Response(status_code=403), Response(status_code=429)]
    )
    portal.faults.storage = lambda kind, request: next(failures, None)
    assert broken() == 0


def test_urls_that_expire_while_a_file_is_read(mount: Mount, item: Item) -> None:
    mount.start()
    with (mount.path / "Folder/file").open("rb", buffering=0) as file:
        assert file.read(10) == CONTENT[:10]
        mount.portal.expire_urls()
        assert os.pread(file.fileno(), 200_000, 0) == CONTENT
    assert mount.complaints() == []


def test_a_session_that_expires(mount: Mount, item: Item) -> None:
    mount.start()
    mount.settle()
    mount.portal.expire_sessions()
    mount.portal.namespace.write(item, b"new")
    mount.settle()
    assert (mount.path / "Folder/file").read_bytes() == b"new"
    assert mount.status()["state"] == "live"
