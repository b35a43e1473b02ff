"""BudgetRequestService over a real port: who may ask, who decides, and what follows."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import grpc

from steward.agents.v1 import agents_pb2
from steward.requests.v1 import requests_pb2 as pb
from steward.users.v1 import users_pb2
from steward.users.v1.users_pb2_grpc import UserServiceStub
from steward_server.auth.accounts import Role
from tests.integration.conftest import Server, bearer, ic_key, refusal
from tests.integration.requests.conftest import NO, USD, WHY, Desk

NOT_FOUND = grpc.StatusCode.NOT_FOUND
PENDING = pb.BUDGET_REQUEST_STATUS_PENDING
APPROVED = pb.BUDGET_REQUEST_STATUS_APPROVED
REJECTED = pb.BUDGET_REQUEST_STATUS_REJECTED
CANCELLED = pb.BUDGET_REQUEST_STATUS_CANCELLED


async def test_a_request_says_who_asks_for_what_and_nothing_of_a_review(desk: Desk) -> None:
    made = await desk.ask(8, justification=f"  {WHY}\n")
    assert made.id.startswith("breq_")
    assert (made.agent_id, made.agent_name) == (desk.agent_id, "scout")
    assert (made.requester_id, made.requester_name) == (desk.owner_id, "olga")
    assert made.requester_kind == "person"
    assert (made.current_budget_nanousd, made.requested_budget_nanousd) == (5 * USD, 8 * USD)
    assert (made.justification, made.status) == (WHY, PENDING)
    assert made.created_at == made.updated_at
    assert made.agent_budget.limit_nanousd == 5 * USD
    absent = (
        *("reviewer_id", "reviewed_at", "review_notes", "rejection_reason"),
        *("previous_budget_nanousd", "approved_budget_nanousd", "expires_at", "expires_in_s"),
    )
    assert not [name for name in absent if made.HasField(name)]
    assert await desk.get(made.id, desk.owner) == made


async def test_an_approval_sets_the_budget_and_says_who_decided(desk: Desk) -> None:
    made = await desk.ask(8)
    desk.server.clock.advance(60)
    approved = await desk.approve(made.id, desk.ann, review_notes="go on")
    assert (approved.status, approved.reviewer_id) == (APPROVED, "user_ann")
    assert (approved.previous_budget_nanousd, approved.approved_budget_nanousd) == (
        5 * USD,
        8 * USD,
    )
    assert approved.review_notes == "go on"
    assert not approved.HasField("rejection_reason")
    assert approved.reviewed_at == approved.updated_at != approved.created_at
    assert approved.agent_budget.limit_nanousd == await desk.allocated() == 8 * USD
    desk.check_books()


async def test_an_approval_is_an_absolute_amount_whatever_happened_since(desk: Desk) -> None:
    made = await desk.ask(8)
    request = agents_pb2.UpdateAgentRequest(agent_id=desk.agent_id, budget_nanousd=7 * USD)
    await desk.server.agents.UpdateAgent(request, metadata=desk.admin)
    approved = await desk.approve(made.id)
    assert (approved.current_budget_nanousd, approved.previous_budget_nanousd) == (
        5 * USD,
        7 * USD,
    )
    assert await desk.allocated() == 8 * USD


async def test_less_may_be_approved_but_not_more_and_no_decrease(desk: Desk) -> None:
    made = await desk.ask(8)
    for amount, reason in [
        (8 * USD + 1, "APPROVAL_EXCEEDS_REQUEST"),
        (5 * USD, "APPROVAL_DECREASES_BUDGET"),
    ]:
        refused = await refusal(desk.approve(made.id, approved_budget_nanousd=amount))
        assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
        assert refused.fields.keys() == {"approved_budget_usd"}
    assert (await desk.get(made.id)).status == PENDING
    approved = await desk.approve(made.id, approved_budget_nanousd=5 * USD + 1)
    assert approved.approved_budget_nanousd == await desk.allocated() == 5 * USD + 1


async def test_a_rejection_gives_its_reason_and_changes_no_money(desk: Desk) -> None:
    made = await desk.ask()
    rejected = await desk.reject(made.id, desk.ann)
    assert (rejected.status, rejected.reviewer_id) == (REJECTED, "user_ann")
    assert rejected.rejection_reason == NO
    assert not rejected.HasField("review_notes")
    assert await desk.allocated() == 5 * USD
    assert (await desk.history()).changes == []


async def test_the_second_to_decide_is_told_who_was_first_and_when(desk: Desk) -> None:
    ways = ("reject", "cancel", "approve")
    for number, (first, second) in enumerate(itertools.product(ways, ways)):
        made = await desk.ask(6 + number)
        await getattr(desk, first)(made.id, desk.ann)
        decided = await desk.get(made.id)
        refused = await refusal(getattr(desk, second)(made.id, desk.admin))
        assert (refused.code, refused.reason) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "REQUEST_ALREADY_REVIEWED",
        )
        assert refused.facts["reviewer_id"] == "user_ann"
        at = decided.reviewed_at.ToJsonString().partition(".")[0]
        assert refused.facts["reviewed_at"] == f"{at.removesuffix('Z')}Z"
        assert "user_ann" in refused.message
        assert await desk.get(made.id) == decided


MALFORMED: list[tuple[dict[str, Any], set[str]]] = [
    ({"agent_id": ""}, {"agent_id"}),
    ({"agent_id": "a" * 101}, {"agent_id"}),
    ({"requested_budget_nanousd": None}, {"requested_budget_usd"}),
    ({"requested_budget_nanousd": 0}, {"requested_budget_usd"}),
    ({"requested_budget_nanousd": -1}, {"requested_budget_usd"}),
    ({"requested_budget_nanousd": 1_000_000 * USD + 1}, {"requested_budget_usd"}),
    ({"justification": ""}, {"justification"}),
    ({"justification": "   " + "x" * 19 + "   "}, {"justification"}),
    ({"justification": "x" * 501}, {"justification"}),
    ({"justification": "x" * 20 + "\0" + "x"}, {"justification"}),
    ({"expires_in_s": 0}, {"expires_in_s"}),
    ({"expires_in_s": -5}, {"expires_in_s"}),
    ({"expires_in_s": 366 * 86_400 + 1}, {"expires_in_s"}),
    (
        {"justification": "x", "requested_budget_nanousd": 0, "expires_in_s": 0},
        {"justification", "requested_budget_usd", "expires_in_s"},
    ),
]


async def test_a_malformed_request_is_told_everything_wrong(desk: Desk) -> None:
    for fields, wrong in MALFORMED:
        assert (await refusal(desk.ask(**fields))).fields.keys() == wrong, fields
    assert (await desk.list()).budget_requests == []


async def test_a_justification_may_have_lines(desk: Desk) -> None:
    for text in ("x" * 20, " x\n" + "y" * 496 + "\tz  ", "ü" * 500):
        assert (await desk.ask(justification=text)).justification == text.strip()


async def test_only_more_than_the_agent_has_is_asked_for(desk: Desk) -> None:
    for budget_usd, reason in [(5, "BUDGET_UNCHANGED"), (4.99, "BUDGET_DECREASE_REQUEST")]:
        refused = await refusal(desk.ask(budget_usd))
        assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
        assert refused.facts["current_nanousd"] == str(5 * USD)


async def test_a_rejection_needs_a_reason(desk: Desk) -> None:
    made = await desk.ask()
    for reason in ("", "x" * 19, "x" * 1_001):
        refused = await refusal(desk.reject(made.id, reason=reason))
        assert refused.fields.keys() == {"rejection_reason"}


async def test_notes_and_times_of_an_approval_have_bounds(desk: Desk) -> None:
    made = await desk.ask(expires_in_s=60)
    wrong: dict[str, Any] = {
        "review_notes": "x" * 1_001,
        "expires_in_s": 0,
        "approved_budget_nanousd": -1,
    }
    refused = await refusal(desk.approve(made.id, **wrong))
    assert refused.fields.keys() == {"review_notes", "expires_in_s", "approved_budget_usd"}
    longer = await refusal(desk.approve(made.id, expires_in_s=61))
    assert longer.reason == "APPROVAL_EXCEEDS_REQUEST"


# Whose requests they are.


async def test_an_agent_asks_for_itself_and_sees_its_own_requests_only(desk: Desk) -> None:
    other = await desk.server.create_agent(owner_id=desk.owner_id)
    made = await desk.ask(by=desk.runtime, agent_id="")
    assert (made.agent_id, made.requester_id) == (desk.agent_id, desk.agent_id)
    assert (made.requester_kind, made.requester_name) == ("agent", "scout")
    about_other = await desk.ask(agent_id=other.id)
    assert (await refusal(desk.ask(by=desk.runtime, agent_id=other.id))).code is NOT_FOUND
    assert (await refusal(desk.get(about_other.id, desk.runtime))).code is NOT_FOUND
    assert [each.id for each in (await desk.list(desk.runtime)).budget_requests] == [made.id]
    assert await desk.get(made.id, desk.owner) == made
    await desk.cancel(made.id, desk.runtime)


async def test_a_token_without_the_scope_budget_cannot_ask(desk: Desk) -> None:
    agent = await desk.server.create_agent()
    token = (await desk.server.create_token(agent.id, scopes=["events"])).token
    refused = await refusal(desk.ask(by=ic_key(token), agent_id=agent.id))
    assert refused.code is grpc.StatusCode.PERMISSION_DENIED


async def test_what_belongs_to_others_is_not_there(desk: Desk) -> None:
    made = await desk.ask()
    _, eve = await desk.server.enter("eve", Role.USER)
    foreign = [
        desk.ask(by=eve),
        desk.get(made.id, eve),
        desk.cancel(made.id, eve),
        desk.history(eve),
        desk.ask(by=desk.owner, agent_id="agent_none"),
        desk.get("breq_none", desk.owner),
    ]
    for call in foreign:
        assert (await refusal(call)).code is NOT_FOUND
    assert (await desk.list(eve)).budget_requests == []


async def test_who_sees_a_request_may_not_cancel_it_unless_they_made_it(desk: Desk) -> None:
    by_admin = await desk.ask(by=desk.admin)
    refused = await refusal(desk.cancel(by_admin.id, desk.owner))
    assert (refused.code, refused.reason) == (
        grpc.StatusCode.PERMISSION_DENIED,
        "NOT_THE_REQUESTER",
    )
    own, of_agent = await desk.ask(), await desk.ask(by=desk.runtime)
    for made, by in [(by_admin, desk.ann), (own, desk.owner), (of_agent, desk.owner)]:
        await desk.cancel(made.id, by)
        assert (await desk.get(made.id)).status == CANCELLED


async def test_nobody_decides_about_their_own_request_while_another_could(desk: Desk) -> None:
    made = await desk.ask(by=desk.ann)
    for decide in (desk.approve, desk.reject):
        refused = await refusal(decide(made.id, desk.ann))
        assert (refused.code, refused.reason) == (
            grpc.StatusCode.PERMISSION_DENIED,
            "SELF_REVIEW_FORBIDDEN",
        )
    assert (await desk.approve(made.id, desk.admin)).status == APPROVED


async def test_the_owner_does_not_decide_about_what_the_agent_asked(desk: Desk) -> None:
    agent = await desk.server.create_agent(owner_id="user_ann")
    token = (await desk.server.create_token(agent.id)).token
    made = await desk.ask(by=ic_key(token), agent_id=agent.id)
    assert (await refusal(desk.approve(made.id, desk.ann))).reason == "SELF_REVIEW_FORBIDDEN"
    await desk.reject(made.id, desk.admin)


async def test_whoever_inherits_an_agent_sees_what_it_asked_and_does_not_decide_about_it(
    desk: Desk,
) -> None:
    made = await desk.ask(8, by=desk.runtime)
    request = users_pb2.DeleteUserRequest(user_id=desk.owner_id)
    users: Any = UserServiceStub(desk.server.channel)
    await users.DeleteUser(request, metadata=desk.ann)
    refused = await refusal(desk.approve(made.id, desk.ann))
    assert refused.reason == "SELF_REVIEW_FORBIDDEN"
    assert (await desk.approve(made.id)).status == APPROVED


async def test_the_only_administrator_decides_about_their_own(server: Server) -> None:
    agent = await server.create_agent()
    owner = (agent.owner_id, server.admin)
    alone = Desk(server, server.admin, *owner, agent.id, ())
    made = await alone.ask()
    assert (await alone.approve(made.id)).status == APPROVED
    # One who is suspended could not decide either.
    server.add_user("ann", Role.ADMIN)
    again = await alone.ask(9)
    assert (await refusal(alone.approve(again.id))).reason == "SELF_REVIEW_FORBIDDEN"
    await server.database.run(
        lambda transaction: transaction.execute(
            "UPDATE app_user SET state = 'suspended' WHERE username = 'ann'"
        )
    )
    assert (await alone.reject(again.id)).status == REJECTED


# Lists.


async def test_a_list_is_newest_first_filtered_and_paged(desk: Desk) -> None:
    other = await desk.server.create_agent()
    made = []
    for by, agent_id in [
        (desk.owner, desk.agent_id),
        (desk.runtime, desk.agent_id),
        (desk.admin, other.id),
        (desk.admin, desk.agent_id),
    ]:
        desk.server.clock.advance(1)
        made.append((await desk.ask(by=by, agent_id=agent_id)).id)
    await desk.reject(made[0])

    async def ids(by: Any = (), **fields: Any) -> list[str]:
        return [each.id for each in (await desk.list(by, **fields)).budget_requests]

    newest_first = made[::-1]
    assert await ids() == newest_first
    assert await ids(desk.owner) == [made[3], made[1], made[0]]
    assert await ids(agent_id=other.id) == [made[2]]
    assert await ids(status=PENDING) == newest_first[:3]
    assert await ids(status=PENDING, agent_id=desk.agent_id) == [made[3], made[1]]
    assert await ids(requester_id=desk.owner_id) == [made[0]]
    assert await ids(desk.owner, requester_id=desk.agent_id) == [made[1]]
    assert await ids(agent_id="agent_none") == []
    first = await desk.list(page_size=3)
    rest = await desk.list(page_size=3, page_token=first.next_page_token)
    assert [each.id for each in (*first.budget_requests, *rest.budget_requests)] == newest_first
    assert (bool(first.next_page_token), rest.next_page_token) == (True, "")


async def test_a_malformed_list_is_told_everything_wrong(desk: Desk) -> None:
    wrong: dict[str, Any] = {"page_size": -1, "page_token": "x", "agent_id": "a" * 101, "status": 9}
    refused = await refusal(desk.list(**wrong))
    assert refused.fields.keys() == wrong.keys()


async def test_so_many_requests_may_wait_and_no_more(desk: Desk) -> None:
    made = [await desk.ask() for _ in range(10)]
    refused = await refusal(desk.ask())
    assert (refused.code, refused.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "TOO_MANY_PENDING_REQUESTS",
    )
    await desk.cancel(made[0].id)
    await desk.ask()


async def test_a_request_repeated_by_its_id_is_one(desk: Desk) -> None:
    answers = await asyncio.gather(*(desk.ask(request_id="once") for _ in range(4)))
    assert len({answer.id for answer in answers}) == 1
    assert (await refusal(desk.ask(9, request_id="once"))).reason == "REQUEST_ID_REUSED"


# What an agent's end does.


async def test_a_decision_repeated_by_its_id_has_the_same_answer(desk: Desk) -> None:
    approved, rejected = await desk.ask(8), await desk.ask(9)
    first = await desk.approve(approved.id, request_id="twice")
    assert await desk.approve(approved.id, request_id="twice") == first
    request = pb.RejectBudgetRequestRequest(
        budget_request_id=rejected.id, rejection_reason=NO, request_id="twice"
    )
    answers = [await desk.stub.RejectBudgetRequest(request, metadata=desk.admin) for _ in range(2)]
    assert answers[0] == answers[1]
    assert (await refusal(desk.approve(approved.id))).reason == "REQUEST_ALREADY_REVIEWED"
    assert await desk.allocated() == 8 * USD


async def test_deleting_an_agent_cancels_what_waits_and_keeps_what_was_decided(desk: Desk) -> None:
    decided = await desk.ask(6)
    desk.server.clock.advance(1)
    waiting = await desk.ask(7)
    await desk.approve(decided.id)
    request = agents_pb2.DeleteAgentRequest(agent_id=desk.agent_id)
    await desk.server.agents.DeleteAgent(request, metadata=desk.admin)
    cancelled = await desk.get(waiting.id)
    assert (cancelled.status, cancelled.review_notes) == (CANCELLED, "the agent was deleted")
    assert not cancelled.HasField("agent_budget")
    assert (await desk.get(decided.id, desk.owner)).status == APPROVED
    assert (await refusal(desk.approve(waiting.id))).reason == "REQUEST_ALREADY_REVIEWED"
    assert (await refusal(desk.ask())).code is NOT_FOUND
    assert [each.status for each in (await desk.list()).budget_requests] == [CANCELLED, APPROVED]
    desk.check_books()


# What is written down.


async def test_every_step_is_in_the_audit_log_and_in_the_journal(desk: Desk) -> None:
    approved, rejected, cancelled = [await desk.ask() for _ in range(3)]
    await desk.approve(approved.id, desk.ann, review_notes="go on")
    await desk.reject(rejected.id, desk.ann)
    await desk.cancel(cancelled.id)
    rows = await desk.server.database.fetch_all(
        "SELECT * FROM audit_entry WHERE resource_type = 'budget_request' ORDER BY number"
    )
    assert [(row["action"], row["actor_id"]) for row in rows] == [
        *[("budget_request.created", desk.owner_id)] * 3,
        ("budget_request.approved", "user_ann"),
        ("budget_request.rejected", "user_ann"),
        ("budget_request.cancelled", desk.owner_id),
    ]
    assert [row["reason"] for row in rows[3:]] == ["go on", NO, ""]
    assert json.loads(rows[3]["after"])["approved_nanousd"] == 8 * USD
    kinds = [row["kind"] for row in await desk.server.journal("budget.")]
    assert kinds == [
        *["budget.requested"] * 3,
        "budget.approved",
        "budget.rejected",
        "budget.cancelled",
    ]
    assert WHY not in "".join(row["body"].decode() for row in await desk.server.journal())


async def test_requests_and_decisions_are_events_for_the_owner_and_administrators(
    desk: Desk,
) -> None:
    _, eve = await desk.server.enter("eve", Role.USER)
    readers = [await desk.server.listen(by) for by in (desk.admin, desk.owner, desk.runtime)]
    stranger = await desk.server.listen(eve)
    made = await desk.ask(expires_in_s=60)
    for reader in readers:
        event = (await asyncio.wait_for(reader, 30)).event
        told = event.budget_requested
        assert (event.agent_id, told.budget_request_id) == (desk.agent_id, made.id)
        assert (told.requester_id, told.expires_in_s) == (desk.owner_id, 60)
        assert (told.current_budget_nanousd, told.requested_budget_nanousd) == (5 * USD, 8 * USD)
    assert not stranger.done()
    stranger.cancel()


async def test_an_unknown_person_is_let_into_nothing(desk: Desk) -> None:
    refused = await refusal(desk.list(bearer("none")))
    assert refused.code is grpc.StatusCode.UNAUTHENTICATED
