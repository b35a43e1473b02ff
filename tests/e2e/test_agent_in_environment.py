"""An agent in a machine of its own: the openai package, a budget, and one way out."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from steward_client import AsyncRuntime, EnvironmentSpec, environment_run
from steward_client.errors import Conflict, NotFound, StewardError
from steward_client.standin import StandIn, StandInConfig
from tests.integration.client.conftest import KEY, price_table
from tests.live import Agent, Api, ServerProcess, create_agent, create_provider
from tests.missing import missing

ENVIRONMENTS = "/api/v1/environments"
HOST = EnvironmentSpec("host", memory="512Mi", storage="256Mi")

SPENDER = """
import os, sys
import openai
client = openai.OpenAI(max_retries=0)
for number in range(int(sys.argv[1])):
    try:
        client.chat.completions.create(
            model="gpt-4o-mini", max_tokens=50, messages=[{"role": "user", "content": "one"}])
    except openai.APIStatusError as error:
        print("refused", error.status_code, error.code, number, flush=True)
        sys.exit(42)
"""

PRISONER = """
import json, os, socket, sys
secret, *addresses = sys.argv[1:]
found = {}
for address in addresses:
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), 2).close()
        found[address] = "open"
    except OSError as error:
        found[address] = type(error).__name__ + " " + str(error.errno)
for path in (secret, "/etc/shadow", "/proc/1/environ"):
    try:
        found[path] = open(path).read()
    except OSError as error:
        found[path] = type(error).__name__
found["interfaces"] = [name for _, name in socket.if_nameindex()]
found["variables"] = sorted(os.environ)
found["values"] = " ".join(os.environ.values())
with open(os.path.join(os.path.dirname(__file__), "note.txt")) as note:
    found["note"] = note.read()
print(json.dumps(found), flush=True)
"""

SLEEPER = "import time; print('up', flush=True); time.sleep(600)"

COUNTER = """
import time
number = 0
while True:
    number += 1
    print(number, flush=True)
    time.sleep(0.05)
