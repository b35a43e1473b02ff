"""`steward run` and `steward events tail`, with an agent that really calls a provider."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from steward_client.price_snapshot import shipped_table
from steward_client.standin import StandIn, StandInConfig
from tests.integration.cli.conftest import Shell
from tests.live import ServerProcess

AGENT = """
import os, sys
import openai

answer = openai.OpenAI(max_retries=0).chat.completions.create(
    model="gpt-4o", max_tokens=100, messages=[{"role": "user", "content": sys.argv[1]}]
)
print(answer.choices[0].message.content, "STEWARD_IC_TOKEN" in os.environ, flush=True)
sys.exit(int(sys.argv[2]))
"""


@pytest.fixture
async def standin() -> AsyncIterator[StandIn]:
    prices = shipped_table(datetime(2026, 11, 1, tzinfo=UTC))
    async with StandIn(prices, StandInConfig(chunk_count=3, word="word")) as provider:
        yield provider


@pytest.fixture
async def provider(shell: Shell, standin: StandIn) -> AsyncIterator[str]:
    """A provider of its own for each test; its name."""
    name = f"p{standin.url.rpartition(':')[2]}"
    added = await shell(
        *("providers", "add", name, "--kind", "openai", "--base-url", f"{standin.url}/v1"),
        *("--key-stdin", "--json"),
        stdin="sk-standin",
    )
    assert added.code == 0, added
    yield name
    await shell("providers", "delete", added.json["id"])


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "asks.py"
    path.write_text(AGENT)
    return str(path)


async def create_agent(shell: Shell, provider: str, *, budget: str = "1") -> str:
    made = await shell(
        "agents", "create", f"runs-{provider}", "--budget", budget, "--provider", provider, "-q"
    )
    assert made.code == 0, made
    return made.out.strip()


async def test_a_script_runs_on_lent_money_and_its_exit_code_is_handed_on(
    shell: Shell, provider: str, script: str, standin: StandIn
) -> None:
    agent_id = await create_agent(shell, provider)
    token = (await shell("tokens", "create", agent_id, "-q")).out.strip()
    ran = await shell(
        *("run", "--budget", "0.5", "--json", script, "Hello", "7"), STEWARD_IC_TOKEN=token
    )
    budget = await shell("budget", "show", agent_id, "--json")

    said, _, summary = ran.out.strip().rpartition("\n")
    assert ran.code == 7
    assert said == "word word word False"
    used = json.loads(summary, parse_float=Decimal)
    assert (used["calls"], used["status"], used["exit_code"]) == (1, "failed", 7)
    assert used["spent"] * 10**9 == standin.billed_nanousd > 0
    assert json.loads(budget.out, parse_float=Decimal)["spent_usd"] == used["spent"]
    assert budget.json["reserved_usd"] == 0


async def test_a_token_made_for_a_run_ends_with_it(
    shell: Shell, provider: str, script: str
) -> None:
    agent_id = await create_agent(shell, provider)
    ran = await shell("run", "--agent", agent_id, "--budget", "0.5", script, "Hello", "0")
    again = await shell("run", "--agent", agent_id, "--budget", "0.5", script, "Hello", "0")
    tokens = await shell("tokens", "list", "--agent", agent_id, "--json")

    assert (ran.code, again.code) == (0, 0), (ran, again)
    assert "1 calls" in ran.err
    assert [each["status"] for each in tokens.json] == ["revoked", "revoked"]


async def test_an_agent_with_a_token_of_its_own_is_not_robbed_of_it(
    shell: Shell, provider: str, script: str
) -> None:
    agent_id = await create_agent(shell, provider)
    token = await shell("tokens", "create", agent_id, "--json")
    ran = await shell("run", "--agent", agent_id, "--budget", "0.5", script, "Hello", "0")
    kept = await shell("tokens", "list", "--agent", agent_id, "--json")

    assert ran.code == 6
    assert token.json["id"] in ran.err
    assert kept.json[0]["status"] == "active"


async def test_what_is_personal_can_be_kept_from_the_provider(
    shell: Shell, provider: str, script: str, standin: StandIn
) -> None:
    agent_id = await create_agent(shell, provider)
    asked = "Write to ada@example.com"
    redacted = await shell(
        *("run", "--agent", agent_id, "--budget", "0.5", "--pii", "redact", script, asked, "0")
    )
    blocked = await shell(
        *("run", "--agent", agent_id, "--budget", "0.5", "--pii", "block", script, asked, "0")
    )

    assert redacted.code == 0, redacted
    assert blocked.code == 1
    assert "ada@example.com" not in json.dumps(standin.bodies)
    assert len(standin.bodies) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--budget", "1"), 2, "STEWARD_IC_TOKEN"),
        (("--budget", "0", "--agent", "{agent}"), 2, "more than 0"),
        (("--budget", "1", "--agent", "agent_none"), 5, "agent_none"),
    ],
)
async def test_what_is_missing_for_a_run_is_said(
    shell: Shell,
    provider: str,
    script: str,
    arguments: tuple[str, ...],
    code: int,
    told: str,
) -> None:
    agent_id = await create_agent(shell, provider)
    given = [each.format(agent=agent_id) for each in arguments]
    ended = await shell("run", *given, script)

    assert (ended.code, ended.out) == (code, "")
    assert told in ended.err
    assert "Traceback" not in ended.err


async def test_a_token_that_is_no_good_ends_with_3(shell: Shell, script: str) -> None:
    ended = await shell("run", "--budget", "1", script, STEWARD_IC_TOKEN="ic_nonsense")

    assert (ended.code, ended.out) == (3, "")
    assert "Traceback" not in ended.err


async def test_a_run_that_is_terminated_gives_its_money_back(
    shell: Shell, provider: str, tmp_path: Path
) -> None:
    agent_id = await create_agent(shell, provider)
    script = tmp_path / "waits.py"
    script.write_text("import time\nprint('waiting', flush=True)\ntime.sleep(600)\n")
    with shell.running("run", "--agent", agent_id, "--budget", "0.5", str(script)) as running:
        assert running.stdout is not None
        assert await asyncio.to_thread(running.stdout.readline) == "waiting\n"
        during = await shell("budget", "show", agent_id, "--json")
        running.send_signal(signal.SIGTERM)
        _, err = await asyncio.to_thread(running.communicate)
    after = await shell("budget", "show", agent_id, "--json")
    tokens = await shell("tokens", "list", "--agent", agent_id, "--json")

    assert running.returncode == 128 + signal.SIGTERM, err
    assert during.json["reserved_usd"] == 0.5
    assert after.json["reserved_usd"] == 0
    assert [each["status"] for each in tokens.json] == ["revoked"]


async def test_events_are_told_as_they_happen(shell: Shell, provider: str, script: str) -> None:
    agent_id = await create_agent(shell, provider, budget="0.002")
    asked = "Write to ada@example.com"
    tail = ("events", "tail", "--agent", agent_id, "--since", "0")
    with shell.running(*tail, "--json") as tailing:
        ran = await shell("run", "--agent", agent_id, "--budget", "0.5", script, asked, "0")
        assert ran.code == 0, ran
        assert tailing.stdout is not None
        lines = [await asyncio.to_thread(tailing.stdout.readline) for _ in range(4)]
        tailing.send_signal(signal.SIGINT)
        _, err = await asyncio.to_thread(tailing.communicate)
    people = await shell(*tail, "--count", "4")

    told = [json.loads(line) for line in lines]
    assert sorted(each["type"] for each in told) == sorted(
        ["AgentStarted", "PiiAlert", "CostUpdate", "AgentStopped"]
    )
    cost = next(each for each in told if each["type"] == "CostUpdate")
    assert cost["data"]["cost_usd"] > 0
    assert (tailing.returncode, err.strip()) == (130, "")
    assert len(people.out.splitlines()) == 4
    assert "1 email in the input: alert" in people.out


async def test_a_tail_goes_on_after_its_server_was_killed(tmp_path: Path) -> None:
    process = await ServerProcess(tmp_path / "data").start()
    try:
        shell = await Shell(tmp_path / "home", process.grpc_address).sign_in()
        agent = await shell("agents", "create", "scout", "--budget", "1", "-q")
        added = await shell("providers", "add", "openai", "--key-stdin", stdin="sk-1")
        token = await shell("tokens", "create", agent.out.strip(), "-q")
        script = tmp_path / "ends.py"
        script.write_text("")
        run = ("run", "--budget", "1", str(script))
        with shell.running("events", "tail", "--json", "--since", "0", "--count", "4") as tailing:
            assert tailing.stdout is not None
            assert tailing.stderr is not None
            before = await shell(*run, STEWARD_IC_TOKEN=token.out.strip())
            lines = [await asyncio.to_thread(tailing.stdout.readline) for _ in range(2)]
            process.kill()
            said = await asyncio.to_thread(tailing.stderr.readline)
            await process.start()
            after = await shell(*run, STEWARD_IC_TOKEN=token.out.strip())
            rest, _ = await asyncio.to_thread(tailing.communicate)
    finally:
        process.stop()

    assert (added.code, before.code, after.code) == (0, 0, 0), (added, before, after)
    assert "trying again" in said
    told = [json.loads(line)["type"] for line in [*lines, *rest.splitlines()]]
    assert told == ["AgentStarted", "AgentStopped"] * 2
    assert tailing.returncode == 0
