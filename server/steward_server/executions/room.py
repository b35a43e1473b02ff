"""What is done with runs: started, found, controlled, made again, deleted; and who may."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import structlog

from steward.gateway.v1.options_pb2 import ROLE_EXECUTOR, Role
from steward_server.audit import Change as AuditChange
from steward_server.audit import record
from steward_server.belongings import Handover
from steward_server.credential import Credential
from steward_server.db import Database, Reader, Transaction
from steward_server.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
)
from steward_server.executions import store
from steward_server.executions.config import ExecutionsConfig
from steward_server.executions.engine import Engine, Library, credential_names
from steward_server.executions.execution import Event, Execution, followed
from steward_server.executions.recovery import carried_over
from steward_server.executions.run import (
    Change,
    Kind,
    Run,
    State,
    WrongState,
    answer,
    replay,
)
from steward_server.executions.store import Kept, Wanted
from steward_server.executions.whole import to_end
from steward_server.masking import MARKER
from steward_server.playbooks.library import unstartable
from steward_server.playbooks.playbook import Playbook
from steward_server.playbooks.starting import (
    BadStart,
    autofilled,
    check_gateway_url,
    start_values,
)
from steward_server.principals import Kind as CallerKind
from steward_server.principals import Principal

log = structlog.get_logger(__name__)

_DONE = {
    Kind.PAUSE_ASKED: "paused",
    Kind.RESUMED: "resumed",
    Kind.SKIP_ASKED: "skipped",
    Kind.STEP_SKIPPED: "skipped",
    Kind.STOP_ASKED: "cancelled",
    Kind.CUT: "cancelled",
    Kind.ENDED: "cancelled",
    Kind.ANSWERED: "approved",
}
"""What the audit log calls what a person did to a run."""
_TIDIED_AT_ONCE = 100
_DAY_US = 86_400_000_000


class People(Protocol):
    """The part of the auth room that runs need."""

    async def name_of(self, reader: Reader, user_id: str) -> str:
        """The name a user signs in by; empty if there is no such user."""
        ...

    async def role_of(self, reader: Reader, user_id: str) -> Role.ValueType | None:
        """The role of someone who may act now; None if there is no such user, or not any more."""
        ...


class Agents(Protocol):
    """The part of the agents room that runs need."""

    def owner_of(self, agent_id: str) -> str | None:
        """Who owns the agent; None if there is no such agent."""
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody wants started."""

    playbook_path: str
    parameters: Mapping[str, Any]
    gateway_url: str = ""
    credential_name: str = ""
    debug_mode: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """A run in full."""

    execution: Execution
    run: Run
    playbook: Playbook
    events: Sequence[Event]


