"""Where a call comes from, out of what grpc or the gateway says of its peer."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import unquote, urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_BRACKETED = re.compile(r"\[([^\]]*)\](?::\d+)?")
_WITH_PORT = re.compile(r"([^:]*):\d+")


def address_of(peer: str) -> Address | None:
    """The address in ``ipv4:1.2.3.4:5``, ``ipv6:[::1]:5`` or ``1.2.3.4``; None if there is none."""
    text = unquote(peer)
    for scheme in ("ipv4:", "ipv6:"):
        text = text.removeprefix(scheme)
    return _parsed(_without_port(text))


def network_of(peer: str) -> str:
    """What to count a peer by: its IPv4 address, or the /64 network of its IPv6 address.

    A host commonly owns a whole /64, so that single IPv6 addresses would limit nobody.
    """
    address = address_of(peer)
    if address is None:
        return peer.partition(":")[0]
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(ipaddress.ip_network((address, 64), strict=False))


def is_loopback(peer: str) -> bool:
    """Whether a peer is on this machine, by its address."""
    address = address_of(peer)
    return address is not None and address.is_loopback


def is_loopback_host(host: str) -> bool:
    """Whether a host name, with or without a port, can only mean this machine."""
    name = _without_port(host).rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761 §6.3
        return True
    address = _parsed(name)
    return address is not None and address.is_loopback


def is_loopback_origin(origin: str) -> bool:
    """Whether an Origin header names a page served from this machine."""
    try:
        parts = urlsplit(origin)
        host = parts.hostname
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and host is not None and is_loopback_host(host)


def _without_port(text: str) -> str:
    if bracketed := _BRACKETED.fullmatch(text):
        return bracketed[1]
    if with_port := _WITH_PORT.fullmatch(text):
        return with_port[1]
    return text


def _parsed(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
