"""The step that looks at money."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from steward.projects.v1 import projects_pb2 as pb
from steward_server.executions.work import Job, StepFailed, Steward, Work

_SERVICE = "/steward.projects.v1.ProjectService"
_NANO = 10**9


@dataclass(frozen=True, slots=True)
class _Standing:
    """How money stands, in nano-dollars; None: no limit."""

    free: int | None
    spent: int
    limit: int | None


def work() -> Mapping[str, Work]:
    """The work of these steps, by type."""
    return {"budget.check": _check}


async def _check(job: Job) -> Mapping[str, Any]:
    steward, values = job.session.steward, job.values
    if agent_id := values["agent_id"]:
        whose, standing = f"agent {agent_id!r}", await _of_agent(steward, agent_id)
    else:
        project_id = values["project_id"]
        whose, standing = f"project {project_id!r}", await _of_project(steward, project_id)
    wanted = values["at_least_usd"]
    # As it is written: 0.1 is no binary fraction.
    suffices = standing.free is None or standing.free >= Decimal(str(wanted)) * _NANO
    outputs = {
        "suffices": suffices,
        "free_usd": _dollars(standing.free),
        "spent_usd": _dollars(standing.spent),
        "limit_usd": _dollars(standing.limit),
    }
    if values["must_suffice"] and not suffices:
        raise StepFailed(
            f"{whose} has {outputs['free_usd']} dollars left, and not {wanted}", **outputs
        )
    return outputs


async def _of_agent(steward: Steward, agent_id: str) -> _Standing:
    request = pb.GetAgentBudgetRequest(agent_id=agent_id)
    response = await steward.call(f"{_SERVICE}/GetAgentBudget", request)
    own = response.path[0]
    limit = own.limit_nanousd if own.HasField("limit_nanousd") else None
    return _Standing(response.available_nanousd, own.spent_nanousd, limit)


async def _of_project(steward: Steward, project_id: str) -> _Standing:
    request = pb.GetProjectBudgetRequest(project_id=project_id, page_size=1)
    budget = (await steward.call(f"{_SERVICE}/GetProjectBudget", request)).budget
    return _Standing(
        budget.available_nanousd if budget.HasField("available_nanousd") else None,
        budget.spent_nanousd,
        budget.limit_nanousd if budget.HasField("limit_nanousd") else None,
    )


def _dollars(nanousd: int | None) -> int | float | None:
    """The number nearest to it that JSON has: exact up to nine million dollars."""
    if nanousd is None:
        return None
    whole, rest = divmod(nanousd, _NANO)
    return nanousd / _NANO if rest else whole
