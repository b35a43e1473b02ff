"""`Runtime` in a program without an event loop, against a server that may be killed."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import aiohttp
import pytest

from steward_client.standin import StandIn, StandInConfig
from tests.integration.client.conftest import KEY, price_table, until
from tests.integration.client.test_runtimes import SCRIPT
from tests.live import Agent, Api, ServerProcess, create_agent, create_provider

PROGRAM = """
import json, sys
from steward_client import Runtime
server, token, state, script, count = sys.argv[1:6]
runtime = Runtime(0.5, True, server=server, token=token, state_dir=state, quiet_agents=True)
run_id = runtime.start_agent(script, [count, "5"])
code = runtime.wait(run_id)
metrics = runtime.get_metrics(run_id)
print(json.dumps({"code": code, "spent": str(metrics["spent"]), "calls": metrics["calls"]}))
if "close" in sys.argv:
    runtime.close()
"""


@dataclass
class Town:
    """A server in a process of its own, a provider, and an agent."""

    server: ServerProcess
    standin: StandIn
    agent: Agent
    admin: Api
    folder: Path

    async def program(self, count: int, *words: str) -> asyncio.subprocess.Process:
        script = self.folder / "agent.py"
        script.write_text(SCRIPT)
        program = self.folder / "program.py"
        program.write_text(PROGRAM)
        state = str(self.folder / "state")
        return await asyncio.create_subprocess_exec(
            *(sys.executable, str(program), self.server.grpc_address, self.agent.ic_token),
            *(state, str(script), str(count), *words),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={name: text for name, text in os.environ.items() if "STEWARD" not in name},
        )

    async def spent_nanousd(self) -> int:
        answer = await self.admin.call("GET", f"/api/agents/{self.agent.agent_id}/status")
        assert answer.body["budget"]["reserved_usd"] == 0
        return int(Decimal(str(answer.body["budget"]["spent_usd"])).scaleb(9))


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    server = await ServerProcess(tmp_path / "data").start()
    try:
        async with (
            aiohttp.ClientSession() as http,
            StandIn(price_table(), StandInConfig(chunk_delay_s=0.002)) as standin,
        ):
            admin = await Api(f"http://{server.http_address}", http).sign_in()
            await create_provider(admin, base_url=standin.url, key=KEY)
            agent = await create_agent(admin, budget_usd=1)
            yield Town(server, standin, agent, admin, tmp_path)
    finally:
        server.stop()


@pytest.mark.parametrize("words", [("close",), ()], ids=["closed", "left to the interpreter"])
async def test_a_program_borrows_spends_and_returns(town: Town, words: tuple[str, ...]) -> None:
    program = await town.program(5, *words)
    out, said = await program.communicate()

    assert program.returncode == 0, said.decode()
    answer = json.loads(out)
    assert (answer["code"], answer["calls"]) == (0, 5)
    assert int(Decimal(answer["spent"]).scaleb(9)) == town.standin.billed_nanousd > 0
    assert await town.spent_nanousd() == town.standin.billed_nanousd
    assert b"steward: run " in said
    assert b"Traceback" not in said


async def test_a_server_killed_and_started_again_has_every_call_in_its_books(town: Town) -> None:
    program = await town.program(60, "close")
    for calls in (10, 30):
        await until(lambda at=calls: town.standin.accounts[KEY].calls >= at, 20)  # type: ignore[misc]
        town.server.kill()
        await town.server.start()
    out, said = await program.communicate()

    assert program.returncode == 0, said.decode()
    assert json.loads(out)["calls"] == 60
    assert town.standin.accounts[KEY].calls == 60
    assert await town.spent_nanousd() == town.standin.billed_nanousd
