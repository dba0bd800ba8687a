from __future__ import annotations

import logging
import re
import threading
from typing import Any

import anyio
import pytest

from cterafs import Portal
from cterafs.errors import (
    AuthenticationError,
    ConfigError,
    PortalConnectionError,
    PortalError,
    PortalUnavailable,
    ProtocolError,
    SessionExpired,
)
from cterafs.portal import Account

pytestmark = pytest.mark.anyio

SECRETS = ("s3cret", "sess10n", "t0ken")
EXPIRED = [
    (302, [("Location", "/ServicesPortal/login.html")]),
    (302, [("Location", "https://login.microsoftonline.com/tenant/saml2")]),
    (303, [("Location", "/admin/login.html?from=x")]),
    (401, []),
    (403, []),
]


class Sessions:
    """Logs in with a new session each time; `valid` sessions are answered, others told that they have expired."""

    def __init__(self, script: Any, reply: Any, expired: Any = EXPIRED[0]) -> None:
        self.count = 0
        self.valid: set[str] = set()
        self.honoured = True
        self._reply = reply
        self._expired = reply(expired[0], b"", expired[1])
        script.on("/api/login", self._login)
        script.on("/api/version", self.protect(reply(200, b"<val>8.3.1</val>")))

    def _login(self, request: Any) -> Any:
        if request.body != b"j_username=alice&j_password=s3cret+%26":
            return self._reply(403)
        self.count += 1
        session = f"JSESSIONID=sess10n{self.count}"
        if self.honoured:
            self.valid.add(session)
        return self._reply(
            200, b"<val>ok</val>", [("Set-Cookie", f"{session}; Path=/ServicesPortal; Secure; HttpOnly")]
        )

    def protect(self, answer: Any) -> Any:
        return lambda request: answer if request.headers.get("cookie") in self.valid else self._expired


@pytest.fixture
def sessions(portal_server: Any, reply: Any) -> Sessions:
    return Sessions(portal_server, reply)


def opened(script: Any, **options: Any) -> Portal:
    return Portal(script.url, **({"username": "alice", "password": "s3cret &"} | options))


async def test_login_is_a_form_and_its_cookie_comes_back(portal_server: Any, sessions: Sessions) -> None:
    async with Portal(portal_server.url) as portal:
        await portal.login("alice", "s3cret &")
        assert await portal.session.version() == "8.3.1"
    login, version = portal_server.requests
    assert (login.method, login.path) == ("POST", "/ServicesPortal/api/login")
    assert login.headers["content-type"] == "application/x-www-form-urlencoded"
    assert (version.method, version.path) == ("GET", "/ServicesPortal/api/version")


async def test_credentials_given_before_are_used_upon_the_first_request(portal_server: Any, sessions: Sessions) -> None:
    async with opened(portal_server, context="admin") as portal:
        assert portal_server.requests == []
        await portal.session.version()
    assert [request.path for request in portal_server.requests] == ["/admin/api/login", "/admin/api/version"]


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_login(portal_server: Any, reply: Any, status: int) -> None:
    portal_server.on("/api/login", reply(status))
    async with Portal(portal_server.url) as portal:
        with pytest.raises(AuthenticationError, match="user name or the password"):
            await portal.login("alice", "wrong")


async def test_without_credentials(portal_server: Any) -> None:
    async with Portal(portal_server.url) as portal:
        with pytest.raises(AuthenticationError, match="not logged in"):
            await portal.session.version()
    assert portal_server.requests == []


@pytest.mark.parametrize("expired", EXPIRED, ids=lambda expired: f"{expired[0]}")
async def test_an_expired_session_is_renewed_and_the_request_repeated(
    portal_server: Any, reply: Any, expired: Any
) -> None:
    sessions = Sessions(portal_server, reply, expired)
    async with opened(portal_server) as portal:
        await portal.session.version()
        sessions.valid.clear()
        assert await portal.session.version() == "8.3.1"
    assert sessions.count == 2
    assert [login.headers.get("cookie") for login in portal_server.asked("/api/login")] == [None, None]


@pytest.mark.parametrize("expired", EXPIRED, ids=lambda expired: f"{expired[0]}")
async def test_many_that_notice_at_once_log_in_once(portal_server: Any, reply: Any, expired: Any) -> None:
    sessions = Sessions(portal_server, reply, expired)
    everyone = threading.Barrier(8)
    answer = sessions.protect(reply(200, b"<val>8.3.1</val>"))
    versions: list[str] = []

    def together(request: Any) -> Any:
        """Nobody hears that the session has expired before everyone has asked."""
        if request.headers.get("cookie") == "JSESSIONID=sess10n1":
            everyone.wait(10)
        return answer(request)

    async def ask(portal: Portal) -> None:
        versions.append(await portal.session.version())

    async with opened(portal_server) as portal:
        await portal.session.version()
        sessions.valid.clear()
        portal_server.on("/api/version", together)
        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(ask, portal)
    assert versions == ["8.3.1"] * 8
    assert sessions.count == 2


