"""The portal and its object store, put together and served."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from cterafs.demo.accounts import Accounts
from cterafs.demo.certificates import Certificate, make_certificate
from cterafs.demo.control import ControlPlane
from cterafs.demo.directio import DirectIO
from cterafs.demo.encoder import Encoding
from cterafs.demo.faults import Faults
from cterafs.demo.inventory import Inventory
from cterafs.demo.metadata import NotificationService
from cterafs.demo.namespace import Namespace
from cterafs.demo.source import Source
from cterafs.demo.store import Store

URL_TTL = 4 * 3600.0
"""Seconds; real ones are valid for hours."""

KEEP_ALIVE = 75
"""Seconds that an idle connection stays open, as with nginx; uvicorn's 5 are so short that clients' pools suffer."""

GRACE = 1.0
"""Seconds that requests get to end when the server stops, after their connections were cut."""

BACKLOG = 1024
"""Connections that may wait to be accepted; a client opens dozens at once."""


class EmbeddedPortal:
    """A portal on this machine, in a thread of its own. A context manager; it can be stopped and started again, with
    the same addresses and content, as a portal that was away for a while.

    Args:
        source: a directory to follow, whose sub-directories are the cloud folders; without one, fill `namespace`.
        inventory: what to serve instead of `namespace`.
        host: name or address to listen on.
        port: of the portal; 0 picks one. Storage always listens on a port of its own.
        encoding: how blocks are made.
        url_ttl: seconds that a block's URL is valid.
        tls: serve https, with a certificate of a private authority, see `ca_file`.

    Attributes:
        namespace: what the portal holds, and may be changed at any time; unless it serves another inventory.
        accounts: users, sessions and keys.
        inventory: what it serves.
        store: the object store.
        faults: what is made wrong with requests, and counts of them.
        control, notifications, directio: the services, with what differs between portals.
        ca_file: the authority's certificate; None without TLS.
    """

    def __init__(
        self,
        source: Path | None = None,
        *,
        inventory: Inventory | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        username: str = "admin",
        password: str | None = None,
        encoding: Encoding | None = None,
        url_ttl: float = URL_TTL,
        tls: bool = False,
    ) -> None:
        self.username = username
        self.password = password or secrets.token_urlsafe(12)
        self.faults = Faults()
        self.accounts = Accounts(username, self.password)
        self.namespace = Namespace(encoding)
        self.inventory: Inventory = self.namespace if inventory is None else inventory
        self.store = Store(self.inventory.version, self.faults, url_ttl)
        self.control = ControlPlane(self.accounts, self.inventory, self.faults)
        self.notifications = NotificationService(self.control, self.inventory)
        self.directio = DirectIO(self.accounts, self.inventory, self.store, self.faults)
        self._source = Source(source, self.namespace, self.accounts.owner.uid) if source else None
        self._host = host
        self._ports = [port, 0]
        self._files = tempfile.TemporaryDirectory(prefix="cterafs-portal-") if tls else None
        self._certificate: Certificate | None = None
        if self._files:
            self._certificate = make_certificate(Path(self._files.name), host)
        self._servers: list[_Server] = []
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread | None = None
        self.faults.connections = self._connections

    @property
    def access_key_id(self) -> str:
        return self.accounts.access_key_id

    @property
    def secret_access_key(self) -> str:
        return self.accounts.secret_access_key

    @property
    def ca_file(self) -> Path | None:
        return self._certificate.ca if self._certificate else None

    @property
    def host(self) -> str:
        return self._host

    @property
    def port(self) -> int:
        """The portal's; 0 before the first start."""
        return self._ports[0]

    @property
    def url(self) -> str:
        return self._url(self._ports[0])

    @property
    def storage_url(self) -> str:
        return self._url(self._ports[1])

    def start(self) -> None:
        """Listen and serve; returns when connections are accepted.

        Raises:
            OSError: it is not possible to listen there, or the source cannot be read.
        """
        if self._source:
            self._source.start()
        sockets: list[socket.socket] = []
        try:
            sockets += (self._bind(index) for index in range(len(self._ports)))
        except OSError:
            for listener in sockets:
                listener.close()
            raise
        self.store.base_url = self.storage_url
        self.store.open()
        self.inventory.feed.open()
        routes = [*self.control.routes, *self.notifications.routes, *self.directio.routes]
        app = Starlette(routes=routes, exception_handlers={ClientDisconnect: _nobody_listens})
        self._servers = [self._server(self.faults.exposed(app)) for app in (app, self.store.app)]
        ready = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(sockets, ready)), name="portal", daemon=True
        )
        self._thread.start()
        ready.wait()

    def stop(self) -> None:
        """Close all connections and stop listening."""
        if self._thread is None:
            return
        self._loop.call_soon_threadsafe(self._end)
        self._thread.join()
        self._thread = None
        self.store.close()

    def close(self) -> None:
        """Stop for good."""
        self.stop()
        if self._source:
            self._source.stop()
        if self._files:
            self._files.cleanup()

    def expire_sessions(self) -> None:
        self.accounts.expire_sessions()

    def expire_urls(self) -> None:
        self.store.expire_urls()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _url(self, port: int) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'https' if self._certificate else 'http'}://{host}:{port}"

    def _bind(self, index: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        # asyncio turns Nagle's algorithm off only where the protocol is named: answers took 40 ms more without.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self._host, self._ports[index]))
            listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            address = f"{self._host}:{self._ports[index]}"
            raise OSError(error.errno, f"cannot listen on {address}: {error.strerror}") from None
        self._ports[index] = listener.getsockname()[1]
        return listener

    def _server(self, app: ASGIApp) -> _Server:
        config = uvicorn.Config(
            app,
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE,
            ssl_certfile=self._certificate.certificate if self._certificate else None,
            ssl_keyfile=self._certificate.key if self._certificate else None,
        )
        return _Server(config)

    async def _serve(self, sockets: list[socket.socket], ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            async with asyncio.TaskGroup() as group:
                for server, listener in zip(self._servers, sockets, strict=True):
                    group.create_task(server.serve([listener]))
                for server in self._servers:
                    await server.listening.wait()
                ready.set()
        finally:
            ready.set()  # also when it failed: then the thread's exception tells

    def _end(self) -> None:
        for server in self._servers:
            server.cut()
        # Only now, so that nobody is answered who would not have been.
        self.inventory.feed.close()
        self.faults.release()
        for server in self._servers:
            server.end()

    def _connections(self) -> Iterator[tuple[tuple[str, int] | None, asyncio.Transport]]:
        for server in self._servers:
            yield from ((connection.client, connection.transport) for connection in server.open_connections())


async def _nobody_listens(_: Request, __: Exception) -> Response:
    """A client that went away in the middle of its request is no error of ours."""
    return Response(status_code=400)


class _Server(uvicorn.Server):
    """Breaks its connections off when it stops, as a host that goes away does, and stops at once: uvicorn looks ten
    times a second whether it is to stop, and waits for clients that leave idle TLS connections open.

    All of it is for the event loop's thread.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()
        self._ending = asyncio.Event()

    def open_connections(self) -> list[H11Protocol]:
        return [connection for connection in self.server_state.connections if isinstance(connection, H11Protocol)]

    def cut(self) -> None:
        """Stop listening, and break all connections off."""
        for server in self.servers:
            server.close()
        for connection in self.open_connections():
            connection.transport.abort()

    def end(self) -> None:
        self._ending.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    async def main_loop(self) -> None:
        while not self._ending.is_set():
            await self.on_tick(0)  # sets the Date header
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), 1)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self.server_state.tasks:
            _, hanging = await asyncio.wait(self.server_state.tasks, timeout=GRACE)
            for task in hanging:
                task.cancel()
