"""What becomes of budget requests when whoever made them is deleted."""

from __future__ import annotations

from typing import Any

import grpc

from steward.audit.v1 import audit_pb2
from steward.audit.v1.audit_pb2_grpc import AuditServiceStub
from steward.gateway.v1 import options_pb2 as options
from steward.requests.v1 import requests_pb2 as pb
from steward_server.auth.accounts import Role
from tests.integration.auth.people import delete, me, set_role
from tests.integration.conftest import Server, ic_key, refusal
from tests.integration.requests.conftest import Desk

PENDING, APPROVED, CANCELLED = (
    pb.BUDGET_REQUEST_STATUS_PENDING,
    pb.BUDGET_REQUEST_STATUS_APPROVED,
    pb.BUDGET_REQUEST_STATUS_CANCELLED,
)


async def test_what_a_deleted_person_asked_for_is_cancelled_with_them(desk: Desk) -> None:
    waiting = [await desk.ask(), await desk.ask(9)]
    decided = await desk.ask(7)
    await desk.approve(decided.id)
    others = await desk.ask(by=desk.ann)
    server = desk.server
    server.clock.advance(5)

    await delete(server, desk.owner_id)

    admin_id = (await me(server, server.admin)).id
    for each in waiting:
        seen = await desk.get(each.id)
        assert (seen.status, seen.reviewer_id) == (CANCELLED, admin_id)
        assert seen.review_notes == "the requester was deleted"
        assert seen.reviewed_at.ToMicroseconds() == server.clock()
        refused = await refusal(desk.approve(each.id, desk.ann))
        assert refused.reason == "REQUEST_ALREADY_REVIEWED"
    assert (await desk.get(decided.id)).status == APPROVED
    assert (await desk.get(others.id)).status == PENDING
    assert await desk.allocated() == 7_000_000_000

    # Told in the journal, from where events come, and in the audit log, in the same transaction.
    told = [row["subject"] for row in await server.journal("budget.cancelled")]
    assert set(told) == {each.id for each in waiting}
    audit: Any = AuditServiceStub(server.channel)
    request = audit_pb2.ListAuditEntriesRequest(action="budget_request.cancelled")
    entries = (await audit.ListAuditEntries(request, metadata=server.admin)).entries
    assert [each.resource_id for each in reversed(entries)] == told
    for entry in entries:
        assert (entry.actor_id, entry.reason) == (admin_id, "the requester was deleted")
        assert entry.method == "/steward.users.v1.UserService/DeleteUser"
        assert dict(entry.before) == {"status": "pending"}
        assert dict(entry.after) == {"status": "cancelled"}
    desk.check_books()


async def test_what_their_agents_asked_for_waits_for_who_is_not_the_heir(desk: Desk) -> None:
    made = await desk.ask(by=desk.runtime)
    await delete(desk.server, desk.owner_id)
    assert (await desk.get(made.id, desk.runtime)).status == PENDING
    # The agent is the deleter's now: to decide about what it asks for is another's.
    assert (await refusal(desk.approve(made.id, desk.admin))).reason == "SELF_REVIEW_FORBIDDEN"
    assert (await desk.approve(made.id, desk.ann)).status == APPROVED


async def test_a_deleted_administrator_is_nobody_who_could_decide(server: Server) -> None:
    """The last one left decides about their own, though there was another once."""
    agent = await server.create_agent()
    alone = Desk(server, server.admin, agent.owner_id, server.admin, agent.id, ())
    ann_id = server.add_user("ann", Role.ADMIN)
    made = await alone.ask()
    assert (await refusal(alone.approve(made.id))).reason == "SELF_REVIEW_FORBIDDEN"
    await delete(server, ann_id)
    assert (await alone.approve(made.id)).status == APPROVED


async def test_a_request_made_by_an_heir_follows_the_agent_once_more(desk: Desk) -> None:
    """Handed on twice: from the owner to the deleter, and from them to theirs."""
    made = await desk.ask(by=desk.runtime)
    await delete(desk.server, desk.owner_id, desk.ann)
    server = desk.server
    _, third = await server.enter("carl", Role.ADMIN)
    await delete(server, "user_ann")
    assert (await refusal(desk.approve(made.id, desk.admin))).reason == "SELF_REVIEW_FORBIDDEN"
    assert (await desk.approve(made.id, third)).status == APPROVED


async def test_the_agent_goes_on_with_its_token_and_its_budget(desk: Desk) -> None:
    server = desk.server
    await delete(server, desk.owner_id)
    await server.knock(desk.runtime)
    assert await desk.allocated() == 5_000_000_000
    made = await desk.ask(6, by=desk.runtime)
    assert (await desk.approve(made.id, desk.ann)).status == APPROVED


async def test_only_the_role_or_a_suspension_leaves_requests_as_they_are(desk: Desk) -> None:
    made = await desk.ask()
    await set_role(desk.server, desk.owner_id, options.ROLE_VIEWER)
    assert (await desk.get(made.id)).status == PENDING
    refused = await refusal(desk.cancel(made.id, desk.owner))
    assert refused.code is grpc.StatusCode.UNAUTHENTICATED
    agent = await desk.server.create_agent(owner_id=desk.owner_id)
    token = (await desk.server.create_token(agent.id)).token
    assert (await desk.ask(by=ic_key(token), agent_id=agent.id)).status == PENDING
