"""Runs that steps of other runs start: the work of `playbook.run`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

from steward_server.credential import Credential
from steward_server.executions.run import Run, State, WrongState, pause, resume, stop
from steward_server.executions.session import RunJob
from steward_server.executions.work import ArtifactKind, StepFailed
from steward_server.executions.worker import Worker
from steward_server.playbooks.checking import given_to_child
from steward_server.playbooks.references import Reference

StartChild = Callable[[RunJob, str, Mapping[str, Any]], AbstractAsyncContextManager[Worker]]
"""Starts the playbook at a path with these values, as a child of the job's run."""


async def run_playbook(start: StartChild, job: RunJob) -> Mapping[str, Any]:
    """Run another playbook to its end, and fail if it does not complete."""
    given = {name: _handed_on(value) for name, (_, value) in given_to_child(job.values).items()}
    path = job.values["playbook"]
    async with start(job, path, given) as child:
        await _followed(job, child)
    run = child.run
    begun = [each for each in child.results if each.state.is_over]
    if run.state is not State.COMPLETED:
        raise StepFailed(
            f"playbook {path!r} ended {run.state}: {run.why}",
            execution_id=child.execution.execution_id,
        )
    return {
        "playbook": path,
        "execution_id": child.execution.execution_id,
        "status": str(run.state),
        "steps_executed": len(begun),
        "steps": [
            {"step_id": each.step_id, "status": str(each.state), "output": dict(each.outputs)}
            for each in begun
        ],
        "screenshots": [
            each.name for each in child.artifacts.values() if each.kind is ArtifactKind.SCREENSHOT
        ],
    }


async def _followed(job: RunJob, child: Worker) -> None:
    """Make the child's steps; it pauses, goes on and is stopped with its parent."""
    going = asyncio.create_task(child.go())
    was_asked = False
    try:
        while not going.done():
            bells = {job.worker.bell, child.bell}
            if job.worker.run.pausing:
                was_asked = True
                await _ask(child, pause)
                if child.run.state is State.PAUSED:
                    name = child.execution.playbook_name
                    await job.safe_point(f"in step {job.step_id!r}, which runs {name!r}")
                    continue
            elif was_asked:
                was_asked = False
                await _ask(child, resume)
            await asyncio.wait({going, *bells}, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        if not job.worker.is_left:
            await _stopped(job, child, going)
        raise
    finally:
        # A child that its parent leaves is left as well.
        going.cancel()
        await asyncio.wait({going})
    going.result()


async def _stopped(job: RunJob, child: Worker, going: asyncio.Task[None]) -> None:
    """Let the child clear up; cancelled once more, it leaves that out."""
    why = job.worker.run.why or "the step that runs it was ended"
    for _ in range(2):
        await _ask(child, partial(stop, why=why))
        try:
            await asyncio.wait({going})
            return
        except asyncio.CancelledError:
            continue


async def _ask(child: Worker, asked: Callable[[Run], Any]) -> None:
    try:
        await child.change(asked)
    except WrongState:
        return  # it is over, or being stopped: there is nothing to ask for


def _handed_on(value: Any) -> Any:
    """A whole credential is handed on by its name, so that it is kept nowhere."""
    return Reference("credential", (value.name,)) if isinstance(value, Credential) else value
