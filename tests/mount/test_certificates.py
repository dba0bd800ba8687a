"""TLS and what stands before the portal: certificates that change or are of another host, and a proxy."""

from __future__ import annotations

import errno
import select
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from known_tree import begin, error_of_reading, fill, fresh, goes_on, wait_for_state
from real_mount import DEADLINE, Mount, finish

from cterafs.demo.certificates import make_certificate
from cterafs.demo.server import EmbeddedPortal


@pytest.fixture
def portal() -> Iterator[EmbeddedPortal]:
    with EmbeddedPortal(tls=True) as portal:
        fill(portal)
        yield portal


@pytest.fixture
def mount(portal: EmbeddedPortal, tmp_path: Path) -> Iterator[Mount]:
    mount = Mount(portal, tmp_path / "home", direct_timeout="3s")
    yield mount
    finish(mount)


@pytest.mark.parametrize(
    ("trusted", "host", "reason"),
    [
        (False, "127.0.0.1", "set portal.ca_file"),
        (True, "other.example", "not valid for '127.0.0.1'); check portal.url"),
    ],
    ids=["of an unknown authority", "of another host"],
)
def test_another_certificate(
    portal: EmbeddedPortal, mount: Mount, tmp_path: Path, trusted: bool, host: str, reason: str
) -> None:
    """Nothing is asked of who shows it, and it is enough that the right one comes back."""
    assert portal.ca_file is not None
    (files := tmp_path / "other").mkdir()
    other = make_certificate(files, host)
    authorities = tmp_path / "authorities.pem"
    authorities.write_bytes(portal.ca_file.read_bytes() + (other.ca.read_bytes() if trusted else b""))
    mount.configure(direct_timeout="3s", portal_ca_file=str(authorities), direct_ca_file=str(authorities))
    begin(mount)
    ours = shutil.copytree(portal.ca_file.parent, tmp_path / "ours")
    portal.stop()
    shutil.copytree(files, portal.ca_file.parent, dirs_exist_ok=True)
    portal.start()
    asked = portal.faults.requests.copy()
    wait_for_state(mount, "offline", reason)
    assert error_of_reading(fresh(mount, 1)) == errno.ENETRESET
    goes_on(mount)
    assert portal.faults.requests == asked
    portal.stop()
    shutil.copytree(ours, portal.ca_file.parent, dirs_exist_ok=True)
    portal.start()
    mount.settle()
    assert error_of_reading(fresh(mount, 1)) == 0
    wait_for_state(mount, "live")


class Proxy:
    """Opens tunnels, and notes where to."""

    def __init__(self) -> None:
        self.targets: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open, self._end = socket.socketpair()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._end.close()  # upon which every tunnel does
        for thread in self._threads:
            thread.join(DEADLINE)
        self._listener.close()
        self._open.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._serve, args=[client]))
            self._threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += client.recv(4096)
            method, target, *_ = head.decode().split()
            assert method == "CONNECT"
            self.targets.append(target)
            host, _, port = target.rpartition(":")
            with socket.create_connection((host, int(port))) as server:
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                while True:
                    readable, *_ = select.select([client, server, self._open], [], [])[0]
                    data = readable.recv(65536)
                    if not data:
                        return
                    (server if readable is client else client).sendall(data)


def test_the_portal_is_behind_a_proxy_and_storage_is_not(
    portal: EmbeddedPortal, mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Proxy()
    monkeypatch.setenv("https_proxy", proxy.url)
    monkeypatch.delenv("no_proxy", raising=False)
    begin(mount)
    assert error_of_reading(fresh(mount, 1)) == 0
    assert set(proxy.targets) == {f"127.0.0.1:{portal.port}"}
    proxy.close()
    wait_for_state(mount, "offline", "cannot connect")
    goes_on(mount)
