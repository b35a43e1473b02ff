"""How lives end by themselves, and what a server finds that comes after another."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from steward_server.db import Reader
from steward_server.environments import keeper, store
from steward_server.environments.driver import Away, Exit, Gone, Unusable
from steward_server.errors import Unavailable
from tests.child_driver import ChildDriver, Machine
from tests.integration.environments.conftest import CREATION, Site, Sites, until

ENVIRONMENTS = "/api/v1/environments"


async def test_an_environment_ends_when_its_time_is_over(site: Site) -> None:
    environment_id = await site.running(timeout=600)
    site.clock.advance(599)
    await asyncio.sleep(0.1)
    assert (await site.get(environment_id)).body["status"] == "running"
    site.clock.advance(2)
    shown = await site.becomes(environment_id, "terminated")
    assert shown["reason"].startswith("its time was over at 20")
    assert site.driver.host.machines == {}
    assert await site.journal(environment_id) == [
        "environment.created",
        "environment.started",
        "environment.expired",
        "environment.stopped",
    ]


async def test_a_longer_life_can_be_given_while_it_lasts(site: Site) -> None:
    environment_id = await site.running(timeout=600)
    await site.admin.call("PATCH", f"{ENVIRONMENTS}/{environment_id}", {"timeout": 1200})
    site.clock.advance(700)
    await asyncio.sleep(0.1)
    assert (await site.get(environment_id)).body["status"] == "running"
    site.clock.advance(600)
    await site.becomes(environment_id, "terminated")


async def test_an_environment_that_nobody_uses_ends_and_looking_is_no_use(site: Site) -> None:
    environment_id = await site.running(idle_timeout=100)
    site.clock.advance(60)
    await site.run(environment_id, "true")
    site.clock.advance(60)
    await site.get(environment_id)
    await site.admin.call("GET", f"{ENVIRONMENTS}/{environment_id}/logs")
    await asyncio.sleep(0.1)
    assert (await site.get(environment_id)).body["status"] == "running"
    site.clock.advance(60)
    shown = await site.becomes(environment_id, "terminated")
    assert shown["reason"] == "nobody used it for 100 s"


async def test_a_command_under_way_and_a_pause_are_not_idle(site: Site) -> None:
    environment_id = await site.running(idle_timeout=100)
    command = asyncio.create_task(site.run(environment_id, "sleep", "0.5"))
    await until(lambda: ("exec", environment_id) in site.driver.calls, "it runs")
    site.clock.advance(200)
    await asyncio.sleep(0.1)
    assert (await command)["exit_code"] == 0
    await site.admin.call("POST", f"{ENVIRONMENTS}/{environment_id}/pause", {})
    site.clock.advance(200)
    await asyncio.sleep(0.1)
    assert (await site.get(environment_id)).body["paused"] is True
    await site.admin.call("POST", f"{ENVIRONMENTS}/{environment_id}/resume", {})
    site.clock.advance(101)
    await site.becomes(environment_id, "terminated")


async def test_pausing_stands_in_the_row_the_machine_and_the_journal(site: Site) -> None:
    environment_id = await site.running()
    path = f"{ENVIRONMENTS}/{environment_id}"
    paused = await site.admin.call("POST", f"{path}/pause", {})
    assert (paused.status, paused.body["paused"]) == (200, True)
    assert site.driver.host.machines[environment_id].is_paused
    again = await site.admin.call("POST", f"{path}/pause", {})
    assert again.status == 200
    resumed = await site.admin.call("POST", f"{path}/resume", {})
    assert (resumed.status, "paused" in resumed.body) == (200, False)
    kinds = await site.journal(environment_id)
    assert kinds[2:] == ["environment.paused", "environment.resumed"]

    site.driver.faults["pause"].append(OSError("no freezer"))
    assert (await site.admin.call("POST", f"{path}/pause", {})).status == 500
    assert "paused" not in (await site.get(environment_id)).body
    site.driver.features = frozenset()
    refused = await site.admin.call("POST", f"{path}/pause", {})
    assert (refused.status, "does not support pause" in refused.body["message"]) == (409, True)


async def test_a_machine_that_is_lost_is_told(site: Site) -> None:
    environment_id = await site.running()
    machine = site.driver.host.machines.pop(environment_id)
    machine.exit.set_exception(Gone(environment_id))
    shown = await site.becomes(environment_id, "failed")
    assert shown["reason"] == "its machine is gone"


async def test_what_is_over_is_forgotten_after_a_while(sites: Sites) -> None:
    async with sites.open(kept_s=100) as site:
        environment_id = await site.create(command=["true"])
        await site.becomes(environment_id, "terminated")
        site.clock.advance(101)

        async def is_gone() -> bool:
            return bool((await site.get(environment_id)).status == 404)

        await until(is_gone, "it is forgotten")
        assert site.rows("environment", "environment_id", environment_id) == []


# A server after another.


async def test_what_lives_is_adopted_with_everything_it_can_do(sites: Sites) -> None:
    async with sites.open() as first:
        environment_id = await first.running(env={"X": "kept"})
        paused_id = await first.running()
        await first.admin.call("POST", f"{ENVIRONMENTS}/{paused_id}/pause", {})
    sites.host.machines[paused_id].is_paused = False  # it went before the freezer had it
    async with sites.open() as second:
        assert (await second.get(environment_id)).body["status"] == "running"
        assert (await second.run(environment_id, "sh", "-c", "echo $X"))["stdout"] == "kept\n"
        await until(lambda: sites.host.machines[paused_id].is_paused, "it is paused again")
        sites.host.machines[environment_id].end(Exit(0))
        assert (await second.becomes(environment_id, "terminated"))["exit_code"] == 0
        await until(lambda: environment_id not in sites.host.machines, "it is removed")


async def test_what_is_lost_fails_with_the_reason(sites: Sites) -> None:
    async with sites.open() as first:
        environment_id = await first.running()
    sites.host.machines.clear()
    async with sites.open() as second:
        shown = await second.becomes(environment_id, "failed")
        assert shown["reason"] == "its machine was lost while the server was away"


async def test_what_ended_meanwhile_ends_with_its_exit_code(sites: Sites) -> None:
    async with sites.open() as first:
        environment_id = await first.running()
    machine = sites.host.machines[environment_id]
    machine.write("stdout", "last words")
    machine.end(Exit(3))
    async with sites.open() as second:
        shown = await second.becomes(environment_id, "failed")
        assert shown["exit_code"] == 3
        await until(lambda: not sites.host.machines, "its machine is removed")
        logs = await second.admin.call("GET", f"{ENVIRONMENTS}/{environment_id}/logs")
        assert logs.body["logs"][0]["message"] == "last words"


async def test_what_nobody_knows_is_removed(sites: Sites) -> None:
    async with sites.open() as first:
        environment_id = await first.running()
        spec = sites.host.machines[environment_id].spec
    folder = sites.host.folder / "stray"
    folder.mkdir()
    sites.host.machines["env-stray"] = Machine(spec, folder)
    async with sites.open() as second:
        await until(lambda: set(sites.host.machines) == {environment_id}, "the stray is removed")
        assert (await second.get(environment_id)).body["status"] == "running"


async def test_what_was_being_made_is_made_anew(sites: Sites) -> None:
    driver = ChildDriver(sites.host)
    driver.gates["start"] = asyncio.Event()
    async with sites.open(driver) as first:
        environment_id = await first.create()
        await until(lambda: sites.host.machines, "half of it is made")
    assert set(sites.host.machines) == {environment_id}
    async with sites.open() as second:
        await second.becomes(environment_id, "running")
        assert sites.host.machines[environment_id].is_started


async def test_what_was_ending_ends(sites: Sites) -> None:
    driver = ChildDriver(sites.host)
    async with sites.open(driver) as first:
        deleted_id, expired_id = await first.running(), await first.running(timeout=10)
        driver.gates["delete"] = asyncio.Event()
        call = asyncio.create_task(
            first.admin.call("DELETE", f"{ENVIRONMENTS}/{deleted_id}?force=true")
        )
        first.clock.advance(11)
        await first.becomes(deleted_id, "terminating")
        await first.becomes(expired_id, "terminating")
        call.cancel()
    async with sites.open() as second:
        await second.becomes(expired_id, "terminated")
        await until(lambda: not sites.host.machines, "both are gone")

        async def is_gone() -> Any:
            return (await second.get(deleted_id)).status == 404

        await until(is_gone, "the deleted one is hidden")


async def test_a_server_without_a_usable_driver_leaves_alone_what_it_cannot_reach(
    sites: Sites,
) -> None:
    gate = ChildDriver(sites.host)
    async with sites.open(gate) as first:
        environment_id = await first.running()
        gate.gates["create"] = asyncio.Event()
        pending_id = await first.create()
    async with sites.open(ChildDriver(sites.host, unusable="no root")) as second:
        assert (await second.get(environment_id)).body["status"] == "running"
        assert "no root" in (await second.get(pending_id)).body["reason"]
        answer = await second.admin.call(
            "POST", f"{ENVIRONMENTS}/{environment_id}/exec", {"command": ["true"]}
        )
        assert (answer.status, "no root" in answer.body["message"]) == (503, True)
    async with sites.open() as third:
        assert (await third.run(environment_id, "true"))["exit_code"] == 0


async def test_a_driver_that_fails_to_open_is_told_by_health(sites: Sites) -> None:
    driver = ChildDriver(sites.host)
    driver.faults["open"].append(RuntimeError("secret detail"))
    driver.unusable = "it is not open yet"
    async with sites.open(driver) as site:
        health = await site.live.api.call("GET", "/api/v1/health")
        assert health.body["environments"]["reason"] == (
            "its driver failed to start; the server's log says why"
        )


async def test_a_driver_that_comes_late_is_taken_up_with_what_it_has(
    sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "OPEN_AGAIN_S", 0.05)
    async with sites.open() as first:
        kept, lost = await first.running(), await first.running()
    del sites.host.machines[lost]
    late = ChildDriver(sites.host, unusable="no engine answers; start it")
    late.may_come = True
    async with sites.open(late) as second:
        refused = await second.admin.call("POST", ENVIRONMENTS, CREATION)
        assert (refused.status, "start it" in refused.body["message"]) == (503, True)
        assert (await second.get(kept)).body["status"] == "running"
        late.faults["list_owned"].append(Away("NO_ENGINE", "it went away again"))
        failures, living = [Unavailable("the database does not answer")], store.living

        async def failing(reader: Reader) -> Any:
            if failures:
                raise failures.pop()
            return await living(reader)

        monkeypatch.setattr(store, "living", failing)
        late.unusable = ""
        await second.becomes(lost, "failed")
        assert (await second.run(kept, "true"))["exit_code"] == 0
        health = (await second.live.api.call("GET", "/api/v1/health")).body
        assert (health["status"], health["environments"]["usable"]) == ("healthy", True)
        await second.running()
    opened = [method for method, _ in late.calls if method == "open"]
    assert (len(opened) > 2, failures) == (True, [])


async def test_who_is_away_for_a_moment_is_answered_with_503(site: Site) -> None:
    environment_id = await site.running()
    path = f"{ENVIRONMENTS}/{environment_id}"
    away = Away("NO_ENGINE", "no engine answers; start it")
    for method, call in (
        ("exec", ("POST", f"{path}/exec", {"command": ["true"]})),
        ("pause", ("POST", f"{path}/pause", {})),
        ("signal", ("POST", f"{path}/processes/7/signal", {"signal": "TERM"})),
    ):
        site.driver.faults[method].append(away)
        answer = await site.admin.call(*call)
        assert (answer.status, answer.body["message"]) == (503, str(away)), method
    site.driver.faults["capacity"].append(away)
    health = (await site.live.api.call("GET", "/api/v1/health")).body
    assert (health["status"], health["environments"]["reason"]) == ("degraded", str(away))
    assert health["capacity"]["total_nodes"] == 0


async def test_what_does_not_stand_still_now_is_409_with_what_to_do(site: Site) -> None:
    environment_id = await site.running()
    site.driver.faults["pause"].append(
        Unusable("CANNOT_PAUSE", "it does not stand still; try again in a moment")
    )
    answer = await site.admin.call("POST", f"{ENVIRONMENTS}/{environment_id}/pause", {})
    assert answer.status == 409
    assert "try again in a moment" in answer.body["message"]
    assert not (await site.get(environment_id)).body.get("paused")


async def test_row_and_machine_agree_though_a_right_is_taken_away_meanwhile(site: Site) -> None:
    owner, friend = await site.person("owner"), await site.person("friend")
    environment_id = await site.running(owner)
    path, machine = f"{ENVIRONMENTS}/{environment_id}", site.driver.host.machines[environment_id]

    async def lose_the_right(what: str) -> int:
        """While the machine is told; how whoever asked for it is answered."""
        share = f"{path}/shares/friend"
        assert (await owner.call("PUT", share, {"permission": "write"})).status == 200
        site.driver.gates[what] = asyncio.Event()
        site.driver.calls.clear()
        asking = asyncio.create_task(friend.call("POST", f"{path}/{what}", {}))
        await until(lambda: (what, environment_id) in site.driver.calls, "it is told")
        assert (await owner.call("DELETE", share)).status == 204
        site.driver.gates.pop(what).set()
        return (await asking).status

    pause = site.driver.pause

    async def failing(environment_id: str) -> None:
        await pause(environment_id)  # as long as that takes
        raise Unusable("CANNOT_PAUSE", "it does not stand still; try again in a moment")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(site.driver, "pause", failing)
        assert await lose_the_right("pause") == 409
    assert (await site.get(environment_id, owner)).body.get("paused", False) is False
    assert (await owner.call("POST", f"{path}/pause", {})).status == 200
    assert await lose_the_right("resume") == 404
    assert (await site.get(environment_id, owner)).body.get("paused", False) is False
    assert not machine.is_paused


async def test_whoever_resumes_what_has_just_ended_is_not_told_to_resume_it(site: Site) -> None:
    environment_id = await site.running()
    path = f"{ENVIRONMENTS}/{environment_id}"
    assert (await site.admin.call("POST", f"{path}/pause", {})).status == 200
    site.driver.faults["resume"].append(Gone(environment_id))
    answer = await site.admin.call("POST", f"{path}/resume", {})
    assert (answer.status, answer.body["message"]) == (
        409,
        f"environment {environment_id!r} is ending",
    )


async def test_what_a_driver_warns_of_is_told_by_health(site: Site) -> None:
    site.driver.warnings = ("forwarding is dropped by another table",)
    health = (await site.live.api.call("GET", "/api/v1/health")).body
    assert health["environments"]["warnings"] == list(site.driver.warnings)


async def test_a_machine_is_made_with_the_labels_of_its_environment(site: Site) -> None:
    environment_id = await site.running(labels={"team": "blue"})
    assert site.driver.host.machines[environment_id].spec.labels == {"team": "blue"}


@pytest.mark.parametrize("method", ["create", "start"])
async def test_what_takes_too_long_to_make_is_given_up(sites: Sites, method: str) -> None:
    driver = ChildDriver(sites.host)
    driver.gates[method] = asyncio.Event()
    async with sites.open(driver, start_timeout_s=0.2) as site:
        shown = await site.becomes(await site.create(), "failed")
        assert shown["reason"] == "it could not be made within 0.2 s"
        assert sites.host.machines == {}


# Events.


async def test_events_reach_the_owner_and_administrators_and_nobody_else(site: Site) -> None:
    owner, other = await site.person("owner"), await site.person("other")
    async with (
        _socket(owner) as owners,
        _socket(other) as others,
        _socket(site.admin) as admins,
    ):
        environment_id = await site.running(owner, name="mine", timeout=10)
        started = await owners.receive_json(timeout=10)
        assert started["type"] == "EnvironmentStarted"
        assert started["agent_id"] == ""
        assert started["data"]["environment_id"] == environment_id
        assert started["data"]["name"] == "mine"
        site.clock.advance(11)
        expired = await owners.receive_json(timeout=10)
        assert (expired["type"], expired["data"]["cause"]) == ("EnvironmentExpired", "timeout")
        stopped = await owners.receive_json(timeout=10)
        assert (stopped["type"], stopped["data"]["exit_code"]) == ("EnvironmentStopped", None)

        await site.create(image="nothing")
        failed = [await admins.receive_json(timeout=10) for _ in range(4)][-1]
        assert failed["type"] == "EnvironmentFailed"
        assert "there is no image" in failed["data"]["reason"]
        with pytest.raises(TimeoutError):
            await others.receive_json(timeout=0.3)
    # And so does what is read again later.
    since = f"/ws?type=EnvironmentStarted&since={started['sequence'] - 1}"
    async with _socket(owner, since) as again:
        assert (await again.receive_json(timeout=10))["sequence"] == started["sequence"]


def _socket(api: Any, path: str = "/ws") -> Any:
    types = "" if "type=" in path else "?" + "&".join(f"type={each}" for each in TYPES)
    return api.session.ws_connect(f"{api.base_url}{path}{types}", headers=api.headers)


TYPES = ("EnvironmentStarted", "EnvironmentStopped", "EnvironmentFailed", "EnvironmentExpired")