"""


@dataclass
class Site:
    server: ServerProcess
    admin: Api
    standin: StandIn
    agent: Agent
    folder: Path

    def runtime(self, budget: str = "0.5", **more: Any) -> AsyncRuntime:
        return AsyncRuntime(
            budget,
            server=self.server.grpc_address,
            token=self.agent.ic_token,
            state_dir=self.folder / "state",
            stop_grace_s=2,
            **more,
        )

    def script(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    async def environments(self) -> list[Any]:
        listed: list[Any] = (await self.admin.call("GET", ENVIRONMENTS)).body["environments"]
        return [each for each in listed if each["status"] not in ("terminated", "failed")]

    async def spent(self) -> Decimal:
        answer = await self.admin.call("GET", f"/api/agents/{self.agent.agent_id}/status")
        return Decimal(str(answer.body["budget"]["spent_usd"]))

    @property
    def billed(self) -> Decimal:
        return Decimal(self.standin.billed_nanousd).scaleb(-9)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    server = ServerProcess(
        tmp_path / "data",
        STEWARD_ENVIRONMENTS_DRIVER="auto",
        STEWARD_ENVIRONMENTS_SPARE_MACHINES="0",
        STEWARD_ENVIRONMENTS_SWEEP_INTERVAL_S="0.1",
    )
    await server.start()
    try:
        async with (
            aiohttp.ClientSession() as session,
            StandIn(price_table(), StandInConfig()) as standin,
        ):
            api = Api(f"http://{server.http_address}", session)
            health = (await api.call("GET", "/api/v1/health")).body["environments"]
            if not health["usable"]:
                missing(f"no environments can be made on this machine: {health['reason']}")
            admin = await api.sign_in()
            await create_provider(admin, base_url=standin.url, key=KEY)
            agent = await create_agent(admin, budget_usd=1)
            made = Site(server, admin, standin, agent, tmp_path)
            try:
                yield made
            finally:
                for each in await made.environments():
                    await admin.call("DELETE", f"{ENVIRONMENTS}/{each['id']}?force=true")
    finally:
        server.stop()


async def test_its_calls_are_metered_until_the_money_is_out_and_the_bill_is_the_ledger(
    site: Site, capfd: pytest.CaptureFixture[str]
) -> None:
    script = site.script("spender.py", SPENDER)
    async with site.runtime("0.0002") as runtime:
        run_id = await runtime.start_agent(script, ["1000"], environment=HOST, packages=["openai"])
        (machine,) = await site.environments()
        assert await runtime.wait(run_id, timeout_s=60) == 42
        metrics = await runtime.get_metrics(run_id)

    told = capfd.readouterr().out.split()
    assert told[:3] == ["refused", "402", "budget_exceeded"]
    assert int(told[3]) == metrics["calls"] > 5
    assert metrics["refused"] == 1
    assert Decimal("0.0002") >= metrics["spent"] == site.billed == await site.spent() > 0
    assert machine["name"].startswith("run-")
    assert await site.environments() == []


async def test_everything_else_is_closed_to_it(
    site: Site, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET_OF_THE_HOST", "host-secret-5b1f")
    script = site.script("prisoner.py", PRISONER)
    secret = site.script("secret.txt", "what only the host knows")
    note = site.script("note.txt", "taken along")
    provider = site.standin.url.removeprefix("http://")
    addresses = [site.server.grpc_address, site.server.http_address, provider, "192.0.2.1:80"]
    async with site.runtime() as runtime:
        run_id = await runtime.start_agent(
            script,
            [str(secret), *addresses],
            environment=HOST,
            env={"OWN": "mine"},
            files=[note],
        )
        assert await runtime.wait(run_id, timeout_s=30) == 0

    found = json.loads(capfd.readouterr().out)
    assert [found[each] for each in addresses[:3]] == ["ConnectionRefusedError 111"] * 3
    assert found["192.0.2.1:80"] == "OSError 101"
    assert found[str(secret)] == "FileNotFoundError"
    assert found["/etc/shadow"] in ("FileNotFoundError", "PermissionError")
    assert found["/proc/1/environ"] == "PermissionError"
    assert found["interfaces"] == ["lo"]
    assert "OWN" in found["variables"]
    assert found["note"] == "taken along"
    for hidden in ("host-secret-5b1f", site.agent.ic_token, KEY):
        assert hidden not in found["values"]


async def test_one_that_the_agent_has_is_used_and_left(
    site: Site, capfd: pytest.CaptureFixture[str]
) -> None:
    runtime_api = site.admin.acting_as(x_ic_key=site.agent.ic_token)
    body = {
        "name": "kept",
        "image": "host",
        "resources": {"cpu": "1", "memory": "128Mi", "storage": "64Mi"},
    }
    made = await runtime_api.call("POST", ENVIRONMENTS, body)
    script = site.script("hello.py", "import sys; print('hello', *sys.argv[1:])")

    async def runs() -> bool:
        answer = await site.admin.call("GET", f"{ENVIRONMENTS}/{made.body['id']}")
        return bool(answer.body["status"] == "running")

    async with asyncio.timeout(10):
        while not await runs():
            await asyncio.sleep(0.02)
    async with site.runtime() as runtime:
        for name in ("kept", made.body["id"]):
            run_id = await runtime.start_agent(script, ["there"], environment=name)
            assert await runtime.wait(run_id, timeout_s=20) == 0
        with pytest.raises(NotFound, match="no environment of this agent's that runs"):
            await runtime.start_agent(script, environment="other")
        with pytest.raises(StewardError, match="host"):
            await runtime.start_agent(script, environment=EnvironmentSpec("no-such:1"))
        large = site.script("large", "x" * 24 * 2**20)
        small = EnvironmentSpec("host", memory="128Mi", storage="16Mi")
        with pytest.raises(Conflict, match="No space left on device") as full:
            await runtime.start_agent(script, environment=small, files=[large])
        assert full.value.reason == "NOT_UNPACKED"
        with pytest.raises(ValueError, match="no package 'no-such'"):
            await runtime.start_agent(script, environment="kept", packages=["no-such"])
    assert capfd.readouterr().out == "hello there\n" * 2
    listed = await site.admin.call(
        "POST", f"{ENVIRONMENTS}/{made.body['id']}/exec", {"command": ["ls", "-A", "/workspace"]}
    )
    assert listed.body["stdout"] == ""
    assert [each["name"] for each in await site.environments()] == ["kept"]


async def test_it_is_stopped_by_its_runtime_and_by_an_administrator(
    site: Site, capfd: pytest.CaptureFixture[str]
) -> None:
    script = site.script("sleeper.py", SLEEPER)
    stubborn = site.script(
        "stubborn.py", "import signal; signal.signal(15, signal.SIG_IGN)\n" + SLEEPER
    )
    async with site.runtime() as runtime:
        first = await runtime.start_agent(script, environment=HOST)
        second = await runtime.start_agent(stubborn, environment=HOST)
        told = ""
        async with asyncio.timeout(20):
            while told.count("up") < 2:  # until it ignores what it is sent
                await asyncio.sleep(0.05)
                told += capfd.readouterr().out
        await runtime.stop_agent(first)
        assert await runtime.wait(first) == -signal.SIGTERM
        path = f"/api/agents/{site.agent.agent_id}/stop"
        assert (await site.admin.call("POST", path)).status == 202
        assert await runtime.wait(second, timeout_s=20) == -signal.SIGKILL
        assert (await runtime.get_metrics(second))["status"] == "stopped"
        assert await site.environments() == []


async def test_it_stands_still_and_ends_with_its_environment(
    site: Site, capfd: pytest.CaptureFixture[str]
) -> None:
    script = site.script("counter.py", COUNTER)
    async with site.runtime() as runtime:
        run_id = await runtime.start_agent(script, environment=HOST)
        (machine,) = await site.environments()
        path = f"{ENVIRONMENTS}/{machine['id']}"
        counted: list[str] = []

        async def counts_on() -> bool:
            before = len(counted)
            await asyncio.sleep(0.3)
            counted.extend(capfd.readouterr().out.split())
            return len(counted) > before

        async def goes_on() -> None:
            async with asyncio.timeout(30):
                while not await counts_on():
                    pass

        await goes_on()
        assert (await site.admin.call("POST", f"{path}/pause", {})).status == 200
        await counts_on()
        assert not await counts_on()
        assert (await site.admin.call("POST", f"{path}/resume", {})).status == 200
        await goes_on()
        assert (await site.admin.call("DELETE", f"{path}?force=true")).status == 204
        assert await runtime.wait(run_id, timeout_s=20) == -signal.SIGKILL
        assert (await runtime.get_metrics(run_id))["status"] == "failed"


async def test_a_run_whose_server_is_killed_says_so_and_leaves_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment_run, "REMOVAL_S", 0.2)
    script = site.script("sleeper.py", SLEEPER)
    async with site.runtime(quiet_agents=True, close_timeout_s=2) as runtime:
        run_id = await runtime.start_agent(script, environment=HOST)
        site.server.kill()
        with pytest.raises(StewardError) as lost:
            await runtime.wait(run_id, timeout_s=30)
        assert lost.value.reason == "RUN_LOST"
        assert (await runtime.get_metrics(run_id))["status"] == "failed"
        await site.server.start()
        site.admin = await site.admin.sign_in()
        (left,) = await site.environments()
        processes = await site.admin.call("GET", f"{ENVIRONMENTS}/{left['id']}/processes")
        assert not [each for each in processes.body["processes"] if "sleeper" in each["command"]]
        seen = await site.admin.call("GET", f"{ENVIRONMENTS}/{left['id']}")
        assert seen.body["idle_timeout"] == 60


async def test_with_a_runtime_that_is_killed_its_run_ends(site: Site) -> None:
    script = site.script("sleeper.py", SLEEPER)
    program = f"""
import asyncio
from steward_client import AsyncRuntime, EnvironmentSpec, environment_run
async def main():
    async with AsyncRuntime("0.1", server={site.server.grpc_address!r},
                            token={site.agent.ic_token!r},
                            state_dir={str(site.folder)!r}) as runtime:
        run_id = await runtime.start_agent({str(script)!r}, environment=EnvironmentSpec("host"))
        await runtime.wait(run_id)
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 30) == b"up\n"
    (machine,) = await site.environments()
    path = f"{ENVIRONMENTS}/{machine['id']}/processes"

    async def sleepers() -> list[Any]:
        found = (await site.admin.call("GET", path)).body["processes"]
        return [each for each in found if "sleeper" in each["command"]]

    assert await sleepers()
    process.kill()
    await process.wait()
    async with asyncio.timeout(10):
        while await sleepers():
            await asyncio.sleep(0.05)