class ExecutionRoom:
    """Runs of playbooks, as far as rows and rights go; making them is the engine's."""

    def __init__(
        self,
        database: Database,
        engine: Engine,
        library: Library,
        people: People,
        agents: Agents,
        config: ExecutionsConfig,
        clock: Callable[[], int],
    ) -> None:
        self._database = database
        self._engine = engine
        self._library = library
        self._people = people
        self._agents = agents
        self._config = config
        self._clock = clock
        self._stopping: set[asyncio.Task[None]] = set()

    # What callers do.

    async def begin(self, caller: Principal, asked: Asked) -> Execution:
        """Start a run, or put it in the queue.

        Raises:
            InvalidArgument: the playbook, or what it is to be started with, is wrong.
            NotFound: there is no such playbook or credential.
            PermissionDenied: the caller may not run that.
            ResourceExhausted: too many wait already.
        """
        playbook, text = await self._library.opened(asked.playbook_path)
        parameters = await asyncio.to_thread(_started_with, playbook, asked)
        owner_id, agent_id = self._owner(caller)
        execution = Execution(
            execution_id=str(uuid.uuid4()),
            owner_id=owner_id,
            agent_id=agent_id,
            credential_id=_credential_id(caller),
            playbook_path=asked.playbook_path,
            playbook_name=playbook.name,
            playbook_digest=hashlib.sha256(text.encode()).digest(),
            parameters=parameters,
            gateway_url=asked.gateway_url,
            credential_name=asked.credential_name,
            debug_mode=asked.debug_mode,
            total_steps=len(playbook.steps),
            created_at_us=self._clock(),
        )
        await self._begin(caller, execution, playbook, text, [])
        return execution

    async def rerun(self, caller: Principal, execution_id: str, *, from_start: bool) -> Execution:
        """Start a run that is over once more, from the first step that was not completed.

        Raises:
            FailedPrecondition: it is not over, or can only be made again from its start, or not
                at all.
        """
        seen = await self.get(caller, execution_id)
        before, playbook = seen.execution, await self._engine.playbook_of(seen.execution)
        if not before.state.is_over:
            raise FailedPrecondition(
                f"the run is {before.state}; only one that is over can be made again",
                reason="WRONG_STATE",
            )
        if before.parent_id and MARKER in str(before.parameters):
            raise FailedPrecondition(
                "the run that ran it handed it secrets, which are not kept; make that one again",
                reason="WRONG_STATE",
            )
        carried: list[Change] = []
        if not from_start:
            try:
                carried = carried_over(playbook, seen.run, seen.events, execution_id)
            except WrongState as error:
                raise FailedPrecondition(
                    f"{error}; make it again from its start (`from_start`)", reason="WRONG_STATE"
                ) from None
        owner_id, agent_id = self._owner(caller)
        execution = replace(
            before,
            execution_id=str(uuid.uuid4()),
            owner_id=owner_id,
            agent_id=agent_id,
            credential_id=_credential_id(caller),
            parent_id="",
            parent_step_id="",
            rerun_of=execution_id,
            created_at_us=self._clock(),
            state=State.PENDING,
            step_index=0,
            started_at_us=None,
            ended_at_us=None,
        )
        text = await store.text_of(self._database, before.playbook_digest)
        await self._begin(caller, execution, playbook, text, carried)
        return execution

    async def page(
        self, caller: Principal, wanted: Wanted, before_id: str, limit: int
    ) -> list[Execution]:
        """Runs that the caller may see, the newest first."""
        if caller.kind is CallerKind.AGENT:
            wanted = replace(wanted, agent_id=caller.subject)
        elif not caller.is_admin:
            wanted = replace(wanted, owner_id=caller.subject)
        if wanted.parent_id:
            await self._execution(caller, wanted.parent_id)
        if before_id:
            last = await self._execution(caller, before_id)
            wanted = replace(wanted, before=(last.created_at_us, last.execution_id))
        return await store.page(self._database, wanted, limit)

    async def get(self, caller: Principal, execution_id: str) -> Seen:
        """A run in full.

        Raises:
            NotFound: there is none that the caller may see.
        """
        execution = await self._execution(caller, execution_id)
        events = await store.events_of(self._database, execution_id)
        run = replay(event.change for event in events)
        try:
            playbook = await self._engine.playbook_of(execution)
        except FailedPrecondition:
            # What became of it can be told all the same.
            playbook = Playbook(name=execution.playbook_name, version="", steps=())
        return Seen(_as_of(execution, events), run, playbook, events)

    async def control(
        self, caller: Principal, execution_id: str, asked: Callable[[Run, str], list[Change]]
    ) -> Execution:
        """Do what is asked of a run; it is told who asks, and the audit log what was done.

        Raises:
            NotFound: there is none that the caller may see.
            FailedPrecondition: the run is not in a state for that.
        """
        execution = await self._execution(caller, execution_id)
        name = await self.name_of(caller)
        changes: list[Change] = []

        def signed(run: Run) -> list[Change]:
            nonlocal changes
            changes = asked(run, name)
            return [each._replace(data={**each.data, "by": name}) for each in changes]

        try:
            if await self._engine.control(execution_id, signed) is None:
                execution = await self._execution(caller, execution_id)
                signed(Run(execution.state))  # it is over, and says so
                raise WrongState(f"the run is {execution.state}")
        except WrongState as error:
            raise FailedPrecondition(
                str(error), reason="WRONG_STATE", facts={"status": str(execution.state)}
            ) from None
        done = [_done(execution_id, each) for each in changes if each.kind in _DONE][:1]
        await self._database.run(lambda to: record(to, self._clock(), caller, *done))
        return execution

    async def give_word(
        self, caller: Principal, execution_id: str, step_id: str, comment: str, *, approves: bool
    ) -> None:
        """Approve or reject what a step asks for.

        Raises:
            PermissionDenied: somebody else than the caller must approve.
            FailedPrecondition: no step asks for anything.
        """
        execution = await self._execution(caller, execution_id)
        at = self._clock()

        def asked(run: Run, name: str) -> list[Change]:
            told = {"approved": approves, "by": name, "at": _iso(at)}
            changes = answer(run, step_id, comment, told)
            is_own = caller.subject == (execution.agent_id or execution.owner_id)
            if approves and is_own and run.asks and run.asks.data["not_by_starter"]:
                raise PermissionDenied(
                    "whoever started this run may not approve its steps; somebody else must, or "
                    "the step says `not_by_starter: false`",
                    reason="OWN_RUN",
                )
            return changes

        await self.control(caller, execution_id, asked)

    async def delete(self, caller: Principal, execution_id: str) -> int:
        """Delete a run that is over, and what it made; gives how many screenshots that were.

        Raises:
            FailedPrecondition: it is not over.
        """
        execution = await self._execution(caller, execution_id)
        if not execution.state.is_over:
            raise FailedPrecondition(
                f"the run is {execution.state}; cancel it, then delete it", reason="WRONG_STATE"
            )
        return await self._delete(caller, execution)

    async def events_of(self, execution: Execution, after: int) -> list[Event]:
        """What happened to a run after a number, in order."""
        return await store.events_of(self._database, execution.execution_id, after)

    async def artifacts_of(self, caller: Principal, execution_id: str) -> list[Kept]:
        """The files that a run has made, the oldest first."""
        await self._execution(caller, execution_id)
        return await store.artifacts_of(self._database, execution_id)

    async def artifact(
        self, caller: Principal, execution_id: str, artifact_id: str
    ) -> tuple[Kept, Path]:
        """An artifact, and where it is.

        Raises:
            NotFound: the run has no such.
        """
        await self._execution(caller, execution_id)
        kept = await store.artifact(self._database, execution_id, artifact_id)
        if kept is None:
            raise NotFound.of("artifact", artifact_id)
        return kept, self._engine.artifacts.path(execution_id, artifact_id)

    async def on_user_deleted(
        self, transaction: Transaction, user_id: str, heir_id: str, now_us: int
    ) -> Handover:
        """Give a deleted person's runs to the heir; those that go on are stopped."""
        del now_us
        await store.give(transaction, user_id, heir_id)

        def stopped() -> None:
            self._later(self._engine.stop_of(user_id, "its owner was deleted"))

        return Handover(after_commit=stopped)

    def on_rights_changed(self, user_id: str) -> None:
        """Stop the runs of somebody who may act no more; those of others go on."""
        self._later(self._stop_unless_active(user_id))

    def on_credential_ended(self, credential_id: str) -> None:
        """Stop the runs that were started with a key or token that is good no more."""
        if credential_id:
            self._later(self._engine.stop_refused(credential_id))

    async def tidy(self) -> int:
        """Delete runs that were over too long ago; gives how many."""
        if not self._config.kept_days:
            return 0
        before_us = self._clock() - self._config.kept_days * _DAY_US
        found = await store.ended_before(self._database, before_us, _TIDIED_AT_ONCE)
        for execution in found:
            await self._delete(None, execution)
        return len(found)

    def sees(self, caller: Principal, owner_id: str, agent_id: str) -> bool:
        """Whether a caller may see a run that these own and started."""
        if caller.kind is CallerKind.AGENT:
            return agent_id == caller.subject
        return caller.is_admin or owner_id == caller.subject

    async def execution(self, caller: Principal, execution_id: str) -> Execution:
        """A run's row.

        Raises:
            NotFound: there is none that the caller may see.
        """
        return await self._execution(caller, execution_id)

    async def name_of(self, caller: Principal) -> str:
        """What a caller is called."""
        if not caller.is_person:
            return caller.subject
        return await self._people.name_of(self._database, caller.subject) or caller.subject

    # How it is done.

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    async def _stop_unless_active(self, user_id: str) -> None:
        if await self._people.role_of(self._database, user_id) is None:
            await self._engine.stop_of(user_id, "its owner may act no more")

    async def _execution(self, caller: Principal, execution_id: str) -> Execution:
        found = await store.find(self._database, execution_id)
        if found is None or not self.sees(caller, found.owner_id, found.agent_id):
            raise NotFound(
                f"Execution {execution_id!r} not found",
                reason="EXECUTION_NOT_FOUND",
                facts={"execution_id": execution_id},
            )
        return found

    def _owner(self, caller: Principal) -> tuple[str, str]:
        """Whose the run is, and which agent started it."""
        if caller.kind is not CallerKind.AGENT:
            return caller.subject, ""
        owner_id = self._agents.owner_of(caller.subject)
        if owner_id is None:
            raise NotFound.of("agent", caller.subject)
        return owner_id, caller.subject

    async def _begin(
        self,
        caller: Principal,
        execution: Execution,
        playbook: Playbook,
        text: str,
        carried: Sequence[Change],
    ) -> None:
        self._engine.check_agent(playbook, execution)
        for name in credential_names(playbook, execution):
            credential = await self._engine.credential(execution.owner_id, name)
            if caller.role == ROLE_EXECUTOR:
                _check_address(credential, execution)
        _, rows = followed(Run(), 0, carried, {step.id for step in playbook.steps})
        at_us = execution.created_at_us

        async def work(transaction: Transaction) -> None:
            await store.insert(transaction, execution, text)
            if rows:
                await store.append(transaction, execution.execution_id, 0, at_us, rows)
            change = AuditChange(
                "execution.started", execution.execution_id, after=_shown(execution)
            )
            await record(transaction, at_us, caller, change)

        async def taken() -> None:
            await self._database.run(work)
            events = [Event(0, at_us, *row) for row in rows]
            self._engine.take(execution, playbook, events)

        with self._engine.place():
            await to_end(taken())

    async def _delete(self, caller: Principal | None, execution: Execution) -> int:
        """Delete a run, with those that it ran; nobody is told of what is tidied up."""

        async def work(transaction: Transaction) -> int:
            count = 0
            for each in family:
                count += await store.delete(transaction, each)
            if caller is not None:
                change = AuditChange(
                    "execution.deleted", execution.execution_id, before=_shown(execution)
                )
                await record(transaction, self._clock(), caller, change)
            return count

        family = await store.family(self._database, execution.execution_id)

        async def gone() -> int:
            count = await self._database.run(work)
            for each in family:
                self._engine.feed.delete(each)
                await self._engine.artifacts.delete(each)
            return count

        return await to_end(gone())


