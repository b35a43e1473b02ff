"""Steps with environments: made, used, deleted."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import structlog

from steward.environments.v1 import environments_pb2 as pb
from steward_server.completion import finish
from steward_server.executions.work import Job, StepFailed, Steward, Work

log = structlog.get_logger(__name__)

RESOURCES = {"cpu": "500m", "memory": "512Mi", "storage": "1Gi"}
"""What an environment may use where a step names nothing else."""
SHOWN_END = 2_000
"""Characters of the end of what a command wrote, in a failure."""

_SERVICE = "/steward.environments.v1.EnvironmentService"
_LOOK_S = 5
"""How long one look waits: a run that is to pause does not have to wait longer."""
_MOST_TRIES = 100
_PATIENCE_S = 20.0
"""How long a step that has failed, or is cancelled, waits to leave nothing behind."""


def work() -> Mapping[str, Work]:
    """The work of these steps, by type."""
    return {
        "environment.create": _create,
        "environment.exec": _exec,
        "environment.delete": _delete,
    }


async def _create(job: Job) -> Mapping[str, Any]:
    values = job.values
    request = pb.CreateEnvironmentRequest(
        name=values["name"] or name_of(job),
        image=values["image"],
        resources=pb.Resources(**{**RESOURCES, **values["resources"]}),
        timeout_s=values["lifetime"],
        idle_timeout_s=values["idle_timeout"],
        env=values["env"],
        labels=values["labels"],
    )
    environment = await made(job, request, wait_s=values["wait"], is_repeatable=True)
    return {
        "environment_id": environment.id,
        "name": environment.name,
        "status": "running",
    }


async def _exec(job: Job) -> Mapping[str, Any]:
    values = job.values
    request = pb.ExecRequest(
        environment_id=values["environment_id"],
        command=values["command"],
        timeout_s=values["timeout"],
        env=values["env"],
        working_dir=values["working_dir"] or "",
        stdin=values["stdin"],
    )
    ended = await run(job.session.steward, request)
    if values["must_succeed"] and ended.exit_code != 0:
        raise StepFailed(
            f"{values['command'][0]!r} {how_it_ended(ended, values['timeout'])}",
            exit_code=ended.exit_code,
            timed_out=ended.timed_out,
            stdout=ended.stdout[-SHOWN_END:],
            stderr=ended.stderr[-SHOWN_END:],
        )
    return {
        "exit_code": ended.exit_code,
        "stdout": ended.stdout,
        "stderr": ended.stderr,
        "duration_ms": ended.duration_ms,
        "timed_out": ended.timed_out,
        "truncated": ended.truncated,
    }


async def _delete(job: Job) -> Mapping[str, Any]:
    environment_id = job.values["environment_id"]
    await delete(job.session.steward, environment_id, force=job.values["force"])
    return {"environment_id": environment_id}


def name_of(job: Job) -> str:
    """A name for an environment of this step, as environments may be called."""
    text = f"{job.session.execution_id}-{job.step_id}".lower()
    return re.sub("[^a-z0-9]+", "-", text)[:63].strip("-")


async def made(
    job: Job, request: pb.CreateEnvironmentRequest, *, wait_s: float, is_repeatable: bool = False
) -> pb.EnvironmentDetails:
    """Make an environment, and wait until it runs; if it does not come to that, nothing is left.

    With `is_repeatable` another attempt at the step finds what the last one made.

    Raises:
        StepFailed: it was refused, cannot be made, or takes longer.
    """
    steward = job.session.steward
    for number in range(1, _MOST_TRIES + 1):
        if is_repeatable:
            request.request_id = job.request_id if number == 1 else f"{job.request_id}/{number}"
        creating = asyncio.ensure_future(_created(steward, request))
        try:
            return await _running(job, await asyncio.shield(creating), wait_s)
        except BaseException as error:
            reason = error.context.get("reason") if isinstance(error, StepFailed) else None
            # The answer was that of an earlier attempt, which deleted what it had made, or it is
            # not known whether that made anything.
            if is_repeatable and reason in ("ENVIRONMENT_NOT_FOUND", "OUTCOME_UNKNOWN"):
                continue
            if environment_id := await _outcome(creating):
                await _removed(steward, environment_id)
            raise
    raise StepFailed(f"the environment was deleted {_MOST_TRIES} times before it ran")


@asynccontextmanager
async def temporary(
    job: Job, request: pb.CreateEnvironmentRequest, *, wait_s: float
) -> AsyncIterator[str]:
    """An environment that runs, for the block; gives its id.

    Raises:
        StepFailed: as `made`.
    """
    environment_id = (await made(job, request, wait_s=wait_s)).id
    try:
        yield environment_id
    finally:
        await _removed(job.session.steward, environment_id)


async def run(steward: Steward, request: pb.ExecRequest) -> pb.ExecResponse:
    """Run a command; how it ends is no failure."""
    response: pb.ExecResponse = await steward.call(f"{_SERVICE}/Exec", request)
    return response


async def delete(steward: Steward, environment_id: str, *, force: bool) -> None:
    """Delete an environment, unless it is gone.

    Raises:
        StepFailed: it may not be deleted, or could not be yet.
    """
    request = pb.DeleteEnvironmentRequest(environment_id=environment_id, force=force)
    try:
        await steward.call(f"{_SERVICE}/DeleteEnvironment", request)
    except StepFailed as error:
        if error.context.get("reason") != "ENVIRONMENT_NOT_FOUND":
            raise


def how_it_ended(ended: pb.ExecResponse, timeout_s: int) -> str:
    """How a command ended badly, in words, with the last it complained of."""
    if ended.timed_out:
        how = f"was killed, because it had not ended after {timeout_s} s"
    elif ended.signal:
        how = f"was ended by {ended.signal}"
    else:
        how = f"ended with {ended.exit_code}"
    end = ended.stderr.strip()[-SHOWN_END:]
    return f"{how}: {end}" if end else how


async def _created(steward: Steward, request: pb.CreateEnvironmentRequest) -> str:
    response = await steward.call(f"{_SERVICE}/CreateEnvironment", request)
    return str(response.environment.id)


async def _outcome(creating: asyncio.Future[str]) -> str | None:
    """Which environment a call has made; it may still be under way, and only its end can tell."""
    await asyncio.wait({creating}, timeout=_PATIENCE_S)
    creating.cancel()
    await asyncio.wait({creating})
    return None if creating.cancelled() or creating.exception() else creating.result()


async def _removed(steward: Steward, environment_id: str) -> None:
    """Delete an environment that nobody needs; one that cannot be ends with its lifetime."""

    async def remove() -> None:
        async with asyncio.timeout(_PATIENCE_S):
            await delete(steward, environment_id, force=True)

    try:
        await finish(remove())
    except (StepFailed, TimeoutError) as error:
        log.warning("run.environment_left", environment_id=environment_id, error=repr(error))


async def _running(job: Job, environment_id: str, wait_s: float) -> pb.EnvironmentDetails:
    """Wait until an environment runs, for so long at most while the run does not pause."""
    loop, left_s = asyncio.get_running_loop(), wait_s
    while True:
        begun_s = loop.time()
        request = pb.GetEnvironmentRequest(
            environment_id=environment_id, wait_s=min(_LOOK_S, math.ceil(max(left_s, 0)))
        )
        response = await job.session.steward.call(f"{_SERVICE}/GetEnvironment", request)
        environment: pb.EnvironmentDetails = response.environment
        left_s -= loop.time() - begun_s
        if environment.status == pb.ENVIRONMENT_STATUS_RUNNING:
            return environment
        if environment.status != pb.ENVIRONMENT_STATUS_PENDING:
            raise StepFailed(
                f"the environment does not run: {environment.reason or 'it has ended'}",
                environment_id=environment_id,
            )
        if left_s <= 0:
            raise StepFailed(
                f"the environment did not run after {wait_s:g} s, and is deleted",
                environment_id=environment_id,
            )
        await job.safe_point("while an environment is made")
