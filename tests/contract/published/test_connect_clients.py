"""A server, called by the clients that browsers use."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from pathlib import Path

from tests.live import ADMIN_PASSWORD, Live

HERE = Path(__file__).parent
TESTS_COUNT = 45


async def test_the_published_clients_of_connect_and_grpc_web_work(
    live: Live, clients: Path
) -> None:
    script = shutil.copy(HERE / "steward.test.mjs", clients)
    node = await asyncio.create_subprocess_exec(
        *("node", "--test", "--test-reporter=spec", script),
        cwd=clients,
        env=os.environ
        | {
            "STEWARD_URL": live.api.base_url,
            "STEWARD_USERNAME": "admin",
            "STEWARD_PASSWORD": ADMIN_PASSWORD,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(node.communicate(), 60)
    finally:
        if node.returncode is None:
            node.kill()
    text = output.decode()
    assert node.returncode == 0, text
    passed = re.search(r"^\S* ?pass (\d+)$", text, re.MULTILINE)
    assert passed is not None, text
    assert int(passed[1]) == TESTS_COUNT, text
