"""A network of its own for a mount: one cable to where the portal is, which can be cut in several ways.

It takes root, and the network namespaces and virtual cables (veth) of the kernel.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_NUMBERS = iter(range(1, 64))


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


class Network:
    """The namespace and its cable. A context manager.

    Attributes:
        portal: the address for the portal, outside.
        prefix: what a command is run by, inside.
    """

    def __init__(self) -> None:
        number = next(_NUMBERS)
        # of the process as well: several runs of the tests may go on at once
        self._net = f"10.{200 + number % 50}.{os.getpid() % 250}"
        self._name = f"cterafs-{os.getpid()}-{number}"
        self._cable = f"ct{os.getpid() % 10**7}-{number}"
        self._address = f"{self._net}.2"
        self.portal = f"{self._net}.1"
        self.prefix: Sequence[str] = ("nsenter", f"--net=/run/netns/{self._name}")

    def __enter__(self) -> Network:
        _ip("netns", "add", self._name)
        try:
            _ip("link", "add", self._cable, "type", "veth", "peer", "name", "eth0", "netns", self._name)
            _ip("address", "add", f"{self.portal}/24", "dev", self._cable)
            _ip("link", "set", self._cable, "up")
            self._inside("address", "add", f"{self._address}/24", "dev", "eth0")
            self._inside("link", "set", "lo", "up")
            self._inside("link", "set", "eth0", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["ip", "link", "delete", self._cable], check=False, capture_output=True)
        _ip("netns", "delete", self._name)

    def _inside(self, *arguments: str) -> None:
        _ip("-n", self._name, *arguments)

    @contextlib.contextmanager
    def unplugged(self) -> Iterator[None]:
        """There is no network: who asks for it is told at once."""
        self._inside("link", "set", "eth0", "down")
        try:
            yield
        finally:
            self._inside("link", "set", "eth0", "up")

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """No answer comes through, and nobody is told so."""
        _ip("route", "add", "blackhole", f"{self._address}/32")
        try:
            yield
        finally:
            _ip("route", "delete", "blackhole", f"{self._address}/32")

    def readdress(self) -> None:
        """Another address, as a tunnel has that was made anew: connections are dead from now on, and do not know it."""
        self._inside("address", "delete", f"{self._address}/24", "dev", "eth0")
        self._address = f"{self._net}.3"
        self._inside("address", "add", f"{self._address}/24", "dev", "eth0")

    def take_address(self, address: str) -> None:
        """The namespace answers for this address itself."""
        self._inside("address", "add", f"{address}/32", "dev", "lo")

    def listening(self, address: str, port: int) -> socket.socket:
        """A UDP socket inside of the namespace."""
        made: list[socket.socket] = []

        def make() -> None:  # a thread has a network namespace of its own
            with Path(f"/run/netns/{self._name}").open() as namespace:
                if _LIBC.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            made.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            made[0].bind((address, port))

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        return made[0]
