"""The role that is shipped has what the driver uses, and nothing that it does not."""

from __future__ import annotations

import asyncio

import pytest

from steward_server.environments.driver import Unusable
from steward_server.environments.environment import NetworkPolicy
from tests.integration.environments.kubernetes.machines import Machines, shell
from tests.integration.environments.kubernetes.standin import StandIn
from tests.unit.environments.kubernetes.manifests import Right, rights

# Clusters from 1.35 on ask for these where older ones, as the stand-in, ask for "get".
_ASKED_BY_NEWER = {Right("create", "", "pods/exec"), Right("create", "", "pods/portforward")}


async def test_all_rights_of_the_role_are_used_and_no_others(
    machines: Machines, cluster: StandIn
) -> None:
    cluster.has_metrics = True
    driver = machines.driver
    await driver.open()  # this time with metrics
    await driver.list_owned()
    await driver.capacity()
    policy = NetworkPolicy(allow_internet=True, allowed_ingress_ports=(9,))
    name = await machines.make("/bin/sh", "-c", "echo said; sleep 600", network=policy)
    await machines.run(name, shell("true"))
    await driver.stats(name)
    following = driver.logs(name, follow=True)
    assert (await asyncio.wait_for(anext(following), 30)).message == "said"
    await following.aclose()  # type: ignore[attr-defined]
    with pytest.raises(Unusable):
        await driver.connect(name, 9)
    await driver.delete(name, grace_s=1)

    assert cluster.asked == rights() - _ASKED_BY_NEWER
