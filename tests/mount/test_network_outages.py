"""The network, or its names, are lost: what needs neither goes on, reads end in time, and then all works by itself."""

from __future__ import annotations

import errno
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from known_tree import (
    FRESH,
    all_is_right,
    begin,
    error_of_reading,
    fill,
    fresh,
    goes_on,
    reading,
    status_of,
    wait_for_state,
)
from name_server import NameServer
from network import Network
from real_mount import DEADLINE, Mount, finish

from cterafs.demo.server import EmbeddedPortal

MANY = 50
"""Readers: more than the 40 threads that trio keeps for those who bring none of their own."""


@pytest.fixture
def network() -> Iterator[Network]:
    with Network() as network:
        yield network


@pytest.fixture
def portal(network: Network) -> Iterator[EmbeddedPortal]:
    with EmbeddedPortal(host=network.portal) as portal:
        fill(portal)
        yield portal


@pytest.fixture
def mount(portal: EmbeddedPortal, network: Network, tmp_path: Path) -> Iterator[Mount]:
    mount = Mount(portal, tmp_path, direct_timeout="3s")
    mount.prefix = network.prefix
    yield mount
    finish(mount)


@pytest.fixture
def names(
    portal: EmbeddedPortal, network: Network, mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> Iterator[NameServer]:
    """Whom the mount asks for where its portal is."""
    monkeypatch.setenv("RES_OPTIONS", "timeout:30 attempts:5")  # longer than any test waits
    mount.configure(direct_timeout="3s", portal_url=f"http://portal.example:{portal.port}")
    with NameServer(network) as names:
        yield names


def works_again(portal: EmbeddedPortal, mount: Mount) -> None:
    portal.namespace.create(portal.namespace.find("Folder"), "new", b"new")
    mount.settle()
    assert (mount.path / "Folder/new").read_bytes() == b"new"
    all_is_right(mount)
    assert wait_for_state(mount, "live")["feed_lag_s"] == 0


def test_unplugged(portal: EmbeddedPortal, mount: Mount, network: Network) -> None:
    begin(mount)
    with network.unplugged():
        assert error_of_reading(fresh(mount, 1)) in {errno.ENETRESET, errno.ETIMEDOUT}
        goes_on(mount)
    works_again(portal, mount)


def test_nothing_comes_through(portal: EmbeddedPortal, mount: Mount, network: Network) -> None:
    begin(mount)
    with network.silent():
        with reading(fresh(mount, 1)) as reader:
            goes_on(mount, beside=reader)
            _, complaint = reader.communicate(timeout=DEADLINE)
        assert b"Connection timed out" in complaint
        assert status_of(mount)["errors"] == {"BlockListTimeout": 1}
    works_again(portal, mount)


def test_mounted_without_a_network(portal: EmbeddedPortal, mount: Mount, network: Network) -> None:
    begin(mount)
    mount.stop()
    with network.unplugged():
        mount.start()
        wait_for_state(mount, "offline", "cannot connect to the portal")
        assert len(list((mount.path / "Folder").iterdir())) == FRESH + 1
        assert error_of_reading(fresh(mount, 1)) == errno.ENETRESET
    works_again(portal, mount)


def test_connections_that_are_dead_and_do_not_know_it(portal: EmbeddedPortal, mount: Mount, network: Network) -> None:
    """However many were kept, who reads waits for one of them at most."""
    mount.configure(direct_timeout="6s", readahead_max="0")
    begin(mount)
    readers = [reading(fresh(mount, number)) for number in range(6)]
    assert [reader.communicate(timeout=DEADLINE)[1] for reader in readers] == [b""] * 6
    network.readdress()
    assert [error_of_reading(fresh(mount, number)) for number in range(6, FRESH)] == [0] * 6


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
