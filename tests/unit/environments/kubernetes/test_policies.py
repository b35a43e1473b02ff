"""The walls of environments on a cluster, asked as a plugin asks them."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from steward_server.environments.environment import NetworkPolicy
from steward_server.environments.kubernetes.policies import Surroundings, policies
from tests.unit.environments.kubernetes import schema

CLUSTER = tuple(map(ip_network, ("11.200.0.0/16", "8.8.0.0/24", "10.96.0.0/12", "fd12::/64")))
AROUND = Surroundings(CLUSTER, "steward-system")


def made(network: NetworkPolicy, around: Surroundings = AROUND) -> list[dict[str, Any]]:
    found = list(policies({"x": "y"}, network, around))
    assert [schema.faults(each) for each in found] == [[] for _ in found]
    return found


def rules(network: NetworkPolicy, side: str) -> list[dict[str, Any]]:
    return [rule for each in made(network) for rule in each["spec"].get(side, ())]


def reaches(network: NetworkPolicy, address: str) -> bool:
    """Whether any rule lets it reach an address, at any port."""
    wanted = ip_address(address)
    for rule in rules(network, "egress"):
        for peer in rule["to"]:
            block = peer.get("ipBlock")
            if block is None or wanted not in ip_network(block["cidr"]):
                continue
            if not any(wanted in ip_network(each) for each in block.get("except", ())):
                return True
    return False


PUBLIC = ["93.184.216.34", "1.1.1.1", "2606:4700::1111"]
PRIVATE = ["10.1.2.3", "172.20.0.1", "192.168.1.1", "100.64.0.1", "fd00::1"]
METADATA = ["169.254.169.254", "169.254.170.2", "fe80::1", "fd00:ec2::254", "100.100.100.200"]
LOCAL = ["127.0.0.1", "::1", "0.0.0.0", "224.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a9fe:a9fe"]
OURS = ["11.200.7.7", "8.8.0.9", "fd12::5"]


def test_everything_is_closed_at_first() -> None:
    (only,) = made(NetworkPolicy())
    assert only["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


@pytest.mark.parametrize("address", PUBLIC)
def test_the_internet_is_what_is_public(address: str) -> None:
    assert reaches(NetworkPolicy(allow_internet=True), address)


@pytest.mark.parametrize("address", PRIVATE + METADATA + LOCAL + OURS)
def test_the_internet_is_neither_private_nor_the_clusters(address: str) -> None:
    assert not reaches(NetworkPolicy(allow_internet=True), address)


@pytest.mark.parametrize("address", ["8.8.0.9", "11.200.7.7"])
def test_the_internet_is_no_way_around_the_cluster_even_where_that_is_open(address: str) -> None:
    network = NetworkPolicy(allow_internet=True, allow_cluster_internal=True)
    assert not reaches(network, address)


def test_a_range_that_was_asked_for_is_open_private_or_not() -> None:
    network = NetworkPolicy(allowed_egress=(ip_network("10.0.0.0/8"), ip_network("2001:4860::/32")))
    assert reaches(network, "10.1.2.3")
    assert reaches(network, "2001:4860::8888")
    assert not reaches(network, "10.97.0.1")  # of the cluster, which was not asked for
    assert not reaches(network, "192.168.1.1")


@pytest.mark.parametrize("address", METADATA)
def test_all_of_the_addresses_do_not_hold_those_where_secrets_are(address: str) -> None:
    network = NetworkPolicy(allowed_egress=(ip_network("0.0.0.0/0"), ip_network("::/0")))
    assert not reaches(network, address)
    assert reaches(network, "192.168.1.1")


def test_who_asks_for_a_closed_range_itself_gets_it() -> None:
    network = NetworkPolicy(
        allowed_egress=(ip_network("169.254.169.254/32"), ip_network("10.97.0.0/24"))
    )
    assert reaches(network, "169.254.169.254")
    assert reaches(network, "10.97.0.1")


def test_names_are_asked_for_in_kube_system_and_only_by_who_has_a_way_out() -> None:
    dns = {
        "to": [
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}
        ],
        "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}],
    }
    assert dns in rules(NetworkPolicy(allow_internet=True), "egress")
    assert dns in rules(NetworkPolicy(allowed_egress=(ip_network("10.0.0.0/8"),)), "egress")
    assert rules(NetworkPolicy(allowed_ingress_ports=(80,)), "egress") == []


def test_the_rest_of_the_cluster_is_open_only_where_that_was_asked_for() -> None:
    everybody: list[dict[str, Any]] = [{"namespaceSelector": {}}]
    network = NetworkPolicy(allow_cluster_internal=True, allowed_ingress_ports=(80,))
    assert {"to": everybody} in rules(network, "egress")
    ports = [{"protocol": "TCP", "port": 80}]
    assert rules(network, "ingress") == [{"from": everybody, "ports": ports}]


def test_ports_are_open_to_the_gateway_and_to_nobody_else() -> None:
    network = NetworkPolicy(allowed_ingress_ports=(80, 443))
    (rule,) = rules(network, "ingress")
    labels = {"kubernetes.io/metadata.name": "steward-system"}
    assert rule["from"] == [{"namespaceSelector": {"matchLabels": labels}}]
    assert [each["port"] for each in rule["ports"]] == [80, 443]
    outside = made(network, Surroundings())
    assert [each["metadata"]["name"] for each in outside] == ["deny-all"]


def test_what_is_left_out_lies_within_its_range_and_overlaps_nothing() -> None:
    for each in made(NetworkPolicy(allow_internet=True, allowed_egress=CLUSTER)):
        for rule in each["spec"].get("egress", ()):
            for block in (peer["ipBlock"] for peer in rule["to"] if "ipBlock" in peer):
                outer = ip_network(block["cidr"])
                inner = [ip_network(one) for one in block.get("except", ())]
                assert all(one.subnet_of(outer) and one != outer for one in inner)  # type: ignore[arg-type]
                assert not any(
                    one.overlaps(other) for one in inner for other in inner if one != other
                )
