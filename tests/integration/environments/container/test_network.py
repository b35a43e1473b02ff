"""The same of a container as of a sandbox: it reaches whom its policy lists, and nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from uuid import uuid4

import pytest

from steward_server.environments.container import ContainerDriver
from steward_server.environments.driver import Unusable
from steward_server.environments.environment import NetworkPolicy
from steward_server.environments.sandbox.network import Network
from tests.integration.environments.conformance.machines import Machines
from tests.integration.environments.container.podman import IMAGE, KnownEngine, Podman
from tests.integration.environments.network.world import RESOLVER, make_world
from tests.integration.environments.sandbox.test_network import (
    test_a_machine_reaches_what_is_listed_and_nothing_else,
    test_a_network_cannot_be_changed_from_inside,
    test_a_network_is_offered_where_it_can_be_had,
    test_names_of_a_machine_with_a_read_only_root_are_known_too,
    test_the_internet_is_without_metadata_and_private_ranges,
)

__all__ = [
    "test_a_machine_reaches_what_is_listed_and_nothing_else",
    "test_a_network_cannot_be_changed_from_inside",
    "test_a_network_is_offered_where_it_can_be_had",
    "test_names_of_a_machine_with_a_read_only_root_are_known_too",
    "test_the_internet_is_without_metadata_and_private_ranges",
]


async def test_what_a_machine_reaches_is_changed_while_it_runs(
    online: Machines, podman: Podman, tmp_path: Path
) -> None:
    driver = online.driver
    one = NetworkPolicy(allowed_egress=(IPv4Network("10.9.0.0/24"),), allowed_ingress_ports=(80,))
    name = await online.make(online.spec(network=one))
    closed = await online.make()
    with pytest.raises(Unusable) as refusal:
        await driver.connect(name, 81)
    assert refusal.value.reason == "PORT_CLOSED"

    other = replace(one, allowed_egress=(), allow_internet=True, allowed_ingress_ports=(81,))
    await driver.change_network(name, other)
    await driver.change_network(name, other)

    for port, reason in ((80, "PORT_CLOSED"), (81, "PORT_REFUSED")):
        with pytest.raises(Unusable) as refusal:
            await driver.connect(name, port)
        assert refusal.value.reason == reason
    with pytest.raises(Unusable) as refusal:
        await driver.change_network(closed, other)
    assert refusal.value.reason == "NO_NETWORK"
    heir = ContainerDriver(tmp_path / "online", KnownEngine(podman.url))
    await heir.open()
    with pytest.raises(Unusable) as refusal:
        await heir.connect(name, 80)
    assert refusal.value.reason == "PORT_CLOSED"
    await heir.aclose()


@pytest.fixture
async def online(podman: Podman, tmp_path: Path) -> AsyncIterator[Machines]:
    """A driver on a host with surroundings."""
    world = await make_world()
    try:
        with world.host.entered():
            network = Network(f"steward-{uuid4().hex[:8]}", nameservers=[IPv4Address(RESOLVER)])
            driver = ContainerDriver(tmp_path / "online", KnownEngine(podman.url), network)
            await driver.open()
            machines = Machines(driver, IMAGE, "")
            try:
                yield machines
            finally:
                await machines.clear()
                assert await network.list_owned() == set()
                await driver.aclose()
    finally:
        await world.close()
