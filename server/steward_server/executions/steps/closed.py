"""Addresses that steps may not reach, whichever way they go: where clouds tell their secrets.

Pure. Whoever connects asks for the address that is really connected to.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

_CLOSED = tuple(
    map(
        ip_network,
        (
            "169.254.0.0/16",  # link-local; the metadata of most clouds
            "fe80::/10",  # the same, and OpenStack's
            "fd00:ec2::/32",  # Amazon's
            "fd20:ce::/32",  # Google's
            "100.100.100.200/32",  # Alibaba's
            "192.0.0.192/32",  # Oracle's
            "168.63.129.16/32",  # Azure's
        ),
    )
)
_NAT64 = ip_network("64:ff9b::/96")
_COMPATIBLE = ip_network("::/96")


def is_closed(address: IPv4Address | IPv6Address) -> bool:
    """Whether it is closed, also where it is an address of IPv4 in one of IPv6."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and (address in _NAT64 or address in _COMPATIBLE):
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None and is_closed(inner):
            return True
    return any(address in network for network in _CLOSED)
