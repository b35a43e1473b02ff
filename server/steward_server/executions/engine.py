"""Has runs made: so many at a time, the others in their order; and takes up what was left."""

from __future__ import annotations

import asyncio
import hashlib
import traceback
import uuid
from collections import Counter, deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import structlog

from steward_server.credential import Credential
from steward_server.db import Database, Transaction
from steward_server.errors import (
    FailedPrecondition,
    PermissionDenied,
    ResourceExhausted,
    StewardError,
)
from steward_server.executions import store
from steward_server.executions.artifacts import Artifacts
from steward_server.executions.config import ExecutionsConfig
from steward_server.executions.execution import Event, Execution, references_in
from steward_server.executions.feed import Feed
from steward_server.executions.metrics import ExecutionMetrics
from steward_server.executions.nested import run_playbook
from steward_server.executions.recovery import going_on
from steward_server.executions.run import Change, Kind, Run, State, WrongState, stop
from steward_server.executions.session import RunJob, wait_for_word
from steward_server.executions.whole import to_end
from steward_server.executions.work import StepFailed, Steward, Work
from steward_server.executions.worker import Credentials, Tools, Worker
from steward_server.playbooks.catalogue import CATALOGUE
from steward_server.playbooks.catalogue.binding import references_of
from steward_server.playbooks.catalogue.forms import Need
from steward_server.playbooks.checking import Library as Playbooks
from steward_server.playbooks.checking import needs
from steward_server.playbooks.playbook import MAX_DEPTH, Playbook
from steward_server.playbooks.reading import read
from steward_server.playbooks.starting import BadStart, start_values

log = structlog.get_logger(__name__)

_FOR_AGENTS = frozenset({Need.ENVIRONMENTS, Need.INFERENCE, Need.BUDGETS, Need.PERSON})
"""What the runs of agents may use: they reach no network but that of their environments."""

INTERRUPTED = "interrupted"
"""Why a run failed that the server was stopped in the middle of."""

_MOST_READ = 32
_FIRST_WAIT_S = 0.05
_LONGEST_WAIT_S = 30.0
_FAULT = "the server made a mistake, which its log tells of"


class Library(Protocol):
    """The part of the playbooks room that runs need."""

    async def opened(self, path: str) -> tuple[Playbook, str]:
        """A playbook that can be used, and its text.

        Raises:
            NotFound: there is none at this path.
            InvalidArgument: the path is unsafe, or what is there cannot be used.
        """
        ...

    @property
    def view(self) -> Playbooks:
        """The playbooks that others run."""
        ...