def _started_with(playbook: Playbook, asked: Asked) -> dict[str, Any]:
    """The values of the playbook's parameters.

    Raises:
        InvalidArgument: they are wrong; all that is wrong is told.
    """
    if asked.gateway_url:
        try:
            check_gateway_url(asked.gateway_url)
        except BadStart as error:
            raise InvalidArgument.of({"gateway_url": str(error)}) from None
    try:
        given = autofilled(
            playbook,
            asked.parameters,
            gateway_url=asked.gateway_url,
            credential=asked.credential_name,
        )
        return start_values(playbook, given)
    except BadStart as error:
        raise unstartable(error) from None


def _as_of(execution: Execution, events: Sequence[Event]) -> Execution:
    """A run as its last event has it: that may have come after its row was read."""
    if not events:
        return execution
    last = events[-1]
    started = (each.at_us for each in events if each.change.kind is Kind.STARTED)
    return replace(
        execution,
        state=last.run_state,
        step_index=last.step_index,
        started_at_us=next(started, None),
        ended_at_us=last.at_us if last.run_state.is_over else None,
    )


def _done(execution_id: str, change: Change) -> AuditChange:
    # What was said with it may hold a secret of the run, and stands masked in its events.
    done = _DONE[change.kind] if change.data.get("approved", True) else "rejected"
    return AuditChange(f"execution.{done}", execution_id)


