"""Where calls come from."""

from __future__ import annotations

import pytest

from steward_server.peers import (
    is_loopback,
    is_loopback_host,
    is_loopback_origin,
    network_of,
)


@pytest.mark.parametrize(
    ("peer", "network"),
    [
        ("ipv4:10.1.2.3:4444", "10.1.2.3"),
        ("10.1.2.3", "10.1.2.3"),
        ("10.1.2.3:80", "10.1.2.3"),
        ("ipv6:[2001:db8:1:2:3:4:5:6]:4444", "2001:db8:1:2::/64"),
        ("ipv6:%5B2001:db8:1:2::9%5D:4444", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::7", "2001:db8:1:2::/64"),
        ("ipv6:[::ffff:10.1.2.3]:4444", "10.1.2.3"),
        ("unix:/run/steward.sock", "unix"),
        ("in-process", "in-process"),
    ],
)
def test_a_peer_is_counted_by_its_address_or_its_v6_network(peer: str, network: str) -> None:
    assert network_of(peer) == network


@pytest.mark.parametrize(
    "peer",
    [
        "ipv4:127.0.0.1:1",
        "ipv4:127.9.9.9:1",
        "ipv6:[::1]:1",
        "ipv6:[::ffff:127.0.0.1]:1",
        "127.0.0.1",
    ],
)
def test_this_machine_is_known(peer: str) -> None:
    assert is_loopback(peer)


@pytest.mark.parametrize(
    "peer", ["ipv4:10.0.0.1:1", "ipv6:[2001:db8::1]:1", "unix:", "in-process", "", "localhost:1"]
)
def test_other_machines_and_unknown_peers_are_not_this_one(peer: str) -> None:
    assert not is_loopback(peer)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8080",
        "localhost.",
        "a.localhost:1",
        "127.0.0.1:80",
        "[::1]",
        "[::1]:8",
    ],
)
def test_hosts_that_can_only_mean_this_machine(host: str) -> None:
    assert is_loopback_host(host)


@pytest.mark.parametrize(
    "host",
    ["", "example.com", "localhost.example.com", "127.0.0.1.example.com", "10.0.0.1:80", "0.0.0.0"],
)
def test_hosts_that_can_mean_another(host: str) -> None:
    assert not is_loopback_host(host)


@pytest.mark.parametrize("origin", ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:1"])
def test_pages_of_this_machine(origin: str) -> None:
    assert is_loopback_origin(origin)


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "file://localhost",
        "https://example.com",
        "http://localhost@example.com",
        "http://localhost.example.com",
        "http://[::1",
    ],
)
def test_pages_of_others(origin: str) -> None:
    assert not is_loopback_origin(origin)