async def test_a_late_answer_neither_logs_in_again_nor_brings_its_cookie(portal_server: Any, reply: Any) -> None:
    sessions = Sessions(portal_server, reply)
    asked, renewed = threading.Event(), threading.Event()
    late = reply(302, b"", [("Location", "/login"), ("Set-Cookie", "JSESSIONID=anonymous"), ("X-CTERA-TOKEN", "old")])
    answer = sessions.protect(reply(200, b"<val>8.3.1</val>"))

    def slow(request: Any) -> Any:
        if request.headers.get("cookie") == "JSESSIONID=sess10n1":
            asked.set()
            renewed.wait(10)
            return late
        return answer(request)

    async with opened(portal_server) as portal:
        await portal.session.version()
        sessions.valid.clear()
        portal_server.on("/api/slow", slow)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(portal.session.request, "GET", "api/slow")
            await anyio.to_thread.run_sync(asked.wait, 10)
            await portal.session.version()
            renewed.set()
        await portal.session.version()
    assert sessions.count == 2
    assert "x-ctera-token" not in portal_server.requests[-1].headers


async def test_waiters_share_a_failed_login(portal_server: Any, reply: Any, sessions: Sessions) -> None:
    everyone = threading.Barrier(4)
    errors: list[PortalError] = []
    logins = 0

    def refuse(_: Any) -> Any:
        nonlocal logins
        logins += 1
        return reply(403)

    def together(_: Any) -> Any:
        everyone.wait(10)
        return reply(401)

    async def ask(portal: Portal) -> None:
        try:
            await portal.session.version()
        except PortalError as error:
            errors.append(error)

    async with opened(portal_server) as portal:
        await portal.session.version()
        portal_server.on("/api/version", together)
        portal_server.on("/api/login", refuse)
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(ask, portal)
    assert [type(error) for error in errors] == [AuthenticationError] * 4
    assert logins < 4  # each failed login of a wrong password counts towards the lock of the account


async def test_a_cancelled_login_leaves_the_session_usable(portal_server: Any, reply: Any, sessions: Sessions) -> None:
    asked, over = threading.Event(), threading.Event()
    login = portal_server.replies["/api/login"]

    def hang(request: Any) -> Any:
        asked.set()
        over.wait(10)
        return login(request)

    portal_server.on("/api/login", hang)
    try:
        async with opened(portal_server) as portal:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(portal.session.version)
                await anyio.to_thread.run_sync(asked.wait, 10)
                tasks.cancel_scope.cancel()
            portal_server.on("/api/login", login)
            assert await portal.session.version() == "8.3.1"
    finally:
        over.set()


async def test_a_session_that_is_never_honoured(portal_server: Any, sessions: Sessions) -> None:
    sessions.honoured = False
    async with opened(portal_server) as portal:
        with pytest.raises(SessionExpired):
            await portal.session.version()
    assert sessions.count == 2


async def test_a_403_that_outlives_a_login_is_a_refusal(portal_server: Any, reply: Any, sessions: Sessions) -> None:
    portal_server.on("/api/version", reply(403))
    async with opened(portal_server) as portal:
        with pytest.raises(AuthenticationError, match="403"):
            await portal.session.version()


async def test_a_token_replaces_the_login(portal_server: Any, reply: Any) -> None:
    portal_server.on("/api/version", reply(200, b"<val>8.3.1</val>"), reply(401))
    async with Portal(portal_server.url, token="t0ken") as portal:
        await portal.session.version()
        with pytest.raises(AuthenticationError, match=r"portal\.token"):
            await portal.session.version()
    assert [request.headers["authorization"] for request in portal_server.requests] == ["Bearer t0ken"] * 2


async def test_the_echo_token_is_sent_back(portal_server: Any, reply: Any, sessions: Sessions) -> None:
    portal_server.on(
        "/api/version", reply(200, b"<val>1</val>", [("X-CTERA-TOKEN", "e1")]), reply(200, b"<val>1</val>")
    )
    async with opened(portal_server) as portal:
        for _ in range(3):
            await portal.session.version()
    assert [r.headers.get("x-ctera-token") for r in portal_server.requests] == [None, None, "e1", "e1"]


