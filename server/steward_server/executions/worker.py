"""Makes the steps of one run: the only writer of its events.

What people ask for and what comes of steps go the same way: what it means now is decided by the
rules of run.py, written down, and only then so. Whoever waits for a change waits for `bell`.
"""

from __future__ import annotations

import asyncio
import random
import traceback
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import structlog

from steward_server.credential import Credential
from steward_server.db import Database, Reader, Transaction
from steward_server.errors import PermissionDenied, StewardError
from steward_server.executions import store
from steward_server.executions.artifacts import Artifacts
from steward_server.executions.execution import Event, Execution, followed, plan_of
from steward_server.executions.feed import Feed
from steward_server.executions.metrics import ExecutionMetrics
from steward_server.executions.outcome import Came, kept, kept_context
from steward_server.executions.run import (
    Begin,
    Change,
    End,
    Hold,
    Kind,
    Next,
    Run,
    State,
    StepState,
    failing,
    following,
    holding,
    is_to_end,
    replay,
    stop,
)
from steward_server.executions.session import RunJob, RunSession, Shared
from steward_server.executions.whole import to_end
from steward_server.executions.work import Artifact, Result, StepFailed, Steward, Work
from steward_server.masking import Taint
from steward_server.playbooks.catalogue import CATALOGUE
from steward_server.playbooks.catalogue.binding import BadValues, bound, timeout_s
from steward_server.playbooks.catalogue.forms import Kind as FieldKind
from steward_server.playbooks.conditions import Undecided
from steward_server.playbooks.playbook import Playbook, Step
from steward_server.playbooks.references import Reference, Scope, Unresolved

log = structlog.get_logger(__name__)

MAX_TEXT = 4_000
"""Characters of an error or a logged line."""
_MOST_AROUND = 500
"""Characters of them that the engine adds: of which step, in which line."""
_MOST_AT_ONCE = 100
"""Changes in one transaction."""
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Credentials(Protocol):
    """The part of the credentials room that runs need."""

    async def opened(self, reader: Reader, owner_id: str, name: str) -> Credential:
        """Somebody's credential in clear.

        Raises:
            NotFound: there is none of this name.
            Unavailable: its password cannot be decrypted.
        """
        ...


@dataclass(frozen=True, slots=True)
class Tools:
    """What all workers use.

    Attributes:
        steward: the server's methods, called as whoever started a run.
        file: where a file is that a run may read.
    """

    database: Database
    clock: Callable[[], int]
    feed: Feed
    work: Mapping[str, Callable[[RunJob], Awaitable[Mapping[str, Any]]] | Work]
    artifacts: Artifacts
    metrics: ExecutionMetrics
    credentials: Credentials
    steward: Callable[[Execution], Steward]
    file: Callable[[Worker, str], Path]


