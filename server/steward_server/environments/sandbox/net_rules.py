"""What machines may reach, as rules of the packet filter. Pure.

All rules stand in one table of this server and speak only of the interfaces of its machines, which
are told by their group: an interface has it from its first moment, so nothing passes before what
is allowed stands in the sets. Nothing that comes from elsewhere or is the host's own is decided.

    forward   from a machine: what it may reach, packet by packet, so that a change cuts what it
              closes; everything else is refused at once;
              to a machine: answers only
    input     from a machine to this host: answers only
    output    from this host to a machine: answers only; allowed ports are reached from inside it
    leave     machines go out under the host's address
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, collapse_addresses, summarize_address_range
from typing import Any

from pyroute2.netlink.nfnetlink.nftsocket import Meta

from steward_server.environments.environment import NetworkPolicy
from steward_server.environments.sandbox import net_expressions as step
from steward_server.environments.sandbox import net_nft as nft
from steward_server.environments.sandbox.net_nft import Element, Message, name_key

METADATA = tuple(map(IPv4Network, ("169.254.0.0/16", "100.100.100.200/32", "168.63.129.16/32")))
"""Where clouds tell a machine who it is, and speak to what runs on it."""

CLOSED = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # shared by providers; some clouds' metadata
            "127.0.0.0/8",  # loopback
            "168.63.129.16/32",  # a cloud's metadata, under a public address
            "169.254.0.0/16",  # link-local, and most clouds' metadata
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # for protocols
            "192.168.0.0/16",  # private
            "198.18.0.0/15",  # for measurements within a network
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and broadcast
        ),
    )
)
"""What the internet is not. Reachable only where it is listed itself."""

PREFIX = "steward-"
"""Of the names of machines' interfaces, whichever server's."""

_IPV4, _TCP, _UDP = b"\x02", b"\x06", b"\x11"
_SOURCE, _DESTINATION = 12, 16
_ESTABLISHED, _RELATED, _NEW = 2, 4, 8
_DNS = struct.pack(">H", 53)
_SOURCE_NAT = 100
"""When the kernel expects addresses to be changed on the way out."""

SOURCES, EGRESS, NAMES, INTERNET, ADDRESSES, OPENED = (
    "sources",
    "egress",
    "names",
    "internet",
    "addresses",
    "opened",
)
_SETS = {
    SOURCES: (nft.NAME_BYTES, 4),
    EGRESS: (nft.NAME_BYTES, 4),
    NAMES: (nft.NAME_BYTES, 4),
    INTERNET: (nft.NAME_BYTES,),
    ADDRESSES: (4,),
    OPENED: (nft.NAME_BYTES,),
}
"""The keys of each set: the interface of a machine and an address.

