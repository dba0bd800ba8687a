"""Entries with values that cannot be, and files that Direct IO does not serve: the others are shown and read."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from known_tree import CONTENT, FRESH, all_is_right, begin, error_of_reading, fill, fresh, goes_on, status_of
from real_mount import DEADLINE, Mount
from starlette.requests import Request
from starlette.responses import Response

from cterafs.demo.server import EmbeddedPortal

NUMBERS: list[Any] = [
    2**63 - 1, 2**63, 2**64 + 5, 10**400, -1, -(2**63), 0, 1.5, 1e300, "12", "", "many", True, None, [], {},
]  # fmt: skip
TIMES: list[Any] = [
    *NUMBERS, "9999-12-31T23:59:59.999999Z", "0001-01-01", "yesterday", "2026-13-45T99:99:99Z", 10**18, -(10**18),
]  # fmt: skip


@pytest.fixture(autouse=True)
def files(portal: EmbeddedPortal, mount: Mount) -> None:
    fill(portal)
    mount.configure(direct_timeout="3s")


def told_in_addition(portal: EmbeddedPortal, absurd: list[dict[str, Any]]) -> None:
    """The first page has these entries, too."""
    pages = 0

    def answer(kind: str, request: Request) -> Response | None:
        nonlocal pages
        pages += kind == "list"
        if kind != "list" or pages > 1:
            return None
        entries, cursor, _ = portal.inventory.feed.page([], None, 2000)
        listed = [*msgspec.to_builtins(entries), *absurd]
        return Response(json.dumps({"has_more": False, "cursor": cursor, "entries": listed}))

    portal.faults.portal = answer


def entry(portal: EmbeddedPortal, name: str, /, **values: Any) -> dict[str, Any]:
    folder = portal.namespace.find("Folder")
    usual = {"type": "file", "guid": f"guid of {name}", "deleted": False, "name": name, "parent_guid": folder.guid}
    return {**usual, "folder_id": folder.folder_id, "id": 1, "size": 10, "gvsn": "1", **values}


def test_they_are_shown_and_fail_alone(portal: EmbeddedPortal, mount: Mount) -> None:
    absurd = [
        entry(portal, f"absurd {field} {number}", **{field: value})
        for field, values in (
            ("size", NUMBERS), ("id", NUMBERS), ("folder_id", NUMBERS), ("gvsn", NUMBERS), ("acl", NUMBERS),
            ("file_timestamp", TIMES), ("portal_modified_date", TIMES), ("modified", TIMES), ("deleted", NUMBERS),
        )
        for number, value in enumerate(values)
    ]  # fmt: skip
    absurd += [entry(portal, f"absurd type {number}", type=value) for number, value in enumerate(NUMBERS)]
    absurd += [entry(portal, f"absurd name {number}", name=value) for number, value in enumerate(NUMBERS)]
    absurd += [entry(portal, f"absurd guid {number}", guid=value) for number, value in enumerate(NUMBERS)]
    absurd += [entry(portal, "absurd own child", guid="self", parent_guid="self", type="folder"), {}, {"type": "file"}]
    told_in_addition(portal, absurd)
    begin(mount)
    folder = mount.path / "Folder"
    shown = [path for path in folder.iterdir() if path.name.startswith("absurd") and path.is_file()]
    assert len([path for path in shown if path.name.startswith("absurd size")]) == len(NUMBERS)
    assert (folder / "absurd size 0").stat().st_size == 2**63 - 1
    for tool in (["ls", "-lR", mount.path], ["find", mount.path, "-newermt", "2000-01-01"], ["du", "-s", mount.path]):
        subprocess.run(tool, check=True, stdout=subprocess.DEVNULL, timeout=DEADLINE)
    assert os.statvfs(mount.path).f_blocks > 0
    goes_on(mount)
    for path in shown[:: len(shown) // 12]:
        assert error_of(path) in {0, errno.EIO, errno.ESTALE}
    all_is_right(mount)
    assert status_of(mount)["state"] == "live"
    assert not any("unexpected" in line for line in mount.complaints())


def error_of(path: Path) -> int:
    """The errno of opening a file and reading its first byte; 0 if it has none."""
    try:
        with path.open("rb", buffering=0) as file:
            assert file.read(1) == b""
    except OSError as error:
        return error.errno or 0
    return 0


def test_files_that_direct_io_does_not_serve(portal: EmbeddedPortal, mount: Mount) -> None:
    """Some of them do not; a copy of all has the others, whole."""
    refused = range(0, FRESH, 3)
    for number in refused:
        portal.namespace.find(f"Folder/fresh {number}").directio_status = 422
    begin(mount)
    copies = mount.home / "copies"
    done = subprocess.run(
        ["cp", "-r", mount.path / "Folder", copies], check=False, capture_output=True, text=True,
        env={"LC_ALL": "C", "PATH": os.environ["PATH"]}, timeout=DEADLINE,
    )  # fmt: skip
    assert done.stderr.count("Operation not supported") == len(done.stderr.splitlines()) == len(refused)
    for number in range(FRESH):
        copy = copies / f"fresh {number}"
        assert error_of_reading(fresh(mount, number)) == (errno.ENOTSUP if number in refused else 0)
        assert number in refused or copy.read_bytes() == CONTENT
    portal.namespace.find("Folder/fresh 0").directio_status = None
    assert error_of_reading(fresh(mount, 0)) == 0
