"""The places that outgoing connections may go to: one policy, checked on the address that is dialled and never on the text.

A name is resolved once, every address it has must pass, and the connection goes to an address that was checked, so a
name server that changes its answer between check and connection gains nothing. Public addresses on the allowed ports
pass; everything else needs an entry of the administrator's allow list.
"""

import ipaddress
import socket
import ssl
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from typing import TypeAlias

import httpcore
import httpx

from ingestion.ports.errors import ConfigError, SourceUnavailable
from ingestion.toolkit.http.connections import Connections, open_connection
from ingestion.toolkit.redact import redact_url

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve: TypeAlias = Callable[[str, int], Sequence[str]]
Dial: TypeAlias = Callable[..., httpcore.NetworkStream]

# Pinned here because `ipaddress.is_global` alone is no policy: it calls multicast, NAT64, 6to4 and several cloud
# platform addresses global, and its answers differ between Python versions.
DENIED: tuple[Network, ...] = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15"),
        *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        *("::/96", "::ffff:0:0/96", "64:ff9b::/32", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16"),
        *("3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"),
    )
)
# A name on the allow list reaches none of these, whatever its name server says: metadata services of clouds, and what
# is no single machine. Only an entry that is itself an address or a network does.
NEVER_BY_NAME: tuple[Network, ...] = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("0.0.0.0/8", "100.100.100.200/32", "168.63.129.16/32", "169.254.0.0/16", "192.0.0.192/32", "224.0.0.0/4"),
        *("240.0.0.0/4", "::/128", "64:ff9b::/32", "fd00:ec2::254/128", "fe80::/10", "ff00::/8"),
    )
)
DEFAULT_PORTS = frozenset({80, 443})
SCHEMES = {"http": 80, "https": 443}
_LAST_PORT = 65535


class Verdict(StrEnum):
    """The policy's word on one address and port."""

    ALLOWED = "allowed"
    FORBIDDEN = "forbidden"
    PORT = "port"


@dataclass(frozen=True, slots=True)
class _Entry:
    """One line of the allow list: a name or a network, and the one port it is for (None: the policy's ports)."""

    name: str | None
    network: Network | None
    port: int | None

    def matches(self, address: Address, host: str) -> bool:
        if self.network is not None:
            return address.version == self.network.version and address in self.network
        return host == self.name and not _within(address, NEVER_BY_NAME)


