"""The addresses of machines. Pure."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable
from ipaddress import IPv4Address, IPv4Network

from steward_server.environments.driver import Unusable

POOLS = tuple(
    map(
        IPv4Network,
        (
            "10.213.0.0/16",
            "172.27.0.0/16",
            "10.86.0.0/16",
            "10.149.0.0/16",
            "192.168.224.0/20",
            "198.18.0.0/16",
        ),
    )
)
"""Where machines may have their addresses: the first that meets none of the host's routes."""

_LEAST = 8
"""Of addresses in a pool: three are for the network, the gateway and broadcast."""


class Pool:
    """Addresses of one range, given out in turn: none comes again soon."""

    def __init__(self, network: IPv4Network) -> None:
        self.network = network
        self._last = random.randrange(network.num_addresses)  # noqa: S311 - no secret

    @property
    def gateway(self) -> IPv4Address:
        """The host, for every machine."""
        return self.network.network_address + 1

    def take(self, used: Collection[IPv4Address]) -> IPv4Address:
        """An address that is not in use.

        Raises:
            Unusable: reason NO_ADDRESSES.
        """
        usable = self.network.num_addresses - 3
        for _ in range(usable):
            self._last = (self._last + 1) % usable
            address = self.network.network_address + 2 + self._last
            if address not in used:
                return address
        raise Unusable("NO_ADDRESSES", f"all {usable} addresses of {self.network} are in use")


def choose(taken: Iterable[IPv4Network], wanted: IPv4Network | None = None) -> Pool:
    """A range that the host reaches nowhere else.

    Raises:
        Unusable: reason NO_ADDRESSES; there is none, or the wanted one is taken or too small.
    """
    if wanted is not None and wanted.num_addresses < _LEAST:
        raise Unusable("NO_ADDRESSES", f"{wanted} is too small for addresses of machines")
    met = None
    routes = [each for each in taken if each.prefixlen]
    for network in POOLS if wanted is None else (wanted,):
        met = next((each for each in routes if each.overlaps(network)), None)
        if met is None:
            return Pool(network)
    raise Unusable(
        "NO_ADDRESSES",
        f"addresses for machines would meet routes of this host, such as {met}; name a range that "
        "is free",
    )
