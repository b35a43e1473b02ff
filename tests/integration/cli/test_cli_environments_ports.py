"""`steward env forward`, `steward env expose`, and `steward run --environment` on top of them."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from steward_client.price_snapshot import shipped_table
from steward_client.standin import StandIn, StandInConfig
from tests.integration.cli.conftest import Shell
from tests.integration.environments.conftest import Site
from tests.live import create_agent, create_provider

AGENT = """
import http.client, json, os, sys, urllib.parse
base = urllib.parse.urlsplit(os.environ["OPENAI_BASE_URL"])
connection = http.client.HTTPConnection(base.hostname, base.port)
body = {"model": "gpt-4o", "max_tokens": 100, "messages": [{"role": "user", "content": "Hello"}]}
connection.request("POST", base.path + "/chat/completions", json.dumps(body),
                   {"authorization": "Bearer " + os.environ["OPENAI_API_KEY"]})
answer = json.load(connection.getresponse())
print(answer["choices"][0]["message"]["content"], os.environ["TOPIC"], sys.argv[1], flush=True)
sys.exit(int(sys.argv[2]))
"""


@pytest.fixture
async def echo() -> AsyncIterator[int]:
    """The port of a service that says everything back once it has heard all of it."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def asked(port: int, question: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(question)
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


async def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return await asyncio.to_thread(process.stdout.readline)


async def test_a_port_here_leads_inside_until_it_is_interrupted(
    operator: Shell, site: Site, echo: int
) -> None:
    policy = {"network_policy": {"allowed_ingress_ports": [echo]}}
    await site.running(name="web", isolation=policy)
    with operator.running("env", "forward", "web", str(echo)) as process:
        told = await first_line(process)
        found = re.fullmatch(rf"127\.0\.0\.1:(\d+) leads to port {echo} of web\n", told)
        assert found is not None, told
        assert await asked(int(found[1]), b"hello") == b"hello"
        process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(process.wait, 10) == 130
    wrong = await operator("env", "forward", "web", "80:http")
    taken = await operator("env", "forward", "web", f"{echo}:{echo}")
    assert (wrong.code, taken.code) == (2, 1)
    assert "'80:http' is no port" in wrong.err
    assert f"port {echo} cannot be listened on" in taken.err


async def test_a_port_inside_leads_here_until_the_environment_ends(
    operator: Shell, site: Site, echo: int
) -> None:
    environment_id = await site.running(name="agent")
    with operator.running("env", "expose", "agent", str(echo), "--json") as process:
        told = json.loads(await first_line(process))
        assert told["local_port"] == echo
        assert await asked(told["port"], b"hello") == b"hello"
        path = f"/api/v1/environments/{environment_id}?force=true"
        assert (await site.admin.call("DELETE", path)).status == 204
        assert await asyncio.to_thread(process.wait, 10) in (5, 6)
    unknown = await operator("env", "expose", "agent", str(echo))
    assert unknown.code == 5


async def test_a_script_runs_in_an_environment_that_is_made_for_it(
    operator: Shell, site: Site, tmp_path: Path
) -> None:
    script = tmp_path / "asks.py"
    script.write_text(AGENT)
    prices = shipped_table(datetime(2026, 11, 1, tzinfo=UTC))
    async with StandIn(prices, StandInConfig(chunk_count=3, word="word")) as standin:
        await create_provider(site.admin, base_url=standin.url, key="sk-standin")
        agent = await create_agent(site.admin, name="away")
        ran = await operator(
            *("run", "--budget", "0.5", "--environment", "python:3.11", "--json", "-v"),
            *("--env", "TOPIC=numbers", "--file", str(tmp_path / "home"), str(script), "one", "7"),
            STEWARD_IC_TOKEN=agent.ic_token,
        )
        said, _, summary = ran.out.strip().rpartition("\n")
        used = json.loads(summary, parse_float=Decimal)
        assert (ran.code, said) == (7, "word word word numbers one"), ran
        assert used["spent"] * 10**9 == standin.billed_nanousd > 0
    assert re.search(r"asks\.py started in environment env-[0-9a-f]{32}", ran.err)
    assert (await site.admin.call("GET", "/api/v1/environments")).body["total"] == 0
    unknown = await operator(
        *("run", "--budget", "0.5", "--environment", "nothing", str(script), "one", "7"),
        STEWARD_IC_TOKEN=agent.ic_token,
    )
    assert unknown.code == 2
    assert "there is no image 'nothing'" in unknown.err
