"""The ways out of the host: where machines' packets leave it, and answers come back.

There the host must pass on what comes in. It does so for machines alone: whatever else comes in
at an interface that was opened for them is dropped, as it was before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Network

from steward_server.environments.sandbox import net_links, net_rules
from steward_server.environments.sandbox.net_links import Links
from steward_server.environments.sandbox.net_nft import Element, Filter, Refused, name_key

_USUAL_MTU = 1_500
_KNOWN_S = 5
"""How long the host's routes are taken to stay as they are: with many machines they are many."""


@dataclass(frozen=True, slots=True)
class Way:
    """Where packets for a network leave."""

    network: IPv4Network
    interface: str
    mtu: int


class Ways:
    """The interfaces that one server has opened."""

    def __init__(
        self,
        packets: Filter,
        links: Links,
        label: str,
        group: int,
        apply: Callable[[Iterable[Element], Iterable[Element]], None],
    ) -> None:
        self._packets = packets
        self._links = links
        self._label = label
        self._group = group
        self._apply = apply
        self._known: list[Way] = []
        self._known_at_s = float("-inf")
        self.opened: set[str] = set()

    @property
    def elements(self) -> set[Element]:
        """What stands in the rules for them."""
        return _elements(self.opened)

    def open(self, reach: net_rules.Reach) -> int:
        """Open those that lead to something; the greatest packet that fits through all of them.

        Raises:
            OSError: the settings of this host cannot be changed.
        """
        needed = needed_for(reach, self._ways())
        mtu = min((way.mtu for way in needed), default=_USUAL_MTU)
        if net_links.forwards():
            return mtu
        others = self._opened_by_others()
        opened = {
            name
            for name in {way.interface for way in needed} - self.opened
            if name in others or not net_links.forwards(name)
        }
        if opened:
            self.opened |= opened
            # First what is for others is kept out there, then the door is opened.
            self._apply(_elements(opened), ())
            for name in opened:
                net_links.set_forwarding(name, on=True)
        return mtu

    def close(self) -> set[Element]:
        """Leave the host as it was before, but for what other servers need.

        Returns what may go from the rules now.
        """
        opened, self.opened = self.opened, set()
        if not opened:
            return set()
        # Whoever has made the host a router meanwhile wants it to stay one.
        if not net_links.forwards():
            for name in opened - self._opened_by_others():
                with suppress(OSError):  # the interface is gone
                    net_links.set_forwarding(name, on=False)
        return _elements(opened)

    def let_go(self) -> bool:
        """Drop nothing more for others once somebody else has made the host a router."""
        if not self.opened or not net_links.forwards():
            return False
        opened, self.opened = self.opened, set()
        self._apply((), _elements(opened))
        return True

    def _ways(self) -> list[Way]:
        now_s = time.monotonic()
        if now_s - self._known_at_s > _KNOWN_S:
            ours = {link.index for link in self._links.of_group(self._group)}
            names = self._links.names()
            self._known = [
                Way(route.network, *names[route.interface])
                for route in self._links.routes()
                if route.is_way and route.interface not in ours and route.interface in names
            ]
            self._known_at_s = now_s
        return self._known

    def _opened_by_others(self) -> set[str]:
        """The interfaces that other servers on this host have opened and still need."""
        found: set[str] = set()
        for table in self._packets.tables() - {self._label}:
            if table.startswith(net_rules.PREFIX):
                with suppress(Refused):  # it has just gone
                    elements = self._packets.elements(table, net_rules.OPENED)
                    found |= names_in(elements)
        return found


def needed_for(reach: net_rules.Reach, ways: Iterable[Way]) -> set[Way]:
    """The ways that packets may take to what is reached."""
    out = [way for way in ways if way.interface != "lo"]
    needed = {way for network in reach.networks for way in _ways_to(network, out)}
    if reach.internet:
        needed |= {way for way in out if not net_rules.is_closed(way.network)}
    return needed


def names_in(elements: Iterable[Element]) -> set[str]:
    """The interfaces that elements of the set `opened` name."""
    return {each.key.rstrip(b"\0").decode() for each in elements if each.group == net_rules.OPENED}


def _ways_to(network: IPv4Network, ways: Iterable[Way]) -> list[Way]:
    """Those to some address of a network: of what leads to all of it the narrowest wins."""
    met = [way for way in ways if way.network.overlaps(network)]
    whole = [way.network.prefixlen for way in met if network.subnet_of(way.network)]
    narrowest = max(whole, default=0)
    return [way for way in met if way.network.prefixlen >= narrowest]


def _elements(names: Iterable[str]) -> set[Element]:
    return {Element(net_rules.OPENED, name_key(name)) for name in names}
