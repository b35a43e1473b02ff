"""Networks that are changed while an environment runs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from steward_server.environments.driver import Feature, Unusable
from steward_server.environments.environment import NetworkPolicy
from tests.child_driver import ChildDriver
from tests.integration.environments.conftest import Site, Sites, until
from tests.live import Api

OPEN = {
    "allow_internet": True,
    "allowed_egress_cidrs": ["10.0.0.0/8"],
    "allowed_ingress_ports": [8080],
    "allow_cluster_internal": False,
}


async def change(site: Site, name: str, network: Any, api: Api | None = None, **more: Any) -> Any:
    path = f"/api/v1/environments/{name}"
    return await (api or site.admin).call("PATCH", path, {"network": network} | more)


def policy_of(site: Site, name: str) -> NetworkPolicy:
    """What its machine was told."""
    return site.driver.host.machines[name].spec.network


async def test_a_network_is_changed_while_an_environment_runs(site: Site) -> None:
    name = await site.running()

    answer = await change(site, name, OPEN, labels={"a": "b"})

    assert answer.status == 200, answer
    assert answer.body["isolation"]["network_policy"] == OPEN
    assert answer.body["labels"] == {"a": "b"}
    assert policy_of(site, name).allow_internet
    assert policy_of(site, name).allowed_ingress_ports == (8080,)
    entry = next(each for each in site.audit(name) if each["action"] == "environment.updated")
    assert json.loads(entry["before"])["network"]["allow_internet"] is False
    assert json.loads(entry["after"])["network"]["allowed_ingress_ports"] == [8080]
    closed = await change(site, name, {})
    assert closed.body["isolation"]["network_policy"]["allowed_egress_cidrs"] == []
    assert policy_of(site, name) == NetworkPolicy()


async def test_a_network_is_changed_by_who_has_admin_only(site: Site) -> None:
    owner, guest = await site.person("owner"), await site.person("guest")
    name = await site.running(owner)
    share = f"/api/v1/environments/{name}/shares/guest"
    for permission, status in (("read", 403), ("write", 403), ("admin", 200)):
        await owner.call("PUT", share, {"permission": permission})
        assert (await change(site, name, OPEN, guest)).status == status
    stranger = await site.person("stranger")
    assert (await change(site, name, {}, stranger)).status == 404
    assert policy_of(site, name).allow_internet


@pytest.mark.parametrize(
    ("network", "word"),
    [
        ({"allowed_egress_cidrs": ["nowhere"]}, "network.allowed_egress_cidrs[0]"),
        ({"allowed_ingress_ports": [0]}, "network.allowed_ingress_ports[0]"),
        ({"allow_everything": True}, "allow_everything"),
    ],
)
async def test_what_is_no_policy_is_refused(site: Site, network: Any, word: str) -> None:
    name = await site.running()
    answer = await change(site, name, network)
    assert (answer.status, word in answer.body["message"]) == (400, True), answer


async def test_what_the_driver_cannot_do_changes_nothing(site: Site) -> None:
    name = await site.running()
    why = Unusable("NO_IPV6", "machines of this driver reach IPv4 addresses only")
    site.driver.faults["change_network"].append(why)

    answer = await change(site, name, OPEN, labels={"a": "b"})

    assert (answer.status, "IPv4" in answer.body["message"]) == (409, True)
    seen = (await site.get(name)).body
    assert seen["isolation"]["network_policy"]["allow_internet"] is False
    assert seen["labels"] == {}


async def test_what_the_row_cannot_hold_changes_no_machine(site: Site) -> None:
    name = await site.running()
    answer = await change(site, name, OPEN, timeout=99_999_999)
    assert answer.status == 400
    assert policy_of(site, name) == NetworkPolicy()


async def test_a_network_of_what_does_not_run_is_not_changed(site: Site) -> None:
    over = await site.create(command=["true"])
    await site.becomes(over, "terminated")
    paused = await site.running()
    await site.admin.call("POST", f"/api/v1/environments/{paused}/pause", {})
    for name, why in ((over, "is terminated"), (paused, "is paused")):
        answer = await change(site, name, OPEN)
        assert (answer.status, why in answer.body["message"]) == (409, True)


async def test_a_driver_that_changes_no_network_says_so(sites: Sites) -> None:
    driver = ChildDriver(sites.host)
    driver.features -= {Feature.NETWORK_CHANGE}
    async with sites.open(driver) as site:
        answer = await change(site, await site.running(), OPEN)
        assert (answer.status, "network_change" in answer.body["message"]) == (409, True)


async def test_a_change_that_was_cut_short_is_taken_back_by_the_next_server(sites: Sites) -> None:
    async with sites.open() as site:
        name = await site.running()
        # The machine is told first; this server is gone before its row is.
        await site.driver.change_network(name, NetworkPolicy(allow_internet=True))
    async with sites.open() as site:
        await until(lambda: policy_of(site, name) == NetworkPolicy(), "it is as the row says")
