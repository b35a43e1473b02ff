"""Whom a machine reaches: whom its policy lists, and nobody else."""

from __future__ import annotations

import asyncio
import errno
import socket
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path

import pytest

from steward_server.environments.driver import Unusable
from steward_server.environments.environment import NetworkPolicy
from steward_server.environments.sandbox.network import Network
from tests.integration.environments.network.conftest import Attach
from tests.integration.environments.network.world import (
    DNS,
    HOST_INSIDE,
    HOST_OUTSIDE,
    INTERNET,
    METADATA,
    OTHER_PRIVATE,
    PATIENCE_S,
    PRIVATE,
    RESOLVER,
    SECRET,
    SHORT_S,
    WEB,
    Space,
    World,
    ask,
    connects,
    gets_nowhere,
    reach,
    refuses,
)

ALL = (INTERNET, PRIVATE, OTHER_PRIVATE, METADATA, HOST_INSIDE, HOST_OUTSIDE)


def listed(*ranges: str, **more: object) -> NetworkPolicy:
    return NetworkPolicy(allowed_egress=tuple(map(ip_network, ranges)), **more)  # type: ignore[arg-type]


async def test_the_world_answers_whoever_may_ask(world: World) -> None:
    """Else the refusals below would prove nothing."""
    for address in ALL:
        assert await connects(world.host, address)
    assert await ask(world.host, RESOLVER) == "answered"
    assert await connects(world.host, "127.0.0.1", SECRET)


@pytest.mark.attack
async def test_a_listed_range_is_reached_and_nothing_else(attach: Attach) -> None:
    machine, at = await attach(listed(f"{INTERNET}/32"))
    assert await connects(machine, INTERNET)
    for address in (*ALL[1:], "203.0.113.9", str(at.gateway), "192.0.2.9"):
        assert await refuses(machine, address), address


async def test_machines_go_out_under_the_hosts_address(attach: Attach) -> None:
    machine, _ = await attach(listed(f"{INTERNET}/32"))
    assert (await reach(machine, INTERNET)).seen_as == HOST_OUTSIDE


@pytest.mark.attack
async def test_the_internet_has_no_private_addresses_and_no_metadata(attach: Attach) -> None:
    machine, at = await attach(NetworkPolicy(allow_internet=True))
    assert await connects(machine, INTERNET)
    assert await connects(machine, "203.0.113.9")
    for address in (PRIVATE, OTHER_PRIVATE, METADATA, HOST_INSIDE, HOST_OUTSIDE, str(at.gateway)):
        assert await refuses(machine, address), address


async def test_private_ranges_and_metadata_are_reached_where_they_are_listed(
    attach: Attach,
) -> None:
    machine, _ = await attach(listed("10.9.0.0/24", f"{METADATA}/32"))
    assert await connects(machine, PRIVATE)
    assert await connects(machine, METADATA)
    assert await refuses(machine, OTHER_PRIVATE)
    assert await refuses(machine, INTERNET)


async def test_ranges_that_overlap_are_all_reached(attach: Attach) -> None:
    machine, _ = await attach(
        listed("10.9.0.0/16", "10.9.0.0/24", f"{PRIVATE}/32", "172.16.0.0/12")
    )
    assert await connects(machine, PRIVATE)
    assert await connects(machine, OTHER_PRIVATE)


@pytest.mark.parametrize("policy", [listed("0.0.0.0/0"), listed("10.0.0.0/8", allow_internet=True)])
@pytest.mark.attack
async def test_the_host_is_never_reached_whatever_is_listed(
    attach: Attach, policy: NetworkPolicy
) -> None:
    machine, at = await attach(policy)
    assert await connects(machine, INTERNET)
    for address in (HOST_INSIDE, HOST_OUTSIDE, str(at.gateway)):
        for port in (WEB, SECRET, DNS):
            assert await refuses(machine, address, port)
        assert await ask(machine, address, patience_s=SHORT_S) != "answered"


@pytest.mark.attack
async def test_a_wide_range_does_not_open_where_clouds_tell_secrets(attach: Attach) -> None:
    wide, _ = await attach(listed("0.0.0.0/0"), "env-1")
    itself, _ = await attach(listed(f"{METADATA}/32"), "env-2")
    assert await connects(wide, INTERNET)
    assert await gets_nowhere(wide, METADATA)
    assert await connects(itself, METADATA)


async def test_the_loopback_of_a_machine_is_its_own(attach: Attach) -> None:
    machine, _ = await attach(listed("0.0.0.0/0"))
    assert (await reach(machine, "127.0.0.1", SECRET)).how == "refused"


