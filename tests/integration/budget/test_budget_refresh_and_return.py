"""Refreshes and returns over a real port: leases grow while there is money, and end once."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from steward.budget.v1 import budget_pb2 as pb
from tests.integration.budget.conftest import USD, Bank
from tests.integration.conftest import refusal

pytestmark = pytest.mark.asyncio(loop_scope="module")

INT64_MAX = 2**63 - 1
MAX_REQUEST = 10**18


async def test_a_refresh_grows_the_lease_and_moves_its_expiry(bank: Bank) -> None:
    agent, lease = await bank.lent(USD)
    await bank.report(agent, lease, cost_nanousd=300)
    bank.clock.advance(100)

    grown = await bank.refresh(agent, lease, 2 * USD)

    assert (grown.status, grown.reason, grown.partial) == ("approved", "", False)
    assert (grown.lease_id, grown.budget_granted_nanousd) == (lease, 2 * USD)
    assert (grown.lease_granted_nanousd, grown.lease_spent_nanousd) == (3 * USD, 300)
    assert grown.budget_remaining_nanousd == 7 * USD
    assert grown.expires_at.ToMicroseconds() == bank.clock() + 900_000_000
    assert grown.lease_duration_ms == 900_000
    books = bank.sound_books()
    assert books.lease(lease).granted_nanousd == 3 * USD
    (row,) = [row for row in books.of_kind("lease.grown") if row.subject == lease]
    assert row.lsn == grown.commit_number


async def test_a_refresh_without_an_amount_adds_the_default_tranche(bank: Bank) -> None:
    agent, lease = await bank.lent(budget_usd=100)
    assert (await bank.refresh(agent, lease, None)).budget_granted_nanousd == 10 * USD


async def test_a_partial_refresh_says_so(bank: Bank) -> None:
    agent, lease = await bank.lent(4 * USD, budget_usd=5)
    grown = await bank.refresh(agent, lease, 3 * USD)
    assert (grown.status, grown.budget_granted_nanousd, grown.partial) == ("approved", USD, True)
    assert grown.budget_remaining_nanousd == 0


async def test_a_lease_is_denied_more_when_nothing_is_left(bank: Bank) -> None:
    agent, lease = await bank.lent(2 * USD, budget_usd=2)
    before = bank.books()

    denied = await bank.refresh(agent, lease)

    assert (denied.status, denied.reason) == ("denied", "insufficient_budget")
    assert (denied.budget_granted_nanousd, denied.lease_granted_nanousd) == (0, 2 * USD)
    assert denied.partial
    assert denied.commit_number == before.journal[-1].lsn
    assert bank.books() == before


async def test_a_denial_says_why(bank: Bank) -> None:
    stopped_agent, stopped = await bank.lent()
    await bank.stop(stopped_agent)
    overrun_agent, overrun = await bank.lent()
    await bank.report(overrun_agent, overrun, cost_nanousd=USD + 1)
    returned_agent, returned = await bank.lent()
    await bank.give_back(returned_agent, returned)
    for agent, lease, why in (
        (stopped_agent, stopped, "agent_stopped"),
        (overrun_agent, overrun, "lease_draining"),
        (returned_agent, returned, "lease_ended"),
    ):
        before = bank.books()
        denied = await bank.refresh(agent, lease)
        assert (denied.status, denied.reason) == ("denied", why)
        assert bank.books() == before


async def test_a_repeated_refresh_gets_the_first_answer(bank: Bank) -> None:
    agent, lease = await bank.lent()
    first = await bank.refresh(agent, lease, 2 * USD, request_id="once")
    await bank.report(agent, lease)
    await bank.refresh(agent, lease, USD)
    before = bank.books()

    again = await bank.refresh(agent, lease, 2 * USD, request_id="once")
    await bank.give_back(agent, lease)
    ended = await bank.refresh(agent, lease, 2 * USD, request_id="once")

    assert first == again == ended
    assert bank.sound_books().account(agent.agent_id).leased_nanousd == 0
    assert before.lease(lease).granted_nanousd == 4 * USD


async def test_a_repeated_denial_stays_one(bank: Bank) -> None:
    agent, lease = await bank.lent(2 * USD, budget_usd=2)
    first = await bank.refresh(agent, lease, USD, request_id="once")
    await bank.allocate(agent, 5 * USD)

    again = await bank.refresh(agent, lease, USD, request_id="once")
    anew = await bank.refresh(agent, lease, USD, request_id="anew")

    assert (first.status, first.reason) == ("denied", "insufficient_budget")
    assert again == first
    assert anew.status == "approved"
    bank.sound_books()


async def test_another_amount_under_the_same_id_is_a_conflict(bank: Bank) -> None:
    agent, lease = await bank.lent(8 * USD, budget_usd=9)
    await bank.refresh(agent, lease, USD, request_id="approved")
    await bank.refresh(agent, lease, USD, request_id="denied")
    before = bank.books()
    for request_id in ("approved", "denied"):
        for amount in (USD + 1, None):
            refused = await refusal(bank.refresh(agent, lease, amount, request_id=request_id))
            assert (refused.code, refused.reason) == (
                grpc.StatusCode.ALREADY_EXISTS,
                "REQUEST_ID_REUSED",
            )
    assert bank.books() == before


async def test_a_refresh_repeated_at_the_same_time_grows_once(bank: Bank) -> None:
    agent, lease = await bank.lent()
    answers = await asyncio.gather(
        *(bank.refresh(agent, lease, USD, request_id="once") for _ in range(20))
    )
    assert all(answer == answers[0] for answer in answers)
    assert bank.sound_books().lease(lease).granted_nanousd == 2 * USD


async def test_concurrent_refreshes_never_lend_more_than_there_is(bank: Bank) -> None:
    agent, lease = await bank.lent(USD, budget_usd=10)
    answers = await asyncio.gather(*(bank.refresh(agent, lease, 2 * USD) for _ in range(20)))
    approved = [answer.budget_granted_nanousd for answer in answers if answer.status == "approved"]
    assert sorted(approved) == [USD, *[2 * USD] * 4]
    assert bank.sound_books().account(agent.agent_id).leased_nanousd == 10 * USD


async def test_a_refresh_that_cannot_be_meant_is_refused(bank: Bank) -> None:
    agent, lease = await bank.lent()
    before = bank.books()
    cases: list[tuple[dict[str, Any], set[str]]] = [
        ({"amount_nanousd": 0}, {"requested_budget_usd"}),
        ({"amount_nanousd": -1}, {"requested_budget_usd"}),
        ({"amount_nanousd": MAX_REQUEST + 1}, {"requested_budget_usd"}),
        ({"amount_nanousd": INT64_MAX}, {"requested_budget_usd"}),
        ({"request_id": "x" * 101}, {"request_id"}),
        ({"request_id": "a\0"}, {"request_id"}),
        ({"lease_id": ""}, {"lease_id"}),
        ({"lease_id": "x" * 101, "amount_nanousd": 0}, {"lease_id", "requested_budget_usd"}),
    ]
    for fields, wrong in cases:
        refused = await refusal(bank.refresh(agent, **{"lease_id": lease} | fields))
        assert (refused.code, set(refused.fields)) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            wrong,
        ), fields
    assert bank.books() == before
    assert (await bank.refresh(agent, lease, MAX_REQUEST)).partial


async def test_rest_refreshes_and_returns_the_same_way(bank: Bank) -> None:
    agent, lease = await bank.lent(2 * USD, budget_usd=5)
    rest = bank.live.api.acting_as(x_ic_key=agent.ic_token)
    body = {"lease_id": lease, "requested_budget_usd": 1}
    grown = await rest.call("POST", "/api/budget/refresh", body)
    all_of_it = await rest.call("POST", "/api/budget/refresh", body | {"requested_budget_usd": 9})
    denied = await rest.call("POST", "/api/budget/refresh", body)
    returned = await rest.call("POST", "/api/budget/return", {"lease_id": lease})
    again = await rest.call("POST", "/api/budget/return", {"lease_id": lease})
    assert (grown.status, grown.body["status"]) == (200, "approved")
    assert grown.body["budget_granted_usd"] == 1
    assert (all_of_it.body["budget_granted_usd"], all_of_it.body["partial"]) == (2, True)
    assert (denied.status, denied.body["status"]) == (200, "denied")
    assert denied.body["reason"] == "insufficient_budget"
    assert (returned.status, returned.body["returned_usd"]) == (200, 5)
    assert returned.body["lease_status"] == "closed"
    assert (again.status, again.body["error"]["reason"]) == (409, "LEASE_CLOSED")


# Returns.


async def test_a_return_gives_back_what_the_ledger_says_is_unspent(bank: Bank) -> None:
    agent, lease = await bank.lent(2 * USD)
    await bank.report(agent, lease, cost_nanousd=500)

    returned = await bank.give_back(agent, lease)

    assert returned == pb.ReturnResponse(
        success=True,
        returned_nanousd=2 * USD - 500,
        lease_status=pb.LEASE_STATE_CLOSED,
        lease_spent_nanousd=500,
        budget_remaining_nanousd=10 * USD - 500,
        commit_number=returned.commit_number,
    )
    books = bank.sound_books()
    account = books.account(agent.agent_id)
    assert (account.leased_nanousd, account.free_nanousd) == (0, 10 * USD - 500)
    (row,) = [row for row in books.of_kind("lease.ended") if row.subject == lease]
    assert (row.lsn, "believed_spent" in row.body) == (returned.commit_number, False)


async def test_a_difference_of_opinion_is_written_down_and_changes_nothing(bank: Bank) -> None:
    agent, lease = await bank.lent()
    await bank.report(agent, lease, cost_nanousd=500)
    returned = await bank.give_back(agent, lease, spent_nanousd=499)
    (row,) = [row for row in bank.sound_books().of_kind("lease.ended") if row.subject == lease]
    assert returned.lease_spent_nanousd == 500
    assert row.body["believed_spent"] == 499

    agent, lease = await bank.lent()
    await bank.give_back(agent, lease, spent_nanousd=0)
    (row,) = [row for row in bank.books().of_kind("lease.ended") if row.subject == lease]
    assert "believed_spent" not in row.body


async def test_money_is_given_back_once(bank: Bank) -> None:
    agent, lease = await bank.lent()
    await bank.give_back(agent, lease)
    before = bank.books()
    refused = await refusal(bank.give_back(agent, lease))
    assert (refused.code, refused.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "LEASE_CLOSED",
    )
    assert refused.facts["state"] == "closed"
    assert bank.sound_books() == before


async def test_a_return_that_cannot_be_meant_is_refused(bank: Bank) -> None:
    agent, lease = await bank.lent()
    stranger = await bank.agent()
    before = bank.books()
    cases: list[tuple[dict[str, Any], set[str]]] = [
        ({"lease_id": ""}, {"lease_id"}),
        ({"lease_id": "x" * 101}, {"lease_id"}),
        ({"spent_nanousd": -1}, {"spent_usd"}),
        ({"spent_nanousd": INT64_MAX}, {"spent_usd"}),
    ]
    for fields, wrong in cases:
        refused = await refusal(bank.give_back(agent, **{"lease_id": lease} | fields))
        assert (refused.code, set(refused.fields)) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            wrong,
        ), fields
    for who, lease_id in ((stranger, lease), (agent, "lease_none")):
        refused = await refusal(bank.give_back(who, lease_id))
        assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "LEASE_NOT_FOUND")
        refused = await refusal(bank.refresh(who, lease_id))
        assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "LEASE_NOT_FOUND")
    assert bank.books() == before


async def test_an_overspent_lease_ends_as_revoked(bank: Bank) -> None:
    agent, lease = await bank.lent()
    await bank.report(agent, lease, cost_nanousd=USD + 1)
    returned = await bank.give_back(agent, lease)
    assert (returned.returned_nanousd, returned.lease_status) == (0, pb.LEASE_STATE_REVOKED)
    bank.sound_books()
