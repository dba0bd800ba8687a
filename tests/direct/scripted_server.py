"""An HTTP server on real sockets that does exactly what a test tells it to, however wrong."""

import contextlib
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self


class Exchange:
    """One request, and the connection to answer it on."""

    def __init__(self, server: "ScriptedServer", sock: socket.socket, head: bytes, number: int) -> None:
        self._server = server
        self._sock = sock
        self.head = head.decode("latin-1")
        self.path = self.head.split(" ")[1]
        self.connection = number
        self.ended = False

    def header(self, name: str) -> str | None:
        for line in self.head.split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.lower() == name:
                return value.strip()
        return None

    def send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def answer(self, body: bytes = b"", status: str = "200 OK", **headers: str) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def gone(self, patience: float) -> bool:
        """Whether the client goes away within so many seconds."""
        return bool(select.select([self._sock], [], [], patience)[0])

    def hang(self) -> None:
        """Nothing more, until the client goes away or the server stops."""
        self._server.hanging.release()
        with contextlib.suppress(OSError):
            while self._sock.recv(1000):
                pass
        self._server.abandoned.release()
        self.close()

    def close(self) -> None:
        self.ended = True

    def reset(self) -> None:
        """Ends the connection as a crash does."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()


class ScriptedServer:
    """Runs `script` for each request, in a thread per connection.

    Attributes:
        exchanges: all of them so far.
        begun, hanging, abandoned: released whenever an exchange begins, hangs, and when the client of one that hung
            goes away.
    """

    def __init__(self, script: Callable[[Exchange], None], tls: ssl.SSLContext | None = None) -> None:
        self.script = script
        self.exchanges: list[Exchange] = []
        self.connections = 0
        self.begun = threading.Semaphore(0)
        self.hanging = threading.Semaphore(0)
        self.abandoned = threading.Semaphore(0)
        self._tls = tls
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self._listener.getsockname()[1]
        self.url = f"http{'s' if tls else ''}://{'localhost' if tls else '127.0.0.1'}:{self.port}"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        for sock in tuple(self._open):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, name="scripted")
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.add(sock)
            self._start(self._serve, sock, self.connections)

    def _serve(self, plain: socket.socket, number: int) -> None:
        sock = plain
        try:
            if self._tls:
                sock = self._tls.wrap_socket(plain, server_side=True)
                self._open.add(sock)
            while head := self._request(sock):
                exchange = Exchange(self, sock, head, number)
                self.exchanges.append(exchange)
                self.begun.release()
                self.script(exchange)
                if exchange.ended:
                    return
        except OSError:
            return
        finally:
            self._open -= {sock, plain}
            sock.close()

    def _request(self, sock: socket.socket) -> bytes:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            received = sock.recv(4096)
            if not received:
                return b""
            head += received
        return head
