"""Runs of playbooks. Start reading at run.py, the rules; worker.py makes the steps of one run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

from prometheus_client import CollectorRegistry

from steward.executions.v1.executions_pb2_grpc import add_ExecutionServiceServicer_to_server
from steward_server.db import Database
from steward_server.dispatch import Dispatcher
from steward_server.executions.config import ExecutionsConfig
from steward_server.executions.engine import Engine, Library
from steward_server.executions.execution import Execution
from steward_server.executions.metrics import ExecutionMetrics
from steward_server.executions.on_behalf import OnBehalf
from steward_server.executions.room import Agents, ExecutionRoom, People
from steward_server.executions.service import ExecutionService
from steward_server.executions.tasks import keep_tidying
from steward_server.executions.work import Work
from steward_server.executions.worker import Credentials
from steward_server.principals import Principal

__all__ = ["Engine", "ExecutionRoom", "keep_tidying", "open_engine", "register"]


class Starters(Protocol):
    """Knows as whom runs act."""

    async def principal(self, owner_id: str, agent_id: str, credential: str) -> Principal:
        """Whoever started a run, with the rights they have now.

        Raises:
            StewardError: they may do nothing any more.
        """
        ...


@asynccontextmanager
async def open_engine(
    methods: Dispatcher,
    database: Database,
    *,
    library: Library,
    credentials: Credentials,
    starters: Starters,
    work: Mapping[str, Work],
    registry: CollectorRegistry,
    config: ExecutionsConfig,
    data_dir: Path,
    clock: Callable[[], int],
) -> AsyncIterator[Engine]:
    """What makes runs, for the block. Start it once all methods are registered."""

    def starter(execution: Execution) -> Awaitable[Principal]:
        return starters.principal(execution.owner_id, execution.agent_id, execution.credential_id)

    def steward(execution: Execution) -> OnBehalf:
        return OnBehalf(methods, partial(starter, execution), execution.execution_id)

    engine = Engine(
        database,
        library=library,
        credentials=credentials,
        work=work,
        starter=starter,
        steward=steward,
        metrics=ExecutionMetrics(registry),
        config=config,
        data_dir=data_dir,
        clock=clock,
    )
    try:
        yield engine
    finally:
        await engine.aclose()


def register(
    methods: Dispatcher,
    database: Database,
    *,
    engine: Engine,
    library: Library,
    people: People,
    agents: Agents,
    config: ExecutionsConfig,
    clock: Callable[[], int],
) -> ExecutionRoom:
    """Serve ExecutionService. Beside it, run `feed.run` of the engine, and `keep_tidying`."""
    room = ExecutionRoom(database, engine, library, people, agents, config, clock)
    add_ExecutionServiceServicer_to_server(ExecutionService(room, engine), methods)  # type: ignore[arg-type]
    return room
