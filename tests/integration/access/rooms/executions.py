"""Runs of playbooks."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing

from google.protobuf.message import Message

from steward.executions.v1 import executions_pb2 as pb
from steward.playbooks.v1 import playbooks_pb2 as playbooks
from tests.integration.access.tables import EXECUTION_AGENTS, PEOPLE, WRITERS, Recorded
from tests.integration.access.world import World

SERVICE = "steward.executions.v1.ExecutionService"
PLAYBOOKS = "steward.playbooks.v1.PlaybookService"

EXECUTORS = WRITERS | {"executor key"}

ACCESS = {
    SERVICE: {
        "StartExecution": EXECUTORS | EXECUTION_AGENTS,
        "ListExecutions": PEOPLE | EXECUTION_AGENTS,
        "GetExecution": PEOPLE | EXECUTION_AGENTS,
        "PauseExecution": EXECUTORS | EXECUTION_AGENTS,
        "ResumeExecution": EXECUTORS | EXECUTION_AGENTS,
        "SkipExecution": EXECUTORS | EXECUTION_AGENTS,
        "CancelExecution": WRITERS | EXECUTION_AGENTS,
        "RerunExecution": EXECUTORS | EXECUTION_AGENTS,
        "ApproveExecution": WRITERS,
        "RejectExecution": WRITERS,
        "DeleteExecution": WRITERS,
        "ListArtifacts": PEOPLE | EXECUTION_AGENTS,
        "ReadArtifact": PEOPLE | EXECUTION_AGENTS,
        "Watch": PEOPLE | EXECUTION_AGENTS,
        "Exchange": PEOPLE | EXECUTION_AGENTS,
    }
}

LONG = """name: Long
version: "1"
steps:
  - {id: nap, name: Nap, type: utility.sleep, parameters: {seconds: 600}}
"""
SHORT = LONG.replace("600", "0")
ASKING = """name: Asking
version: "1"
steps:
  - id: ask
    name: Ask
    type: approval.wait
    parameters: {message: May I?, not_by_starter: false}
"""


async def _saved(world: World, text: str) -> str:
    path = f"{world.name()}.yaml"
    request = playbooks.SavePlaybookRequest(path=path, text=text)
    await world.stub(PLAYBOOKS, "SavePlaybook", request)
    return path


async def _started(world: World, text: str) -> str:
    """A run of the owner's, who can be told of it; its id."""
    request = pb.StartExecutionRequest(playbook_path=await _saved(world, text))
    return str((await world.as_owner(SERVICE, "StartExecution", request)).execution_id)


async def _seen(world: World, execution_id: str) -> pb.Execution:
    request = pb.GetExecutionRequest(execution_id=execution_id)
    found: pb.Execution = (await world.as_owner(SERVICE, "GetExecution", request)).execution
    return found


async def _running(world: World) -> str:
    """One that is in the middle of a step."""
    execution_id = await _started(world, LONG)
    async with asyncio.timeout(30):
        while (await _seen(world, execution_id)).step_results[0].status != pb.STEP_STATUS_RUNNING:
            await asyncio.sleep(0.01)
    return execution_id


async def _over(world: World) -> str:
    execution_id = await _started(world, SHORT)
    async with asyncio.timeout(30):
        while (await _seen(world, execution_id)).status != pb.EXECUTION_STATUS_COMPLETED:
            await asyncio.sleep(0.01)
    return execution_id


async def _asking(world: World) -> str:
    execution_id = await _started(world, ASKING)
    async with asyncio.timeout(30):
        while not (await _seen(world, execution_id)).HasField("question"):
            await asyncio.sleep(0.01)
    return execution_id


async def _start(world: World) -> Message:
    return pb.StartExecutionRequest(playbook_path=await _saved(world, LONG))


async def _list(world: World) -> Message:
    return pb.ListExecutionsRequest(before_execution_id=await _over(world))


async def _get(world: World) -> Message:
    return pb.GetExecutionRequest(execution_id=await _over(world))


async def _pause(world: World) -> Message:
    return pb.PauseExecutionRequest(execution_id=await _running(world))


async def _resume(world: World) -> Message:
    execution_id = await _running(world)
    request = pb.PauseExecutionRequest(execution_id=execution_id)
    await world.as_owner(SERVICE, "PauseExecution", request)
    return pb.ResumeExecutionRequest(execution_id=execution_id)


async def _skip(world: World) -> Message:
    return pb.SkipExecutionRequest(execution_id=await _running(world))


async def _cancel(world: World) -> Message:
    return pb.CancelExecutionRequest(execution_id=await _running(world))


async def _rerun(world: World) -> Message:
    return pb.RerunExecutionRequest(execution_id=await _over(world), from_start=True)


async def _approve(world: World) -> Message:
    return pb.ApproveExecutionRequest(execution_id=await _asking(world))


async def _reject(world: World) -> Message:
    return pb.RejectExecutionRequest(execution_id=await _asking(world))


async def _delete(world: World) -> Message:
    return pb.DeleteExecutionRequest(execution_id=await _over(world))


async def _artifacts(world: World) -> Message:
    return pb.ListArtifactsRequest(execution_id=await _over(world))


async def _artifact(world: World) -> Message:
    """One that is called as its run is: the test takes one id of each request."""
    execution_id = await _over(world)
    folder = world.folder / "artifacts" / execution_id
    folder.mkdir(parents=True)
    (folder / execution_id).write_bytes(b"kept")
    with closing(sqlite3.connect(world.folder / "steward.db")) as connection, connection:
        connection.execute(
            "INSERT INTO execution_artifact VALUES (?, ?, 'nap', 'a.txt', 'report', 'text/plain',"
            " 4, 1)",
            (execution_id, execution_id),
        )
    return pb.ReadArtifactRequest(execution_id=execution_id, artifact_id=execution_id)


async def _watch(world: World) -> Message:
    return pb.WatchRequest(execution_id=await _running(world))


FOREIGN = {
    SERVICE: {
        "ListExecutions": _list,
        "GetExecution": _get,
        "PauseExecution": _pause,
        "ResumeExecution": _resume,
        "SkipExecution": _skip,
        "CancelExecution": _cancel,
        "RerunExecution": _rerun,
        "ApproveExecution": _approve,
        "RejectExecution": _reject,
        "DeleteExecution": _delete,
        "ListArtifacts": _artifacts,
        "ReadArtifact": _artifact,
        "Watch": _watch,
    }
}

RECORDED = {
    SERVICE: {
        "StartExecution": Recorded(_start, ("execution.started",)),
        "PauseExecution": Recorded(_pause, ("execution.paused",)),
        "ResumeExecution": Recorded(_resume, ("execution.resumed",)),
        "SkipExecution": Recorded(_skip, ("execution.skipped",)),
        "CancelExecution": Recorded(_cancel, ("execution.cancelled",)),
        "RerunExecution": Recorded(_rerun, ("execution.started",)),
        "ApproveExecution": Recorded(_approve, ("execution.approved",)),
        "RejectExecution": Recorded(_reject, ("execution.rejected",)),
        "DeleteExecution": Recorded(_delete, ("execution.deleted",)),
    }
}
