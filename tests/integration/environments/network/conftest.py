"""A host with its surroundings, and a network of machines on it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from ipaddress import IPv4Address
from uuid import uuid4

import pytest

from steward_server.environments.environment import NetworkPolicy
from steward_server.environments.sandbox.network import Address, Network
from tests.integration.environments.network.world import RESOLVER, Space, World, make_world


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    for item in items:
        if "environments/network" in str(item.path):
            item.add_marker(pytest.mark.skip("only root may make network namespaces here"))


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """This thread is on its host for the test."""
    made = await make_world()
    try:
        with made.host.entered():
            yield made
    finally:
        await made.close()


@pytest.fixture
def label() -> str:
    return f"steward-{uuid4().hex[:8]}"


@pytest.fixture
async def network(world: World, label: str) -> AsyncIterator[Network]:
    made = Network(label, nameservers=[IPv4Address(RESOLVER)])
    assert await made.open() == ""
    yield made
    await made.aclose()


@pytest.fixture
def spaces() -> Iterator[list[Space]]:
    made: list[Space] = []
    yield made
    for space in made:
        space.close()


Attach = Callable[..., Awaitable[tuple[Space, Address]]]


@pytest.fixture
def attach(network: Network, spaces: list[Space]) -> Attach:
    """Make a machine with a network."""

    async def make(policy: NetworkPolicy, machine_id: str = "env-1") -> tuple[Space, Address]:
        space = Space()
        spaces.append(space)
        address = await network.attach(machine_id, space.fd, policy)
        assert address is not None
        return space, address

    return make
