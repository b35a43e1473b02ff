"""Where a webhook may lead: out into the world, not to this machine or into a private network.

Whoever may create webhooks could else have the server call what only the server can reach: the
metadata of its cloud, a database without a password. Names are looked up when a webhook is created
and again for each connection, so that a name cannot come to mean something else in between.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from urllib.parse import urlsplit

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

MAX_URL = 2_000
LOOKUP_TIMEOUT_S = 3.0
PRIVATE = "leads to this machine or into a private network"

_PROTOCOLS = ipaddress.ip_network("192.0.0.0/24")  # RFC 6890; a cloud's metadata among them
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class BadAddress(ValueError):
    """A webhook may not lead there; the message says why."""


class PrivateAddress(OSError):
    """A name leads into a private network."""


def is_public(text: str) -> bool:
    """Whether an IP address is one of the open internet, whatever it is wrapped into."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if inner is not None:
            return is_public(str(inner))
        if address.teredo is not None or address.is_site_local:
            return False
    return address.is_global and not (
        address in _PROTOCOLS
        or address.is_multicast
        or address.is_reserved
        or address.is_unspecified
    )


def check_url(text: str, *, allow_private: bool) -> None:
    """Check all that can be told without looking a name up.

    Raises:
        BadAddress: it is no address a webhook may have.
    """
    if len(text) > MAX_URL:
        raise BadAddress(f"has {len(text)} characters; at most {MAX_URL} are allowed")
    if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        raise BadAddress("holds characters that no URL has")
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise BadAddress(f"is not a URL: {error}") from None
    schemes = ("https", "http") if allow_private else ("https",)
    if parts.scheme not in schemes or not host:
        raise BadAddress("must begin with https:// and a host")
    if "@" in parts.netloc:
        raise BadAddress("holds a user name or a password; deliveries are signed instead")
    if parts.fragment:
        raise BadAddress("holds a fragment, which is never sent")
    if not allow_private and leads_inside(host):
        raise BadAddress(PRIVATE)


def leads_inside(host: str) -> bool:
    """Whether a host, taken as it is written, is not of the open internet."""
    try:
        return not is_public(host)
    except ValueError:
        name = host.rstrip(".")
        # Short forms of addresses, as 127.1, are not looked up like names when they are called.
        is_short_form = name.rpartition(".")[2].isdigit() or name.rpartition(".")[2][:2] == "0x"
        return is_short_form or name == "localhost" or name.endswith(".localhost")


async def check_name(url: str) -> None:
    """Look up the name in an address; one that is unknown now may be known later.

    Raises:
        BadAddress: it leads into a private network.
    """
    host = urlsplit(url).hostname or ""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(LOOKUP_TIMEOUT_S):
            found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError):
        return
    if not all(is_public(str(sockaddr[0])) for *_, sockaddr in found):
        raise BadAddress(PRIVATE)


class PublicResolver(AbstractResolver):
    """Looks names up for connections, and refuses those that lead inside."""

    def __init__(self, resolver: AbstractResolver | None = None) -> None:
        self._resolver = resolver or ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of a name.

        Raises:
            PrivateAddress: one of them is not of the open internet.
        """
        found = await self._resolver.resolve(host, port, family)
        if not all(is_public(each["host"]) for each in found):
            raise PrivateAddress(f"{host} {PRIVATE}")
        return found

    async def close(self) -> None:
        await self._resolver.close()
