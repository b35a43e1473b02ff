"""A machine with gVisor reaches whom its policy lists, by the rules of the host, and no others."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from steward_server.environments.environment import NetworkPolicy
from tests.integration.environments.gvisor.conftest import leave_out, offers_gvisor
from tests.integration.environments.network.world import INTERNET, METADATA, PRIVATE, SECRET, WEB
from tests.integration.environments.sandbox.machines import Machines, spec
from tests.integration.environments.sandbox.test_network import online as surrounded
from tests.integration.environments.sandbox.test_network import reached

__all__ = ["surrounded"]

pytestmark = pytest.mark.attack


@pytest.fixture
async def online(surrounded: Machines) -> Machines:
    if not offers_gvisor(surrounded.driver):
        leave_out()
    return surrounded


async def test_it_reaches_what_is_listed_and_nothing_else(online: Machines) -> None:
    policy = NetworkPolicy(allowed_egress=(ip_network(f"{INTERNET}/32"),))
    wanted = spec(runtime_class="gvisor")
    name = await online.make(replace(wanted, network=policy))
    closed = await online.make(wanted)

    asked = (f"{INTERNET}:{WEB}", f"{PRIVATE}:{WEB}", f"{METADATA}:{WEB}", f"127.0.0.1:{SECRET}")
    assert await reached(online, name, *asked) == {f"{INTERNET}:{WEB}"}
    assert await reached(online, closed, *asked) == set()


async def test_its_network_cannot_be_changed_from_inside(online: Machines) -> None:
    policy = NetworkPolicy(allowed_egress=(ip_network(f"{INTERNET}/32"),))
    wanted = replace(spec(runtime_class="gvisor"), network=policy)
    name = await online.make(replace(wanted, security=replace(wanted.security, run_as_user=0)))

    ran = await online.sh(
        name, "ip link set lo down; ip route add default dev lo; ip addr add 10.9.9.9/8 dev lo"
    )

    assert ran.code != 0
    asked = (f"{INTERNET}:{WEB}", f"{PRIVATE}:{WEB}")
    assert await reached(online, name, *asked) == {f"{INTERNET}:{WEB}"}
