"""Addresses, and who called through proxies: what `X-Forwarded-For` is worth. Pure.

Each proxy adds the address it was called from at the right. What stands left of the first address
that is no proxy of ours was written by that caller, and may be made up.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

FORWARDED_KEY = "x-forwarded-for"
"""The metadata that says it; over HTTP the header of the same name."""

_BRACKETED = re.compile(r"\[([^\]]*)\](?::\d+)?")
_WITH_PORT = re.compile(r"([^:]*):\d+")


def without_port(text: str) -> str:
    """A host without brackets and port."""
    if bracketed := _BRACKETED.fullmatch(text):
        return bracketed[1]
    if with_port := _WITH_PORT.fullmatch(text):
        return with_port[1]
    return text


def read_address(text: str) -> Address | None:
    """The address in ``1.2.3.4``, ``1.2.3.4:5``, ``::1`` or ``[::1]:5``; None if there is none."""
    try:
        address = ipaddress.ip_address(without_port(text))
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxies that are believed; by default none is."""

    networks: tuple[Network, ...] = ()

    def caller_of(self, peer: Address | None, forwarded: str) -> Address | None:
        """Who called the outermost trusted proxy: the right-most hop that is none itself.

        None if the peer is no proxy of ours, or names nobody: then the peer is the caller. Where
        all hops are proxies, the one farthest away is the caller.
        """
        if peer is None or not self._trusts(peer):
            return None
        caller = None
        for hop in hops(forwarded):
            address = read_address(hop)
            if address is None:  # "unknown", say: whoever wrote it is as far as we can see
                break
            caller = address
            if not self._trusts(address):
                break
        return caller

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self.networks)


def hops(forwarded: str) -> Iterator[str]:
    """The items of the header, the nearest first; what is not asked for is not looked at."""
    while forwarded:
        forwarded, _, item = forwarded.rpartition(",")
        if hop := item.strip():
            yield hop


def parse_proxies(text: str) -> Proxies:
    """Read "10.0.0.0/8, 192.0.2.7".

    Raises:
        ValueError: one is no address or network, or it is everybody's.
    """
    networks = []
    for item in filter(None, (item.strip() for item in text.split(","))):
        try:
            network = ipaddress.ip_network(item)
        except ValueError as error:
            raise ValueError(f"{error}; write addresses and networks such as 10.0.0.0/8") from None
        if network.prefixlen == 0:
            raise ValueError(f"{item} would let every caller claim any address; name your proxies")
        networks.append(network)
    return Proxies(tuple(networks))