def _shown(execution: Execution) -> dict[str, Any]:
    """What the audit log says of a run."""
    return {
        "owner_id": execution.owner_id,
        "agent_id": execution.agent_id,
        "playbook_path": execution.playbook_path,
        "gateway_url": execution.gateway_url,
        "credential_name": execution.credential_name,
        "rerun_of": execution.rerun_of,
    }


def _check_address(credential: Credential, execution: Execution) -> None:
    """Let a key that may only start runs take no password to a place of its choice.

    Raises:
        PermissionDenied: it is to go elsewhere than the credential is good for.
    """
    named = execution.gateway_url or execution.parameters.get("gateway_url", "")
    goes_elsewhere = isinstance(named, str) and named.rstrip("/")
    if goes_elsewhere and goes_elsewhere != credential.gateway_url.rstrip("/"):
        raise PermissionDenied(
            f"a key that may only start runs may use credential {credential.name!r} at the "
            "gateway_url that it is saved with, and nowhere else",
            reason="CREDENTIAL_ELSEWHERE",
        )


def _credential_id(caller: Principal) -> str:
    """Of the key or token that a caller has, which can be taken from them."""
    has_one = caller.kind in (CallerKind.KEY, CallerKind.AGENT)
    return caller.credential if has_one else ""


def _iso(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).isoformat().replace("+00:00", "Z")