@pytest.mark.parametrize("policy", [listed("0.0.0.0/0"), listed("10.0.0.0/8", allow_internet=True)])
@pytest.mark.attack
async def test_neighbours_do_not_see_each_other(
    world: World, attach: Attach, policy: NetworkPolicy
) -> None:
    one, _ = await attach(policy, "env-1")
    other, at = await attach(policy, "env-2")
    world.serve(other, WEB)
    assert await connects(one, INTERNET)
    assert await connects(other, INTERNET)
    assert await refuses(one, str(at.address))


async def test_each_machine_reaches_what_is_listed_for_it(attach: Attach) -> None:
    one, _ = await attach(listed(f"{INTERNET}/32"), "env-1")
    other, _ = await attach(listed(f"{PRIVATE}/32"), "env-2")
    assert await connects(one, INTERNET)
    assert await gets_nowhere(one, PRIVATE)
    assert await connects(other, PRIVATE)
    assert await gets_nowhere(other, INTERNET)


async def test_names_are_asked_of_the_hosts_server_where_the_internet_is_open(
    attach: Attach,
) -> None:
    machine, at = await attach(NetworkPolicy(allow_internet=True))
    assert [str(each) for each in at.nameservers] == [RESOLVER]
    assert await ask(machine, RESOLVER) == "answered"
    assert await connects(machine, RESOLVER, DNS)
    assert await refuses(machine, RESOLVER, WEB)
    assert await ask(machine, PRIVATE, patience_s=SHORT_S) != "answered"


@pytest.mark.attack
async def test_nobody_is_asked_for_names_where_nothing_is_open(attach: Attach) -> None:
    """Else secrets would leave as names."""
    machine, at = await attach(listed("172.16.5.0/24"))
    assert at.nameservers == ()
    for address in (RESOLVER, PRIVATE, INTERNET, METADATA, HOST_INSIDE, str(at.gateway)):
        assert await ask(machine, address, patience_s=SHORT_S) != "answered"
        assert await refuses(machine, address, DNS)


async def test_a_change_acts_on_the_next_connection(network: Network, attach: Attach) -> None:
    machine, _ = await attach(listed(f"{INTERNET}/32"))
    assert await gets_nowhere(machine, PRIVATE)
    await network.change("env-1", listed(f"{PRIVATE}/32"))
    assert await connects(machine, PRIVATE)
    assert await refuses(machine, INTERNET)
    await network.change("env-1", NetworkPolicy(allow_internet=True))
    assert await connects(machine, INTERNET)
    assert await refuses(machine, PRIVATE)
    await network.change("env-1", listed("10.0.0.0/8"))
    await network.change("env-1", listed("10.9.0.0/16", "10.128.0.0/9"))
    assert await connects(machine, PRIVATE)
    assert await refuses(machine, INTERNET)
    await network.change("env-1", NetworkPolicy())
    assert await refuses(machine, PRIVATE)
    assert await refuses(machine, INTERNET)


@pytest.mark.attack
async def test_what_a_change_closes_is_cut(network: Network, attach: Attach) -> None:
    """An agent that is told to stop does not go on over a connection that it has kept."""
    machine, _ = await attach(listed(f"{INTERNET}/32", f"{PRIVATE}/32"))
    loop = asyncio.get_running_loop()
    kept, cut = machine.socket(), machine.socket()
    await loop.sock_connect(kept, (INTERNET, WEB))
    await loop.sock_connect(cut, (PRIVATE, WEB))
    for sock in (kept, cut):
        assert await loop.sock_recv(sock, 64)
    await network.change("env-1", listed(f"{INTERNET}/32"))
    await loop.sock_sendall(kept, b"still here")
    await loop.sock_sendall(cut, b"still here")
    with pytest.raises(ConnectionResetError):
        async with asyncio.timeout(30):
            await loop.sock_recv(cut, 64)
    await loop.sock_sendall(kept, b"and here")
    kept.close()
    cut.close()


@pytest.mark.attack
async def test_a_machine_has_no_more_connections_than_the_host_can_remember(
    world: World, label: str, spaces: list[Space]
) -> None:
    network = Network(label, most_connections=20)
    assert await network.open() == ""
    spaces += [Space(), Space()]
    for number, space in enumerate(spaces):
        await network.attach(f"env-{number}", space.fd, listed(f"{INTERNET}/32"))
    loop = asyncio.get_running_loop()
    held = [spaces[0].socket() for _ in range(20)]
    for sock in held:
        await loop.sock_connect(sock, (INTERNET, WEB))
    for _ in range(10):
        assert await refuses(spaces[0], INTERNET)
    assert await connects(spaces[1], INTERNET)
    assert await connects(world.host, INTERNET)
    for sock in held:
        sock.close()
    assert await connects(spaces[1], INTERNET)
    for number in range(2):
        await network.detach(f"env-{number}")
    await network.aclose()


