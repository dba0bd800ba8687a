"""The proxy that the environment names for the portal, as curl understands it. Storage is reached directly."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from cterafs.direct.addresses import Endpoint
from cterafs.errors import ConfigError

PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where it is, and what lets us in: the header that has the password, or nothing."""

    endpoint: Endpoint
    authorization: str

    def __repr__(self) -> str:  # never the password
        return f"Proxy({self.endpoint})"


def proxy_for(endpoint: Endpoint) -> Proxy | None:
    """By `https_proxy`, `http_proxy`, `all_proxy` and `no_proxy`, in small letters or capital ones.

    Raises:
        ConfigError: it cannot be used.
    """
    proxies = getproxies()
    url = proxies.get("https" if endpoint.secure else "http") or proxies.get("all")
    if not url or proxy_bypass(f"{endpoint.host}:{endpoint.port}"):
        return None
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port or PORTS.get(parts.scheme)
        if parts.scheme not in PORTS or not host or not port:
            raise ValueError
    except ValueError:
        raise ConfigError("the proxy that the environment names is not an http or https URL") from None
    authorization = ""
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = f"Proxy-Authorization: Basic {base64.b64encode(login.encode()).decode()}\r\n"
    return Proxy(Endpoint(parts.scheme == "https", host, port), authorization)