`opened` holds the interfaces of the host that forward only since this server wants them to: what
comes in there for others than machines is dropped, as it was before.
"""
SETS = tuple(_SETS)


@dataclass(frozen=True, slots=True)
class Reach:
    """Where a machine may go; false if nowhere."""

    networks: tuple[IPv4Network, ...]
    internet: bool

    def __bool__(self) -> bool:
        return bool(self.networks or self.internet)


def elements(
    interface: str, address: IPv4Address, policy: NetworkPolicy, nameservers: Sequence[IPv4Address]
) -> frozenset[Element]:
    """What stands in the sets for one machine."""
    name = name_key(interface)
    found = {Element(SOURCES, name + address.packed), Element(ADDRESSES, address.packed)}
    for network in networks(policy):
        first, last = network.network_address.packed, network.broadcast_address.packed
        found.add(Element(EGRESS, name + first, name + last))
    if policy.allow_internet:
        found.add(Element(INTERNET, name))
        found |= {Element(NAMES, name + server.packed) for server in nameservers}
    return frozenset(found)


def of_interface(elements: Iterable[Element], interface: str) -> frozenset[Element]:
    """What stands in the sets for one interface, its address alone left out."""
    name = name_key(interface)
    return frozenset(
        each for each in elements if each.group != OPENED and each.key.startswith(name)
    )


def names_asked(elements: Iterable[Element]) -> tuple[IPv4Address, ...]:
    """The servers of names that may be asked by what stands in the sets for a machine."""
    return tuple(
        sorted(IPv4Address(each.key[nft.NAME_BYTES :]) for each in elements if each.group == NAMES)
    )


def reach(elements: Iterable[Element]) -> Reach:
    """Where a machine may go by what stands in the sets for it."""
    found: list[IPv4Network] = []
    internet = False
    for each in elements:
        first, last = each.key[nft.NAME_BYTES :], (each.end or each.key)[nft.NAME_BYTES :]
        if each.group in (EGRESS, NAMES):
            found += summarize_address_range(IPv4Address(first), IPv4Address(last))
        internet = internet or each.group == INTERNET
    return Reach(tuple(found), internet)


def networks(policy: NetworkPolicy) -> list[IPv4Network]:
    """What is listed, without doublings: ranges in a set may not overlap.

    A range does not open where clouds tell a machine its secrets; that is listed by itself.
    """
    listed = [each for each in policy.allowed_egress if isinstance(each, IPv4Network)]
    for closed in METADATA:
        listed = [
            part
            for each in listed
            for part in (
                each.address_exclude(closed)
                if closed != each and closed.subnet_of(each)
                else (each,)
            )
        ]
    return list(collapse_addresses(listed))


def reachable_names(
    policy: NetworkPolicy, nameservers: Sequence[IPv4Address]
) -> tuple[IPv4Address, ...]:
    """The servers of names that a machine may ask."""
    if policy.allow_internet:
        return tuple(nameservers)
    listed = networks(policy)
    return tuple(each for each in nameservers if any(each in network for network in listed))


def is_closed(network: IPv4Network) -> bool:
    """Whether all of a network is what the internet is not."""
    return any(network.subnet_of(each) for each in CLOSED)


def table(
    name: str, group: int, most_connections: int, elements: Iterable[Element]
) -> list[Message]:
    """Everything: the sets, the chains and their rules, and what stands in the sets.

    `group` is that of the machines' interfaces.
    A machine has no more than so many connections at once: the host's memory of them is finite.
    """
    from_ours = (step.load(Meta.NFT_META_IIFGROUP), step.compare(struct.pack("=I", group)))
    to_ours = (step.load(Meta.NFT_META_OIFGROUP), step.compare(struct.pack("=I", group)))
    to_others = (
        step.load(Meta.NFT_META_OIFGROUP),
        step.compare(struct.pack("=I", group), equal=False),
    )
    from_name = step.load(Meta.NFT_META_IIFNAME)
    is_tcp = (step.load(Meta.NFT_META_L4PROTO), step.compare(_TCP))
    is_other = (step.load(Meta.NFT_META_NFPROTO), step.compare(_IPV4, equal=False))
    answers = step.connection_states(_ESTABLISHED, _RELATED)
    accept, drop = step.verdict(step.ACCEPT), step.verdict(step.DROP)
    refuse = ((*is_tcp, step.reset()), (step.prohibit(),))
    destination = step.load_network(_DESTINATION, 4)
    destination_2 = step.load_network(_DESTINATION, 4, register=2)
    honest = (
        # IPv6 is closed: to forward it the host would have to give up listening to its routers.
        (*is_other, drop),
        (
            from_name,
            step.load_network(_SOURCE, 4, register=2),
            step.look_up(SOURCES, found=False),
            drop,
        ),
        (*step.is_answer(), *answers, accept),
    )
    rules = {
        "refuse": refuse,
        "from_machine": (
            *honest,
            *((*to_ours, *each) for each in refuse),  # neighbours, even where they are listed
            (
                *step.connection_states(_NEW),
                from_name,
                step.connections_over("connections", most_connections),
                step.verdict(step.GOTO, "refuse"),
            ),
            (from_name, destination_2, step.look_up(EGRESS), accept),
            *(
                (
                    step.load(Meta.NFT_META_L4PROTO),
                    step.compare(protocol),
                    step.load_transport(2, 2),
                    step.compare(_DNS),
                    from_name,
                    destination_2,
                    step.look_up(NAMES),
                    accept,
                )
                for protocol in (_UDP, _TCP)
            ),
            (
                destination,
                step.look_up("closed", found=False),
                from_name,
                step.look_up(INTERNET),
                accept,
            ),
            *refuse,
        ),
        "to_machine": ((*is_other, drop), (*answers, accept), (drop,)),
        "to_host": (*honest, *refuse),
        "from_host": (
            (*is_other, drop),
            (*answers, accept),
            *refuse,
        ),
        "forward": (
            (*from_ours, step.verdict(step.GOTO, "from_machine")),
            (*to_ours, step.verdict(step.GOTO, "to_machine")),
            (
                from_name,
                step.look_up(OPENED),
                step.load(Meta.NFT_META_OIFNAME),
                step.compare(PREFIX.encode(), equal=False),  # another server's machines
                drop,
            ),
        ),
        "input": ((*from_ours, step.verdict(step.GOTO, "to_host")),),
        "output": ((*to_ours, step.verdict(step.GOTO, "from_host")),),
        "leave": (
            (
                step.load_network(_SOURCE, 4),
                step.look_up(ADDRESSES),
                *to_others,
                step.masquerade(),
            ),
        ),
    }
    return [
        *(
            nft.add_set(name, each, number, lengths, intervals=each == EGRESS)
            for number, (each, lengths) in enumerate(_SETS.items(), 1)
        ),
        nft.add_set(name, "closed", len(_SETS) + 1, (4,), intervals=True),
        nft.add_ranges(name, "closed", map(_range, CLOSED)),
        nft.add_set(name, "connections", len(_SETS) + 2, (nft.NAME_BYTES,), learns=True),
        *(nft.add_chain(name, chain) for chain in rules if chain not in _SEATS),
        *(nft.add_chain(name, chain, **seat) for chain, seat in _SEATS.items()),
        *(nft.add_rule(name, chain, *rule) for chain, all_ in rules.items() for rule in all_),
        *nft.change_elements(name, elements),
    ]


_SEATS: dict[str, Any] = {
    "forward": {"hook": "forward"},
    "input": {"hook": "input"},
    "output": {"hook": "output"},
    "leave": {"hook": "postrouting", "kind": "nat", "priority": _SOURCE_NAT},
}


def _range(network: IPv4Network) -> tuple[bytes, bytes]:
    behind = int(network.broadcast_address) + 1
    return network.network_address.packed, b"" if behind > 2**32 - 1 else behind.to_bytes(4)
