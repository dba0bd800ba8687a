"""Users, sessions, tickets, and the key pair of Direct IO."""

from __future__ import annotations

import base64
import hmac
import secrets
import time
from dataclasses import dataclass, field

LOCAL = ""
"""The domain of local users."""

FIRST_UID = 1000
"""Of the account that owns the portal; others follow."""


class LoginRefused(Exception):
    """Wrong user, password or ticket."""


@dataclass(frozen=True, slots=True)
class User:
    """A user account; `domain` is empty for local users. A user without a password cannot log in."""

    uid: int
    name: str
    domain: str = LOCAL
    role: str = "ReadWriteAdmin"
    password: str | None = field(default=None, repr=False)


@dataclass(slots=True)
class Session:
    user: User
    token: str
    last_used: float


class Accounts:
    """Who may log in, and who has.

    Attributes:
        tenant: the name of the portal, as the team context gives it.
        idle_timeout: a session that is not used for so many seconds ends.
        bearer_token: replaces a login, in an Authorization header.
        access_key_id, secret_access_key: the key pair of Direct IO.
    """

    def __init__(self, username: str, password: str) -> None:
        self.idle_timeout = 1800.0
        self.bearer_token = secrets.token_urlsafe(24)
        self.access_key_id = secrets.token_hex(10).upper()
        self.secret_access_key = base64.b64encode(secrets.token_bytes(32)).decode()
        self.tenant = "demo"
        self._users: dict[tuple[str, str], User] = {}
        self._sessions: dict[str, Session] = {}
        self._tickets: dict[str, User] = {}
        self.owner = self.add(username, password=password)

    def add(self, name: str, *, domain: str = LOCAL, password: str | None = None, role: str = "ReadWriteAdmin") -> User:
        """A new user, local or of a domain."""
        user = User(FIRST_UID + len(self._users), name, domain, role, password)
        self._users[domain, name] = user
        return user

    def find(self, name: str, domain: str = LOCAL) -> User | None:
        return self._users.get((domain, name))

    def reference(self, uid: int | None) -> str | None:
        """The user with this uid as other objects refer to them: `objs/{uid}/{portal}/{class}/{name}/{directory}`."""
        user = next((user for user in self._users.values() if user.uid == uid), None)
        if user is None:
            return None
        kind = "ADUser" if user.domain else "PortalUser"
        return f"objs/{user.uid}/{self.tenant}/{kind}/{user.name}/{user.domain}"

    def login(self, name: str, password: str) -> str:
        """The id of a new session.

        Raises:
            LoginRefused: there is no such user, or the password is another.
        """
        user = self.find(name)
        if user is None or user.password is None or not _same(user.password, password):
            raise LoginRefused
        return self._start(user)

    def issue_ticket(self, user: User) -> str:
        """A ticket that is exchanged for a session, once."""
        ticket = secrets.token_urlsafe(24)
        self._tickets[ticket] = user
        return ticket

    def redeem(self, ticket: str) -> str:
        """The id of a new session.

        Raises:
            LoginRefused: the ticket was not issued, or is used up.
        """
        user = self._tickets.pop(ticket, None)
        if user is None:
            raise LoginRefused
        return self._start(user)

    def session(self, session_id: str | None) -> Session | None:
        """The session that is alive under this id, which counts as using it."""
        session = self._sessions.get(session_id) if session_id else None
        if session is None or session_id is None:
            return None
        now = time.monotonic()
        if now - session.last_used > self.idle_timeout:
            del self._sessions[session_id]
            return None
        session.last_used = now
        return session

    def logout(self, session_id: str) -> None:
        self._sessions.pop(session_id, None)

    def expire_sessions(self) -> None:
        """End all sessions now, as if nobody had used them for long."""
        self._sessions.clear()

    def is_bearer_token(self, token: str) -> bool:
        return _same(token, self.bearer_token)

    def may_read_blocks(self, token: str) -> bool:
        """Direct IO takes the access key's id or the bearer token."""
        return self.is_bearer_token(token) or _same(token, self.access_key_id)

    def _start(self, user: User) -> str:
        session_id = secrets.token_hex(16).upper()
        self._sessions[session_id] = Session(user, secrets.token_hex(16), time.monotonic())
        return session_id


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def bearer(header: str | None) -> str | None:
    """The token of an Authorization header; None where it carries none."""
    scheme, _, token = (header or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None
