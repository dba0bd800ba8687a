"""CTERA's client logs in, out, and notices an expired session."""

from __future__ import annotations

import pytest
from cterasdk import AsyncGlobalAdmin, AsyncServicesPortal
from cterasdk.core.types import UserAccount
from cterasdk.exceptions import ObjectNotFoundException
from cterasdk.exceptions.auth import AuthenticationError
from cterasdk.exceptions.session import SessionExpired

from cterafs.demo.server import EmbeddedPortal

pytestmark = pytest.mark.anyio

CONTEXTS = pytest.mark.parametrize("client", [AsyncGlobalAdmin, AsyncServicesPortal])


@CONTEXTS
async def test_logs_in_and_out(tls_portal: EmbeddedPortal, client: type) -> None:
    async with client(tls_portal.host, tls_portal.port) as sdk:
        await sdk.login(tls_portal.username, tls_portal.password)
        session = sdk.session()
        assert session.connected
        assert session.account.name == tls_portal.username
        assert session.account.role.name == "ReadWriteAdmin"
        assert session.account.tenant == ("Administration" if client is AsyncGlobalAdmin else "demo")
        assert str(session.software_version) > "8"
        await sdk.logout()
    assert tls_portal.faults.requests["logout"] == 1


@CONTEXTS
async def test_is_refused_with_a_wrong_password(tls_portal: EmbeddedPortal, client: type) -> None:
    async with client(tls_portal.host, tls_portal.port) as sdk:
        with pytest.raises(AuthenticationError):
            await sdk.login(tls_portal.username, "wrong")


@CONTEXTS
async def test_notices_that_the_session_expired(tls_portal: EmbeddedPortal, client: type) -> None:
    async with client(tls_portal.host, tls_portal.port) as sdk:
        await sdk.login(tls_portal.username, tls_portal.password)
        tls_portal.expire_sessions()
        with pytest.raises(SessionExpired):
            await sdk.notifications.get()
        await sdk.login(tls_portal.username, tls_portal.password)
        assert (await sdk.notifications.get()).objects == []


async def test_takes_a_bearer_token_instead_of_a_login(tls_portal: EmbeddedPortal) -> None:
    async with AsyncServicesPortal(tls_portal.host, tls_portal.port) as sdk:
        sdk.bearer(tls_portal.accounts.bearer_token)
        assert (await sdk.notifications.get()).objects == []
    assert tls_portal.faults.requests["login"] == 0


async def test_exchanges_a_ticket(tls_portal: EmbeddedPortal) -> None:
    user = tls_portal.accounts.add("alice")
    async with AsyncServicesPortal(tls_portal.host, tls_portal.port) as sdk:
        await sdk.sso(tls_portal.accounts.issue_ticket(user))
        assert sdk.session().account.name == "alice"


async def test_finds_users_of_the_portal_and_of_a_domain(tls_portal: EmbeddedPortal) -> None:
    local = tls_portal.accounts.add("alice")
    other = tls_portal.accounts.add("alice", domain="example.com")
    async with AsyncGlobalAdmin(tls_portal.host, tls_portal.port) as sdk:
        await sdk.login(tls_portal.username, tls_portal.password)
        assert (await sdk.users.get(UserAccount("alice"))).uid == local.uid
        assert (await sdk.users.get(UserAccount("alice", "example.com"))).uid == other.uid
        with pytest.raises(ObjectNotFoundException):
            await sdk.users.get(UserAccount("bob"))
