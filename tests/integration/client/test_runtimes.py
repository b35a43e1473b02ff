"""A whole runtime: a real server, a real provider's double, scripts as processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from steward.events.v1 import events_pb2
from steward.events.v1.events_pb2_grpc import EventServiceStub
from steward_client.async_runtime import AsyncRuntime
from steward_client.child import Child
from steward_client.errors import BudgetExceeded, Unauthorized, Unavailable
from steward_client.runs import RunId, UnknownRun
from steward_client.standin import StandIn, StandInConfig
from steward_server.budget.config import BudgetConfig
from steward_server.settings import Settings
from tests.integration.client.conftest import KEY, price_table, until
from tests.live import Agent, Live, create_agent, create_provider, live_server, live_settings
from tests.relay import Relay

SCRIPT = """
import http.client, json, os, sys, urllib.parse
base = urllib.parse.urlsplit(os.environ["OPENAI_BASE_URL"])
count, tokens, stream = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:] == ["stream"]
for number in range(count):
    connection = http.client.HTTPConnection(base.hostname, base.port)
    body = {"model": "gpt-4o-mini", "max_tokens": tokens, "stream": stream,
            "messages": [{"role": "user", "content": "call 555-123-4567"}]}
    connection.request("POST", base.path + "/chat/completions", json.dumps(body),
                       {"authorization": "Bearer " + os.environ["OPENAI_API_KEY"]})
    answer = connection.getresponse()
    text = answer.read()
    if answer.status == 402:
        sys.exit(42)
    if answer.status != 200:
        sys.exit(43)
