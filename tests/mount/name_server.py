"""The name server of a network: it can fail, or not answer at all."""

from __future__ import annotations

import select
import socket
import struct
import threading
from pathlib import Path

from network import Network

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
