"""The management API: log in and out, who am I, users, cloud folders. XML, in both contexts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from cterafs.demo import schema
from cterafs.demo.accounts import Accounts, LoginRefused, User, bearer
from cterafs.demo.faults import Faults
from cterafs.demo.injections import Kind
from cterafs.demo.inventory import CloudFolder, Inventory

SESSION_COOKIE = "JSESSIONID"
TOKEN_HEADER = "X-CTERA-TOKEN"  # noqa: S105  # its name
LOGIN_PAGE = "/ServicesPortal/login.html"
VERSION = "8.3.3002.13"

_PERMISSIONS = (
    "superUser",
    "allowRemoteWipe",
    "allowSSO",
    "allowSeedingExport",
    "allowSeedingImport",
    "canAccessEndUserFolders",
    "canChangePortalSettings",
    "canChangeRoles",
    "canChangeUserEmail",
    "canChangeUserPassword",
    "canManageAllFolders",
    "canManagePlans",
    "canManageUsers",
    "canManageLogSettings",
    "allowFoldersFilesPermanentDelete",
    "canManageLegalHolds",
    "canManageComplianceSetting",
)

Endpoint = Callable[[Request], Awaitable[Response]]


class ControlPlane:
    """Routes of the management API, and the check of sessions for the other routes.

    Attributes:
        demand_token: refuse requests of a session that do not send back its X-CTERA-TOKEN.
    """

    def __init__(self, accounts: Accounts, inventory: Inventory, faults: Faults) -> None:
        self.demand_token = False
        self._accounts = accounts
        self._inventory = inventory
        self._faults = faults

    @property
    def routes(self) -> list[BaseRoute]:
        return [
            Route(LOGIN_PAGE, _login_page, methods=["GET"]),
            Route("/{context}/api/login", self.guard("login", self._login, anonymous=True), methods=["POST"]),
            Route("/ServicesPortal/sso", self.guard("sso", self._sso, anonymous=True), methods=["POST"]),
            Route("/{context}/api/logout", self.guard("logout", self._logout), methods=["POST"]),
            Route("/{context}/api/currentSession", self.guard("session", self._current_session), methods=["GET"]),
            Route("/{context}/api/currentPortal", self.guard("session", self._current_portal), methods=["GET"]),
            Route("/{context}/api/version", self.guard("session", _version), methods=["GET"]),
            Route("/{context}/api/rolesSettings/{role}", self.guard("session", _role), methods=["GET"]),
            Route("/{context}/api/users/{name}", self.guard("user", self._user), methods=["POST"]),
            Route("/{context}/api/domains/{domain}/adUsers/{name}", self.guard("user", self._user), methods=["POST"]),
            Route("/{context}/api/cloudDrives", self.guard("folders", self._cloud_folders), methods=["POST"]),
        ]

    def guard(self, kind: Kind, endpoint: Endpoint, *, anonymous: bool = False) -> Endpoint:
        """`endpoint`, for those who are logged in; counted, and exposed to faults, as `kind`."""

        async def guarded(request: Request) -> Response:
            if request.path_params.get("context", "admin") not in ("admin", "ServicesPortal"):
                return PlainTextResponse("Not Found", 404)
            fault = await self._faults.portal_request(kind, request)
            refusal = None if anonymous or fault else self._refuse(request)
            return fault or refusal or await endpoint(request)

        return guarded

    def _refuse(self, request: Request) -> Response | None:
        if (header := request.headers.get("authorization")) is not None:
            token = bearer(header)
            known = token is not None and self._accounts.is_bearer_token(token)
            return None if known else PlainTextResponse("Unauthorized", 401)
        session = self._accounts.session(request.cookies.get(SESSION_COOKIE))
        if session is None:
            return RedirectResponse(LOGIN_PAGE, 302)
        if self.demand_token and request.method != "GET" and request.headers.get(TOKEN_HEADER) != session.token:
            return PlainTextResponse("Forbidden", 403)
        return None

    async def _login(self, request: Request) -> Response:
        form = await _form(request)
        try:
            return self._logged_in(
                self._accounts.login(form.get("j_username", ""), form.get("j_password", "")), request
            )
        except LoginRefused:
            return PlainTextResponse("Wrong user name or password", 403)

    async def _sso(self, request: Request) -> Response:
        form = await _form(request)
        try:
            return self._logged_in(self._accounts.redeem(form.get("ctera_ticket", "")), request)
        except LoginRefused:
            return PlainTextResponse("Wrong ticket", 403)

    def _logged_in(self, session_id: str, request: Request) -> Response:
        response = _xml("ok")
        response.set_cookie(SESSION_COOKIE, session_id, httponly=True, secure=request.url.scheme == "https")
        return response

    async def _logout(self, request: Request) -> Response:
        self._accounts.logout(request.cookies.get(SESSION_COOKIE, ""))
        response = _xml("ok")
        response.delete_cookie(SESSION_COOKIE)
        return response

    async def _current_session(self, request: Request) -> Response:
        session = self._accounts.session(request.cookies.get(SESSION_COOKIE))
        user = session.user if session else self._accounts.owner
        answer: dict[str, schema.Value] = {
            "username": user.name,
            "domain": user.domain or None,
            "role": user.role,
            "idleTimeout": max(1, round(self._accounts.idle_timeout / 60)),
        }
        if request.query_params.get("format") == "jsonext":
            response: Response = JSONResponse({"$class": "Session", **answer})
        else:
            response = _xml(answer, "Session")
        if session:
            response.headers[TOKEN_HEADER] = session.token
        return response

    async def _current_portal(self, request: Request) -> Response:
        return _xml(None if request.path_params["context"] == "admin" else self._accounts.tenant)

    async def _user(self, request: Request) -> Response:
        call = await _call(request)
        if call is None or call.get("name") != "get-multi":
            return PlainTextResponse("Bad Request", 400)
        user = self._accounts.find(request.path_params["name"], request.path_params.get("domain", ""))
        paths = call.get("param")
        wanted = [path for path in paths if isinstance(path, str)] if isinstance(paths, list) else []
        return _xml(_select(_user_attributes(user), [path.strip("/") for path in wanted]), "PortalUser")

    async def _cloud_folders(self, request: Request) -> Response:
        call = await _call(request)
        query = call.get("param") if call and call.get("name") == "query" else None
        if not isinstance(query, Mapping):
            return PlainTextResponse("Bad Request", 400)
        include = query.get("include")
        wanted = [name for name in include if isinstance(name, str)] if isinstance(include, list) else ["name"]
        start, limit = _number(query.get("startFrom"), 0), _number(query.get("countLimit"), 50)
        matching = [folder for folder in self._inventory.folders if _matches(folder, query)]
        page = [_select(self._attributes(folder), wanted) for folder in matching[start : start + limit]]
        return _xml({"hasMore": start + limit < len(matching), "objects": page}, "QueryResponse")

    def _attributes(self, folder: CloudFolder) -> Mapping[str, schema.Value]:
        return {"name": folder.name, "uid": folder.id, "owner": self._accounts.reference(folder.owner)}


async def _login_page(_: Request) -> Response:
    return HTMLResponse("<!DOCTYPE html><title>Log in</title><form method=post></form>")


async def _version(_: Request) -> Response:
    return _xml(VERSION)


async def _role(request: Request) -> Response:
    return _xml({"name": request.path_params["role"], **dict.fromkeys(_PERMISSIONS, True)}, "PortalRoleSettings")


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form; starlette would need another library for it."""
    return dict(parse_qsl((await request.body()).decode("utf-8", "replace"), keep_blank_values=True))