class _Clock:
    """Counts the time that a run goes on: not while it waits for its turn, nor while paused."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._since_s: float | None = None
        self._counted_s = 0.0

    @property
    def counted_s(self) -> float:
        since_s = self._since_s
        return self._counted_s + (self._loop.time() - since_s if since_s is not None else 0)

    def hold(self) -> None:
        self._counted_s, self._since_s = self.counted_s, None

    def go_on(self) -> None:
        if self._since_s is None:
            self._since_s = self._loop.time()


class Worker:
    """One run that is not over, in this process."""

    def __init__(
        self,
        tools: Tools,
        execution: Execution,
        playbook: Playbook,
        *,
        events: Sequence[Event] = (),
        parent: Worker | None = None,
        secrets: Mapping[str, Any] = _NOTHING,
    ) -> None:
        self.tools = tools
        self.execution = execution
        self.playbook = playbook
        self.parent = parent
        self.plan = plan_of(playbook, holds=execution.debug_mode)
        self.run = replay(event.change for event in events)
        self.bell: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.variables: dict[str, Any] = {}
        self.outputs: dict[str, Mapping[str, Any]] = {}
        self.artifacts: dict[str, Artifact] = {}
        self.taint = Taint()
        self.gateway_url = execution.gateway_url
        self.credential: Credential | None = None
        self.shared: Shared = parent.shared if parent else Shared()
        self.session: RunSession
        self.has_lost = False
        """Whether something that later steps may need was masked when it was written down."""
        self.is_left = False
        """Whether nobody makes the step in hand any more, and it did not end: the server stops."""
        self._parameters = {**execution.parameters, **secrets}
        self._credentials: dict[str, Credential] = {}
        self._steps = {step.id: step for step in playbook.all_steps}
        self._main = frozenset(step.id for step in playbook.steps)
        self._index = events[-1].step_index if events else 0
        self._results: dict[str, Result] = {}
        self._clock = _Clock()
        self._lock = asyncio.Lock()
        self._remember(events)

    @property
    def results(self) -> Sequence[Result]:
        return list(self._results.values())

    @property
    def scope(self) -> Scope:
        return Scope(
            parameters=self._parameters,
            variables=self.variables,
            credentials=self._credentials,
            steps=self.outputs,
        )

    async def open(self, names: Collection[str]) -> None:
        """Open the credentials that the run uses; from here on they are masked.

        Raises:
            NotFound: there is none of a name.
            Unavailable: a password cannot be decrypted.
        """
        for name in names:
            await self._opened(name)
        self.credential = self._credentials.get(self.execution.credential_name)
        named = self._parameters.get("gateway_url", "")
        if isinstance(named, Reference):
            named = self.scope.look_up(named)
        of_credential = self.credential.gateway_url if self.credential else ""
        self.gateway_url = self.gateway_url or str(named) or of_credential
        if self.parent is not None:
            self.credential = self.credential or self.parent.credential
            self.gateway_url = self.gateway_url or self.parent.gateway_url
            self.taint = self.taint.including(*self.parent.secrets)

    async def _opened(self, name: str) -> Credential:
        opened = self._credentials.get(name)
        if opened is None:
            if self.execution.agent_id:
                raise PermissionDenied(
                    f"the runs of agents may not use credentials such as {name!r}",
                    reason="NOT_FOR_AGENTS",
                )
            tools = self.tools
            opened = await tools.credentials.opened(tools.database, self.execution.owner_id, name)
            self._credentials[name] = opened
            self.taint = self.taint.including(opened.password)
        return opened

    @property
    def secrets(self) -> Collection[str]:
        """What is masked."""
        inherited = self.parent.secrets if self.parent else ()
        return {*inherited, *(each.password for each in self._credentials.values())}

    # What is asked of it from outside.

    async def change(self, asked: Callable[[Run], Sequence[Change]]) -> Run:
        """Do what is asked of the run as it is now; gives what it is then.

        Raises:
            WrongState: it cannot be.
        """
        async with self._lock:
            await self._write(asked(self.run))
            return self.run

    async def write(self, changes: Sequence[Change]) -> None:
        """Write down what happened."""
        async with self._lock:
            await self._write(changes)

    async def break_off(self, why: str) -> None:
        """End the run at once: nobody makes its steps any more."""
        async with self._lock:
            if self.run.state.is_over:
                return
            ended = Change(Kind.ENDED, text=why, state=State.FAILED)
            if not self.run.in_hand:
                await self._write([ended])
            else:
                await self._write([Change(Kind.STEP_FAILED, self.run.in_hand, why), ended])

    async def pause_here(self, where: str) -> None:
        """A safe point of the step in hand: where the run is to pause, wait until it goes on."""
        if self.run.pausing:
            await self.change(lambda run: holding(run, where) if run.pausing else [])
        # What is to be ended makes no further move before it is.
        while self.run.state is State.PAUSED or is_to_end(self.run, self.plan):
            await asyncio.wait({self.bell})

    def show(self, png: bytes) -> None:
        if self.tools.feed.is_watched:
            self.tools.feed.show(self.execution.about, self.tools.clock() // 1000, png)

    # What it does.

    async def go(self) -> None:
        """Make the run's steps until it is over."""
        self.session = RunSession(self)
        try:
            if self.run.state is State.RUNNING:
                self._clock.go_on()
            await self.change(_started)
            while not self.run.state.is_over:
                step = self._steps.get(self.run.in_hand)
                if step is not None:
                    await self._make(step)
                elif isinstance(await self._advance(_nothing), Hold):
                    await asyncio.wait({self.bell})
        finally:
            await self._close()

    async def _close(self) -> None:
        if self.parent is None:
            await self.shared.aclose(self.taint.mask)
        self.tools.feed.forget(self.execution.execution_id)

    async def _advance(self, came: Callable[[Run], Sequence[Change]]) -> Next | None:
        """Write down what came of the step in hand, and with it what follows from that."""
        async with self._lock:
            changes, found = [*came(self.run)], None
            run = replay(changes, self.run)
            while not run.in_hand and len(changes) < _MOST_AT_ONCE:
                found = following(run, self.plan)
                if isinstance(found, Begin):
                    more = self._begun(run, self._steps[found.step.id])
                elif isinstance(found, Hold) and not run.held:
                    where = f"before step {found.before!r}"
                    more = holding(run, where, has_moved=bool(changes))
                else:
                    break
                changes += more
                run = replay(more, run)
                if isinstance(found, Hold):
                    break
            await self._write(changes)
        if isinstance(found, End):
            # What the run holds is let go of before it says that it is over.
            await self._close()
            async with self._lock:
                last = following(self.run, self.plan)
                if isinstance(last, End):
                    await self._write([last.change])
        return found

    def _begun(self, run: Run, step: Step) -> list[Change]:
        started = Change(Kind.STEP_STARTED, step.id)
        if step.when is None:
            return [started]
        try:
            if step.when.holds(self.scope):
                return [started]
        except (Undecided, Unresolved) as error:
            text = f"its condition cannot be decided: {error}"
            return [started, *failing(replay([started], run), self.plan, text, is_final=True)]
        return [Change(Kind.STEP_SKIPPED, step.id, f"not so: {step.when.text}")]

    async def _make(self, step: Step) -> None:
        """Make one attempt at the step in hand, and wait for the next one if there is to be one."""
        came = await self._attempt(step)
        await self._advance(partial(self._meant, step, came))
        if self.run.in_hand == step.id:
            await self._wait_for_next(step)

    def _meant(self, step: Step, came: Came, run: Run) -> list[Change]:
        """What an attempt means for the run as it is now."""
        if came.outputs is not None:
            self.outputs[step.id] = came.outputs
            self.variables |= came.variables
            done = {"outputs": came.outputs}
            data = {**done, "variables": came.variables} if came.variables else done
            return [Change(Kind.STEP_COMPLETED, step.id, data=data)]
        if (ended := self._ended_by(step, came.error, run)) is not None:
            return ended
        is_final = came.is_hopeless or run.made[step.id].attempts >= step.retry.attempts
        text = self._at(step, came.error)
        data = {"context": came.context} if came.context else {}
        return failing(run, self.plan, text, is_final=is_final, data=data)

    def _ended_by(self, step: Step, error: str, run: Run) -> list[Change] | None:
        """What it means that the step in hand came to nothing, if that was asked for."""
        if run.skipping:
            return [Change(Kind.STEP_SKIPPED, step.id, "skipped")]
        if is_to_end(run, self.plan):
            return failing(run, self.plan, error or run.why, is_final=True)
        return None

    async def _wait_for_next(self, step: Step) -> None:
        failed = self.run.made[step.id].attempts
        chance = random.random()  # noqa: S311 - it only spreads attempts
        wait_s = step.retry.wait_s(failed, chance)

        def again(run: Run) -> Sequence[Change]:
            if (ended := self._ended_by(step, "", run)) is not None:
                return ended
            is_held = run.pausing or run.state is State.PAUSED
            return [] if is_held else [Change(Kind.STEP_STARTED, step.id)]

        while self.run.in_hand == step.id and self.run.made[step.id].attempts == failed:
            waiting = asyncio.create_task(RunJob(self, step, _NOTHING).sleep(wait_s))
            await self._watched(waiting, None)
            if not waiting.cancelled():
                waiting.result()
            wait_s = 0
            await self._advance(again)

    def _at(self, step: Step, error: str) -> str:
        short = self.taint.mask(error)[: MAX_TEXT - _MOST_AROUND]
        return f"{short} (step {step.id!r} in line {self.playbook.line(step)})"

    async def _attempt(self, step: Step) -> Came:
        step_type = CATALOGUE[step.type]
        try:
            values = bound(step_type, step.parameters, self.scope)
            for each in step_type.parameters:
                if each.kind is FieldKind.CREDENTIAL and isinstance(values[each.name], str):
                    values[each.name] = await self._opened(values[each.name])
        except BadValues as error:
            return Came(error=str(error), is_hopeless=True)
        except StewardError as error:
            return Came(error=error.message, is_hopeless=True)
        job = RunJob(self, step, values)
        limit_s = timeout_s(step, step_type, values)
        task = asyncio.create_task(self._worked(job))
        has_timed_out = await self._watched(task, limit_s)
        try:
            return kept(task.result(), job.set)
        except asyncio.CancelledError:
            if has_timed_out:
                return Came(error=f"it took longer than {limit_s:g} s")
            return Came(error="" if is_to_end(self.run, self.plan) else "it was broken off")
        except StepFailed as error:
            return Came(error=str(error), context=kept_context(error.context))
        except StewardError as error:
            return Came(error=error.message)
        except BaseException:  # noqa: BLE001 - whatever breaks, the run ends truthfully
            # Errors of what steps use may tell what those were given.
            trace = self.taint.mask(traceback.format_exc())
            log.error("executions.step_broke", step_type=step.type, trace=trace)  # noqa: TRY400
            return Came(error="the server made a mistake, which its log tells of")

    async def _worked(self, job: RunJob) -> Any:
        try:
            return await self.tools.work[job.type](job)
        except SystemExit as error:
            raise RuntimeError("a step would have ended the server") from error

    async def _watched(self, task: asyncio.Future[Any], limit_s: float | None) -> bool:
        """Wait for a task, and end it when it is to end; whether that was for its time."""
        begun_s = self._clock.counted_s
        try:
            while not task.done():
                bell = self.bell
                if is_to_end(self.run, self.plan):
                    await self._ended(task)
                    return False
                left_s = None if limit_s is None else limit_s + begun_s - self._clock.counted_s
                run_left_s = self.playbook.timeout_s - self._clock.counted_s
                if left_s is not None and left_s <= 0:
                    await self._ended(task)
                    return True
                if run_left_s <= 0 and self.run.stop is None:
                    why = f"the run took longer than {self.playbook.timeout_s:g} s"
                    await self.change(lambda run, why=why: stop(run, why, State.FAILED))  # type: ignore[misc]
                    continue
                lefts = [left_s, run_left_s if self.run.stop is None else None]
                wait_s = min((each for each in lefts if each is not None), default=None)
                if self.run.state is State.PAUSED:
                    wait_s = None
                await asyncio.wait(
                    {task, bell}, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED
                )
        except asyncio.CancelledError:
            self.is_left = True
            raise
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
        return False

    async def _ended(self, task: asyncio.Future[Any]) -> None:
        """End a task; once more when its run is cut: that of another playbook clears up before."""
        task.cancel()
        was_cut = self.run.is_cut
        while not task.done():
            await asyncio.wait({task, self.bell}, return_when=asyncio.FIRST_COMPLETED)
            if self.run.is_cut and not was_cut:
                was_cut = True
                task.cancel()

    # How it is written down.

    async def _write(self, changes: Sequence[Change]) -> None:
        if changes:
            await to_end(self._written([self._masked(each) for each in changes]))

    async def _written(self, changes: Sequence[Change]) -> None:
        run, rows = followed(self.run, self._index, changes, self._main)
        at_us, after = self.tools.clock(), self.run.changes
        execution_id = self.execution.execution_id

        async def work(transaction: Transaction) -> None:
            await store.append(transaction, execution_id, after, at_us, rows)

        await self.tools.database.run(work)
        self.run, self._index = run, rows[-1][-1]
        for change in changes:
            self._note(at_us, change)
            self._count(change)
        if run.state is State.RUNNING:
            self._clock.go_on()
        else:
            self._clock.hold()
        bell, self.bell = self.bell, asyncio.get_running_loop().create_future()
        bell.set_result(None)

    def _masked(self, change: Change) -> Change:
        text = _storable(self.taint.mask(change.text)[:MAX_TEXT]) if change.text else ""
        data: dict[str, Any] = {
            name: self.taint.mask_value(each) if name in _OF_STEPS_MAKING else each
            for name, each in change.data.items()
        }
        if change.kind is Kind.STEP_COMPLETED and data != change.data:
            data["masked"] = True
        if change.kind in _OF_STEPS and (step := self._steps.get(change.step_id)) is not None:
            data |= {"name": step.name, "type": step.type}
        return change._replace(text=text, data=data)

    def _note(self, at_us: int, change: Change) -> None:
        """Keep the results of steps as they are told to steps after them."""
        made = self.run.made.get(change.step_id)
        if made is None or change.kind not in _OF_STEPS:
            return
        step = self._steps.get(change.step_id)
        if step is None:
            return  # the playbook cannot be read any more
        before = self._results.get(step.id)
        self._results[step.id] = Result(
            step.id,
            step.name,
            step.type,
            made.state,
            before.started_at_us if before else at_us,
            at_us if made.state.is_over else None,
            change.data.get("outputs", {}),
            change.text if made.state in (StepState.FAILED, StepState.SKIPPED) else "",
        )

    def _count(self, change: Change) -> None:
        metrics, result = self.tools.metrics, self._results.get(change.step_id)
        if change.kind is Kind.ENDED:
            metrics.run_ended(self.run.state)
        elif result is not None and change.kind in _OF_STEPS and result.ended_at_us is not None:
            seconds = (result.ended_at_us - result.started_at_us) / 1e6
            metrics.step_ended(result.type, result.state, seconds)

    def _remember(self, events: Sequence[Event]) -> None:
        """What earlier steps gave, as far as it was written down."""
        for event in events:
            change = event.change
            if change.kind is Kind.STEP_COMPLETED:
                self.outputs[change.step_id] = change.data.get("outputs", {})
                self.variables |= change.data.get("variables", {})
                self.has_lost |= bool(change.data.get("masked"))
            self._note(event.at_us, change)


def _started(run: Run) -> list[Change]:
    return [Change(Kind.STARTED)] if run.state is State.PENDING else []


def _nothing(_: Run) -> Sequence[Change]:
    return ()


def _storable(text: str) -> str:
    """A text in which everything has an encoding."""
    return text.encode(errors="replace").decode()


_OF_STEPS_MAKING = frozenset({"outputs", "variables", "context", "message"})
"""Facts that may tell secrets; the others are the engine's own, and never do."""
_OF_STEPS = (
    Kind.STEP_STARTED,
    Kind.STEP_COMPLETED,
    Kind.STEP_FAILED,
    Kind.STEP_SKIPPED,
    Kind.STEP_REOPENED,
)
