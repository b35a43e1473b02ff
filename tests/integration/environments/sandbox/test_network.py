"""A machine with a network reaches whom its policy lists, and nobody else.

The world is one of network namespaces; see tests/integration/environments/network/world.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import IPv4Address, ip_network
from pathlib import Path
from uuid import uuid4

import pytest

from steward_server.environments.driver import Feature, Unusable
from steward_server.environments.environment import NetworkPolicy
from steward_server.environments.images.catalogue import Catalogue
from steward_server.environments.sandbox import SandboxDriver
from steward_server.environments.sandbox.network import Network
from tests.integration.environments.network.world import (
    INTERNET,
    METADATA,
    PRIVATE,
    RESOLVER,
    SECRET,
    WEB,
    make_world,
)
from tests.integration.environments.sandbox.machines import Machines, spec


@pytest.fixture
async def online(tmp_path: Path, images: Catalogue, runsc: str | None) -> AsyncIterator[Machines]:
    """A driver on a host with surroundings."""
    world = await make_world()
    try:
        with world.host.entered():
            network = Network(f"steward-{uuid4().hex[:8]}", nameservers=[IPv4Address(RESOLVER)])
            driver = SandboxDriver(tmp_path / "online", images, network, runsc=runsc)
            await driver.open()
            try:
                yield Machines(driver)
            finally:
                await Machines(driver).clear()
                assert await network.list_owned() == set()
                await driver.aclose()
    finally:
        await world.close()


async def reached(machines: Machines, name: str, *addresses: str) -> set[str]:
    """Those of some addresses that a machine can connect to, over TCP."""
    program = (
        "import socket, sys\n"
        "for address in sys.argv[1:]:\n"
        "  host, port = address.split(':')\n"
        "  try: socket.create_connection((host, int(port)), 0.7); print(address)\n"
        "  except OSError: pass\n"
    )
    ran = await machines.run(name, "python3", "-c", program, *addresses)
    return set(ran.stdout.split())


async def test_a_network_is_offered_where_it_can_be_had(online: Machines) -> None:
    assert Feature.NETWORK in online.driver.capabilities().features


async def test_a_machine_reaches_what_is_listed_and_nothing_else(online: Machines) -> None:
    policy = NetworkPolicy(allowed_egress=(ip_network(f"{INTERNET}/32"),))
    name = await online.make(replace(spec(), network=policy))
    closed = await online.make()

    asked = (f"{INTERNET}:{WEB}", f"{PRIVATE}:{WEB}", f"{METADATA}:{WEB}", f"127.0.0.1:{SECRET}")
    assert await reached(online, name, *asked) == {f"{INTERNET}:{WEB}"}
    assert await reached(online, closed, *asked) == set()
    # Whoever asks for a name that is taken does not cut its machine off.
    with pytest.raises(Unusable):
        await online.driver.create(name, replace(spec(), network=policy))
    assert await reached(online, name, *asked) == {f"{INTERNET}:{WEB}"}


@pytest.mark.attack
async def test_the_internet_is_without_metadata_and_private_ranges(online: Machines) -> None:
    name = await online.make(replace(spec(), network=NetworkPolicy(allow_internet=True)))

    asked = (f"{INTERNET}:{WEB}", f"{PRIVATE}:{WEB}", f"{METADATA}:{WEB}")
    assert await reached(online, name, *asked) == {f"{INTERNET}:{WEB}"}
    names = await online.run(name, "cat", "/etc/resolv.conf")
    assert f"nameserver {RESOLVER}" in names.stdout


async def test_names_of_a_machine_with_a_read_only_root_are_known_too(online: Machines) -> None:
    wanted = replace(spec(), network=NetworkPolicy(allow_internet=True))
    wanted = replace(wanted, security=replace(wanted.security, read_only_root_filesystem=True))
    name = await online.make(wanted)

    names = await online.run(name, "cat", "/etc/resolv.conf")
    assert f"nameserver {RESOLVER}" in names.stdout


@pytest.mark.attack
async def test_a_network_cannot_be_changed_from_inside(online: Machines) -> None:
    policy = NetworkPolicy(allowed_egress=(ip_network(f"{INTERNET}/32"),))
    wanted = replace(spec(), network=policy)
    name = await online.make(replace(wanted, security=replace(wanted.security, run_as_user=0)))

    ran = await online.sh(
        name,
        "ip addr add 10.9.9.9/8 dev lo; ip link set lo down; ip route add default dev lo; "
        "ip link add x type dummy; nft flush ruleset; iptables -F",
    )

    assert ran.code != 0
    assert ran.stderr.count("ermitted") + ran.stderr.count("not found") >= 4
    assert await reached(online, name, f"{PRIVATE}:{WEB}") == set()


async def test_a_network_that_cannot_be_made_leaves_nothing(online: Machines) -> None:
    policy = NetworkPolicy(allowed_egress=(ip_network("2001:db8::/32"),))

    with pytest.raises(Unusable):
        await online.make(replace(spec(), network=policy))

    assert await online.driver.list_owned() == []


async def test_a_network_is_opened_and_closed_while_a_machine_runs(online: Machines) -> None:
    asked = (f"{INTERNET}:{WEB}", f"{PRIVATE}:{WEB}", f"{METADATA}:{WEB}")
    one = replace(spec(), network=NetworkPolicy(allowed_egress=(ip_network(f"{PRIVATE}/32"),)))
    name = await online.make(one)
    assert await reached(online, name, *asked) == {f"{PRIVATE}:{WEB}"}

    await online.driver.change_network(name, NetworkPolicy(allow_internet=True))
    assert await reached(online, name, *asked) == {f"{INTERNET}:{WEB}"}

    await online.driver.change_network(name, NetworkPolicy())
    assert await reached(online, name, *asked) == set()


async def test_a_machine_made_without_a_network_is_given_one(online: Machines) -> None:
    root = replace(spec().security, run_as_user=0)
    name = await online.make(replace(spec(), security=root))
    for _ in range(2):  # the second time changes nothing
        await online.driver.change_network(name, NetworkPolicy(allow_internet=True))
    asked = (f"{INTERNET}:{WEB}", f"{PRIVATE}:{WEB}", f"{METADATA}:{WEB}")
    assert await reached(online, name, *asked) == {f"{INTERNET}:{WEB}"}
    names = await online.run(name, "cat", "/etc/resolv.conf")
    assert f"nameserver {RESOLVER}" in names.stdout
    # It is the machine's own from then on, and goes with it: the fixture looks.


async def test_a_network_that_cannot_be_had_leaves_the_one_there_is(online: Machines) -> None:
    policy = NetworkPolicy(allowed_egress=(ip_network(f"{INTERNET}/32"),))
    name = await online.make(replace(spec(), network=policy))

    wrong = NetworkPolicy(allowed_egress=(ip_network("2001:db8::/32"),))
    with pytest.raises(Unusable):
        await online.driver.change_network(name, wrong)

    assert await reached(online, name, f"{INTERNET}:{WEB}") == {f"{INTERNET}:{WEB}"}
