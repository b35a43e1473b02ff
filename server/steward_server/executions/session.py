"""What the steps of one run share, and one attempt at one of them, as the engine gives them."""

from __future__ import annotations

import asyncio
import hashlib
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from steward_server.credential import Credential
from steward_server.executions.run import Change, Kind
from steward_server.executions.work import Artifact, ArtifactKind, Result, StepFailed, Steward
from steward_server.playbooks.playbook import Step

if TYPE_CHECKING:
    from steward_server.executions.worker import Worker

T = TypeVar("T")

_MAX_IN_ID = 48

log = structlog.get_logger(__name__)

_CLOSING_S = 10.0
"""What does not close in this time is left."""


class Shared:
    """What steps of a run, and of those that it runs, have opened and use together."""

    def __init__(self) -> None:
        self._opened: dict[str, asyncio.Task[Any]] = {}
        self._open: list[AbstractAsyncContextManager[Any]] = []
        self._lock = asyncio.Lock()

    async def get(self, key: str, opened: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        async with self._lock:
            found = self._opened.get(key)
            if found is None:
                # A task of its own: the step that asks first may be cancelled meanwhile.
                found = asyncio.create_task(self._entered(opened()))
                self._opened[key] = found
        try:
            result: T = await asyncio.shield(found)
        except Exception:
            if self._opened.get(key) is found:
                del self._opened[key]
            raise
        return result

    async def aclose(self, mask: Callable[[str], str]) -> None:
        """Close everything, what was opened last first; once more is no harm.

        `mask` takes the run's secrets out of what is logged if that fails.
        """
        opening = [each for each in self._opened.values() if not each.done()]
        for each in opening:
            each.cancel()
        await asyncio.gather(*opening, return_exceptions=True)
        self._opened.clear()
        while self._open:
            manager = self._open.pop()
            try:
                # Each for itself: what breaks in one is nothing to the others.
                async with asyncio.timeout(_CLOSING_S):
                    await manager.__aexit__(None, None, None)
            except Exception:  # noqa: BLE001 - the run ends all the same
                trace = mask(traceback.format_exc())
                log.error("executions.not_closed", trace=trace)  # noqa: TRY400

    async def _entered(self, manager: AbstractAsyncContextManager[T]) -> T:
        result = await manager.__aenter__()
        self._open.append(manager)
        return result


class RunSession:
    """The `Session` of a run that a worker makes."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.execution_id = worker.execution.execution_id
        self.playbook_name = worker.execution.playbook_name
        self.gateway_url = worker.gateway_url
        self.credential: Credential | None = worker.credential
        self.steward: Steward = worker.tools.steward(worker.execution)

    @property
    def results(self) -> Sequence[Result]:
        return self._worker.results

    async def shared(self, key: str, opened: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        return await self._worker.shared.get(key, opened)

    def show(self, png: bytes) -> None:
        self._worker.show(png)

    def mask(self, text: str) -> str:
        return self._worker.taint.mask(text)


class RunJob:
    """The `Job` of a step that a worker makes."""

    def __init__(self, worker: Worker, step: Step, values: Mapping[str, Any]) -> None:
        self.worker = worker
        self.step = step
        self.values = values
        self.session = worker.session
        self.type = step.type
        self.step_id = step.id
        self.request_id = f"{worker.execution.execution_id}/{_short(step.id)}"
        self.set: dict[str, Any] = {}
        """Variables that the run has once the step is completed."""

    @property
    def variables(self) -> Mapping[str, Any]:
        return {**self.worker.variables, **self.set}

    def set_variable(self, name: str, value: Any) -> None:
        self.set[name] = value

    async def log(self, message: str, level: str = "info") -> None:
        said = Change(Kind.LOGGED, self.step_id, message, data={"level": level})
        # What a step leaves behind may still speak when the run is over.
        await self.worker.change(lambda run: [] if run.state.is_over else [said])

    async def sleep(self, seconds: float) -> None:
        loop, where = asyncio.get_running_loop(), f"in step {self.step_id!r}"
        left_s = seconds
        await self.safe_point(where)
        while left_s > 0:
            begun_s = loop.time()
            await asyncio.wait({self.worker.bell}, timeout=left_s)
            left_s -= loop.time() - begun_s
            await self.safe_point(where)

    async def safe_point(self, where: str) -> None:
        await self.worker.pause_here(where)

    def file(self, path: str) -> Path:
        return self.worker.tools.file(self.worker, path)

    async def keep(
        self, name: str, content: bytes | Path, *, kind: ArtifactKind, content_type: str
    ) -> Artifact:
        worker = self.worker
        artifact = await worker.tools.artifacts.keep(
            worker.execution.execution_id,
            self.step_id,
            worker.taint.mask(name),
            content,
            kind=kind,
            content_type=content_type,
        )
        worker.artifacts[artifact.name] = artifact
        return artifact


def _short(step_id: str) -> str:
    """As short as ids of requests must be."""
    if len(step_id) <= _MAX_IN_ID:
        return step_id
    return hashlib.sha256(step_id.encode()).hexdigest()[:_MAX_IN_ID]


async def wait_for_word(job: RunJob) -> Mapping[str, Any]:
    """The work of `approval.wait`."""
    worker, loop = job.worker, asyncio.get_running_loop()
    if job.step_id not in worker.run.answers:
        question = {
            "message": job.values["message"],
            "not_by_starter": job.values["not_by_starter"],
            "expires_at_us": worker.tools.clock() + round(job.values["timeout"] * 1e6),
        }
        text = job.values["message"]
        await worker.write([Change(Kind.ASKED, job.step_id, text, data=question)])
    begun_s = loop.time()
    while (answer := worker.run.answers.get(job.step_id)) is None:
        bell = worker.bell
        await job.safe_point(f"in step {job.step_id!r}, which waits for an approval")
        if bell.done():
            continue
        left_s = job.values["timeout"] - (loop.time() - begun_s)
        if left_s <= 0:
            raise StepFailed(f"nobody approved or rejected within {job.values['timeout']:g} s")
        await asyncio.wait({bell}, timeout=left_s)
    said = answer.data
    if not said["approved"]:
        comment = f": {answer.text}" if answer.text else ""
        raise StepFailed(f"rejected by {said['by']}{comment}", by=said["by"], comment=answer.text)
    return {"approved": True, "by": said["by"], "comment": answer.text, "at": said["at"]}
