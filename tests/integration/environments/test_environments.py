"""Environments over REST: created, listed, seen, changed and deleted."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from contextlib import closing
from typing import Any
from urllib.parse import urlencode

import pytest

from steward_server.environments.driver import Feature
from tests.child_driver import ChildDriver
from tests.integration.environments.conftest import CREATION, Site, Sites, until
from tests.live import Live

ENVIRONMENTS = "/api/v1/environments"


async def test_a_creation_answers_what_the_guide_prints(site: Site) -> None:
    site.driver.gates["create"] = asyncio.Event()
    body = CREATION | {
        "timeout": 3600,
        "env": {"MY_VAR": "my-value"},
        "labels": {"project": "my-project"},
    }
    made = await site.admin.call("POST", ENVIRONMENTS, body)
    site.driver.gates["create"].set()

    environment_id = made.body.pop("id")
    assert re.fullmatch(r"env-[0-9a-f]{32}", environment_id)
    assert made.status == 201
    assert made.body.pop("created_at").endswith("Z")
    assert made.body == {
        "name": "my-python-env",
        "status": "pending",
        "image": "python:3.11-slim",
        "resources": {"cpu": "500m", "memory": "512Mi", "storage": "1Gi"},
        "endpoint": f"{environment_id}.agentbox.svc.cluster.local",
        "namespace": f"agentbox-{environment_id}",
    }


async def test_one_environment_is_shown_in_full(site: Site) -> None:
    environment_id = await site.running(
        env={"MY_VAR": "my-value"}, labels={"project": "my-project"}, timeout=1800
    )
    shown = (await site.get(environment_id)).body

    assert shown["status"] == "running"
    assert shown["started_at"].endswith("Z")
    assert shown["metrics"]["cpu_usage"] == "125m"
    assert shown["metrics"]["memory_usage"] == "256Mi"
    assert shown["env"] == {"MY_VAR": "my-value"}
    assert shown["labels"] == {"project": "my-project"}
    assert shown["timeout"] == 1800
    assert shown["permission"] == "admin"
    assert "reason" not in shown


async def test_a_list_shows_pages_of_what_was_asked_for(site: Site) -> None:
    first = await site.running(labels={"project": "a", "tier": "web"})
    second = await site.running(labels={"project": "b"}, command=["sh", "-c", "sleep 600"])
    third = await site.create(command=["sh", "-c", "exit 3"], labels={"project": "a"})
    await site.becomes(third, "failed")

    async def ids(query: str) -> tuple[list[str], int]:
        answer = await site.admin.call("GET", f"{ENVIRONMENTS}?{query}")
        assert answer.status == 200, answer
        return [each["id"] for each in answer.body["environments"]], answer.body["total"]

    assert await ids("") == ([third, second, first], 3)
    assert await ids("status=running&limit=1") == ([second], 2)
    assert await ids("status=running&limit=1&offset=1") == ([first], 2)
    assert await ids("label=project%3Da") == ([third, first], 2)
    assert await ids("label=project%21%3Da") == ([second], 1)
    assert await ids("label=project+in+(a,b),!tier") == ([third, second], 2)
    assert await ids("label=nobody") == ([], 0)
    answer = await site.admin.call("GET", f"{ENVIRONMENTS}?limit=2&offset=2")
    assert (answer.body["limit"], answer.body["offset"]) == (2, 2)
    basic = await site.admin.call("GET", ENVIRONMENTS)
    assert all("labels" not in each for each in basic.body["environments"])
    full = await site.admin.call("GET", f"{ENVIRONMENTS}?view=full")
    labels = [each.get("labels") for each in full.body["environments"]]
    assert labels == [{"project": "a"}, {"project": "b"}, {"project": "a", "tier": "web"}]
    assert set(answer.body) == {"environments", "total", "limit", "offset"}


async def test_a_list_goes_on_beyond_a_thousand(site: Site) -> None:
    environment_id = await site.create(command=["true"])
    await site.becomes(environment_id, "terminated")
    with closing(sqlite3.connect(site.folder / "steward.db")) as connection, connection:
        connection.executescript(
            "CREATE TEMP TABLE one AS SELECT * FROM environment;"
            " CREATE TEMP TABLE many AS WITH RECURSIVE number(n) AS"
            " (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 1204)"
            " SELECT one.*, n FROM one, number;"
            " UPDATE many SET environment_id = 'env-' || n, created_at_us = created_at_us - n;"
            " ALTER TABLE many DROP COLUMN n;"
            " INSERT INTO environment SELECT * FROM many;"
        )
    page = await site.admin.call("GET", f"{ENVIRONMENTS}?limit=1000&offset=1000")
    assert page.body["total"] == 1_205
    assert [each["id"] for each in page.body["environments"]][::204] == ["env-1000", "env-1204"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("status=asleep", "status must be one of: pending, running"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=ten", "limit"),
        ("offset=-1", "offset"),
        ("label=a%3D%3D%3Db", "label"),
        ("label=a+in+b", "label"),
        ("colour=red", "colour"),
        ("limit=1&limit=2", "limit"),
    ],
)
async def test_a_wrong_query_is_refused_and_not_ignored(site: Site, query: str, words: str) -> None:
    answer = await site.admin.call("GET", f"{ENVIRONMENTS}?{query}")
    assert answer.status == 400
    assert answer.body["error"] == "Bad Request"
    assert words in answer.body["message"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": ""}, "name: is missing"),
        ({"name": "No Spaces"}, "lower-case"),
        ({"image": ""}, "image: is missing"),
        ({"resources": {}}, "resources.cpu: is missing"),
        ({"resources": CREATION["resources"] | {"cpu": "half"}}, "resources.cpu: is 'half'"),
        ({"resources": CREATION["resources"] | {"cpu": "64"}}, "at most 10"),
        ({"resources": CREATION["resources"] | {"memory": "1Mi"}}, "at least 8Mi"),
        ({"timeout": 0}, "timeout: is 0"),
        ({"timeout": 86_401}, "86400"),
        ({"env": {"A=B": "x"}}, "'A=B'"),
        ({"labels": {"a b": "c"}}, "'a b'"),
        ({"tolerations": [{"key": "k", "operator": "Maybe"}]}, "Equal, Exists"),
        ({"isolation": {"network_policy": {"allowed_egress_cidrs": ["999.1.1.1/99"]}}}, "999"),
        ({"isolation": {"network_policy": {"allowed_ingress_ports": [0]}}}, "ports[0]"),
        ({"isolation": {"runtime_class": "gvisor"}}, "this server has native"),
        (
            {"isolation": {"security_context": {"run_as_user": 0, "run_as_non_root": True}}},
            "run_as_non_root",
        ),
        ({"colour": "red"}, "colour unknown field"),
    ],
)
async def test_a_wrong_creation_is_told_what_is_wrong(
    site: Site, fields: dict[str, Any], words: str
) -> None:
    answer = await site.admin.call("POST", ENVIRONMENTS, CREATION | fields)
    assert answer.status == 400, answer
    assert words in answer.body["message"]
    assert site.driver.host.machines == {}


async def test_environments_are_found_by_their_labels_as_in_kubernetes(site: Site) -> None:
    labelled: dict[str, dict[str, str]] = {
        "none": {},
        "b": {"a": "b"},
        "d": {"a": "d"},
        "empty": {"a": ""},
        "two": {"a": "b", "c": "x"},
    }
    for name, labels in labelled.items():
        await site.create(name=name, labels=labels)
    for selector, wanted in (
        ("a=b", {"b", "two"}),
        ("a==b,c=x", {"two"}),
        ("a!=b", {"none", "d", "empty"}),
        ("a in (b,d)", {"b", "d", "two"}),
        ("a notin (b,c)", {"none", "d", "empty"}),
        ("a", {"b", "d", "empty", "two"}),
        ("!a", {"none"}),
        ("a,!c", {"b", "d", "empty"}),
        ("a=", {"empty"}),
    ):
        answer = await site.admin.call("GET", f"{ENVIRONMENTS}?{urlencode({'label': selector})}")
        assert {each["name"] for each in answer.body["environments"]} == wanted, selector
        assert answer.body["total"] == len(wanted)


async def test_everything_of_the_guides_isolation_is_kept(site: Site) -> None:
    isolation = {
        "runtime_class": "native",
        "network_policy": {
            "allow_internet": False,
            "allowed_egress_cidrs": ["10.0.0.0/8", "2001:db8::/32"],
            "allowed_ingress_ports": [8080],
            "allow_cluster_internal": False,
        },
        "security_context": {
            "run_as_user": 1000,
            "run_as_group": 1000,
            "run_as_non_root": True,
            "read_only_root_filesystem": False,
            "allow_privilege_escalation": False,
        },
    }
    tolerations = [
        {"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}
    ]
    environment_id = await site.running(
        isolation=isolation, tolerations=tolerations, node_selector={"disk": "ssd"}
    )
    shown = (await site.get(environment_id)).body
    assert shown["isolation"] == isolation
    assert shown["node_selector"] == {"disk": "ssd"}
    assert shown["tolerations"] == [tolerations[0] | {"value": ""}]
    spec = site.driver.host.machines[environment_id].spec
    assert spec.security.run_as_user == 1000
    assert [str(each) for each in spec.network.allowed_egress] == ["10.0.0.0/8", "2001:db8::/32"]


async def test_what_cannot_be_made_fails_with_the_reason_and_leaves_nothing(site: Site) -> None:
    environment_id = await site.create(image="nothing")
    shown = await site.becomes(environment_id, "failed")
    assert shown["reason"] == "there is no image 'nothing'; there is python:3.11"
    assert "started_at" not in shown
    assert site.driver.host.machines == {}

    site.driver.faults["start"].append(RuntimeError("the disk is on fire"))
    broken = await site.becomes(await site.create(), "failed")
    assert "log says why" in broken["reason"]
    assert "fire" not in broken["reason"]
    assert site.driver.host.machines == {}


async def test_what_the_driver_cannot_do_is_refused_before_anything_is_written(
    sites: Sites,
) -> None:
    driver = ChildDriver(sites.host)
    driver.features -= {Feature.PRIVILEGE_ESCALATION}
    wish = CREATION | {
        "isolation": {"security_context": {"allow_privilege_escalation": True}},
    }
    async with sites.open(driver) as site:
        answer = await site.admin.call("POST", ENVIRONMENTS, wish)
        listed = await site.admin.call("GET", ENVIRONMENTS)

    assert (answer.status, "privilege_escalation" in answer.body["message"]) == (409, True)
    assert listed.body["total"] == 0


async def test_an_idempotency_key_makes_one_environment_of_two_calls(site: Site) -> None:
    answers = [
        await site.admin.call("POST", ENVIRONMENTS, CREATION, Idempotency_Key="once")
        for _ in range(2)
    ]
    assert answers[0].body == answers[1].body
    listed = await site.admin.call("GET", ENVIRONMENTS)
    assert listed.body["total"] == 1


async def test_labels_and_times_can_be_changed(site: Site) -> None:
    environment_id = await site.running(labels={"a": "1", "b": "2"}, timeout=600)
    path = f"{ENVIRONMENTS}/{environment_id}"
    changes = {"labels": {"c": "3"}, "remove_labels": ["a"], "timeout": 7200, "idle_timeout": 60}
    changed = await site.admin.call("PATCH", path, changes)
    assert changed.status == 200
    shown = (await site.get(environment_id)).body
    assert shown["labels"] == {"b": "2", "c": "3"}
    assert (shown["timeout"], shown["idle_timeout"]) == (7200, 60)

    unidle = await site.admin.call("PATCH", path, {"idle_timeout": 0})
    assert unidle.body["idle_timeout"] is None
    for body, words in (
        ({}, "missing"),
        ({"timeout": 200_000}, "at most 86400 s"),
        ({"labels": {"b": "x"}, "remove_labels": ["b"]}, "remove_labels"),
        ({"image": "other"}, "image unknown field"),
    ):
        refused = await site.admin.call("PATCH", path, body)
        assert refused.status == 400
        assert words in refused.body["message"]
    site.clock.advance(100)
    past = await site.admin.call("PATCH", path, {"timeout": 50})
    assert past.status == 400
    assert "delete it instead" in past.body["message"]


async def test_a_deleted_environment_is_gone_with_everything_of_it(site: Site) -> None:
    environment_id = await site.running(command=["sh", "-c", "setsid sleep 600 & sleep 600"])
    deleted = await site.admin.call("DELETE", f"{ENVIRONMENTS}/{environment_id}?force=false")
    assert (deleted.status, deleted.body) == (204, "")
    assert site.driver.host.machines == {}
    assert (await site.get(environment_id)).status == 404
    assert (await site.admin.call("DELETE", f"{ENVIRONMENTS}/{environment_id}")).status == 404
    assert await site.journal(environment_id) == [
        "environment.created",
        "environment.started",
        "environment.deleted",
        "environment.stopped",
    ]


async def test_force_hurries_a_deletion_that_is_under_way(sites: Sites) -> None:
    async with sites.open(stop_grace_s=60.0) as site:
        site.driver.gates["grace"] = asyncio.Event()  # its main command does not listen
        environment_id = await site.running()
        path = f"{ENVIRONMENTS}/{environment_id}"
        patient = asyncio.create_task(site.admin.call("DELETE", path))
        await site.becomes(environment_id, "terminating")
        forced = await site.admin.call("DELETE", f"{path}?force=true")
        assert forced.status == 204
        assert (await patient).status == 204
        assert site.driver.host.machines == {}


async def test_what_is_still_being_made_can_be_deleted(site: Site) -> None:
    site.driver.gates["start"] = asyncio.Event()
    environment_id = await site.create()
    await until(lambda: site.driver.host.machines, "it is being made")
    deleted = await site.admin.call("DELETE", f"{ENVIRONMENTS}/{environment_id}")
    assert deleted.status == 204
    assert site.driver.host.machines == {}
    assert "environment.started" not in await site.journal(environment_id)


async def test_a_machine_that_cannot_be_removed_is_removed_later(site: Site) -> None:
    environment_id = await site.running()
    site.driver.faults["delete"].append(OSError("busy"))
    answer = await site.admin.call("DELETE", f"{ENVIRONMENTS}/{environment_id}")
    assert answer.status == 503
    assert "tried again" in answer.body["message"]
    await until(lambda: not site.driver.host.machines, "it is removed")

    async def is_hidden() -> bool:
        return bool((await site.get(environment_id)).status == 404)

    await until(is_hidden, "it is hidden")


async def test_one_that_is_over_can_be_looked_up_until_it_is_deleted(site: Site) -> None:
    environment_id = await site.create(command=["sh", "-c", "echo done; exit 0"])
    shown = await site.becomes(environment_id, "terminated")
    assert shown["reason"] == "its main command ended"
    assert shown["exit_code"] == 0
    assert shown["ended_at"].endswith("Z")
    await until(lambda: not site.driver.host.machines, "its machine is removed")
    logs = await site.admin.call("GET", f"{ENVIRONMENTS}/{environment_id}/logs")
    assert [each["message"] for each in logs.body["logs"]] == ["done"]

    assert (await site.admin.call("DELETE", f"{ENVIRONMENTS}/{environment_id}")).status == 204
    assert (await site.get(environment_id)).status == 404


async def test_a_server_that_can_make_none_says_so_with_the_fix(sites: Sites) -> None:
    driver = ChildDriver(sites.host, unusable="user namespaces are off: sysctl -w x=1")
    async with sites.open(driver) as site:
        answer = await site.admin.call("POST", ENVIRONMENTS, CREATION)
        assert answer.status == 503
        assert "sysctl -w x=1" in answer.body["message"]
        health = await site.live.api.call("GET", "/api/v1/health")
        assert health.status == 200
        assert health.body["status"] == "degraded"
        assert health.body["environments"]["usable"] is False
        assert health.body["environments"]["reason"].startswith("user namespaces")


async def test_environments_can_be_switched_off(live: Live) -> None:
    answer = await live.admin.call("POST", ENVIRONMENTS, CREATION)
    assert (answer.status, answer.body["code"]) == (503, 503)
    assert "STEWARD_ENVIRONMENTS_DRIVER=auto" in answer.body["message"]
    health = (await live.api.call("GET", "/api/v1/health")).body
    assert (health["status"], health["environments"]["driver"]) == ("degraded", "off")
    assert (await live.admin.call("GET", ENVIRONMENTS)).body["environments"] == []
    assert (await live.admin.call("GET", f"{ENVIRONMENTS}/none/logs")).status == 404


async def test_health_tells_what_room_there_is(site: Site) -> None:
    before = (await site.live.api.call("GET", "/api/v1/health")).body
    assert before["status"] == "healthy"
    assert before["kubernetes"] == {"connected": False, "version": ""}
    assert before["capacity"]["total_nodes"] == 1
    assert re.fullmatch(r"\d+m?", before["capacity"]["available_cpu"])
    assert re.fullmatch(r"\d+(Gi|Mi)", before["capacity"]["available_memory"])
    await site.running(resources=CREATION["resources"] | {"cpu": "250m"})
    after = (await site.live.api.call("GET", "/api/v1/health")).body
    assert after["capacity"]["available_cpu"] != before["capacity"]["available_cpu"]


async def test_values_of_variables_stand_nowhere_in_clear(site: Site) -> None:
    canary = "canary-4b1d-value"
    environment_id = await site.running(env={"SECRET": canary})
    await site.run(environment_id, "sh", "-c", "test -n $SECRET", env={"OTHER": canary})
    await site.admin.call("DELETE", f"{ENVIRONMENTS}/{environment_id}")
    for path in site.folder.glob("steward.db*"):
        assert canary.encode() not in path.read_bytes()
    created = site.audit(environment_id)[0]
    assert '"env":["SECRET"]' in created["after"]


async def test_prometheus_has_what_there_is_and_what_it_uses(sites: Sites) -> None:
    async with sites.open(stats_interval_s=0.1) as site:
        environment_id = await site.running()

        async def measured() -> bool:
            text = (await site.live.api.call("GET", "/metrics")).body
            return (
                'environments{status="running"} 1.0' in text
                and f'environment_cpu_cores{{environment_id="{environment_id}"}} 0.125' in text
                and "environments_usable 1.0" in text
                and 'environments_promised{resource="cpu_cores"} 0.5' in text
            )

        await until(measured, "it is measured")
        await site.admin.call("DELETE", f"{ENVIRONMENTS}/{environment_id}")

        async def forgotten() -> bool:
            text = (await site.live.api.call("GET", "/metrics")).body
            return environment_id not in text

        await until(forgotten, "it is forgotten")


async def test_nobody_becomes_root_where_that_was_ruled_out(site: Site) -> None:
    security = {"run_as_user": 1000, "run_as_non_root": True}
    environment_id = await site.running(isolation={"security_context": security})
    body = {"command": ["true"], "user": 0}
    answer = await site.admin.call("POST", f"{ENVIRONMENTS}/{environment_id}/exec", body)
    assert (answer.status, "run_as_non_root" in answer.body["message"]) == (400, True)
