"""What the rules of machines' networks say, without a kernel."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, ip_network
from pathlib import Path

import pytest

from steward_server.environments.driver import Unusable
from steward_server.environments.environment import NetworkPolicy
from steward_server.environments.sandbox import net_links, net_pool, net_probe, net_rules
from steward_server.environments.sandbox.net_ways import Way, needed_for

DNS = (IPv4Address("10.0.0.53"),)
AT = IPv4Address("10.213.0.2")


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.100.100.200",
        "127.0.0.1",
        "168.63.129.16",
        "169.254.169.254",
        "172.31.255.255",
        "192.168.0.1",
        "224.0.0.1",
        "255.255.255.255",
    ],
)
def test_addresses_that_are_not_the_internet(address: str) -> None:
    assert net_rules.is_closed(IPv4Network(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "172.32.0.1", "100.128.0.1", "169.255.0.1"])
def test_addresses_of_the_internet(address: str) -> None:
    assert not net_rules.is_closed(IPv4Network(address))


def test_a_machine_without_rights_stands_in_the_sets_with_its_address_alone() -> None:
    found = net_rules.elements("steward-a", AT, NetworkPolicy(), DNS)
    assert {each.group for each in found} == {net_rules.SOURCES, net_rules.ADDRESSES}
    assert not net_rules.reach(found)


def test_what_a_machine_reaches_can_be_read_back_from_the_sets() -> None:
    policy = NetworkPolicy(
        allow_internet=True,
        allowed_egress=tuple(map(ip_network, ("10.9.0.0/25", "10.9.0.128/25", "192.0.2.7/32"))),
    )
    found = net_rules.elements("steward-a", AT, policy, DNS)
    reach = net_rules.reach(found)
    assert reach.internet
    assert set(reach.networks) == set(map(IPv4Network, ("10.9.0.0/24", "192.0.2.7", "10.0.0.53")))
    assert net_rules.names_asked(found) == DNS
    others = net_rules.elements("steward-b", AT, policy, DNS)
    addresses = {each for each in found if each.group == net_rules.ADDRESSES}
    assert net_rules.of_interface(found | others, "steward-a") == found - addresses


def test_ranges_in_a_set_do_not_overlap() -> None:
    policy = NetworkPolicy(allowed_egress=(ip_network("10.0.0.0/8"), ip_network("10.1.0.0/16")))
    assert net_rules.networks(policy) == [IPv4Network("10.0.0.0/8")]


def test_names_are_asked_of_whom_the_policy_allows() -> None:
    assert net_rules.reachable_names(NetworkPolicy(allow_internet=True), DNS) == DNS
    listed = NetworkPolicy(allowed_egress=(ip_network("10.0.0.0/24"),))
    assert net_rules.reachable_names(listed, DNS) == DNS
    assert net_rules.reachable_names(NetworkPolicy(), DNS) == ()


def way(network: str, interface: str) -> Way:
    return Way(IPv4Network(network), interface, 1500)


WAYS = (
    way("0.0.0.0/0", "eth0"),
    way("192.0.2.0/24", "eth0"),
    way("10.0.0.0/8", "vpn"),
    way("10.9.0.0/24", "office"),
    way("127.0.0.0/8", "lo"),
)


@pytest.mark.parametrize(
    ("listed", "internet", "opened"),
    [
        ((), True, {"eth0"}),
        (("10.9.0.2/32",), False, {"office"}),
        (("10.1.0.0/16",), False, {"vpn"}),
        (("10.0.0.0/8",), False, {"vpn", "office"}),
        (("8.8.8.8/32",), False, {"eth0"}),
        (("0.0.0.0/0",), False, {"eth0", "vpn", "office"}),
        (("10.9.0.2/32",), True, {"eth0", "office"}),
        ((), False, set()),
    ],
)
def test_only_ways_that_packets_take_are_opened(
    listed: tuple[str, ...],
    internet: bool,  # noqa: FBT001
    opened: set[str],
) -> None:
    reach = net_rules.Reach(tuple(map(IPv4Network, listed)), internet)
    assert {each.interface for each in needed_for(reach, WAYS)} == opened


def test_addresses_are_given_in_turn() -> None:
    pool = net_pool.Pool(IPv4Network("192.168.7.0/29"))
    given = [pool.take(()) for _ in range(5)]
    assert len(set(given)) == 5
    assert pool.take(()) == given[0]
    assert pool.take(given[:3]) not in given[:3]
    with pytest.raises(Unusable, match="all 5 addresses"):
        pool.take(given)


def test_a_pool_too_small_is_refused() -> None:
    with pytest.raises(Unusable, match="too small"):
        net_pool.choose((), IPv4Network("192.168.7.0/30"))


def test_the_hosts_way_to_everywhere_takes_no_addresses() -> None:
    assert net_pool.choose([IPv4Network("0.0.0.0/0")]).network == net_pool.POOLS[0]


def test_servers_of_names_that_only_the_host_reaches_are_left_out(tmp_path: Path) -> None:
    stub, real = tmp_path / "stub", tmp_path / "real"
    stub.write_text("# made by hand\nnameserver 127.0.0.53\nnameserver ::1\noptions edns0\n")
    real.write_text("nameserver 10.0.0.2\nnameserver 169.254.169.254\nnameserver\n")
    assert net_links.nameservers(stub, tmp_path / "none") == ()
    assert net_links.nameservers(stub, real) == (IPv4Address("10.0.0.2"),)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (1, "lets this server change no network"),
        (2, "modprobe -a veth nf_tables"),
        (93, "modprobe nf_tables"),
        (95, "it takes Linux 5.6"),
        (12, "cannot be used"),
    ],
)
def test_a_refusal_of_the_kernel_is_explained(code: int, told: str) -> None:
    assert told in net_probe.why(OSError(code, "what the kernel says"))
