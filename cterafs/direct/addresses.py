"""Where block URLs may lead: the portal names the hosts, and it is not trusted to name ours."""

from __future__ import annotations

import encodings.idna  # noqa: F401  # which the resolver's call loads, in vain where no file can be opened any more
import ipaddress
import re
import socket
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple
from urllib.parse import quote, urljoin, urlsplit

# Printable ASCII stays as it is, for the signature covers it; anything else (spaces, line ends) is escaped.
_AS_IT_IS = "".join(map(chr, range(0x21, 0x7F)))
_PORTS = {"http": 80, "https": 443}
_USUAL = re.compile(r"(https?://[a-z0-9.-]+(?::[0-9]{1,5})?)(/[!-\"$->@-~]*(?:\?[!-\"$-~]+)?)")
"""A URL with nothing to escape or to leave out: its origin, and what is asked for there. To take it apart like this
costs a tenth of what the standard library takes, which was a fifth of all the Python that fetches a block."""
_ORIGINS = 256

SocketAddress = tuple[socket.AddressFamily, tuple[Any, ...]]


class Refused(Exception):
    """A URL or an address that is not fetched; the text tells why, without the URL."""


@dataclass(frozen=True)
class Endpoint:
    """What a connection leads to, and what it can be reused for."""

    secure: bool
    host: str
    port: int

    @cached_property
    def authority(self) -> str:
        """The `Host` header: the port is left out where it is the scheme's own, as signatures expect."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS["https" if self.secure else "http"] else f"{host}:{self.port}"


class Target(NamedTuple):
    """A URL taken apart. `path` includes the query, so it is a secret."""

    endpoint: Endpoint
    path: str

    def __repr__(self) -> str:
        return f"Target({self.endpoint})"

    def redirected(self, location: str) -> Target:
        """Where a redirect leads.

        Raises:
            Refused: to another host, or from https to http.
        """
        here = self.endpoint
        base = f"{'https' if here.secure else 'http'}://{here.authority}{self.path}"
        try:
            there = parse(urljoin(base, location))
        except (ValueError, Refused):
            raise Refused("a redirect to no URL of a host") from None
        if there.endpoint.host != here.host or (here.secure and not there.endpoint.secure):
            raise Refused("a redirect to another host, or from https to http")
        return there


def parse(url: str) -> Target:
    """Takes a block's URL apart.

    Raises:
        Refused: it is not an http or https URL of a host.
    """
    usual = _USUAL.fullmatch(url)
    return Target(_endpoint(usual[1]), usual[2]) if usual else _parse(url)


@lru_cache(_ORIGINS)
def _endpoint(origin: str) -> Endpoint:
    return _parse(origin).endpoint


def _parse(url: str) -> Target:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise Refused("not a valid URL") from None
    if parts.scheme not in _PORTS or not host or parts.username is not None:
        raise Refused("not an http or https URL of a host")
    if not all("!" <= letter <= "~" for letter in host):
        raise Refused("not a valid host name")
    path = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=_AS_IT_IS)
    return Target(Endpoint(parts.scheme == "https", host, port or _PORTS[parts.scheme]), path)


class HostPolicy:
    """The rule of `direct.storage_hosts`: those hosts and no others. If none is named, any host but link-local
    addresses, and loopback only where the portal is there too.

    Names are resolved here, and the connection is made to the very addresses that were judged.
    """

    def __init__(self, hosts: Collection[str], portal_host: str) -> None:
        self._hosts = frozenset(host.lower() for host in hosts)
        self._portal_host = portal_host

    def addresses(self, endpoint: Endpoint) -> list[SocketAddress]:
        """The addresses to try, in order.

        Raises:
            Refused: none of them may be contacted.
            OSError: the name does not resolve.
        """
        if self._hosts and endpoint.host not in self._hosts:
            raise Refused(f"{endpoint.host} is not in direct.storage_hosts")
        found = _resolve(endpoint.host, endpoint.port)
        allowed = [entry for entry in found if self._hosts or self._harmless(entry[1][0])]
        if not allowed:
            raise Refused(f"{endpoint.host} is a link-local or loopback address; see direct.storage_hosts")
        return allowed

    def _harmless(self, text: str) -> bool:
        address = _address(text)
        if address.is_link_local or address.is_multicast:
            return False
        # connecting to the unspecified address reaches this machine, too
        return self._portal_is_local if address.is_loopback or address.is_unspecified else True

    @cached_property
    def _portal_is_local(self) -> bool:
        try:
            return any(_address(entry[1][0]).is_loopback for entry in _resolve(self._portal_host, 443))
        except OSError:
            return False


def _resolve(host: str, port: int) -> list[SocketAddress]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:  # a label of more than 63 letters
        raise Refused("not a valid host name") from None
    return [(family, address) for family, _, _, _, address in found]


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address
