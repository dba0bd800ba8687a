"""Host names cannot be resolved: the resolver fails, or does not answer at all."""

from __future__ import annotations

import errno
import select
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from known_tree import begin, error_of_reading, fill, fresh, goes_on, status_of, wait_for_state
from network import Network
from real_mount import DEADLINE, Mount, finish

from cterafs.demo.server import EmbeddedPortal

MANY = 50
"""Readers: more than the 40 threads that trio keeps for those who bring none of their own."""
A, NXDOMAIN = 1, 3


def name_servers() -> list[str]:
    """Whom this machine asks (resolv.conf(5)); of a namespace, nobody is there unless we are."""
    lines = Path("/etc/resolv.conf").read_text().splitlines()
    return [line.split()[1] for line in lines if line.startswith("nameserver") and ":" not in line] or ["127.0.0.1"]


class NameServer:
    """Answers for every name that it is the portal. A context manager.

    Attributes:
        answers: or else says that there is no such name.
        hangs: or else says nothing at all.
    """

    def __init__(self, network: Network) -> None:
        self.answers = True
        self.hangs = False
        self._address = socket.inet_aton(network.portal)
        self._sockets = []
        for address in name_servers():
            if not address.startswith("127."):
                network.take_address(address)
            self._sockets.append(network.listening(address, 53))
        self._open, self._end = socket.socketpair()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> NameServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.close()
        self._thread.join()
        for each in (self._open, *self._sockets):
            each.close()

    def _serve(self) -> None:
        while True:
            for asked in select.select([self._open, *self._sockets], [], [])[0]:
                if asked is self._open:
                    return
                query, sender = asked.recvfrom(512)
                if not self.hangs:
                    asked.sendto(self._answer(query), sender)

    def _answer(self, query: bytes) -> bytes:
        """A message of RFC 1035, section 4: with an address, if one was asked for, or with none."""
        end = query.index(b"\0", 12) + 5  # of the question, behind the header of 12 bytes
        (kind,) = struct.unpack("!H", query[end - 4 : end - 2])
        found = self.answers and kind == A
        flags = 0x8180 | (0 if self.answers else NXDOMAIN)
        head = query[:2] + struct.pack("!HHHHH", flags, 1, int(found), 0, 0)
        record = struct.pack("!HHHIH", 0xC00C, A, 1, 0, 4) + self._address  # which may be kept for no time at all
        return head + query[12:end] + (record if found else b"")


@pytest.fixture
def network() -> Iterator[Network]:
    with Network() as network:
        yield network


@pytest.fixture
def names(network: Network) -> Iterator[NameServer]:
    with NameServer(network) as names:
        yield names


@pytest.fixture
def portal(network: Network) -> Iterator[EmbeddedPortal]:
    with EmbeddedPortal(host=network.portal) as portal:
        fill(portal)
        yield portal


@pytest.fixture
def mount(
    portal: EmbeddedPortal, network: Network, names: NameServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Mount]:
    monkeypatch.setenv("RES_OPTIONS", "timeout:30 attempts:5")  # longer than any test waits
    mount = Mount(portal, tmp_path, direct_timeout="3s", portal_url=f"http://portal.example:{portal.port}")
    mount.prefix = network.prefix
    yield mount
    finish(mount)


def cut_connections(portal: EmbeddedPortal) -> None:
    """So that others have to be made, for which names are needed."""
    portal.stop()
    portal.start()


def test_names_that_are_not_found(portal: EmbeddedPortal, mount: Mount, names: NameServer) -> None:
    begin(mount)
    names.answers = False
    cut_connections(portal)
    wait_for_state(mount, "offline", "cannot connect to the portal")
    assert error_of_reading(fresh(mount, 1)) == errno.ENETRESET
    goes_on(mount)
    names.answers = True
    mount.settle()
    assert error_of_reading(fresh(mount, 1)) == 0


def test_a_resolver_that_hangs(portal: EmbeddedPortal, mount: Mount, names: NameServer) -> None:
    """However many wait for it, the mount can be asked, and ended."""
    folder = portal.namespace.find("Folder")
    for number in range(MANY):
        portal.namespace.create(folder, f"many {number}", b"1234")
    begin(mount)
    names.hangs = True
    cut_connections(portal)
    script = f"for file in '{mount.path}'/Folder/many*; do cat \"$file\" & done; wait"
    with subprocess.Popen(["sh", "-c", script], stderr=subprocess.PIPE, env={"LC_ALL": "C", "PATH": "/bin"}) as readers:
        goes_on(mount, beside=readers)
        assert status_of(mount)["reads"]["open_files"] > 0
        _, complaints = readers.communicate(timeout=DEADLINE)
    assert complaints.count(b"Connection timed out") == MANY
    mount.signal(signal.SIGTERM)
    assert not mount.is_mounted
