"""A server whose methods are called on somebody's behalf, and steps that call them."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from steward.gateway.v1.options_pb2 import ROLE_ADMIN, ROLE_USER
from steward_server.executions.on_behalf import OnBehalf
from steward_server.executions.work import StepFailed, Work
from steward_server.playbooks.catalogue import CATALOGUE
from steward_server.playbooks.catalogue.binding import bound
from steward_server.playbooks.catalogue.forms import misfit
from steward_server.playbooks.references import Scope
from steward_server.principals import Kind, Principal
from tests.jobs import TestJob, TestSession
from tests.live import Live
from tests.people import add_person

_numbers = count(1)


def administrator(data_dir: Path) -> Principal:
    """The first one, by themselves."""
    with closing(sqlite3.connect(data_dir / "steward.db")) as connection:
        found = connection.execute("SELECT user_id FROM app_user WHERE username = 'admin'")
        return Principal(Kind.PERSON, found.fetchone()[0], role=ROLE_ADMIN)


def person(data_dir: Path, username: str) -> Principal:
    """Somebody new with the role user."""
    return Principal(Kind.PERSON, add_person(data_dir, username, "user"), role=ROLE_USER)


def always(principal: Principal) -> Callable[[], Awaitable[Principal]]:
    async def who() -> Principal:
        return principal

    return who


@dataclass(frozen=True, slots=True)
class Acting:
    """A server, and whoever runs are started by."""

    live: Live
    data_dir: Path
    principal: Principal

    def steward(self, who: Callable[[], Awaitable[Principal]] | None = None) -> OnBehalf:
        return OnBehalf(
            self.live.running.dispatcher, who or always(self.principal), execution_id="exec_1"
        )

    def session(self, **fields: Any) -> TestSession:
        return TestSession(self.data_dir, **{"steward": self.steward(), **fields})

    def rows(self, sql: str, *values: Any) -> list[Any]:
        with closing(sqlite3.connect(self.data_dir / "steward.db", timeout=10)) as connection:
            return connection.execute(sql, values).fetchall()


async def failure(step: Awaitable[Any]) -> StepFailed:
    """How a step fails; an error if it does not."""
    try:
        outputs = await step
    except StepFailed as failed:
        return failed
    raise AssertionError(f"the step went well: {outputs}")


async def do(
    session: TestSession, work: Mapping[str, Work], step_type: str, **parameters: Any
) -> Any:
    """Do a step that was never done before; gives its outputs, which fit the catalogue."""
    values = bound(CATALOGUE[step_type], parameters, Scope())
    job = TestJob(session, step_type, values, request_id=f"exec_1/step-{next(_numbers)}")
    outputs = await work[step_type](job)
    must_fit(step_type, outputs)
    return outputs


def must_fit(step_type: str, outputs: Any) -> None:
    """That outputs are those that the catalogue tells, and of those kinds."""
    declared = CATALOGUE[step_type]
    names = {each.name for each in declared.outputs}
    assert names <= set(outputs) if declared.gives_more else names == set(outputs)
    for each in declared.outputs:
        assert not list(misfit(each, outputs[each.name], (each.name,)))
