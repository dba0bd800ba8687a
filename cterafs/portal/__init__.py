"""The control plane: what a portal tells about its cloud folders, and what changes in them.

    async with Portal("https://tenant.ctera.com") as portal:
        await portal.login(username, password)
        async for event in portal.notifications.get():
            ...

It runs under asyncio and trio.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

import anyio
from anyio.abc import TaskGroup

from cterafs.portal.eventqueue import EventQueue
from cterafs.portal.folders import FolderRef, Folders
from cterafs.portal.notifications import EventStream, Notifications
from cterafs.portal.service import Service, ServiceHandle
from cterafs.portal.session import Account, Session
from cterafs.portal.transport import Transport

__all__ = [
    "Account",
    "EventQueue",
    "EventStream",
    "FolderRef",
    "Folders",
    "Notifications",
    "Portal",
    "Service",
    "ServiceHandle",
    "Session",
]


class Portal:
    """A client of one portal, used inside `async with`.

    Args:
        url: `https://tenant.ctera.com`; without a scheme it is https.
        context: `ServicesPortal` for a team portal, `admin` for the global administration.
        username, password: log in with these upon the first request; `login` does it at once, with any.
        token: is sent instead of a login.
        verify_tls: False accepts any certificate.
        ca_file: trust these authorities instead of the system's.
        timeout: seconds to connect, and for an answer to begin.

    Attributes:
        session: the session itself, for other calls in the same context.
        notifications: what exists, and what changes.
        folders: cloud folders by name.

    Raises:
        ConfigError: one of these cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        context: str = "ServicesPortal",
        username: str | None = None,
        password: str | None = None,
        token: str | None = None,
        verify_tls: bool = True,
        ca_file: str | None = None,
        timeout: float = 30.0,
    ) -> None:
        self._transport = Transport(url, verify_tls=verify_tls, ca_file=ca_file, timeout=timeout)
        self._tasks: TaskGroup | None = None
        self.session = Session(self._transport, context=context, username=username, password=password, token=token)
        self.folders = Folders(self.session)
        self.notifications = Notifications(self.session, self.folders.resolve, self._running)

    async def login(self, username: str, password: str) -> None:
        """Log in, and stay logged in.

        Raises:
            AuthenticationError: the portal refused the user or the password.
            PortalError: any other kind.
        """
        await self.session.login(username, password)

    async def logout(self) -> None:
        """End the session. Leaving `async with` does not: it makes no requests."""
        await self.session.logout()

    async def whoami(self) -> Account:
        """Whom the portal takes us for."""
        return await self.session.whoami()

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        tasks = anyio.create_task_group()
        self._tasks = await tasks.__aenter__()
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        """Stop the services and close the connections. An exception passes as it is: services never add to it."""
        tasks, self._tasks = self._tasks, None
        try:
            if tasks is not None:
                tasks.cancel_scope.cancel()
                await tasks.__aexit__(None, None, None)
        finally:
            await self._transport.__aexit__()

    def _running(self) -> TaskGroup:
        if self._tasks is None:
            raise RuntimeError("the Portal is not open: use it inside `async with Portal(...)`")
        return self._tasks
