"""The network is lost in every way: what needs none goes on, reads end in time, and afterwards all works by itself."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
from known_tree import (
    FRESH,
    begin,
    error_of_reading,
    fill,
    fresh,
    goes_on,
    reading,
    status_of,
    wait_for_state,
)
from network import Network
from real_mount import DEADLINE, Mount, finish

from cterafs.demo.server import EmbeddedPortal


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


def works_again(portal: EmbeddedPortal, mount: Mount) -> None:
    portal.namespace.create(portal.namespace.find("Folder"), "new", b"new")
    mount.settle()
    assert (mount.path / "Folder/new").read_bytes() == b"new"
    assert [error_of_reading(fresh(mount, number)) for number in range(FRESH)] == [0] * FRESH
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
