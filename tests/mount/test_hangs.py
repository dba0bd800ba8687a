"""Reads that hang hold up nothing else, and end with an error in time."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from real_mount import DEADLINE, Mount
from starlette.requests import Request
from starlette.responses import Response

from cterafs import control
from cterafs.demo.encoder import Codec, Encoding
from cterafs.demo.objects import Version
from cterafs.demo.replies import Answer, Dripping, Stalled, gone
from cterafs.demo.server import EmbeddedPortal

HUNG = 40
CONTENT = random.Random(5).randbytes(300_000)
PLAIN = Encoding(block_size=100_000, codec=Codec.NONE, encrypted=False)


class Gate:
    """Storage and a portal that hang for some versions, and tell how many of them were asked for.

    Of four, one is never answered, one gets the beginning of a block, one a few bytes every second, and one has to wait
    for its list of blocks.
    """

    def __init__(self, portal: EmbeddedPortal) -> None:
        self.shut: set[int] = set()
        self._lists: dict[int, int] = {}  # serials by file id
        self._asked: set[int] = set()
        self._changed = threading.Condition()
        portal.faults.storage = self._block
        portal.faults.portal = self._list

    def shut_in(self, number: int, version: Version) -> None:
        self.shut.add(version.serial)
        if number % 4 == 3:
            self._lists[version.file_id] = version.serial

    async def _list(self, kind: str, request: Request) -> Response | None:
        serial = self._lists.get(int(request.path_params["file_id"])) if kind == "directio" else None
        if serial in self.shut:
            self._note(serial)
            await gone(request.receive)
        return None

    async def _block(self, kind: str, request: Request) -> Response | None:
        serial = int(request.url.path.split("/")[2])
        if serial in self.shut:
            self._note(serial)
            return await self._hang(serial % 3, request)
        return None

    def _note(self, serial: int) -> None:
        with self._changed:
            self._asked.add(serial)
            self._changed.notify_all()

    async def _hang(self, way: int, request: Request) -> Response | None:
        if way == 0:
            await gone(request.receive)
        if way == 1:
            return Stalled(Answer(200, (), CONTENT[:2000]), announced=100_000)
        return Dripping(Answer(200, (), CONTENT[:100_000]), rate=10)

    def wait_until_all_hang(self) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._asked == self.shut, DEADLINE), f"only {len(self._asked)} hang"


@pytest.fixture
def gate(portal: EmbeddedPortal) -> Gate:
    gate = Gate(portal)
    folder = portal.namespace.create_folder("Folder")
    for name in ("cached", "fresh"):
        portal.namespace.create(folder, name, CONTENT, encoding=PLAIN)
    for number in range(HUNG):
        item = portal.namespace.create(folder, f"hung {number}", CONTENT, encoding=PLAIN)
        gate.shut_in(number, item.file)
    return gate


def start_reading(folder: Path) -> list[subprocess.Popen[bytes]]:
    """A reader for each file that hangs, every other one past the page cache."""
    return [
        subprocess.Popen(
            ["dd", f"if={folder}/hung {number}", "of=/dev/null", "bs=64k", *(["iflag=direct"] if number % 2 else [])],
            stderr=subprocess.PIPE,
        )
        for number in range(HUNG)
    ]


def test_forty_hung_reads_hold_up_nothing_and_end_in_time(mount: Mount, gate: Gate) -> None:
    mount.configure(direct_timeout="12s")
    mount.start()
    folder = mount.path / "Folder"
    assert (folder / "cached").read_bytes() == CONTENT
    readers = start_reading(folder)
    try:
        gate.wait_until_all_hang()
        for command in (
            ["dd", f"if={folder}/cached", "of=/dev/null", "bs=64k", "iflag=direct", "status=none"],
            ["cmp", folder / "cached", folder / "fresh"],
            ["stat", folder / "hung 7"],
            ["ls", "-l", folder],
            ["df", mount.path],
            ["find", mount.path],
        ):
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=DEADLINE)
            assert all(reader.poll() is None for reader in readers), "the readers had to hang on meanwhile"
        for reader in readers:
            _, complaint = reader.communicate(timeout=DEADLINE)
            assert b"Connection timed out" in complaint
    finally:
        for reader in readers:
            reader.kill()
            reader.communicate()
    errors = mount.status()["errors"]
    assert errors["DownloadTimeout"] + errors["BlockListTimeout"] >= HUNG
    gate.shut.clear()
    assert (folder / "hung 7").read_bytes() == CONTENT  # and it works again by itself


def test_the_deadline_does_not_double(mount: Mount, gate: Gate) -> None:
    """The kernel repeats a failed buffered read: storage is not asked again for it."""
    mount.configure(direct_timeout="2s")
    mount.start()
    before = mount.portal.faults.requests["block"]
    file = os.open(mount.path / "Folder/hung 0", os.O_RDONLY)
    try:
        with pytest.raises(TimeoutError):
            os.pread(file, 100, 0)
    finally:
        os.close(file)
    attempts = mount.portal.faults.requests["block"] - before
    assert 1 <= attempts <= 4


def test_ending_while_reads_hang(mount: Mount, gate: Gate) -> None:
    mount.start()
    readers = start_reading(mount.path / "Folder")
    try:
        gate.wait_until_all_hang()
        mount.signal(15)
        assert not mount.is_mounted
        for reader in readers:
            assert reader.wait(DEADLINE) != 0
    finally:
        for reader in readers:
            reader.kill()
            reader.communicate()


LOOKUPS = """
import os, sys, threading
def look(thread):
    number = 0
    while True:
        number += 1
        try:
            os.stat(f"{sys.argv[1]}/{os.getpid()} {thread} {number}")
        except FileNotFoundError:
            if number == 10:
                print(flush=True)
for thread in range(6):
    threading.Thread(target=look, args=[thread]).start()
"""


def test_requests_of_the_killed_hold_up_nothing(mount: Mount) -> None:
    """The kernel takes back what nobody waits for any more, also when the mount is about to read it."""
    mount.start()
    record = control.find(mount.path)
    assert record is not None
    for _ in range(50):  # one in ten was held up for as long as nobody else asked anything
        with subprocess.Popen([sys.executable, "-c", LOOKUPS, str(mount.path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.kill()
        assert control.ask_status(record)["state"] == "live"