@dataclass(frozen=True)
class EgressPolicy:
    """The places an administrator allows beyond public addresses on the usual ports.

    An entry of `allow` is a host name, an address or a network (CIDR), each with ":port" behind it or without
    (IPv6 with port: "[::1]:8080"). With a port it holds for that port alone, without one for `ports`.
    """

    allow: tuple[str, ...] = ()
    ports: frozenset[int] = DEFAULT_PORTS
    _entries: tuple[_Entry, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_entries", tuple(_parse_entry(text) for text in self.allow))

    def entries_for(self, address: Address, host: str) -> Iterable[_Entry]:
        """Yield the allow list's lines that speak of this address or host."""
        return (entry for entry in self._entries if entry.matches(address, _normal_host(host)))


def judge(address: str, policy: EgressPolicy, *, host: str = "", port: int = 443) -> Verdict:
    """Return whether a connection to the address may be made, as `host` was resolved to it. Pure."""
    if "%" in address:
        return Verdict.FORBIDDEN
    try:
        parsed: Address = ipaddress.ip_address(address)
    except ValueError:
        return Verdict.FORBIDDEN
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    entries = list(policy.entries_for(parsed, host))
    if any(entry.port == port or (entry.port is None and port in policy.ports) for entry in entries):
        return Verdict.ALLOWED
    is_public = parsed.is_global and not _within(parsed, DENIED)
    if is_public and port in policy.ports:
        return Verdict.ALLOWED
    return Verdict.PORT if is_public or any(entry.port is None for entry in entries) else Verdict.FORBIDDEN


def check_url(url: str, policy: EgressPolicy) -> httpx.URL:
    """Return the parsed URL if it may be tried; ConfigError that says what is wrong with it.

    Judges the form, and the address where one is written out. A name is judged when it is dialled.
    """
    shown = redact_url(url)
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ConfigError("egress.request", url=shown, detail="this is no valid address") from error
    if parsed.scheme not in SCHEMES:
        raise ConfigError("egress.scheme", url=shown)
    if parsed.userinfo:
        raise ConfigError("egress.request", url=shown, detail="it carries a user name, which belongs to the secrets")
    if not parsed.host or "\\" in url or "%" in parsed.host or any(mark.isspace() for mark in url):
        raise ConfigError("egress.request", url=shown, detail="this is no valid address")
    port = port_of(parsed)
    if not 0 < port <= _LAST_PORT:
        raise ConfigError("egress.port", host=parsed.host, port=port)
    literal = _literal_address(parsed.host)
    if literal is not None:
        _require([literal], policy, host=parsed.host, port=port)
    return parsed


def port_of(url: httpx.URL) -> int:
    """Return the port that a connection to the URL goes to."""
    return url.port if url.port is not None else SCHEMES[url.scheme]


def is_same_origin(one: str | httpx.URL, other: str | httpx.URL) -> bool:
    """Return whether two URLs have scheme, host and port in common, so that one's credentials may go to the other."""
    try:
        a, b = httpx.URL(one), httpx.URL(other)
    except httpx.InvalidURL:
        return False
    return (a.scheme, a.host, a.port) == (b.scheme, b.host, b.port)


def resolve_host(host: str, port: int) -> Sequence[str]:
    """Return every address of the name, in the system's order, without asking twice."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            detail = "its name cannot be resolved at the moment"
            raise SourceUnavailable("source.unavailable", host=host, detail=detail) from error
        raise ConfigError("egress.unresolved", host=host) from error
    except (UnicodeError, OSError) as error:
        raise ConfigError("egress.unresolved", host=host) from error
    return list(dict.fromkeys(str(item[4][0]) for item in found))


def checked_addresses(host: str, port: int, *, policy: EgressPolicy, resolve: Resolve = resolve_host) -> Sequence[str]:
    """Return the addresses of the host, all of which may be dialled; ConfigError if a single one may not."""
    addresses = resolve(host, port)
    if not addresses:
        raise ConfigError("egress.unresolved", host=host)
    _require(addresses, policy, host=host, port=port)
    return addresses


def _require(addresses: Sequence[str], policy: EgressPolicy, *, host: str, port: int) -> None:
    for address in addresses:
        match judge(address, policy, host=host, port=port):
            case Verdict.FORBIDDEN:
                raise ConfigError("egress.forbidden", host=host, address=address)
            case Verdict.PORT:
                raise ConfigError("egress.port", host=host, port=port)


class EgressGuard(httpcore.SyncBackend):
    """The network under httpcore: resolves once, refuses unless every address passes, dials a checked address."""

    def __init__(
        self,
        policy: EgressPolicy,
        *,
        connections: Connections | None = None,
        resolve: Resolve = resolve_host,
        dial: Dial = open_connection,
    ) -> None:
        self._policy = policy
        self._connections = connections or Connections()
        self._resolve = resolve
        self._dial = dial

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Return a connection to the first address of the host that answers; none is tried that did not pass."""
        addresses = checked_addresses(host, port, policy=self._policy, resolve=self._resolve)
        for address in addresses[:-1]:
            try:
                return self._dial(address, port, timeout_s=timeout, connections=self._connections)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return self._dial(addresses[-1], port, timeout_s=timeout, connections=self._connections)

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None
    ) -> httpcore.NetworkStream:
        """Refuse: a socket file is a door to services of this machine."""
        raise ConfigError("egress.forbidden", host="a unix socket", address="this machine")


class GuardedTransport(httpx.HTTPTransport):
    """httpx's transport with the guard as its only way to the network; proxies of the environment are ignored."""

    def __init__(self, guard: EgressGuard, *, ssl_context: ssl.SSLContext | None = None) -> None:
        context = ssl_context or default_ssl_context()
        super().__init__(verify=context, trust_env=False)
        if not isinstance(getattr(self, "_pool", None), httpcore.ConnectionPool):
            # Setting a name that httpx no longer reads would leave the transport unguarded without a word.
            msg = "this version of httpx keeps its connections elsewhere: the egress guard cannot be put in"
            raise TypeError(msg)
        self._pool = httpcore.ConnectionPool(
            ssl_context=context, network_backend=guard, max_connections=10, keepalive_expiry=15.0
        )


@cache
def default_ssl_context() -> ssl.SSLContext:
    """Return the TLS settings of every client: certificates are checked; loaded once, as that takes 20 ms."""
    return httpx.create_ssl_context(trust_env=False)


def _within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def _normal_host(host: str) -> str:
    return host.lower().rstrip(".")


def _literal_address(host: str) -> str | None:
    """Return the address that a host spells out, in any form the C library takes for one, or None for a name."""
    if ":" in host:
        return host
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return None


def _parse_entry(text: str) -> _Entry:
    host, port = text.strip(), None
    if ":" in host and _network(host.strip("[]")) is None:
        host, _, port_text = host.rpartition(":")
        port = int(port_text) if port_text.isascii() and port_text.isdigit() else 0
        if not 0 < port <= _LAST_PORT:
            detail = f"{text!r} in the egress allow list has no valid port"
            raise ConfigError("config.invalid", where="HEADGATE_EGRESS_ALLOW", detail=detail)
    network = _network(host.strip("[]"))
    if network is None and (not host or any(mark in "/*:" or mark.isspace() for mark in host)):
        detail = f"{text!r} in the egress allow list is no host, address or network"
        raise ConfigError("config.invalid", where="HEADGATE_EGRESS_ALLOW", detail=detail)
    return _Entry(name=_normal_host(host) if network is None else None, network=network, port=port)


def _network(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
