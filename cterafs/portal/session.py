"""The session with the portal: logging in, staying logged in, and who we are.

A session ends when the portal likes, and says so by a redirect to a login page, by 401 or by 403. Whoever notices logs
in again and repeats the request once; of several tasks that notice at once, one logs in. Each login counts a generation
up, so a task whose request left before a login that has meanwhile succeeded does not log in a second time.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from urllib.parse import urlencode

import anyio

from cterafs.errors import (
    AuthenticationError,
    ConfigError,
    PortalError,
    PortalUnavailable,
    ProtocolError,
    SessionExpired,
)
from cterafs.portal import xmlgrammar
from cterafs.portal.cookies import Cookies
from cterafs.portal.transport import Answer, Transport

_log = logging.getLogger(__name__)

CONTEXTS = ("ServicesPortal", "admin")
_TOKEN_HEADER = "X-CTERA-TOKEN"  # noqa: S105 -- its name, not its value
_FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Account:
    """Whom the session belongs to.

    Attributes:
        domain: the directory that a user of one belongs to, None for local users.
        role: the portal's name of it, such as `EndUser` or `ReadWriteAdmin`.
    """

    username: str
    domain: str | None
    role: str | None


class Session:
    """Requests in one context of the portal, always logged in.

    Args:
        context: `ServicesPortal` for a team portal, `admin` for the global administration.
        username, password: log in with these upon the first request.
        token: is sent instead of a login.

    Raises:
        ConfigError: no such context, a user without a password, or a token that no header can carry.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        context: str = "ServicesPortal",
        username: str | None = None,
        password: str | None = None,
        token: str | None = None,
    ) -> None:
        if context not in CONTEXTS:
            raise ConfigError(f"portal.context must be one of {', '.join(CONTEXTS)}")
        if (username is None) != (password is None):
            raise ConfigError("portal.username and portal.password belong together")
        if token is not None and not (token.isascii() and token.isprintable()):
            raise ConfigError("portal.token holds characters that a token cannot have")
        self._transport = transport
        self._context = context
        self._credentials = None if username is None or password is None else (username, password)
        self._token = token
        self._cookies = Cookies()
        self._echo: str | None = None  # the portal's X-CTERA-TOKEN
        self._epoch = 0  # tells answers to requests of a forgotten session, whose cookies must not come back
        self._lock = anyio.Lock()  # held while logging in
        self._logged_in = False
        self._generation = 0  # successful logins
        self._failures = 0  # logins that failed
        self._failure: PortalError | None = None  # the latest of them
        self._forbidden_generation: int | None = None  # a fresh session that met a 403 at once

    @property
    def url(self) -> str:
        """The portal's URL."""
        return self._transport.url

    @property
    def timeout(self) -> float:
        """Seconds that an answer may take to begin."""
        return self._transport.timeout

    async def login(self, username: str, password: str) -> None:
        """Log in, and remember the credentials for when the session expires.

        Raises:
            AuthenticationError: the portal refused them.
        """
        async with self._lock:
            self._credentials = (username, password)
            await self._login()

    async def logout(self) -> None:
        """End the session and forget the credentials. A session that has ended already is no error."""
        async with self._lock:
            self._credentials = None
            if self._logged_in:
                await self._send("POST", "api/logout", content=b"", content_type=_FORM)
            self._forget()

    async def whoami(self) -> Account:
        """Whom the portal takes us for."""
        answer = await self.xml("GET", "api/currentSession")
        if not isinstance(answer, xmlgrammar.XmlObject) or (username := answer.text("username")) is None:
            raise ProtocolError("the portal does not say who is logged in")
        return Account(username, answer.text("domain"), answer.text("role"))

    async def version(self) -> str:
        """The portal's software version, such as `8.3.3100.11`."""
        answer = await self.xml("GET", "api/version")
        if not isinstance(answer, str) or not answer:
            raise ProtocolError("the portal does not tell its version")
        return answer

    async def xml(self, method: str, path: str, value: xmlgrammar.Value = None) -> xmlgrammar.Value:
        """A call of the management API: send `value`, return what is answered.

        Raises:
            ValueError: `value` holds a character that XML cannot write.
            PortalError: any of its kinds.
        """
        content = None if value is None else xmlgrammar.serialise(value)
        answer = await self.request(method, path, content=content, content_type="text/plain")
        check(answer)
        return xmlgrammar.parse(answer.body)

    async def request(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        content_type: str | None = None,
        patience: float = 0.0,
        may_forbid: bool = False,
    ) -> Answer:
        """Send a request in this context, logging in before or again where needed.

        Args:
            path: below the context, without a leading slash.
            patience: seconds that the portal may stay silent beyond the usual timeout.
            may_forbid: 403 may be meant for this very object; then it does not start one login per object.

        Returns:
            The answer, whatever its status, unless it says that the session expired.

        Raises:
            AuthenticationError: the user, the password or the token is refused, or there is none.
            SessionExpired: it expired again right after a login.
            PortalConnectionError, PortalTimeout, ProtocolError: as `Transport.send` has them.
        """
        generation = await self._ready()
        answer = await self._send(method, path, content=content, content_type=content_type, patience=patience)
        if not _expired(answer) or (may_forbid and self._forbids(answer, generation)):
            return answer
        if self._credentials is None:
            raise AuthenticationError(self._refusal())
        generation = await self._renew(generation)
        answer = await self._send(method, path, content=content, content_type=content_type, patience=patience)
        if answer.status == 403:
            self._forbidden_generation = generation
        elif _expired(answer):
            raise SessionExpired("the portal ended the session right after the login")
        return answer

    def _forbids(self, answer: Answer, generation: int) -> bool:
        return answer.status == 403 and self._forbidden_generation == generation

    def _refusal(self) -> str:
        if self._token is not None:
            return "the portal refused the token; check portal.token"
        return "the session has ended, and there are no credentials to log in again"

    async def _ready(self) -> int:
        """The generation of the session that the next request uses."""
        if self._token is not None or self._logged_in:
            return self._generation
        if self._credentials is None:
            raise AuthenticationError("not logged in; set portal.username and portal.password, or portal.token")
        return await self._renew(self._generation)

    async def _renew(self, generation: int) -> int:
        """Log in unless someone has since `generation`; tasks that wait for a login share its outcome."""
        failures = self._failures
        async with self._lock:
            if self._generation == generation:
                if self._failures != failures and self._failure is not None:
                    raise type(self._failure)(str(self._failure))
                await self._login()
            return self._generation

    async def _login(self) -> None:
        if self._credentials is None:
            raise AuthenticationError(self._refusal())
        username, password = self._credentials
        form = urlencode({"j_username": username, "j_password": password}).encode()
        self._forget()
        try:
            answer = await self._send("POST", "api/login", content=form, content_type=_FORM)
            if _expired(answer):
                raise AuthenticationError("the portal refused the user name or the password")
            check(answer)
        except PortalError as error:
            self._failures += 1
            self._failure = error
            raise
        self._logged_in = True
        self._generation += 1
        _log.info("logged in to %s as %r", self.url, username)

    def _forget(self) -> None:
        self._logged_in = False
        self._epoch += 1
        self._cookies.clear()
        self._echo = None

    async def _send(
        self, method: str, path: str, *, content: bytes | None, content_type: str | None, patience: float = 0.0
    ) -> Answer:
        headers, epoch = self._headers(), self._epoch
        if content is not None and content_type is not None:
            headers["Content-Type"] = content_type
        answer = await self._transport.send(
            method, f"/{self._context}/{path}", headers=headers, content=content, patience=patience
        )
        if epoch == self._epoch:
            self._cookies.update(answer.headers.get_list("set-cookie"))
            self._echo = answer.headers.get(_TOKEN_HEADER, self._echo)
        return answer

    def _headers(self) -> dict[str, str]:
        headers = {
            "Authorization": f"Bearer {self._token}" if self._token is not None else None,
            "Cookie": self._cookies.header(),
            _TOKEN_HEADER: self._echo,
        }
        return {name: value for name, value in headers.items() if value is not None}


def check(answer: Answer) -> None:
    """Raise what an answer other than success means.

    Raises:
        PortalUnavailable: 429 or 5xx.
        AuthenticationError: 401 or 403.
        ProtocolError: any other.
    """
    if answer.ok:
        return
    if answer.status == 429 or answer.status >= 500:
        raise PortalUnavailable(f"the portal is unavailable (HTTP {answer.status})", _retry_after(answer))
    if answer.status in {401, 403}:
        raise AuthenticationError(f"the portal does not allow this account to do that (HTTP {answer.status})")
    if answer.location is not None:
        raise ProtocolError(f"the portal redirects elsewhere (HTTP {answer.status}); check portal.url")
    raise ProtocolError(f"the portal refused the request (HTTP {answer.status})")


def _retry_after(answer: Answer) -> float | None:
    """Seconds; the other form of the header, a date, is as good as none: the clocks may differ."""
    text = answer.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) <= 6 else None


def _expired(answer: Answer) -> bool:
    """Does the answer ask for a login? Portals, and the directories behind them, redirect to a page named after it."""
    if answer.location is not None:
        return any(word in answer.location.lower() for word in ("login", "signin", "sso", "saml"))
    return answer.status in {401, 403}
