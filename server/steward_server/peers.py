"""Where a call comes from, out of what grpc or the gateway says of its peer."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from urllib.parse import unquote, urlsplit

from steward_gateway.forwarding import (
    Address,
    Proxies,
    hops,
    parse_proxies,
    read_address,
    without_port,
)
from steward_server.config import BadSetting


def trusted_proxies(setting: str) -> Proxies:
    """The proxies that are believed, as they are set.

    Raises:
        BadSetting: one is no address or network, or it is everybody's.
    """
    try:
        return parse_proxies(setting)
    except ValueError as error:
        raise BadSetting(f"STEWARD_TRUSTED_PROXIES: {error}") from None


@lru_cache(maxsize=4096)
def address_of(peer: str) -> Address | None:
    """The address in ``ipv4:1.2.3.4:5``, ``ipv6:[::1]:5`` or ``1.2.3.4``; None if there is none."""
    text = unquote(peer)
    for scheme in ("ipv4:", "ipv6:"):
        text = text.removeprefix(scheme)
    return read_address(text)


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


def is_forwarded_by_loopback(forwarded: str) -> bool:
    """Whether every hop that proxies name is on this machine; so it is where they name none."""
    return all(is_loopback(hop) for hop in hops(forwarded))


def is_loopback_host(host: str) -> bool:
    """Whether a host name, with or without a port, can only mean this machine."""
    name = without_port(host).rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761 §6.3
        return True
    address = read_address(name)
    return address is not None and address.is_loopback


def is_loopback_origin(origin: str) -> bool:
    """Whether an Origin header names a page served from this machine."""
    try:
        parts = urlsplit(origin)
        host = parts.hostname
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and host is not None and is_loopback_host(host)
