"""A small world for runs: a real file, engine and room, and steps that do what a test says.

`utility.python` does what the test has put into `World.does` under the name that its script is;
it is no step that may be made again. Sleeping, logging and setting variables are as they should be.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from steward.gateway.v1.options_pb2 import ROLE_ADMIN, ROLE_USER, Role
from steward_server.credential import Credential
from steward_server.db import Database, Reader, now_us
from steward_server.db.migrate import migrate
from steward_server.db.sqlite import Sqlite
from steward_server.errors import NotFound, PermissionDenied
from steward_server.executions.config import ExecutionsConfig
from steward_server.executions.engine import Engine
from steward_server.executions.execution import Execution
from steward_server.executions.metrics import ExecutionMetrics
from steward_server.executions.room import Asked, ExecutionRoom, Seen
from steward_server.executions.run import Change, Kind, Run, pause, resume, skip, stop
from steward_server.executions.work import Job, Work
from steward_server.playbooks.checking import load
from steward_server.playbooks.playbook import Playbook
from steward_server.principals import Kind as CallerKind
from steward_server.principals import Principal

ROOMS = ["steward_server.events", "steward_server.audit", "steward_server.executions"]
ADMIN = Principal(CallerKind.PERSON, "user_admin", ROLE_ADMIN)
ADA = Principal(CallerKind.PERSON, "user_ada", ROLE_USER)
BOB = Principal(CallerKind.PERSON, "user_bob", ROLE_USER)
AGENT = Principal(CallerKind.AGENT, "agent_1")
PATIENCE_S = 5.0

Values = Mapping[str, Any]
Does = Callable[[Job], Awaitable[Any]]


def step(name: str, does: str = "", *, type: str = "", **more: Any) -> dict[str, Any]:  # noqa: A002 - as in playbooks
    """A step: one that does what the world has under a name, or one of a type."""
    found = {"id": name, "name": name.title(), "type": type or "utility.python"}
    parameters = more.pop("parameters", {})
    if does:
        parameters = {"script": does, "inputs": parameters}
    return {**found, "parameters": parameters, **more}


def sleep(name: str, seconds: float = 30, **more: Any) -> dict[str, Any]:
    return step(name, type="utility.sleep", parameters={"seconds": seconds}, **more)


def child(name: str, path: str, **given: Any) -> dict[str, Any]:
    return step(name, type="playbook.run", parameters={"playbook": path, "parameters": given})


def playbook(*steps: Mapping[str, Any], **top: Any) -> str:
    """The text of a playbook: what is JSON is YAML."""
    if "finally_" in top:
        top["finally"] = top.pop("finally_")
    return json.dumps({"name": "Test", "version": "1", "steps": steps, **top}, indent=1)


class Library:
    """Playbooks by their paths. The view of those that run others can be closed."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.is_checked = True

    async def opened(self, path: str) -> tuple[Playbook, str]:
        if path not in self.texts:
            raise NotFound.of("playbook", path)
        view = self if self.is_checked else None
        return load(self.texts[path], path=path, library=view), self.texts[path]

    @property
    def view(self) -> Library:
        return self

    def find(self, path: str) -> Playbook | None:
        return load(self.texts[path]) if path in self.texts else None

    def paths(self) -> list[str]:
        return list(self.texts)


class Credentials:
    def __init__(self) -> None:
        self.passwords = {"plant": "hunter2-secret"}

    async def opened(self, reader: Reader, owner_id: str, name: str) -> Credential:
        if name not in self.passwords:
            raise NotFound.of("credential", name)
        return Credential(name, "operator", self.passwords[name], "http://gateway")


class People:
    async def name_of(self, reader: Reader, user_id: str) -> str:
        return user_id.removeprefix("user_")

    async def role_of(self, reader: Reader, user_id: str) -> Role.ValueType | None:
        return ROLE_USER


class Agents:
    def owner_of(self, agent_id: str) -> str | None:
        return ADA.subject if agent_id == AGENT.subject else None


async def _log(job: Job) -> Values:
    await job.log(job.values["message"], job.values["level"])
    return {"logged": job.values["message"], "level": job.values["level"]}


async def _sleep(job: Job) -> Values:
    await job.sleep(job.values["seconds"])
    return {"slept": job.values["seconds"]}


async def _set_variable(job: Job) -> Values:
    job.set_variable(job.values["name"], job.values["value"])
    return {"variable": job.values["name"], "value": job.values["value"]}


