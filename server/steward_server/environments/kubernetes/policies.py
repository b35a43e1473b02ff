"""Whom an environment may reach and be reached by, as network policies. Pure.

Policies only ever add: the first closes everything, the others open what was asked for. What they
are worth is up to the cluster's network plugin, which offer.py tells of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from typing import Any

from steward_server.environments.environment import NetworkPolicy

Network = IPv4Network | IPv6Network
Object = dict[str, Any]

_NAME = "kubernetes.io/metadata.name"
"""The label that every namespace carries since Kubernetes 1.21, with its own name."""
_DNS_PORT = 53

METADATA = tuple(
    map(ip_network, ("169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128", "100.100.100.200/32"))
)
"""Where clouds tell a machine who it is, secrets and all: link-local, and two that are not."""
NOT_PUBLIC = (
    *map(
        ip_network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
            "168.63.129.16/32",  # a cloud's host, at an address that looks public
            "::/127",
            "::ffff:0:0/96",  # version 4 in disguise, as are the next three
            "64:ff9b::/96",
            "64:ff9b:1::/48",
            "2002::/16",
            "2001:db8::/32",
            "fc00::/7",
            "fec0::/10",
            "ff00::/8",
        ),
    ),
    *METADATA,
)
"""What the internet is not."""
_EVERYTHING: tuple[Network, ...] = (ip_network("0.0.0.0/0"), ip_network("::/0"))


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an environment finds around it on its cluster."""

    ranges: tuple[Network, ...] = ()
    """Addresses of the cluster's pods, services, nodes and API."""
    server_namespace: str = ""
    """Where this server runs, if that is in the cluster."""


def policies(
    labels: Mapping[str, str], network: NetworkPolicy, around: Surroundings
) -> Sequence[Object]:
    """Every policy of an environment's namespace."""
    made = [_policy("deny-all", labels, ingress=(), egress=())]
    closed = () if network.allow_cluster_internal else around.ranges
    opened: list[Object] = []
    if network.allow_internet:
        public = [_block(each, (*NOT_PUBLIC, *around.ranges)) for each in _EVERYTHING]
        made.append(_policy("allow-internet", labels, egress=[{"to": public}]))
    opened += [_block(each, (*METADATA, *closed)) for each in network.allowed_egress]
    if opened:
        made.append(_policy("allow-egress", labels, egress=[{"to": opened}]))
    if network.allow_cluster_internal:
        inside: list[Object] = [{"namespaceSelector": {}}]
        made.append(_policy("allow-cluster", labels, egress=[{"to": inside}]))
    if has_way_out(network):
        # Without a way out there are no names either: a resolver passes questions on to anywhere.
        made.append(_policy("allow-dns", labels, egress=[_dns()]))
    if network.allowed_ingress_ports and (sources := _sources(network, around)):
        ports = [{"protocol": "TCP", "port": port} for port in network.allowed_ingress_ports]
        made.append(_policy("allow-ingress", labels, ingress=[{"from": sources, "ports": ports}]))
    return made


def has_way_out(network: NetworkPolicy) -> bool:
    """Whether an environment may reach anything at all."""
    return bool(network.allow_internet or network.allowed_egress or network.allow_cluster_internal)


def _policy(
    name: str,
    labels: Mapping[str, str],
    *,
    ingress: Sequence[Object] | None = None,
    egress: Sequence[Object] | None = None,
) -> Object:
    spec: Object = {"podSelector": {}, "policyTypes": []}
    for kind, rules in (("Ingress", ingress), ("Egress", egress)):
        if rules is not None:
            spec["policyTypes"].append(kind)
            if rules:
                spec[kind.lower()] = list(rules)
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "labels": dict(labels)},
        "spec": spec,
    }


def _dns() -> Object:
    return {
        "to": [{"namespaceSelector": {"matchLabels": {_NAME: "kube-system"}}}],
        "ports": [{"protocol": each, "port": _DNS_PORT} for each in ("UDP", "TCP")],
    }


def _sources(network: NetworkPolicy, around: Surroundings) -> list[Object]:
    """Who may come in: the gateway's own pods, or all of the cluster's where that was asked for.

    A gateway outside comes by way of the API, which goes past network policies.
    """
    if network.allow_cluster_internal:
        return [{"namespaceSelector": {}}]
    if around.server_namespace:
        return [{"namespaceSelector": {"matchLabels": {_NAME: around.server_namespace}}}]
    return []


def _block(cidr: Network, closed: Iterable[Network]) -> Object:
    """A range but for what is closed in it; who asks for a closed range itself gets it."""
    within = [each for each in closed if _is_within(each, cidr) and each != cidr]
    block: Object = {"cidr": str(cidr)}
    if within:
        block["except"] = [str(each) for each in _collapsed(within)]
    return {"ipBlock": block}


def _is_within(inner: Network, outer: Network) -> bool:
    if isinstance(inner, IPv4Network):
        return isinstance(outer, IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, IPv6Network) and inner.subnet_of(outer)


def _collapsed(networks: Iterable[Network]) -> list[Network]:
    """The same addresses in as few ranges as that takes: two that overlap confuse plugins."""
    listed = list(networks)
    four = [each for each in listed if isinstance(each, IPv4Network)]
    six = [each for each in listed if isinstance(each, IPv6Network)]
    return [*collapse_addresses(four), *collapse_addresses(six)]