async def test_a_machine_made_without_a_network_gets_none_later(
    network: Network, spaces: list[Space]
) -> None:
    spaces.append(Space())
    assert await network.attach("env-1", spaces[0].fd, NetworkPolicy()) is None
    assert await network.change("env-1", NetworkPolicy()) is None
    with pytest.raises(Unusable) as told:
        await network.change("env-1", NetworkPolicy(allow_internet=True))
    assert told.value.reason == "NO_NETWORK"


async def test_ipv6_ranges_are_refused_by_name(network: Network, spaces: list[Space]) -> None:
    spaces.append(Space())
    with pytest.raises(Unusable, match="take 2001:db8::/32 out of allowed_egress_cidrs") as told:
        await network.attach("env-1", spaces[0].fd, listed("2001:db8::/32", "10.0.0.0/8"))
    assert told.value.reason == "NO_IPV6"
    assert await network.list_owned() == set()


@pytest.mark.attack
async def test_ipv6_is_closed(world: World, attach: Attach) -> None:
    """A machine that gives itself an address gets nowhere with it; others are not touched."""
    machine, at = await attach(listed("0.0.0.0/0", allow_internet=True))
    settings = Path("/proc/sys/net/ipv6/conf")
    with machine.entered():
        for name in ("all", "default", "eth0"):
            (settings / name / "disable_ipv6").write_text("0")
    (settings / at.interface / "disable_ipv6").write_text("0")
    machine.up("eth0", "fd00::2/64")
    world.host.up(at.interface, "fd00::1/64")
    world.around[0].up("up0", "fd01::2/64")
    world.host.up("uplink", "fd01::1/64")
    sock = world.host.socket(family=socket.AF_INET6)
    sock.bind(("::", 8080))
    sock.listen()
    world.servers.append(sock)
    assert await connects_soon(world.around[0], "fd01::1", 8080)
    client = machine.socket(family=socket.AF_INET6)
    with client, pytest.raises(TimeoutError):
        async with asyncio.timeout(1.5):
            await asyncio.get_running_loop().sock_connect(client, ("fd00::1", 8080))


async def connects_soon(space: Space, address: str, port: int) -> bool:
    """Whether an IPv6 address answers, once it has made sure to be the only one of its kind."""
    for _ in range(50):
        client = space.socket(family=socket.AF_INET6)
        with client, suppress(OSError, TimeoutError):
            async with asyncio.timeout(0.5):
                await asyncio.get_running_loop().sock_connect(client, (address, port))
                return True
        await asyncio.sleep(0.1)
    return False


@pytest.mark.attack
async def test_an_address_of_another_is_not_believed(attach: Attach) -> None:
    machine, _ = await attach(listed(f"{INTERNET}/32"))
    machine.up("eth0", "10.99.0.1/32")
    sock = machine.socket()
    sock.bind(("10.99.0.1", 0))
    sock.settimeout(0.7)
    with sock, pytest.raises(TimeoutError):
        sock.connect((INTERNET, WEB))


async def test_nobody_outside_reaches_a_machine(world: World, attach: Attach) -> None:
    machine, at = await attach(listed("0.0.0.0/0", allowed_ingress_ports=(WEB,)))
    world.serve(machine, WEB)
    for space in world.around:
        assert await gets_nowhere(space, str(at.address))


@pytest.mark.attack
async def test_nobody_on_the_host_reaches_a_machine(world: World, attach: Attach) -> None:
    """Allowed ports are reached from inside, through its supervisor."""
    machine, at = await attach(listed(f"{INTERNET}/32", allowed_ingress_ports=(WEB,)))
    world.serve(machine, WEB)
    assert await refuses(world.host, str(at.address), WEB)
    assert await connects(machine, INTERNET)


async def test_a_thousand_ranges_are_told_apart(network: Network, attach: Attach) -> None:
    many = [f"10.{n // 256}.{n % 256}.8/30" for n in range(1000) if n % 256 != 9]
    machine, _ = await attach(listed(*many))
    assert await refuses(machine, PRIVATE)
    await network.change("env-1", listed(*many, f"{PRIVATE}/32"))
    assert await connects(machine, PRIVATE)
    assert await refuses(machine, INTERNET)


@pytest.mark.attack
async def test_other_protocols_are_refused_too(attach: Attach) -> None:
    machine, _ = await attach(listed(f"{INTERNET}/32"))
    assert await ask(machine, INTERNET) == "answered"
    sock = machine.socket(socket.SOCK_DGRAM)
    sock.settimeout(PATIENCE_S)
    with sock:
        sock.connect((PRIVATE, DNS))
        sock.send(b"x")
        with pytest.raises(OSError) as told:
            sock.recv(1)
    assert told.value.errno in (errno.EHOSTUNREACH, errno.EACCES, errno.ECONNREFUSED)
