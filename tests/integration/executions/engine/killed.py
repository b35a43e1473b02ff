"""A server that is killed while it makes runs: `python -m … FOLDER`.

It begins the runs if there are none, and makes them until all are over. What steps did, they
append to a file at once.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from steward_server.db.migrate import migrate
from steward_server.db.sqlite import Sqlite
from steward_server.executions.config import ExecutionsConfig
from steward_server.executions.work import Job
from tests.integration.executions.engine.conftest import ROOMS, World, playbook, sleep, step

RUNS = 50


async def live(folder: Path) -> None:
    database = await Sqlite.open(folder / "steward.db")
    await migrate(database, ROOMS)
    world = World(folder, database, ExecutionsConfig(max_running=10))
    done = os.open(folder / "done", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def writes(job: Job) -> Any:
        os.write(done, f"{job.session.execution_id} {job.step_id}\n".encode())
        await asyncio.sleep(0.002)
        return {}

    world.does["writes"] = writes
    await world.engine.start()
    steps = [step(f"s{at}", "writes") if at % 2 else sleep(f"s{at}", 0.002) for at in range(8)]
    text = playbook(*steps, finally_=[step("last", "writes")])
    for _ in range(RUNS - len(await database.fetch_all("SELECT 1 FROM execution"))):
        await world.begin(text)
    while await database.fetch_all("SELECT 1 FROM execution WHERE ended_at_us IS NULL"):
        await asyncio.sleep(0.01)
    await world.engine.aclose()
    await database.close()


if __name__ == "__main__":
    asyncio.run(live(Path(sys.argv[1])))