class Engine:
    """Makes runs. Start it, and close it: runs that are not over go on when it is started again."""

    def __init__(
        self,
        database: Database,
        *,
        library: Library,
        credentials: Credentials,
        work: Mapping[str, Work],
        starter: Callable[[Execution], Awaitable[object]],
        steward: Callable[[Execution], Steward],
        metrics: ExecutionMetrics,
        config: ExecutionsConfig,
        data_dir: Path,
        clock: Callable[[], int],
    ) -> None:
        """`starter` raises `StewardError` where whoever started a run may act no more."""
        self.feed = Feed(database)
        self.artifacts = Artifacts(database, data_dir / "artifacts", config, clock)
        self._database = database
        self._library = library
        self._credentials = credentials
        self._starter = starter
        self._config = config
        self._clock = clock
        self._files = (config.files_dir or data_dir / "files").resolve()
        nested = {"playbook.run": partial(run_playbook, self._child)}
        self._tools = Tools(
            database=database,
            clock=clock,
            feed=self.feed,
            work={**work, **nested, "approval.wait": wait_for_word},
            artifacts=self.artifacts,
            metrics=metrics,
            credentials=credentials,
            steward=steward,
            file=self._file,
        )
        self._workers: dict[str, Worker] = {}
        """Of all runs that are not over."""
        self._waiting: deque[Worker] = deque()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._coming = 0
        self._read: dict[bytes, Playbook] = {}
        metrics.watch(lambda: len(self._running), lambda: len(self._waiting))

    async def start(self) -> None:
        """Take up what was left when the server last stopped."""
        left = await store.unfinished(self._database)
        await self.artifacts.clear()
        found = [each for each in [await self._found(each) for each in left] if each]
        # Those that had begun come before those that waited.
        for worker in sorted(found, key=lambda each: each.run.state is State.PENDING):
            self._enqueue(worker)
        if left:
            log.info("executions.taken_up", count=len(left), going_on=len(found))

    async def aclose(self) -> None:
        """Let go of the runs; what was written down of them is true."""
        self._waiting.clear()
        tasks = [*self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def worker(self, execution_id: str) -> Worker | None:
        """Who makes a run; None if it is over."""
        return self._workers.get(execution_id)

    async def stop_of(self, owner_id: str, why: str) -> None:
        """Stop all runs that somebody started."""
        for name, worker in [*self._workers.items()]:
            if worker.execution.owner_id == owner_id and worker.parent is None:
                with suppress(WrongState):
                    await self.control(name, partial(stop, why=why))

    async def stop_refused(self, credential_id: str) -> None:
        """Stop the runs that were started with a key or token, where that is good no more."""
        for name, worker in [*self._workers.items()]:
            if worker.execution.credential_id == credential_id and worker.parent is None:
                try:
                    await self._starter(worker.execution)
                except StewardError as error:
                    with suppress(WrongState):
                        await self.control(name, partial(stop, why=error.message))

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place for a run that is about to be taken.

        Raises:
            ResourceExhausted: too many wait.
        """
        taken = len(self._running) + len(self._waiting) + self._coming
        if taken >= self._config.max_running + self._config.max_queued:
            raise ResourceExhausted(
                f"{len(self._waiting)} runs wait already; try again when some are over",
                reason="QUEUE_FULL",
                retry_after_s=30,
            )
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1

    def check_agent(self, playbook: Playbook, execution: Execution) -> None:
        """Refuse what agents may not run.

        Raises:
            PermissionDenied: it is an agent's, and uses what those may not.
        """
        if not execution.agent_id:
            return
        used = needs(playbook, self._library.view) - _FOR_AGENTS
        if used or credential_names(playbook, execution):
            what = ", ".join(sorted(used)) or "credentials"
            raise PermissionDenied(
                f"{playbook.name!r} uses {what}, which the runs of agents may not; a person can "
                "start it",
                reason="NOT_FOR_AGENTS",
            )

    async def credential(self, owner_id: str, name: str) -> Credential:
        """A credential that a run is to use.

        Raises:
            NotFound: there is none of this name.
            Unavailable: its password cannot be decrypted.
        """
        return await self._credentials.opened(self._database, owner_id, name)

    def take(self, execution: Execution, playbook: Playbook, events: Sequence[Event] = ()) -> None:
        """Make a new run when it is its turn; `events` tell what it need not do."""
        self._enqueue(Worker(self._tools, execution, playbook, events=events))

    async def control(
        self, execution_id: str, asked: Callable[[Run], Sequence[Change]]
    ) -> Run | None:
        """Do what is asked of a run that is not over; None if it is.

        Raises:
            WrongState: it cannot be.
        """
        worker = self._workers.get(execution_id)
        if worker is None:
            return None
        parent = worker.parent

        def fitting(run: Run) -> Sequence[Change]:
            changes = asked(run)
            is_resumed = any(each.kind is Kind.RESUMED for each in changes)
            if is_resumed and parent is not None and parent.run.state is State.PAUSED:
                raise WrongState("the run that runs this one is paused; resume that")
            for each in changes:
                if each.kind in (Kind.SKIP_ASKED, Kind.STEP_SKIPPED):
                    self._check_skipped(worker.playbook, each.step_id)
            return changes

        try:
            return await worker.change(fitting)
        finally:
            if worker.run.state.is_over and worker in self._waiting:
                self._waiting.remove(worker)
                self._workers.pop(execution_id, None)

    async def playbook_of(self, execution: Execution) -> Playbook:
        """The playbook of a run, as it was."""
        found = self._read.get(execution.playbook_digest)
        if found is None:
            text = await store.text_of(self._database, execution.playbook_digest)
            reading = await asyncio.to_thread(read, text)
            if reading.playbook is None:
                raise FailedPrecondition(
                    "the playbook of this run can not be read any more", reason="WRONG_STATE"
                )
            found = reading.playbook
            if len(self._read) >= _MOST_READ:
                del self._read[next(iter(self._read))]
            self._read[execution.playbook_digest] = found
        return found

    def _check_skipped(self, playbook: Playbook, step_id: str) -> None:
        """Refuse to skip what needs a person's word: whoever started a run would get around it."""
        steps = tuple(step for step in playbook.all_steps if step.id == step_id)
        alone = replace(playbook, steps=steps, finally_=())
        if Need.PERSON in needs(alone, self._library.view):
            raise WrongState(
                f"step {step_id!r} needs a person's approval, and is not skipped; approve or "
                "reject it, or cancel the run"
            )

    @property
    def _is_full(self) -> bool:
        return len(self._running) >= self._config.max_running

    def _enqueue(self, worker: Worker) -> None:
        self._workers[worker.execution.execution_id] = worker
        self._waiting.append(worker)
        self._let_run()

    def _let_run(self) -> None:
        while not self._is_full and (worker := self._next_waiting()) is not None:
            self._waiting.remove(worker)
            name = worker.execution.execution_id
            self._running[name] = asyncio.create_task(self._made(worker))

    def _next_waiting(self) -> Worker | None:
        """Whose turn it is: of those with the fewest runs that go on, who waits longest."""
        running = [self._workers[name].execution for name in self._running]
        owners = Counter(each.owner_id for each in running)
        of_agents = sum(bool(each.agent_id) for each in running)
        # Runs may wait for days; those of agents leave places to people.
        may_agents = of_agents < max(1, self._config.max_running // 2)
        found = (each for each in self._waiting if may_agents or not each.execution.agent_id)
        return min(found, key=lambda each: owners[each.execution.owner_id], default=None)

    async def _made(self, worker: Worker) -> None:
        name = worker.execution.execution_id
        try:
            if worker.run.state is State.PENDING:
                # While it waited, what it was started with may have been revoked.
                await self._starter(worker.execution)
            await worker.open(credential_names(worker.playbook, worker.execution))
            await worker.go()
        except StewardError as error:
            await self._break_off(worker, error.message)
        except Exception:  # noqa: BLE001 - ends the run with it
            trace = worker.taint.mask(traceback.format_exc())
            log.error("executions.broke", execution_id=name, trace=trace)  # noqa: TRY400
            await self._break_off(worker, _FAULT)
        finally:
            self._workers.pop(name, None)
            self._running.pop(name, None)
            self._let_run()

    async def _break_off(self, worker: Worker, why: str) -> None:
        """End a run that cannot go on, once the database takes it."""
        wait_s = _FIRST_WAIT_S
        while True:
            try:
                return await worker.break_off(why)
            except Exception:
                log.exception("executions.not_ended", execution_id=worker.execution.execution_id)
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    async def _found(self, execution: Execution) -> Worker | None:
        """The worker of a run that was left; None where it can not go on."""
        events = await store.events_of(self._database, execution.execution_id)
        try:
            return await self._taken_up(execution, events)
        except FailedPrecondition as error:
            why = error.message
        except Exception:
            # One that breaks does not keep the server from starting.
            log.exception("executions.not_taken_up", execution_id=execution.execution_id)
            why = _FAULT
        unread = Playbook(name=execution.playbook_name, version="", steps=())
        await Worker(self._tools, execution, unread, events=events).break_off(why)
        return None

    async def _taken_up(self, execution: Execution, events: Sequence[Event]) -> Worker | None:
        playbook = await self.playbook_of(execution)
        worker = Worker(self._tools, execution, playbook, events=events)
        for kept in await store.artifacts_of(self._database, execution.execution_id):
            worker.artifacts[kept.artifact.name] = kept.artifact
        if execution.parent_id:
            await worker.break_off(INTERRUPTED)
            return None
        changes = going_on(
            playbook, worker.plan, worker.run, has_lost=worker.has_lost, reason=INTERRUPTED
        )
        await worker.write(changes)
        return worker

    @asynccontextmanager
    async def _child(
        self, job: RunJob, path: str, given: Mapping[str, Any]
    ) -> AsyncIterator[Worker]:
        parent = job.worker
        chain = [parent]
        while chain[-1].parent is not None:
            chain.append(chain[-1].parent)
        if len(chain) >= MAX_DEPTH:
            raise StepFailed(f"playbooks run each other at most {MAX_DEPTH} deep")
        if path in (each.execution.playbook_path for each in chain):
            raise StepFailed(f"playbook {path!r} would run itself")
        playbook, text = await self._library.opened(path)
        try:
            values = await asyncio.to_thread(start_values, playbook, given)
        except BadStart as error:
            raise StepFailed(f"playbook {path!r} cannot be started so: {error}") from None
        plain = {name: each for name, each in values.items() if name not in _references(values)}
        stored: Any = parent.taint.mask_value(plain)
        secrets = {name: each for name, each in plain.items() if stored[name] != each}
        execution = Execution(
            execution_id=str(uuid.uuid4()),
            owner_id=parent.execution.owner_id,
            agent_id=parent.execution.agent_id,
            credential_id=parent.execution.credential_id,
            playbook_path=path,
            playbook_name=playbook.name,
            playbook_digest=hashlib.sha256(text.encode()).digest(),
            parameters={**values, **stored},
            gateway_url=parent.execution.gateway_url,
            credential_name=parent.execution.credential_name,
            parent_id=parent.execution.execution_id,
            parent_step_id=job.step_id,
            total_steps=len(playbook.steps),
            created_at_us=self._clock(),
        )

        self.check_agent(playbook, execution)

        async def work(transaction: Transaction) -> None:
            # It may have been given to somebody else meanwhile.
            row = await store.find(transaction, execution.parent_id)
            owner_id = row.owner_id if row else execution.owner_id
            await store.insert(transaction, replace(execution, owner_id=owner_id), text)

        child = Worker(self._tools, execution, playbook, parent=parent, secrets=secrets)
        name = execution.execution_id

        async def inserted() -> None:
            await self._database.run(work)
            self._workers[name] = child

        try:
            await to_end(inserted())
            await child.open(credential_names(playbook, execution))
            yield child
        finally:
            if name in self._workers:
                if not parent.is_left:
                    await self._break_off(child, "it could not be made")
                del self._workers[name]

    def _file(self, worker: Worker, path: str) -> Path:
        """Where a file is that a run may read."""
        made = worker.artifacts.get(path)
        if made is not None:
            return self.artifacts.path(worker.execution.execution_id, made.artifact_id)
        if worker.execution.agent_id:
            raise StepFailed(f"there is no file {path!r}: the runs of agents read their own only")
        if (found := self._found_file(path)) is None:
            raise StepFailed(
                f"there is no file {path!r} that runs may read; it must be in the server's folder "
                "of files (STEWARD_EXECUTIONS_FILES_DIR), or made by the run"
            )
        return found

    def _found_file(self, path: str) -> Path | None:
        try:
            found = (self._files / path).resolve()
            is_there = found.is_relative_to(self._files) and found.is_file()
        except (OSError, ValueError):
            return None  # no file is called that
        return found if is_there else None


def credential_names(playbook: Playbook, execution: Execution) -> list[str]:
    """The credentials that a run uses, as far as they are named in it."""
    return list(dict.fromkeys(each for each in _credential_names(playbook, execution) if each))


def _credential_names(playbook: Playbook, execution: Execution) -> Iterator[str]:
    yield execution.credential_name
    for reference in references_in(execution.parameters):
        yield reference.name
    for step in playbook.all_steps:
        conditions = step.when.references if step.when else ()
        used = [reference for reference, _ in conditions]
        used += references_of(CATALOGUE[step.type], step.parameters)
        for reference in used:
            if reference.namespace == "credential":
                yield reference.name


def _references(values: Mapping[str, Any]) -> Collection[str]:
    found = set(map(id, references_in(values)))
    return [name for name, value in values.items() if id(value) in found]
