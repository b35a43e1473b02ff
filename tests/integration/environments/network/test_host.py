"""What networks of machines do to their host: as little as can be, and nothing afterwards."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
from ipaddress import IPv4Address, IPv4Network, ip_network
from pathlib import Path

import pytest

from steward_server.environments.driver import Unusable
from steward_server.environments.environment import NetworkPolicy
from steward_server.environments.sandbox import net_expressions, net_links, net_nft
from steward_server.environments.sandbox import network as network_module
from steward_server.environments.sandbox.net_nft import Filter, Refused
from steward_server.environments.sandbox.net_pool import POOLS
from steward_server.environments.sandbox.network import Network
from tests.integration.environments.network.conftest import Attach
from tests.integration.environments.network.world import (
    HOST_OUTSIDE,
    INTERNET,
    METADATA,
    PRIVATE,
    SECRET,
    WEB,
    Space,
    World,
    connects,
    gets_nowhere,
    refuses,
)

EVERYTHING = NetworkPolicy(
    allow_internet=True,
    # What clouds tell is not in a wide range; it is listed by itself.
    allowed_egress=(ip_network("0.0.0.0/0"), ip_network("169.254.0.0/16")),
)
INTERNET_ONLY = NetworkPolicy(allow_internet=True)
UPLINKS = ("uplink", "office", "cloud")


def tables() -> set[str]:
    packets = Filter()
    try:
        return packets.tables()
    finally:
        packets.close()


def interfaces() -> set[str]:
    return {each.name for each in Path("/proc/sys/net/ipv4/conf").iterdir()}


def forwarding() -> set[str]:
    return {name for name in interfaces() if net_links.forwards(name)}


async def test_looking_whether_it_can_be_used_leaves_nothing(world: World, label: str) -> None:
    before = (tables(), interfaces(), forwarding())
    network = Network(label)
    assert await network.open() == ""
    assert (tables(), interfaces(), forwarding()) == before == (set(), before[1], set())
    await network.aclose()


async def test_what_a_killed_server_left_is_cleared_by_the_next(
    world: World, attach: Attach, network: Network, label: str, spaces: list[Space]
) -> None:
    machine, _ = await attach(EVERYTHING)
    await network.aclose()
    spaces.remove(machine)
    machine.close()
    for _ in range(100):
        if not any(name.startswith("steward-") for name in interfaces()):
            break
        await asyncio.sleep(0.05)
    assert tables() == {label}
    assert set(UPLINKS) <= forwarding()
    after = Network(label)
    assert await after.open() == ""
    assert tables() == set()
    assert forwarding() == set()
    await after.aclose()


async def test_the_last_machine_takes_everything_with_it(
    network: Network, attach: Attach, label: str
) -> None:
    before = (tables(), interfaces(), forwarding())
    _, one = await attach(EVERYTHING, "env-1")
    _, other = await attach(INTERNET_ONLY, "env-2")
    assert tables() == {label}
    assert interfaces() == before[1] | {one.interface, other.interface}
    assert one.interface.startswith("steward-")
    await network.detach("env-1")
    assert interfaces() == before[1] | {other.interface}
    await network.detach("env-2")
    await network.detach("env-2")
    await network.detach("never-there")
    assert (tables(), interfaces(), forwarding()) == before
    assert await network.list_owned() == set()


async def test_forwarding_goes_no_further_than_machines_need(
    network: Network, attach: Attach
) -> None:
    _, at = await attach(NetworkPolicy(allowed_egress=(ip_network(f"{PRIVATE}/32"),)))
    assert forwarding() == {at.interface, "office"}
    await network.change("env-1", INTERNET_ONLY)
    assert {"uplink", at.interface} <= forwarding()
    assert not net_links.forwards("all")
    await network.change("env-1", NetworkPolicy())
    assert forwarding() <= {at.interface}


async def test_the_host_does_not_become_a_router_for_others(world: World, attach: Attach) -> None:
    internet, private, metadata = world.around
    machine, _ = await attach(EVERYTHING)
    assert await connects(machine, INTERNET)
    assert set(UPLINKS) <= forwarding()
    assert await gets_nowhere(internet, PRIVATE)
    assert await gets_nowhere(private, METADATA)
    assert await gets_nowhere(metadata, INTERNET)


async def test_a_host_that_is_a_router_stays_one(
    world: World, network: Network, attach: Attach
) -> None:
    internet, private, _ = world.around
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    assert await connects(internet, PRIVATE)
    machine, _ = await attach(INTERNET_ONLY)
    assert await connects(internet, PRIVATE)
    assert await connects(private, INTERNET)
    assert await connects(machine, INTERNET)
    assert await refuses(machine, PRIVATE)
    await network.detach("env-1")
    assert await connects(internet, PRIVATE)
    assert net_links.forwards("all")


async def test_a_host_that_becomes_a_router_is_let_be_one(
    world: World, network: Network, attach: Attach
) -> None:
    internet = world.around[0]
    machine, _ = await attach(EVERYTHING)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    assert await gets_nowhere(internet, PRIVATE)
    assert await network._run(network._repair) == "the host has become a router"
    assert await connects(internet, PRIVATE)
    assert await connects(machine, INTERNET)
    await network.detach("env-1")
    assert set(UPLINKS) <= forwarding()


async def test_what_the_host_does_itself_is_not_touched(world: World, attach: Attach) -> None:
    await attach(EVERYTHING)
    for address in (INTERNET, PRIVATE, METADATA, HOST_OUTSIDE):
        assert await connects(world.host, address)
    assert await connects(world.host, "127.0.0.1", SECRET)
    for space in world.around:
        assert await connects(space, HOST_OUTSIDE)


async def test_rules_of_others_are_not_touched(network: Network, attach: Attach) -> None:
    others = Filter()
    others.change(
        [
            net_nft.add_table("firewall"),
            net_nft.add_chain("firewall", "in", hook="input"),
            net_nft.add_set("firewall", "seen", 1, (4,)),
            *net_nft.change_elements("firewall", [net_nft.Element("seen", bytes(4))]),
        ]
    )
    await attach(EVERYTHING)
    assert "firewall" in others.tables()
    await network.detach("env-1")
    assert others.tables() == {"firewall"}
    assert others.elements("firewall", "seen") == [net_nft.Element("seen", bytes(4))]
    others.close()


async def test_machines_keep_their_network_while_the_server_is_away(
    world: World, attach: Attach, network: Network, label: str, spaces: list[Space]
) -> None:
    machine, at = await attach(INTERNET_ONLY)
    await network.aclose()
    assert await connects(machine, INTERNET)
    assert await refuses(machine, PRIVATE)
    assert await refuses(machine, HOST_OUTSIDE)

    after = Network(label, nameservers=[])
    assert await after.open() == ""
    assert await after.list_owned() == {"env-1"}
    found = after.address("env-1")
    assert found is not None
    assert (found.address, found.gateway, found.interface) == (
        at.address,
        at.gateway,
        at.interface,
    )
    assert found.nameservers == at.nameservers
    assert await connects(machine, INTERNET)

    await after.change("env-1", NetworkPolicy(allowed_egress=(ip_network(f"{PRIVATE}/32"),)))
    assert await connects(machine, PRIVATE)
    assert await refuses(machine, INTERNET)
    spaces.append(Space())
    other = await after.attach("env-2", spaces[-1].fd, INTERNET_ONLY)
    assert other is not None
    assert other.address != at.address
    await after.detach("env-1")
    await after.detach("env-2")
    assert tables() == set()
    assert forwarding() == set()
    await after.aclose()


async def test_a_machine_that_died_leaves_nothing_after_the_next_start(
    attach: Attach, network: Network, label: str, spaces: list[Space]
) -> None:
    await attach(EVERYTHING, "env-1")
    machine, _ = await attach(INTERNET_ONLY, "env-2")
    await network.aclose()
    spaces.remove(machine)
    machine.close()
    for _ in range(100):  # the kernel takes namespaces away in its own time
        if len([name for name in interfaces() if name.startswith("steward-")]) == 1:
            break
        await asyncio.sleep(0.05)
    after = Network(label)
    assert await after.open() == ""
    assert await after.list_owned() == {"env-1"}
    await after.detach("env-2")
    packets = Filter()
    assert len(packets.elements(label, "sources")) == 1
    packets.close()
    await after.detach("env-1")
    assert tables() == set()
    await after.aclose()


async def test_a_dead_machine_is_detached_all_the_same(
    network: Network, attach: Attach, spaces: list[Space]
) -> None:
    machine, at = await attach(EVERYTHING)
    spaces.remove(machine)
    machine.close()
    await network.detach("env-1")
    assert tables() == set()
    assert at.interface not in interfaces()


async def test_what_was_made_halfway_is_cleared_at_the_next_start(
    world: World, network: Network, label: str
) -> None:
    group = network._group
    world.host.route(
        lambda route: route.link(
            "add", ifname="steward-halfway", kind="veth", group=group, peer={"ifname": "half"}
        )
    )
    after = Network(label)
    assert await after.open() == ""
    assert "steward-halfway" not in interfaces()
    await after.aclose()


async def test_a_network_that_cannot_be_made_leaves_nothing(network: Network) -> None:
    before = (tables(), interfaces(), forwarding())
    nothing = os.open("/dev/null", os.O_RDONLY)
    with pytest.raises(Unusable) as told:
        await network.attach("env-1", nothing, EVERYTHING)
    os.close(nothing)
    assert told.value.reason == "NO_NETWORK"
    assert (tables(), interfaces(), forwarding()) == before
    assert network.address("env-1") is None


async def test_a_network_may_be_made_anew(network: Network, attach: Attach) -> None:
    first, _ = await attach(INTERNET_ONLY)
    second, _ = await attach(INTERNET_ONLY)
    assert await connects(second, INTERNET)
    assert await gets_nowhere(first, INTERNET)
    assert await network.list_owned() == {"env-1"}


async def test_the_rules_of_a_running_server_cannot_be_flushed(
    network: Network, attach: Attach, label: str
) -> None:
    await attach(INTERNET_ONLY)
    if not network._table_flags:
        pytest.skip("this kernel's tables have no owners")
    others = Filter()
    with pytest.raises(Refused) as told:
        others.change([net_nft.remove_table(label)])
    others.close()
    assert told.value.errno == errno.EPERM


async def test_answers_come_back_where_the_host_goes_out_by_now(
    world: World, network: Network, attach: Attach
) -> None:
    await attach(INTERNET_ONLY)
    await network.change("env-1", NetworkPolicy(allowed_egress=(ip_network("203.0.113.9/32"),)))
    world.host.route(
        lambda route: route.route("add", dst="203.0.113.9/32", gateway="169.254.169.254")
    )
    assert not net_links.forwards("cloud")
    network._open_kernel.ways._known_at_s = float("-inf")
    await network._run(network._repair)
    assert net_links.forwards("cloud")
    await network.detach("env-1")
    assert forwarding() == set()


@pytest.fixture
async def unowned(world: World, label: str, monkeypatch: pytest.MonkeyPatch) -> Network:
    """A network as older kernels have it: everybody may take its rules away."""
    monkeypatch.setattr(network_module, "_WATCH_S", 0.05)
    made = Network(label)
    made._table_flags = 0
    assert await made.open() == ""
    return made


async def test_rules_that_somebody_flushed_are_put_back(
    unowned: Network, label: str, spaces: list[Space]
) -> None:
    spaces += [Space(), Space()]
    await unowned.attach("env-1", spaces[0].fd, INTERNET_ONLY)
    others = Filter()
    others.change([net_nft.remove_table(label)])
    async with asyncio.timeout(30):
        while label not in others.tables():
            await asyncio.sleep(0.02)
    assert await connects(spaces[0], INTERNET)
    assert await refuses(spaces[0], PRIVATE)

    others.change([net_nft.remove_table(label)])
    await unowned.attach("env-2", spaces[1].fd, INTERNET_ONLY)
    for space in spaces:
        assert await connects(space, INTERNET)
        assert await refuses(space, PRIVATE)
    others.change([net_nft.remove_table(label)])
    others.close()
    for machine_id in ("env-1", "env-2"):
        await unowned.detach(machine_id)
    assert tables() == set()
    await unowned.aclose()


async def test_two_servers_on_one_host_do_not_meet(
    world: World, network: Network, attach: Attach, label: str, spaces: list[Space]
) -> None:
    mine, at = await attach(EVERYTHING)
    other = Network(f"{label}-other")
    assert await other.open() == ""
    spaces.append(Space())
    theirs = await other.attach("env-1", spaces[-1].fd, EVERYTHING)
    assert theirs is not None
    assert theirs.gateway != at.gateway
    assert await network.list_owned() == await other.list_owned() == {"env-1"}
    world.serve(spaces[-1], WEB)
    world.serve(mine, WEB)
    assert await gets_nowhere(mine, str(theirs.address))
    assert await gets_nowhere(spaces[-1], str(at.address))
    assert await connects(mine, INTERNET)
    assert await connects(spaces[-1], INTERNET)
    await network.detach("env-1")
    assert await connects(spaces[-1], INTERNET)
    assert await refuses(spaces[-1], HOST_OUTSIDE)
    await other.detach("env-1")
    assert tables() == set()
    await other.aclose()


async def test_one_server_is_kept_from_anothers_table_of_the_same_name(
    network: Network, attach: Attach, label: str
) -> None:
    """Somebody has started the server a second time."""
    machine, _ = await attach(INTERNET_ONLY)
    if not network._table_flags:
        pytest.skip("this kernel's tables have no owners")
    twin = Network(label)
    assert "another running server" in await twin.open()
    await twin.aclose()
    assert await connects(machine, INTERNET)
    assert await network.list_owned() == {"env-1"}


async def test_addresses_meet_none_of_the_hosts_routes(world: World, label: str) -> None:
    world.host.route(lambda route: route.route("add", dst="10.0.0.0/8", gateway=PRIVATE))
    network = Network(label)
    assert await network.open() == ""
    assert network._open_kernel.pool.network == IPv4Network("172.27.0.0/16")
    await network.aclose()

    for pool in POOLS:
        if not pool.subnet_of(IPv4Network("10.0.0.0/8")):
            world.host.route(lambda route: route.route("add", dst=str(pool), gateway=PRIVATE))  # noqa: B023
    network = Network(label)
    assert "name a range that is free" in await network.open()
    await network.aclose()
    network = Network(label, pool=IPv4Network("192.168.7.0/29"))
    assert await network.open() == ""
    await network.aclose()


async def test_addresses_run_out_with_a_word(world: World, label: str, spaces: list[Space]) -> None:
    network = Network(label, pool=IPv4Network("192.168.7.0/29"))
    assert await network.open() == ""
    spaces += [Space() for _ in range(6)]
    for number, space in enumerate(spaces[:5]):
        at = await network.attach(f"env-{number}", space.fd, INTERNET_ONLY)
        assert at is not None
        assert at.address in IPv4Network("192.168.7.0/29")
        assert at.address not in (IPv4Address("192.168.7.0"), IPv4Address("192.168.7.7"))
        assert await connects(space, INTERNET)
    with pytest.raises(Unusable) as told:
        await network.attach("env-5", spaces[5].fd, INTERNET_ONLY)
    assert told.value.reason == "NO_ADDRESSES"
    await network.detach("env-2")
    assert await network.attach("env-5", spaces[5].fd, INTERNET_ONLY) is not None
    for number in range(6):
        await network.detach(f"env-{number}")
    assert tables() == set()
    await network.aclose()


async def test_many_machines_come_and_go_at_once(network: Network, spaces: list[Space]) -> None:
    spaces += [Space() for _ in range(30)]
    private = NetworkPolicy(allowed_egress=(ip_network(f"{PRIVATE}/32"),))
    policies = [EVERYTHING, INTERNET_ONLY, private]
    async with asyncio.timeout(30):
        places = await asyncio.gather(
            *(
                network.attach(f"env-{number}", space.fd, policies[number % 3])
                for number, space in enumerate(spaces)
            )
        )
    assert len({at.address for at in places if at}) == 30
    assert len(await network.list_owned()) == 30
    assert await connects(spaces[28], INTERNET)
    assert await refuses(spaces[28], PRIVATE)
    assert await gets_nowhere(spaces[29], INTERNET)
    await asyncio.gather(*(network.detach(f"env-{number}") for number in range(30)))
    assert tables() == set()
    assert forwarding() == set()


async def test_a_firewall_that_drops_what_it_does_not_know_is_told_of(
    world: World, label: str
) -> None:
    others = Filter()
    chain = net_nft.add_chain("firewall", "FORWARD", hook="forward")
    chain.content["attrs"].append(["NFTA_CHAIN_POLICY", net_expressions.DROP])
    others.change([net_nft.add_table("firewall"), chain])
    network = Network(label)
    assert await network.open() == ""
    assert any("'FORWARD' of table 'firewall'" in each for each in network.warnings)
    await network.aclose()
    others.close()


ASK = """
import asyncio
from steward_server.environments.sandbox.network import Network
async def main():
    network = Network("steward-refused")
    print(await network.open())
    await network.aclose()
asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("ahead", "told"),
    [
        (
            ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"],
            "run it as root, or give its unit AmbientCapabilities=CAP_NET_ADMIN, or",
        ),
        (
            ["setpriv", "--bounding-set=-net_admin,-sys_admin", "--inh-caps=-all"],
            "the server lacks CAP_NET_ADMIN and CAP_SYS_ADMIN",
        ),
        (["unshare", "--user", "--map-root-user"], "the kernel lets this server change no network"),
        (
            [
                "unshare",
                "--mount",
                "sh",
                "-c",
                'mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys; exec "$@"',
                "-",
            ],
            "/proc/sys/net is read-only here",
        ),
    ],
)
def test_what_keeps_it_from_working_is_named(world: World, ahead: list[str], told: str) -> None:
    answer = subprocess.run(
        [*ahead, sys.executable, "-c", ASK],
        env={**os.environ, "PYTHONPATH": "server"},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert told in answer.stdout, answer.stderr
    assert tables() == set()