"""


@dataclass
class World:
    live: Live
    standin: StandIn
    agent: Agent
    folder: Path
    script: Path

    def runtime(self, budget: Any = "0.5", **settings: Any) -> AsyncRuntime:
        given = {
            "server": self.live.running.grpc_address,
            "token": self.agent.ic_token,
            "state_dir": self.folder / "state",
            "quiet_agents": True,
            "stop_grace_s": 2.0,
        }
        return AsyncRuntime(budget, **{**given, **settings})

    async def money(self) -> dict[str, Any]:
        path = f"/api/agents/{self.agent.agent_id}/status"
        answer = await self.live.admin.call("GET", path)
        assert answer.status == 200
        budget: dict[str, Any] = answer.body["budget"]
        return budget

    async def status(self) -> str:
        path = f"/api/agents/{self.agent.agent_id}/status"
        return str((await self.live.admin.call("GET", path)).body["status"])

    @property
    def leftovers(self) -> list[Path]:
        return sorted((self.folder / "state").rglob("*.sqlite"))


@asynccontextmanager
async def open_world(
    folder: Path,
    *,
    budget_usd: float = 1,
    standin: StandInConfig | None = None,
    budget: BudgetConfig | None = None,
) -> AsyncIterator[World]:
    settings = Settings() if budget is None else replace(Settings(), budget=budget)
    script = folder / "agent.py"
    script.write_text(SCRIPT)
    async with (
        live_server(live_settings(folder / "data", settings)) as live,
        StandIn(price_table(), standin) as provider,
    ):
        await create_provider(live.admin, base_url=provider.url, key=KEY)
        agent = await create_agent(live.admin, budget_usd=budget_usd)
        yield World(live, provider, agent, folder, script)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(tmp_path) as made:
        yield made


async def test_a_script_runs_on_lent_money_and_the_rest_is_returned(world: World) -> None:
    async with world.runtime() as runtime:
        run_id = await runtime.start_agent(world.script, ["5", "10"])
        code = await runtime.wait(run_id, timeout_s=20)
        metrics = await runtime.get_metrics(run_id)
    money = await world.money()

    assert code == 0
    assert run_id.agent_id == world.agent.agent_id
    assert metrics["status"] == "stopped"
    assert metrics["calls"] == 5
    assert metrics["tokens"]["output"] == 50
    assert metrics["pii"] == {"email": 0, "phone": 5, "ssn": 0, "card": 0, "iban": 0}
    assert metrics["spent"] == Decimal(world.standin.billed_nanousd).scaleb(-9) > 0
    assert metrics["remaining"] == Decimal("0.5") - metrics["spent"]
    assert Decimal(str(money["spent_usd"])) == metrics["spent"]
    assert money["reserved_usd"] == 0
    assert world.leftovers == []


async def test_a_script_meets_402_when_the_runtimes_budget_is_spent(world: World) -> None:
    async with world.runtime("0.0008") as runtime:
        run_id = await runtime.start_agent(world.script, ["1000", "200"])
        code = await runtime.wait(run_id, timeout_s=30)
        metrics = await runtime.get_metrics(run_id)

    assert code == 42
    assert metrics["status"] == "failed"
    assert metrics["last_refusal"] == "budget_exceeded"
    assert world.standin.billed_nanousd <= 800_000
    assert metrics["spent"] == Decimal(world.standin.billed_nanousd).scaleb(-9)


async def test_money_is_borrowed_in_tranches_as_it_is_needed(world: World) -> None:
    async with world.runtime("0.01", tranche="0.0005") as runtime:
        before = await world.money()
        run_id = await runtime.start_agent(world.script, ["80", "16"])
        await runtime.wait(run_id, timeout_s=30)
        granted_nanousd = runtime._purse.granted_nanousd

    assert before["reserved_usd"] == 0.0005
    assert granted_nanousd > 500_000
    assert (await runtime_spent(world)) == world.standin.billed_nanousd


async def runtime_spent(world: World) -> int:
    return int(Decimal(str((await world.money())["spent_usd"])).scaleb(9))


async def test_the_environment_of_a_script_holds_no_credential_that_is_real(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEWARD_IC_TOKEN", world.agent.ic_token)
    monkeypatch.setenv("OPENAI_ORG_ID", "org-real")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "real")
    monkeypatch.setenv("MY_COPY", KEY)
    shown = world.folder / "shown"
    world.script.write_text(
        f"import os, json; json.dump(dict(os.environ), open({str(shown)!r}, 'w'))"
    )
    async with world.runtime() as runtime:
        await runtime.wait(await runtime.start_agent(world.script), timeout_s=20)
        seen = shown.read_text()
        port = runtime.port

    assert world.agent.ic_token not in seen
    assert KEY not in seen.replace("sk-steward", "")
    assert "org-real" not in seen
    assert "ANTHROPIC_AUTH_TOKEN" not in seen
    assert f'"OPENAI_BASE_URL": "http://127.0.0.1:{port}/v1"' in seen
    assert f'"ANTHROPIC_BASE_URL": "http://127.0.0.1:{port}"' in seen


async def test_stopping_a_run_ends_its_process_and_what_it_started(world: World) -> None:
    pids = world.folder / "pids"
    world.script.write_text(
        "import os, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "time.sleep(600)\n"
    )
    async with world.runtime(stop_grace_s=0.2) as runtime:
        run_id = await runtime.start_agent(world.script)
        await until(lambda: pids.exists() and len(pids.read_text().split()) == 2)
        await runtime.stop_agent(run_id)
        metrics = await runtime.get_metrics(run_id)
    script_pid, child_pid = map(int, pids.read_text().split())

    assert metrics["status"] == "stopped"
    assert metrics["exit_code"] == -signal.SIGKILL
    await until(lambda: not is_alive(script_pid) and not is_alive(child_pid))


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


async def test_closing_leaves_no_process_behind(world: World) -> None:
    world.script.write_text("import time; time.sleep(600)")
    async with world.runtime() as runtime:
        run_id = await runtime.start_agent(world.script)
        child = runtime._runs[run_id].child
        assert isinstance(child, Child)
        assert is_alive(child.pid)
    assert not is_alive(child.pid)


async def test_a_stop_from_the_server_ends_the_script_and_returns_the_lease(
    tmp_path: Path,
) -> None:
    slow = StandInConfig(chunk_count=100_000, chunk_delay_s=0.002)
    async with open_world(tmp_path, standin=slow) as world, world.runtime() as runtime:
        run_id = await runtime.start_agent(world.script, ["1", "90000", "stream"])
        await until(lambda: world.standin.running == 1)
        began_s = time.monotonic()
        path = f"/api/agents/{world.agent.agent_id}/stop"
        assert (await world.live.admin.call("POST", path, {"reason": "lunch"})).status == 202
        await until(lambda: world.standin.running == 0)
        took_s = time.monotonic() - began_s
        await runtime.wait(run_id, timeout_s=10)
        metrics = await runtime.get_metrics(run_id)
        async with asyncio.timeout(30):
            while (await world.money())["reserved_usd"] != 0:
                await asyncio.sleep(0.02)

        assert took_s < 30  # of two hundred seconds
        assert metrics["status"] == "stopped"
        assert world.standin.billed_nanousd <= await runtime_spent(world)


async def test_a_stopped_agent_starts_again_when_it_may(world: World) -> None:
    path = f"/api/agents/{world.agent.agent_id}"
    async with world.runtime() as runtime:
        await runtime.open()
        await world.live.admin.call("POST", f"{path}/stop", {})
        await until(lambda: bool(runtime._purse.stop_reason))
        await world.live.admin.call("POST", f"{path}/start", {})
        run_id = await runtime.start_agent(world.script, ["2", "5"])

        assert await runtime.wait(run_id, timeout_s=20) == 0
    assert await runtime_spent(world) == world.standin.billed_nanousd > 0


async def test_a_revoked_token_ends_the_script(tmp_path: Path) -> None:
    slow = StandInConfig(chunk_count=100_000, chunk_delay_s=0.002)
    async with open_world(tmp_path, standin=slow) as world:
        async with world.runtime(close_timeout_s=60) as runtime:
            run_id = await runtime.start_agent(world.script, ["1", "90000", "stream"])
            await until(lambda: world.standin.running == 1)
            path = f"/api/tokens/{world.agent.token_id}"
            assert (await world.live.admin.call("DELETE", path)).status == 204
            await until(lambda: world.standin.running == 0)
            await runtime.wait(run_id, timeout_s=10)

            assert (await runtime.get_metrics(run_id))["status"] == "stopped"
            began_s = time.monotonic()
        assert time.monotonic() - began_s < 10


async def test_a_wrong_token_is_told_at_once(world: World) -> None:
    with pytest.raises(Unauthorized):
        await world.runtime(token="ic_wrong").open()


async def test_a_server_that_is_not_there_is_told_at_once(world: World) -> None:
    with pytest.raises(Unavailable):
        await world.runtime(server="127.0.0.1:9").open()


async def test_a_handshake_for_an_agent_without_money_is_refused(tmp_path: Path) -> None:
    async with (
        open_world(tmp_path, budget_usd=0.001) as world,
        world.runtime("0.001", tranche="0.001"),
    ):
        with pytest.raises(BudgetExceeded):
            await world.runtime("0.001").open()


async def test_the_server_is_told_what_happens(world: World) -> None:
    async with world.runtime() as runtime:
        await runtime.wait(await runtime.start_agent(world.script, ["2", "4"]), timeout_s=20)
    told = []
    stream = EventServiceStub(world.live.channel).Subscribe(
        events_pb2.SubscribeRequest(agent_id=world.agent.agent_id, since=0),
        metadata=(("authorization", world.live.admin.headers["authorization"]),),
    )
    async with asyncio.timeout(10):
        async for response in stream:
            told.append(response.event)
            seen = [event.WhichOneof("data") for event in told]
            if "agent_stopped" in seen and seen.count("cost_update") == 2:
                break
    stream.cancel()
    [started] = [event.agent_started for event in told if event.HasField("agent_started")]
    [stopped] = [event.agent_stopped for event in told if event.HasField("agent_stopped")]
    alerts = [event.pii_alert for event in told if event.HasField("pii_alert")]
    costs = [event.cost_update for event in told if event.HasField("cost_update")]

    assert started.script == "agent.py"
    assert started.budget_nanousd == 500_000_000
    assert stopped.exit_code == 0
    assert [finding.kind for alert in alerts for finding in alert.findings] == [
        events_pb2.PII_KIND_PHONE
    ] * 2
    assert {alert.request_id for alert in alerts} == {cost.request_id for cost in costs}
    assert sum(cost.cost_nanousd for cost in costs) == world.standin.billed_nanousd


async def test_a_run_nobody_knows_is_named(world: World) -> None:
    async with world.runtime() as runtime:
        with pytest.raises(UnknownRun, match="agent_x/1"):
            await runtime.get_metrics(RunId("agent_x/1"))


async def test_runs_are_counted_apart(world: World) -> None:
    async with world.runtime() as runtime:
        runs = [await runtime.start_agent(world.script, [str(count), "4"]) for count in (1, 3)]
        for run_id in runs:
            await runtime.wait(run_id, timeout_s=20)
        metrics = [await runtime.get_metrics(run_id) for run_id in runs]

    assert [each["calls"] for each in metrics] == [1, 3]
    assert sum(each["spent"] for each in metrics) == Decimal(world.standin.billed_nanousd).scaleb(
        -9
    )


async def test_a_cut_stream_is_taken_up_again_and_nothing_is_lost(world: World) -> None:
    async with (
        Relay(world.live.running.grpc_address) as wire,
        world.runtime(server=wire.address) as runtime,
    ):
        run_id = await runtime.start_agent(world.script, ["150", "5"])
        for calls in (20, 60, 100):
            await until(lambda at=calls: runtime._runs[run_id].tally.calls >= at, 20)  # type: ignore[misc]
            wire.cut()
        await runtime.wait(run_id, timeout_s=30)
        metrics = await runtime.get_metrics(run_id)

    assert metrics["calls"] == 150
    assert await runtime_spent(world) == world.standin.billed_nanousd
    assert (await world.money())["reserved_usd"] == 0


async def test_without_the_server_calls_go_on_to_the_end_of_the_lease_and_no_further(
    tmp_path: Path,
) -> None:
    lending = BudgetConfig(lease_ttl_s=1.5, settle_grace_s=30, sweep_interval_s=0.05)
    async with (
        open_world(tmp_path, budget=lending) as world,
        Relay(world.live.running.grpc_address) as wire,
        world.runtime(server=wire.address) as runtime,
    ):
        run_id = await runtime.start_agent(world.script, ["100000", "5"])
        await until(lambda: world.standin.billed_nanousd > 0, 30)
        wire.close()
        cut_s = last_paid_s = time.monotonic()
        before_nanousd = billed_nanousd = world.standin.billed_nanousd
        ended = asyncio.create_task(runtime.wait(run_id, timeout_s=30))
        while not ended.done():
            if world.standin.billed_nanousd > billed_nanousd:
                billed_nanousd, last_paid_s = world.standin.billed_nanousd, time.monotonic()
            await asyncio.sleep(0.02)
        metrics = await runtime.get_metrics(run_id)

        assert await ended == 43
        assert metrics["last_refusal"] == "lease_expired"
        assert billed_nanousd > before_nanousd
        assert last_paid_s - cut_s < 6
        wire.open()
        again = await runtime.start_agent(world.script, ["3", "5"])
        async with asyncio.timeout(20):
            while await runtime.wait(again) != 0:
                again = await runtime.start_agent(world.script, ["3", "5"])
        async with asyncio.timeout(10):
            while await runtime_spent(world) != world.standin.billed_nanousd:
                await asyncio.sleep(0.05)


async def test_without_the_server_a_lease_that_is_spent_is_no_final_refusal(world: World) -> None:
    async with (
        Relay(world.live.running.grpc_address) as wire,
        world.runtime(server=wire.address, tranche="0.002") as runtime,
    ):
        wire.close()
        run_id = await runtime.start_agent(world.script, ["1000", "200"])
        code = await runtime.wait(run_id, timeout_s=30)
        metrics = await runtime.get_metrics(run_id)

        assert code == 43
        assert metrics["last_refusal"] == "ledger_unavailable"
        assert 0 < world.standin.billed_nanousd <= 2_000_000
        wire.open()
        again = await runtime.start_agent(world.script, ["3", "200"])
        async with asyncio.timeout(20):
            while await runtime.wait(again) != 0:
                again = await runtime.start_agent(world.script, ["3", "200"])
    assert await runtime_spent(world) == world.standin.billed_nanousd


async def test_a_lease_lives_as_long_as_its_runtime(tmp_path: Path) -> None:
    lending = BudgetConfig(lease_ttl_s=3, sweep_interval_s=0.05)
    async with open_world(tmp_path, budget=lending) as world, world.runtime() as runtime:
        lease_id = runtime._purse.wallet.lease_id
        await asyncio.sleep(7)
        run_id = await runtime.start_agent(world.script, ["2", "5"])

        assert await runtime.wait(run_id, timeout_s=20) == 0
        assert runtime._purse.wallet.lease_id == lease_id


async def test_what_a_killed_runtime_left_is_settled_by_the_next(tmp_path: Path) -> None:
    slow = StandInConfig(chunk_count=100_000, chunk_delay_s=0.002)
    async with open_world(tmp_path, standin=slow) as world:
        program = tmp_path / "doomed.py"
        program.write_text(
            "import asyncio, sys\n"
            "from steward_client.async_runtime import AsyncRuntime\n"
            "async def main():\n"
            f"    runtime = AsyncRuntime('0.5', server={world.live.running.grpc_address!r},\n"
            f"        token={world.agent.ic_token!r}, state_dir={str(tmp_path / 'state')!r})\n"
            "    await runtime.open()\n"
            f"    run = await runtime.start_agent({str(world.script)!r},\n"
            "        ['1', '90000', 'stream'])\n"
            "    print(runtime._runs[run].child.pid, flush=True)\n"
            "    await runtime.wait(run)\n"
            "asyncio.run(main())\n"
        )
        doomed = await asyncio.create_subprocess_exec(
            sys.executable, str(program), stdout=asyncio.subprocess.PIPE, env=dict(os.environ)
        )
        assert doomed.stdout is not None
        script_pid = int(await doomed.stdout.readline())
        await until(lambda: world.standin.running == 1, 10)
        doomed.kill()
        await doomed.wait()
        await until(lambda: not is_alive(script_pid))
        await until(lambda: world.standin.running == 0)
        [left] = world.leftovers
        held_nanousd = (await world.money())["reserved_usd"]
        assert held_nanousd > 0

        async with world.runtime():
            await until(lambda: left not in world.leftovers, 10)
        money = await world.money()

        assert money["reserved_usd"] == 0
        assert await runtime_spent(world) >= world.standin.billed_nanousd > 0
        assert world.leftovers == []
