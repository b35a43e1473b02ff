"""What the guide of Ignition prints is run as it stands, with addresses and ids filled in.

Its examples send no credential, or one that nobody has: it is an application of one person, which a
server is that was started with `local_single_user`.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.e2e.curl import curl, differences
from tests.e2e.ignition.executions import UUID, started
from tests.e2e.ignition.scene import in_step, over, save_playbooks
from tests.e2e.process import Steward, steward
from tests.e2e.scene import JSON
from tests.ignition_gateway import Gateway
from tests.missing import missing

GUIDE = Path(__file__).with_name("ignition")
ADDRESS, GATEWAY, RUN = "localhost:5000", "http://localhost:8088", "550e8400-..."
NOBODY = "http://127.0.0.1:9"
SUMMARY = [
    *("execution_id", "playbook_name", "status"),
    *("started_at", "current_step_index", "total_steps"),
]
STEP = ["step_id", "step_name", "status", "started_at", "completed_at"]
HEALTH_CHECK = ["ping", "login", "info", "health", "modules", "summary", "logout"]


class Reader:
    """Somebody who tries out what the guide says."""

    def __init__(self, server: Steward) -> None:
        self.server = server

    async def calls(self, method: str, path: str, body: Any = None) -> Any:
        sent = () if body is None else ("-H", JSON, "-d", json.dumps(body))
        answer = await asyncio.to_thread(curl, "-X", method, self.server.url + path, *sent)
        return answer.text

    async def runs(self, *command: str) -> str:
        ran = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(20):
            out, err = await ran.communicate()
        assert ran.returncode == 0, (out, err)
        return out.decode()

    async def tries(self, name: str, gateway: str = NOBODY, run: str = RUN) -> str:
        """What an example of curl prints."""
        return await self.runs(
            "bash", "-c", self.filled(f"curl -s{examples()[name][4:]}", gateway, run)
        )

    def filled(self, text: str, gateway: str = NOBODY, run: str = RUN) -> str:
        assert ADDRESS in text
        return (
            text.replace(ADDRESS, self.server.http_address)
            .replace(GATEWAY, gateway)
            .replace(RUN, run)
        )

    async def awaits(self, execution_id: str, holds: Any) -> Any:
        async with asyncio.timeout(10):
            while not holds(
                seen := json.loads(await self.calls("GET", f"/api/executions/{execution_id}"))
            ):
                await asyncio.sleep(0.01)
        return seen

    async def saves_credential(self, password: str = "secret", gateway: str = GATEWAY) -> None:
        """As the guide does it."""
        body = {
            "name": "my-gateway",
            "username": "admin",
            "password": password,
            "gateway_url": gateway,
            "description": "Local development gateway",
        }
        saved = await self.calls("POST", "/api/credentials", body)
        assert saved == dumps({"message": "Credential saved successfully", "name": "my-gateway"})


def examples() -> dict[str, str]:
    """Those of the guide that call curl, by name."""
    found = re.split(r"^=== (.*)\n", (GUIDE / "examples.txt").read_text(), flags=re.MULTILINE)[1:]
    return dict(zip(found[::2], found[1::2], strict=True))


def dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Steward]:
    data_dir = tmp_path_factory.mktemp("ignition") / "data"
    save_playbooks(data_dir)
    with steward(data_dir, STEWARD_LOCAL_SINGLE_USER="true") as server:
        yield server
        assert "Traceback" not in server.log


@pytest.fixture
def reader(server: Steward) -> Reader:
    return Reader(server)


@pytest_asyncio.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with Gateway().served() as gateway:
        yield gateway


async def test_the_examples_of_curl_check_a_gateway_list_that_and_cancel(
    reader: Reader, gateway: Gateway
) -> None:
    await reader.saves_credential(gateway.users["admin"], gateway.url)
    begun = json.loads(await reader.tries("start an execution", gateway.url))
    assert list(differences(started("Gateway Health Check"), begun)) == []
    assert [*begun] == ["execution_id", "playbook_name", "status", "message"]
    assert begun["message"] == f"Execution started with ID: {begun['execution_id']}"

    seen = await reader.awaits(begun["execution_id"], over)
    assert (seen["status"], [each["step_id"] for each in seen["step_results"]]) == (
        "completed",
        HEALTH_CHECK,
    )
    listed = json.loads(await reader.tries("list executions"))
    assert [each["execution_id"] for each in listed] == [begun["execution_id"]]
    assert [*listed[0]][:6] == [*seen][:6] == SUMMARY
    assert [*seen["step_results"][0]][:5] == STEP

    running = json.loads(
        await reader.calls("POST", "/api/executions", {"playbook_path": "runs/long.yaml"})
    )
    cancelled = await reader.tries("cancel execution", run=running["execution_id"])
    assert cancelled == dumps(
        {"message": "Execution cancelled", "execution_id": running["execution_id"]}
    )
    assert json.loads(await reader.tries("cancel execution"))["detail"]["error"] == (
        "execution_not_found"
    )


async def test_a_gateway_that_is_not_there_is_told_as_the_step_that_failed(reader: Reader) -> None:
    await reader.saves_credential()
    begun = json.loads(await reader.tries("start an execution"))

    path = f"{reader.server.url}/api/executions/{begun['execution_id']}"
    lines = {"Accept": "application/x-ndjson"}
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{path}/events", headers=lines) as told,
    ):
        updates = [json.loads(line)["execution_update"] async for line in _until_failed(told)]
    cancel = {"reason": "There is none."}
    await reader.calls("POST", f"/api/executions/{begun['execution_id']}/cancel", cancel)
    seen = await reader.awaits(begun["execution_id"], over)

    assert [each["event"] for each in updates] == ["started", "step_started", "step_failed"]
    failed = updates[-1]["step_result"]
    assert (failed["step_id"], failed["status"]) == ("ping", "running")  # it is tried again
    assert failed["error"].startswith(f"nothing answers at {NOBODY}")
    assert failed["error"].endswith("(step 'ping' in line 10)")
    assert (seen["status"], seen["current_step_index"]) == ("cancelled", 1)
    assert seen["error"] == "cancelled by admin: There is none."
    assert [each["status"] for each in seen["step_results"]] == [
        "failed",
        *["pending"] * 5,
        "skipped",
    ]


async def _until_failed(told: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async for line in told.content:
        yield line
        if b"step_failed" in line:
            return


async def test_what_is_done_to_a_run_answers_word_for_word(reader: Reader) -> None:
    begun = await reader.calls("POST", "/api/executions", {"playbook_path": "runs/long.yaml"})
    run = json.loads(begun)["execution_id"]
    assert begun == dumps(
        {
            "execution_id": run,
            "playbook_name": "Long",
            "status": "started",
            "message": f"Execution started with ID: {run}",
        }
    )
    assert re.fullmatch(UUID, run)
    await reader.awaits(run, in_step)
    for verb, message in (
        ("pause", "Execution paused"),
        ("resume", "Execution resumed"),
        ("skip", "Step skipped"),
    ):
        done = await reader.calls("POST", f"/api/executions/{run}/{verb}")
        assert done == dumps({"message": message, "execution_id": run})
    seen = await reader.awaits(run, over)
    assert (seen["status"], seen["current_step_index"]) == ("completed", 2)
    gone = await reader.calls("DELETE", f"/api/executions/{run}")
    assert gone == dumps(
        {"message": "Execution deleted successfully", "execution_id": run, "screenshots_deleted": 0}
    )
    left = json.loads(await reader.calls("GET", f"/api/executions/{run}"))
    assert left == {
        "detail": {
            "error": "execution_not_found",
            "message": f"Execution '{run}' not found",
            "details": {"execution_id": run},
        }
    }


async def test_the_examples_of_javascript_start_a_run_and_follow_it(
    reader: Reader, gateway: Gateway
) -> None:
    if shutil.which("node") is None:
        missing("node is not installed")
    await reader.saves_credential(gateway.users["admin"], gateway.url)
    follow = (GUIDE / "socket.js").read_text()
    start = (GUIDE / "start.js").read_text()
    # The page of the guide stays open; this one begins when it may, and leaves when it has seen.
    script = f"""
{follow}
await new Promise((open) => ws.addEventListener('open', open));
ws.addEventListener('message', (event) => {{
  const {{ status }} = JSON.parse(event.data).data;
  if (status === 'completed') process.exit();
}});
{start}
console.log(execution_id);
"""
    said = await reader.runs(
        "node", "--experimental-websocket", "--input-type=module", "--eval",
        reader.filled(script, gateway.url),
    )  # fmt: skip
    lines = said.splitlines()
    (execution_id,) = (line for line in lines if not line.startswith("Status: "))
    assert UUID.fullmatch(execution_id)
    told = [line for line in lines if line != execution_id]
    assert set(told[:-1]) == {"Status: running"}
    assert told[-1] == "Status: completed"
    assert (await reader.awaits(execution_id, over))["status"] == "completed"
