"""One download, as seen from outside its thread: whether it gets on, and the means to end it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PROGRESS = 4096
"""Bytes that count as getting on. Fewer, however often, do not: a server that sends a byte a second hangs."""


class Aborted(Exception):
    """The reader is gone."""


class Transfer:
    """The progress of one attempt at a block, which runs in a thread of its own.

    Attributes:
        received: bytes so far, headers included.
        waited: seconds from the last request to its answer.
    """

    def __init__(self, patience: float) -> None:
        """`patience`: seconds without progress after which it has failed."""
        self.patience = patience
        self.received = 0
        self.waited = 0.0
        self._counted = 0
        self._since = time.monotonic()
        self._socket: socket.socket | None = None
        self._aborted = False
        self._lock = threading.Lock()

    @property
    def got_on(self) -> bool:
        """Whether it ever did."""
        return self._counted > 0

    def idle(self) -> float:
        """Seconds since it last got on."""
        return time.monotonic() - self._since

    def unless_aborted(self, take: Callable[[], T]) -> T:
        """What `take` takes. An abort comes before that or after it.

        Raises:
            Aborted
        """
        with self._lock:
            if self._aborted:
                raise Aborted
            return take()

    def attach(self, connection: socket.socket) -> None:
        """Takes a socket into use; `abort` will shut it down.

        Raises:
            Aborted: it was aborted before.
        """
        with self._lock:
            if self._aborted:
                raise Aborted
            self._socket = connection

    def detach(self) -> None:
        """The socket is no longer this transfer's.

        Raises:
            Aborted: the socket has been shut down, so it is of no further use.
        """
        with self._lock:
            self._socket = None
            if self._aborted:
                raise Aborted

    def forget(self) -> None:
        """As `detach`, for a socket that is about to be closed: its number must not be shut down once it is reused."""
        with self._lock:
            self._socket = None

    def abort(self) -> None:
        """Ends it at once, from any thread: what its thread waits for fails."""
        with self._lock:
            self._aborted = True
            if self._socket is not None:
                with contextlib.suppress(OSError):  # it is not connected yet, or no longer
                    # not SSLSocket.shutdown: that drops the TLS object under the feet of the thread that reads it
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def count(self, received: int) -> None:
        """Called for whatever arrives.

        Raises:
            TimeoutError: too little for too long.
            Aborted: another attempt may be under way, which this one must not get mixed up with. What the system
                received before the abort can still be had of a socket that was shut down.
        """
        if self._aborted:
            raise Aborted
        self.received += received
        if self.received - self._counted >= PROGRESS:
            self._counted = self.received
            self._since = time.monotonic()
        elif self.idle() >= self.patience:
            raise TimeoutError("next to nothing arrives")
