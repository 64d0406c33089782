"""The one way out for webhooks. A URL comes from a user, so it must not lead into our own network (server-side request forgery).

Scheme and port are on the operator's list; the name is resolved once, every address it has must be public (or in a network that the operator
allows), and the connection goes to the very address that was checked: a name that answers differently the second time changes nothing.
No redirects, no proxies of the environment, a bounded time, and the answer's body is not read beyond a few bytes.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

import httpx

from abruzzi.notifications.errors import BadTarget, NotDelivered

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
MAX_URL_CHARACTERS = 2000
CONNECT_SECONDS, TOTAL_SECONDS = 5.0, 10.0
_PORTS = {"https": 443, "http": 80}
_CARRIERS = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96")))
"""IPv6 ranges that carry an IPv4 address inside (NAT64, 6to4, Teredo, compatible): what they lead to is not to be seen from outside."""


@dataclass(frozen=True, slots=True)
class Outbound:
    """What the operator allows."""

    schemes: frozenset[str] = frozenset({"https"})
    ports: frozenset[int] = frozenset({443, 8443})
    networks: tuple[Network, ...] = ()

    def permits(self, address: Address) -> bool:
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if any(address in network for network in self.networks if network.version == address.version):
            return True
        carries = isinstance(address, ipaddress.IPv6Address) and any(address in network for network in _CARRIERS)
        return address.is_global and not (address.is_multicast or address.is_reserved or carries)


def check_url(url: str, policy: Outbound) -> SplitResult:
    """The parts of an acceptable URL. Raises BadTarget; asks no name server (`pinned` does)."""
    hint = "Give the whole address of a public receiver, such as https://hooks.example.org/abruzzi."
    if len(url) > MAX_URL_CHARACTERS or not url.isascii() or any(c.isspace() or c in "\\\0" for c in url):
        raise BadTarget(f"A webhook's URL has at most {MAX_URL_CHARACTERS} printable ASCII characters.", hint)
    try:
        parts = urlsplit(url)
        port = _port(parts)
    except ValueError as error:
        raise BadTarget(f"{url[:200]!r} is no URL: {error}.", hint) from error
    if parts.scheme not in policy.schemes:
        raise BadTarget(f"A webhook's scheme must be {_either(policy.schemes)}, not {parts.scheme!r}.", hint)
    if port not in policy.ports:
        raise BadTarget(f"A webhook's port must be {_either(policy.ports)}, not {port}.", hint)
    if not parts.hostname or parts.username is not None or parts.password is not None or parts.fragment:
        raise BadTarget("A webhook's URL has a host, and neither user, password nor fragment.", hint)
    literal = _literal(parts.hostname)
    if literal is not None and not policy.permits(literal):
        raise _private(parts.hostname, literal)
    return parts


async def pinned(url: str, policy: Outbound, resolve: Resolve) -> tuple[SplitResult, Address]:
    """The URL's parts and the address to connect to. Raises BadTarget, or NotDelivered when the name has no address."""
    parts = check_url(url, policy)
    assert parts.hostname is not None
    try:
        found = await resolve(parts.hostname, _port(parts))
    except (OSError, UnicodeError) as error:
        raise NotDelivered(f"The name {parts.hostname} cannot be resolved: {error}.") from error
    addresses = [ipaddress.ip_address(text.partition("%")[0]) for text in found]
    if not addresses:
        raise NotDelivered(f"The name {parts.hostname} has no address.")
    for address in addresses:
        if not policy.permits(address):
            raise _private(parts.hostname, address)
    return parts, addresses[0]


async def post(
    url: str, content: bytes, headers: Mapping[str, str], policy: Outbound, *, resolve: Resolve | None = None
) -> None:
    """Returns when the receiver has answered 2xx. Raises NotDelivered or BadTarget with a sentence."""
    parts, address = await pinned(url, policy, resolve or system_resolve)
    host = f"[{address}]" if address.version == 6 else str(address)
    port = _port(parts)
    target = parts._replace(netloc=f"{host}:{port}").geturl()
    try:
        async with (
            asyncio.timeout(TOTAL_SECONDS),
            httpx.AsyncClient(
                follow_redirects=False, trust_env=False, timeout=httpx.Timeout(TOTAL_SECONDS, connect=CONNECT_SECONDS)
            ) as client,
            client.stream(
                "POST",
                target,
                content=content,
                headers={**headers, "Host": parts.netloc},
                extensions={"sni_hostname": parts.hostname},
            ) as answer,
        ):
            status = answer.status_code
    except TimeoutError:
        raise NotDelivered(f"{parts.netloc} did not answer within {TOTAL_SECONDS:.0f} s.") from None
    except httpx.HTTPError as error:
        raise NotDelivered(f"{parts.netloc} cannot be reached: {type(error).__name__}: {error}.") from error
    if not 200 <= status < 300:
        raise NotDelivered(f"{parts.netloc} answered {status}.")


async def system_resolve(host: str, port: int) -> Sequence[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


def _port(parts: SplitResult) -> int:
    """Raises ValueError. A given port counts, 0 as well."""
    return parts.port if parts.port is not None else _PORTS.get(parts.scheme, 0)


def _literal(host: str) -> Address | None:
    """The address that the host part is, in any of the spellings that the C library reads (127.1, 0x7f000001, 0177.0.0.1, 2130706433)."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


def _private(host: str, address: Address) -> BadTarget:
    return BadTarget(
        f"{host} is {address}, which is not a public address.",
        "An operator may allow a network by ABRUZZI_WEBHOOK_NETWORKS.",
    )


def _either(allowed: frozenset[str] | frozenset[int]) -> str:
    return " or ".join(str(value) for value in sorted(allowed, key=str)) or "(none is allowed)"