@dataclass
class World:
    folder: Path
    database: Database
    config: ExecutionsConfig
    does: dict[str, Does] = field(default_factory=dict)
    work: dict[str, Work] = field(default_factory=dict)
    library: Library = field(default_factory=Library)
    credentials: Credentials = field(default_factory=Credentials)
    refused: set[str] = field(default_factory=set)
    """Ids of people who may act no more."""
    made: list[str] = field(default_factory=list)
    """What steps did, as far as they say so: the ids of steps in the order of their attempts."""

    def __post_init__(self) -> None:
        self.work |= {
            "utility.log": _log,
            "utility.sleep": _sleep,
            "utility.set_variable": _set_variable,
            "utility.python": self._do,
            "gateway.login": self._note,
            "gateway.ping": self._note,
            "browser.navigate": self._note,
        }
        self.does |= {"give": self._give, "fail": self._fail}
        self.build()

    def build(self) -> None:
        self.registry = CollectorRegistry()
        self.engine = Engine(
            self.database,
            library=self.library,
            credentials=self.credentials,
            work=self.work,
            starter=self._starter,
            steward=_no_steward,
            metrics=ExecutionMetrics(self.registry),
            config=self.config,
            data_dir=self.folder,
            clock=now_us,
        )
        self.room = ExecutionRoom(
            self.database, self.engine, self.library, People(), Agents(), self.config, now_us
        )

    async def restart(self) -> None:
        """Let the server go without a word, and start another one."""
        await self.engine.aclose()
        self.build()
        await self.engine.start()

    async def _starter(self, execution: Execution) -> None:
        if execution.owner_id in self.refused:
            raise PermissionDenied("the API key is revoked")

    async def _do(self, job: Job) -> Values:
        self.made.append(job.step_id)
        found: Values = await self.does[job.values["script"]](job)
        return found

    async def _note(self, job: Job) -> Values:
        self.made.append(job.step_id)
        return {"status": "ok"}

    async def _give(self, job: Job) -> Values:
        return dict(job.values["inputs"])

    async def _fail(self, job: Job) -> Values:
        from steward_server.executions.work import StepFailed

        raise StepFailed("the pump is dry", level=0)

    # What people do.

    async def begin(
        self, text: str, parameters: Values | None = None, *, who: Principal = ADA, **asked: Any
    ) -> str:
        """Start a run of a playbook with this text."""
        self.library.texts["test.yaml"] = text
        begun = await self.room.begin(who, Asked("test.yaml", parameters or {}, **asked))
        return begun.execution_id

    async def ended(self, execution_id: str) -> Seen:
        """A run, once it is over."""
        async with asyncio.timeout(PATIENCE_S):
            while (worker := self.engine.worker(execution_id)) is not None:
                await asyncio.wait({worker.bell}, timeout=0.01)
        return await self.seen(execution_id)

    async def run(self, text: str, parameters: Values | None = None, **asked: Any) -> Seen:
        """Start a run, and wait for its end."""
        return await self.ended(await self.begin(text, parameters, **asked))

    async def seen(self, execution_id: str) -> Seen:
        return await self.room.get(ADMIN, execution_id)

    async def until(self, execution_id: str, holds: Callable[[Run], bool]) -> Run:
        """A run, once something holds of it; it must not be over before."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                worker = self.engine.worker(execution_id)
                assert worker is not None, "it is over"
                if holds(worker.run):
                    return worker.run
                await asyncio.wait({worker.bell}, timeout=0.05)

    async def until_in(self, execution_id: str, step_id: str) -> Run:
        return await self.until(execution_id, lambda run: run.in_hand == step_id)

    async def until_paused(self, execution_id: str) -> Run:
        return await self.until(execution_id, lambda run: run.state == "paused")

    async def pause(self, execution_id: str, who: Principal = ADA) -> Execution:
        return await self.room.control(who, execution_id, lambda run, _: pause(run))

    async def resume(self, execution_id: str, who: Principal = ADA) -> Execution:
        return await self.room.control(who, execution_id, lambda run, _: resume(run))

    async def skip(self, execution_id: str, who: Principal = ADA) -> Execution:
        return await self.room.control(who, execution_id, lambda run, _: skip(run))

    async def cancel(self, execution_id: str, who: Principal = ADA) -> Execution:
        def asked(run: Run, name: str) -> list[Change]:
            return stop(run, f"cancelled by {name}")

        return await self.room.control(who, execution_id, asked)

    async def children(self, execution_id: str) -> list[Seen]:
        """The runs that a run has run, the oldest first."""
        rows = await self.database.fetch_all(
            "SELECT execution_id FROM execution WHERE parent_id = ? ORDER BY created_at_us",
            execution_id,
        )
        return [await self.seen(row["execution_id"]) for row in rows]


def kinds(seen: Seen) -> list[str]:
    return [str(event.change.kind) for event in seen.events]


def texts(seen: Seen, kind: Kind) -> list[str]:
    return [event.change.text for event in seen.events if event.change.kind is kind]


def states(seen: Seen) -> dict[str, str]:
    """What became of the steps that were begun."""
    return {name: str(made.state) for name, made in seen.run.made.items()}


def outputs(seen: Seen, step_id: str) -> Any:
    found = [
        event.change.data.get("outputs", {})
        for event in seen.events
        if event.change.step_id == step_id and event.change.kind is Kind.STEP_COMPLETED
    ]
    return found[-1]


def _no_steward(execution: Execution) -> Any:
    return None


MakeWorld = Callable[..., Awaitable[World]]


@pytest.fixture
async def make_world(tmp_path: Path) -> AsyncIterator[MakeWorld]:
    database = await Sqlite.open(tmp_path / "steward.db")
    await migrate(database, ROOMS)
    worlds: list[World] = []
    feeds: list[asyncio.Task[None]] = []

    async def make(**config: Any) -> World:
        world = World(tmp_path, database, ExecutionsConfig(**config))
        worlds.append(world)
        await world.engine.start()
        feeds.append(asyncio.create_task(world.engine.feed.run()))
        return world

    yield make
    for feed in feeds:
        feed.cancel()
    await asyncio.gather(*feeds, return_exceptions=True)
    for world in worlds:
        await world.engine.aclose()
    await database.close()


@pytest.fixture
async def world(make_world: MakeWorld) -> World:
    return await make_world()