async def _call(request: Request) -> Mapping[str, schema.Value] | None:
    """The schema method that a request calls; None where it is not one of the database."""
    try:
        call = schema.load(await request.body())
    except schema.NotSchema:
        return None
    return call if isinstance(call, Mapping) and call.get("type") == "db" else None


def _user_attributes(user: User | None) -> Mapping[str, schema.Value]:
    return {"name": user.name, "uid": user.uid, "role": user.role} if user else {}


def _select(attributes: Mapping[str, schema.Value], wanted: list[str]) -> Mapping[str, schema.Value]:
    return {name: attributes.get(name) for name in wanted}


def _matches(folder: CloudFolder, query: Mapping[str, schema.Value]) -> bool:
    owner = query.get("ownedBy")
    if owner is not None and owner != str(folder.owner):
        return False
    filters = query.get("filters")
    return all(_passes(folder, each) for each in filters) if isinstance(filters, list) else True


def _passes(folder: CloudFolder, rule: schema.Value) -> bool:
    """Filters by name are all that clients of the notification service send."""
    if not isinstance(rule, Mapping) or rule.get("field") != "name":
        return False
    value = str(rule.get("value"))
    return {"eq": folder.name == value, "like": value.lower() in folder.name.lower()}.get(
        str(rule.get("restriction")), False
    )


def _number(value: schema.Value, default: int) -> int:
    return int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 10 else default


def _xml(value: schema.Value, name: str = "") -> Response:
    return Response(schema.dump(value, name), media_type="text/xml")
