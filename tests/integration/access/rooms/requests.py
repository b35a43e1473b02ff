"""Requests for larger budgets."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from steward.requests.v1 import requests_pb2 as pb
from tests.integration.access.tables import ADMIN, BUDGET_AGENTS, PEOPLE, WRITERS, Recorded
from tests.integration.access.world import Headers, World

SERVICE = "steward.requests.v1.BudgetRequestService"

ACCESS = {
    SERVICE: {
        "CreateBudgetRequest": WRITERS | BUDGET_AGENTS,
        "ListBudgetRequests": PEOPLE | BUDGET_AGENTS,
        "GetBudgetRequest": PEOPLE | BUDGET_AGENTS,
        "ApproveBudgetRequest": ADMIN,
        "RejectBudgetRequest": ADMIN,
        "CancelBudgetRequest": WRITERS | BUDGET_AGENTS,
        "ListBudgetChanges": PEOPLE,
    }
}


async def _of(world: World, agent_id: str) -> Message:
    return pb.CreateBudgetRequestRequest(
        agent_id=agent_id,
        requested_budget_nanousd=9_000_000_000,
        justification="the night run needs more than it has",
    )


async def _owners(world: World) -> Any:
    """A request of a new owner for an agent of theirs."""
    world.owner = await world.person("user")
    request = await _of(world, (await world.agent(owner_id=world.owner.user_id)).id)
    return (await world.as_owner(SERVICE, "CreateBudgetRequest", request)).budget_request


async def _create(world: World) -> Message:
    return await _of(world, (await world.agent(owner_id=world.owner.user_id)).id)


async def _get(world: World) -> Message:
    return pb.GetBudgetRequestRequest(budget_request_id=(await _owners(world)).id)


async def _approve(world: World) -> Message:
    return pb.ApproveBudgetRequestRequest(budget_request_id=(await _owners(world)).id)


async def _reject(world: World) -> Message:
    return pb.RejectBudgetRequestRequest(
        budget_request_id=(await _owners(world)).id,
        rejection_reason="the budget of this month is spent",
    )


async def _cancel(world: World) -> Message:
    return pb.CancelBudgetRequestRequest(budget_request_id=(await _owners(world)).id)


async def _history(world: World) -> Message:
    agent = await world.agent(owner_id=world.owner.user_id)
    return pb.ListBudgetChangesRequest(agent_id=agent.id)


async def _owner(world: World) -> Headers:
    world.owner = await world.person("user")
    return world.owner.headers


FOREIGN = {
    SERVICE: {
        "CreateBudgetRequest": "the id is in the body: tests/integration/requests",
        "ListBudgetRequests": "a filter: of what is not the caller's it lists nothing",
        "GetBudgetRequest": _get,
        "CancelBudgetRequest": _cancel,
        "ListBudgetChanges": _history,
    }
}

RECORDED = {
    SERVICE: {
        "CreateBudgetRequest": Recorded(_create, ("budget_request.created",), _owner),
        "ApproveBudgetRequest": Recorded(_approve, ("budget_request.approved",)),
        "RejectBudgetRequest": Recorded(_reject, ("budget_request.rejected",)),
        "CancelBudgetRequest": Recorded(_cancel, ("budget_request.cancelled",)),
    }
}