async def test_who_we_are(portal_server: Any, reply: Any, sessions: Sessions) -> None:
    raw = (
        b'<obj class="Session"><att id="username"><val>alice</val></att><att id="domain"/>'
        b'<att id="role"><val>ReadWriteAdmin</val></att></obj>'
    )
    portal_server.on("/api/currentSession", reply(200, raw), reply(200, b"<obj/>"))
    async with opened(portal_server) as portal:
        assert await portal.whoami() == Account("alice", None, "ReadWriteAdmin")
        with pytest.raises(ProtocolError):
            await portal.whoami()


async def test_logout_ends_the_session_and_forgets_the_credentials(
    portal_server: Any, reply: Any, sessions: Sessions
) -> None:
    portal_server.on("/api/logout", reply(302, b"", [("Location", "/ServicesPortal/login.html")]))
    async with opened(portal_server) as portal:
        await portal.session.version()
        await portal.logout()
        await portal.logout()
        with pytest.raises(AuthenticationError):
            await portal.session.version()
    assert len(portal_server.asked("/api/logout")) == 1


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (404, [], ProtocolError),
        (400, [], ProtocolError),
        (301, [("Location", "https://elsewhere.example.com/")], ProtocolError),
        (200, [], ProtocolError),  # HTML
        (429, [], PortalUnavailable),
        (500, [], PortalUnavailable),
        (503, [], PortalUnavailable),
    ],
)
async def test_other_statuses(
    portal_server: Any, reply: Any, sessions: Sessions, status: int, headers: Any, expected: type[PortalError]
) -> None:
    portal_server.on("/api/version", reply(status, b"<!DOCTYPE html><title>Sorry</title>", headers))
    async with opened(portal_server) as portal:
        with pytest.raises(PortalError) as caught:
            await portal.session.version()
    assert type(caught.value) is expected
    assert len(portal_server.asked("/api/version")) == 1


@pytest.mark.parametrize(
    ("header", "expected"), [("7", 7.0), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("-1", None), ("9" * 50, None)]
)
async def test_retry_after(portal_server: Any, reply: Any, sessions: Sessions, header: str, expected: float) -> None:
    portal_server.on("/api/version", reply(503, b"", [("Retry-After", header)]))
    async with opened(portal_server) as portal:
        with pytest.raises(PortalUnavailable) as caught:
            await portal.session.version()
    assert caught.value.retry_after == expected


async def test_an_unavailable_portal_is_no_refused_login(portal_server: Any, reply: Any) -> None:
    portal_server.on("/api/login", reply(503))
    async with opened(portal_server) as portal:
        with pytest.raises(PortalUnavailable):
            await portal.session.version()
    async with opened(portal_server) as portal:
        portal_server.on("/api/login", reply(raw=b""))
        with pytest.raises(PortalConnectionError):
            await portal.session.version()


@pytest.mark.parametrize(
    "options",
    [
        {"context": "Admin"},
        {"username": "alice"},
        {"password": "s3cret"},
        {"token": "t0ken\r\nX: y"},
        {"token": "t0k\xe9n"},
        {"url": "https://alice:s3cret@host"},
    ],
)
def test_options_that_cannot_be(options: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        Portal(**({"url": "https://host"} | options))  # type: ignore[arg-type]
    assert not any(secret in str(caught.value) for secret in SECRETS)


async def test_a_closed_portal_says_so(portal_server: Any) -> None:
    portal = opened(portal_server)
    with pytest.raises(RuntimeError, match="async with"):
        await portal.session.version()
    with pytest.raises(RuntimeError, match="async with"):
        portal.notifications.service.run(None, None)  # type: ignore[arg-type]
    async with portal:
        pass
    with pytest.raises(RuntimeError, match="async with"):
        await portal.session.version()


async def test_errors_inside_pass_unwrapped(portal_server: Any) -> None:
    with pytest.raises(ValueError, match="mine"):
        async with opened(portal_server):
            raise ValueError("mine")


async def test_no_secret_is_logged_or_shown(
    portal_server: Any, sessions: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "cterafs")
    async with opened(portal_server) as portal:
        await portal.session.version()
        shown = " ".join([repr(portal), repr(portal.session), repr(vars(portal)), str(sessions.count)])
    logged = " ".join(record.getMessage() for record in caplog.records if record.name.startswith("cterafs"))
    assert "logged in to" in logged
    assert not re.search("|".join(SECRETS), logged + shown)
