"""`steward policy`."""

from __future__ import annotations

from steward_client import Client
from steward_client.cli.session_file import SessionFile
from tests.integration.cli.conftest import Shell


async def test_policies_are_listed(shell: Shell) -> None:
    for name in ("cartpole-memory", "pendulum"):
        await shell("policy", "load", name)
    listed = await shell("policy", "list", "--json")
    table = await shell("policy", "list")

    policies = {each["name"]: each for each in listed.json}
    assert set(policies) == {"cartpole", "cartpole-memory", "pendulum"}
    assert policies["cartpole"]["is_default"] is True
    assert policies["pendulum"]["versions"][0]["action_type"] == "continuous"
    assert policies["cartpole-memory"]["versions"][0]["memory"]["shape"] == [32, 32]
    assert "cartpole (default)" in table.out
    assert "1 of 2" in table.out
    assert "Swings the pendulum of Pendulum-v1 up" in table.out


async def test_one_policy_is_shown_with_its_versions(shell: Shell) -> None:
    await shell("policy", "load", "cartpole-memory")
    shown = await shell("policy", "get", "cartpole-memory")
    told = await shell("policy", "get", "cartpole-memory", "--json")
    unknown = await shell("policy", "get", "none")

    assert shown.code == 0
    assert "memory [32, 32], its memory" in shown.out
    assert told.json["versions"][0]["model_sha256"] in shown.out
    assert (unknown.code, unknown.out) == (5, "")
    assert unknown.err.startswith("Error: no policy 'none'; there are cartpole")


async def test_a_policy_is_unloaded_and_loaded(shell: Shell) -> None:
    await shell("policy", "load", "pendulum")
    unloaded = await shell("policy", "unload", "pendulum", "--json")
    shown = await shell("policy", "get", "pendulum")
    listed = await shell("policy", "list")
    loaded = await shell("policy", "load", "pendulum@1", "--json")

    assert unloaded.json["versions"][0]["is_loaded"] is False
    assert "not loaded" in shown.out
    assert "not loaded" in listed.out
    assert loaded.json["versions"][0]["is_loaded"] is True


async def test_a_policy_that_agents_have_is_unloaded_only_by_force(shell: Shell) -> None:
    with Client(shell.server, store=SessionFile(shell.home, shell.server)) as client:
        client.inference.reset("arm", policy="pendulum")
        refused = await shell("policy", "unload", "pendulum")
        forced = await shell("policy", "unload", "pendulum", "--force")
    await shell("policy", "load", "pendulum")

    assert refused.code == 6
    assert "1 agents have policy 'pendulum'" in refused.err
    assert forced.code == 0


async def test_a_stranger_is_told_to_sign_in(stranger: Shell) -> None:
    ended = await stranger("policy", "list")
    assert ended.code == 3
    assert "steward login" in ended.err


async def test_agents_that_step_are_listed_by_their_pressure(shell: Shell) -> None:
    await shell("policy", "load", "cartpole-memory")
    with Client(shell.server, store=SessionFile(shell.home, shell.server)) as client:
        client.inference.reset("still", policy="cartpole-memory")
        client.inference.reset("busy", policy="cartpole-memory")
        client.inference.step([0.1, 0.1], agent_id="busy")
        told = await shell("policy", "agents", "cartpole-memory", "--by-pressure", "--json")
        table = await shell("policy", "agents")
    unknown = await shell("policy", "agents", "none")

    assert [each["agent_id"] for each in told.json["agents"]] == ["busy", "still"]
    assert [each["step_count"] for each in told.json["agents"]] == [1, 0]
    assert told.json["agents"][0]["pressure"] > 0
    assert "cartpole-memory@1" in table.out
    assert unknown.code == 5
