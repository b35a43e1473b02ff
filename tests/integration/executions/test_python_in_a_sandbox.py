"""Scripts of playbooks in machines of the embedded driver: closed in, and gone afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from textwrap import dedent

import pytest
import pytest_asyncio

from steward_server.environments.config import EnvironmentsConfig
from steward_server.executions.steps import python
from steward_server.settings import Settings
from tests.integration.executions.acting import Acting, administrator, do
from tests.live import live_server, live_settings
from tests.missing import missing

pytestmark = pytest.mark.asyncio(loop_scope="module")

WORK = python.work(python.Machines("python:3.11-slim", longest_s=60))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def acting(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Acting]:
    folder = tmp_path_factory.mktemp("server")
    settings = Settings(
        environments=EnvironmentsConfig(driver="sandbox", spare_machines=0, runsc="")
    )
    async with live_server(live_settings(folder, settings)) as live:
        told = (await live.api.call("GET", "/api/v1/health")).body["environments"]
        if not told["usable"]:
            missing(f"machines cannot be made here: {told['reason']}")
        yield Acting(live, folder, administrator(folder))


def machines(acting: Acting) -> list[Path]:
    return list((acting.data_dir / "environments" / "machines").iterdir())


async def test_a_script_sees_nothing_of_the_server_and_reaches_nobody(acting: Acting) -> None:
    script = """
    import os, socket

    def reached(host, port):
        try:
            socket.create_connection((host, port), 1).close()
        except OSError:
            return False
        return True

    result = {
        "double": inputs["number"] * 2,
        "sees": os.path.exists(inputs["folder"]),
        "pids": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
        "reached": [reached("127.0.0.1", inputs["port"]), reached("192.0.2.1", 80)],
        "secrets": [name for name in os.environ if name.startswith("STEWARD_")],
    }
    print("written=" + open("/tmp/x", "w").name)
    """
    outputs = await do(
        acting.session(),
        WORK,
        "utility.python",
        script=dedent(script),
        inputs={
            "number": 21,
            "folder": str(acting.data_dir / "steward.db"),
            "port": acting.live.running.http_port,
        },
    )
    assert outputs["double"] == 42
    assert outputs["sees"] is False
    assert max(outputs["pids"]) < 100
    assert outputs["reached"] == [False, False]
    assert outputs["secrets"] == []
    assert outputs["written"] == "/tmp/x"
    assert machines(acting) == []


async def test_a_script_that_is_cancelled_leaves_no_machine(acting: Acting) -> None:
    session = acting.session()
    script = "while True: pass"
    task = asyncio.ensure_future(do(session, WORK, "utility.python", script=script))
    while not machines(acting):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert machines(acting) == []
