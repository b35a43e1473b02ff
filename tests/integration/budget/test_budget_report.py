"""Reports over a real port: facts are booked once, exactly, and never lost."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from steward.budget.v1 import budget_pb2 as pb
from tests.books import Books
from tests.integration.budget.conftest import USD, Bank, usage_fields
from tests.integration.conftest import Refusal, refusal
from tests.live import Agent

pytestmark = pytest.mark.asyncio(loop_scope="module")

INT64_MAX = 2**63 - 1
MAX_COST = 10**15
MAX_TOKENS = 10**12
ALREADY_EXISTS = grpc.StatusCode.ALREADY_EXISTS


def money(books: Books, agent: Agent) -> tuple[int, int, int]:
    """Spent, leased, overrun."""
    account = books.account(agent.agent_id)
    return account.spent_nanousd, account.leased_nanousd, account.overrun_nanousd


async def test_a_report_moves_leased_money_to_spent(bank: Bank) -> None:
    agent, lease = await bank.lent()

    booked = await bank.report(agent, lease, request_id="one", cost_nanousd=250_000_001, sequence=1)

    assert booked == pb.ReportResponse(
        success=True,
        lease_spent_nanousd=250_000_001,
        lease_remaining_nanousd=749_999_999,
        budget_remaining_nanousd=9 * USD,
        desired_state=pb.DESIRED_STATE_RUNNING,
        sequence=1,
        cost_nanousd=250_000_001,
        overrun_nanousd=0,
        lease_status=pb.LEASE_STATE_ACTIVE,
        commit_number=booked.commit_number,
    )
    books = bank.sound_books()
    assert money(books, agent) == (250_000_001, 749_999_999, 0)
    row = next(entry for entry in books.of_kind("usage") if entry.lsn == booked.commit_number)
    assert (row.subject, row.key, row.agent_id) == (lease, "one", agent.agent_id)


async def test_what_a_usage_was_is_written_down(bank: Bank) -> None:
    agent, lease = await bank.lent()
    ended_at = Timestamp(seconds=1_700_000_000, nanos=123_456_789)
    booked = await bank.report(
        agent,
        lease,
        model="claude-sonnet-4-5",
        provider="anthropic",
        input_tokens=1,
        output_tokens=2,
        cache_read_tokens=3,
        cache_write_tokens=4,
        tokens=10,
        cost_nanousd=5,
        price_version="mine",
        certainty=pb.CERTAINTY_ASSUMED,
        timestamp=ended_at,
    )
    (row,) = [row for row in bank.books().entries if row.lsn == booked.commit_number]
    told = {"provider": "anthropic", "model": "claude-sonnet-4-5", "cost": 5, "price": "mine"}
    counted = {"input": 1, "output": 2, "cache_read": 3, "cache_write": 4}
    rest = {"certainty": "assumed", "at_us": 1_700_000_000_123_456, "seq": 1, "over": 0}
    assert row.body.items() >= (told | counted | rest).items()


async def test_a_report_tells_that_the_agent_lives(bank: Bank) -> None:
    agent, lease = await bank.lent()
    bank.clock.advance(5)
    await bank.report(agent, lease)
    assert (await bank.status(agent)).last_seen_at.ToMicroseconds() == bank.clock()


# Prices.


async def test_without_a_cost_the_tokens_are_priced_and_rounded_up_once(bank: Bank) -> None:
    agent, lease = await bank.lent()
    await bank.set_price("tiny", input_picousd=3, output_picousd=7, cache_read_picousd=1)
    usage = {"input_tokens": 101, "output_tokens": 100, "cache_read_tokens": 1}

    booked = await bank.report(agent, lease, model="tiny", cost_nanousd=None, **usage)

    assert booked.cost_nanousd == 2  # 303 + 700 + 1 = 1,004 pico-dollars
    (row,) = [row for row in bank.books().entries if row.lsn == booked.commit_number]
    assert row.body["price"] == await bank.price_version()


async def test_a_bare_sum_of_tokens_is_priced_as_input(bank: Bank) -> None:
    agent, lease = await bank.lent()
    await bank.set_price("plain", input_picousd=2_000, output_picousd=9_000)
    booked = await bank.report(agent, lease, model="plain", cost_nanousd=None, tokens=50)
    assert booked.cost_nanousd == 100


async def test_a_model_without_a_price_needs_a_cost(bank: Bank) -> None:
    agent, lease = await bank.lent()
    before = bank.books()
    refused = await refusal(bank.report(agent, lease, model="nobody-1", cost_nanousd=None))
    assert (refused.code, refused.reason) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "PRICE_UNKNOWN",
    )
    assert set(refused.fields) == {"model"}
    assert bank.books() == before
    assert (await bank.report(agent, lease, model="nobody-1", cost_nanousd=7)).cost_nanousd == 7


async def test_a_price_counts_from_when_it_is_set_and_a_repetition_keeps_the_old_one(
    bank: Bank,
) -> None:
    agent, lease = await bank.lent()
    report = {"model": "moving", "cost_nanousd": None, "input_tokens": 10}
    await bank.set_price("moving", input_picousd=1_000)
    first = await bank.report(agent, lease, request_id="first", **report)
    await bank.set_price("moving", input_picousd=5_000)
    later = await bank.report(agent, lease, request_id="later", **report)
    again = await bank.report(agent, lease, request_id="first", **report)
    assert (first.cost_nanousd, later.cost_nanousd) == (10, 50)
    assert again == first


async def test_prices_set_at_the_same_instant_all_stand_and_one_counts(bank: Bank) -> None:
    await asyncio.gather(
        *(bank.set_price("contested", input_picousd=rate * 1_000) for rate in range(1, 11))
    )
    agent, lease = await bank.lent()
    booked = await bank.report(agent, lease, model="contested", cost_nanousd=None, input_tokens=1)
    set_last = [row.body for row in bank.books().of_kind("price.set")][-1]
    assert booked.cost_nanousd * 1_000 == set_last["input_picousd"]


# Refusals.


async def changes_nothing(bank: Bank, agent: Agent, lease: str, **fields: Any) -> Refusal:
    before = bank.books()
    refused = await refusal(bank.report(agent, lease, **fields))
    assert bank.books() == before
    return refused


async def test_fields_that_cannot_be_meant_are_all_named(bank: Bank) -> None:
    agent, lease = await bank.lent()
    cases: list[tuple[dict[str, Any], set[str]]] = [
        ({"request_id": ""}, {"request_id"}),
        ({"request_id": "x" * 101}, {"request_id"}),
        ({"request_id": "a\nb"}, {"request_id"}),
        ({"sequence": -1}, {"sequence"}),
        ({"model": ""}, {"model"}),
        ({"model": "x" * 101}, {"model"}),
        ({"model": "a\x7fb"}, {"model"}),
        ({"provider": "x" * 51}, {"provider"}),
        ({"provider": "a\0b"}, {"provider"}),
        ({"price_version": "x" * 101}, {"price_version"}),
        ({"price_version": "a\0b"}, {"price_version"}),
        ({"tokens": -1}, {"tokens"}),
        ({"tokens": MAX_TOKENS + 1}, {"tokens"}),
        ({"tokens": 4, "input_tokens": 3}, {"tokens"}),
        ({"tokens": 2, "input_tokens": 1, "output_tokens": 2}, {"tokens"}),
        ({"cost_nanousd": -1}, {"cost_usd"}),
        ({"cost_nanousd": MAX_COST + 1}, {"cost_usd"}),
        ({"cost_nanousd": INT64_MAX}, {"cost_usd"}),
        ({"certainty": 99}, {"certainty"}),
        ({"timestamp": Timestamp(seconds=-1)}, {"timestamp"}),
        ({"timestamp": Timestamp(seconds=253_402_300_800)}, {"timestamp"}),
        ({"timestamp": Timestamp(seconds=INT64_MAX)}, {"timestamp"}),
        ({"timestamp": Timestamp(nanos=-1)}, {"timestamp"}),
        ({"request_id": "", "model": "", "cost_nanousd": -1}, {"request_id", "model", "cost_usd"}),
    ]
    cases += [
        ({field: value}, {field})
        for field in ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
        for value in (-1, MAX_TOKENS + 1, INT64_MAX, -INT64_MAX - 1)
    ]
    for fields, wrong in cases:
        refused = await changes_nothing(bank, agent, lease, **fields)
        assert (refused.code, set(refused.fields)) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            wrong,
        ), fields


async def test_the_longest_and_largest_values_are_booked(bank: Bank) -> None:
    agent, lease = await bank.lent()
    booked = await bank.report(
        agent,
        lease,
        request_id="ä" * 100,
        model="m" * 100,
        provider="p" * 50,
        price_version="v" * 100,
        input_tokens=MAX_TOKENS,
        cost_nanousd=MAX_COST,
        timestamp=Timestamp(seconds=253_402_300_799, nanos=999_999_999),
    )
    assert booked.overrun_nanousd == MAX_COST - USD


async def test_a_lease_that_is_not_there_or_not_ones_own_is_not_found(bank: Bank) -> None:
    agent, lease = await bank.lent()
    stranger = await bank.agent()
    for who, lease_id in ((stranger, lease), (agent, "lease_none"), (agent, lease + " ")):
        refused = await changes_nothing(bank, who, lease_id)
        assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "LEASE_NOT_FOUND")
    for lease_id in ("", "x" * 101):
        assert set((await changes_nothing(bank, agent, lease_id)).fields) == {"lease_id"}


async def test_a_returned_lease_takes_no_report_and_keeps_its_figures(bank: Bank) -> None:
    agent, lease = await bank.lent()
    await bank.report(agent, lease)
    await bank.give_back(agent, lease)
    refused = await changes_nothing(bank, agent, lease)
    assert (refused.code, refused.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "LEASE_CLOSED",
    )
    assert money(bank.sound_books(), agent) == (1_000_000, 0, 0)


async def test_a_gap_names_the_number_that_is_expected(bank: Bank) -> None:
    agent, lease = await bank.lent()
    await bank.report(agent, lease, sequence=1)
    refused = await changes_nothing(bank, agent, lease, sequence=3)
    assert (refused.code, refused.reason) == (grpc.StatusCode.OUT_OF_RANGE, "SEQUENCE_GAP")
    assert refused.facts["expected"] == "2"
    far = await changes_nothing(bank, agent, lease, sequence=INT64_MAX)
    assert far.reason == "SEQUENCE_GAP"
    assert (await bank.report(agent, lease, sequence=2)).sequence == 2


async def test_a_number_is_used_once(bank: Bank) -> None:
    agent, lease = await bank.lent()
    await bank.report(agent, lease, sequence=1)
    refused = await changes_nothing(bank, agent, lease, sequence=1)
    assert (refused.code, refused.reason) == (ALREADY_EXISTS, "SEQUENCE_REUSED")
    assert refused.facts["expected"] == "2"


async def test_reports_without_a_number_are_numbered_in_order(bank: Bank) -> None:
    agent, lease = await bank.lent()
    for number in (1, 2, 3):
        assert (await bank.report(agent, lease)).sequence == number


# Repetitions.


async def test_a_repetition_gets_the_first_answer(bank: Bank) -> None:
    agent, lease = await bank.lent()
    report = usage_fields(cost_nanousd=3, sequence=1, input_tokens=9)
    first = await bank.report(agent, lease, **report)
    await bank.report(agent, lease, cost_nanousd=5)
    before = bank.books()

    again = await bank.report(agent, lease, **report)
    unnumbered = await bank.report(agent, lease, **report | {"sequence": 0})
    renumbered = await bank.report(agent, lease, **report | {"sequence": 7})

    assert first == again == unnumbered == renumbered
    assert bank.sound_books() == before


async def test_a_repetition_gets_the_first_answer_after_the_lease_has_ended(bank: Bank) -> None:
    agent, lease = await bank.lent()
    first = await bank.report(agent, lease, request_id="once")
    await bank.give_back(agent, lease)
    assert await bank.report(agent, lease, request_id="once") == first


async def test_another_body_under_the_same_id_is_a_conflict(bank: Bank) -> None:
    agent, lease = await bank.lent()
    report = usage_fields(input_tokens=1, output_tokens=1)
    await bank.report(agent, lease, **report)
    others: list[dict[str, Any]] = [
        {"cost_nanousd": 999_999},
        {"cost_nanousd": None},
        {"model": "gpt-4o-mini"},
        {"provider": "anthropic"},
        {"input_tokens": 2},
        {"output_tokens": 0},
        {"cache_read_tokens": 1},
        {"cache_write_tokens": 1},
    ]
    for other in others:
        refused = await changes_nothing(bank, agent, lease, **report | other)
        assert (refused.code, refused.reason) == (ALREADY_EXISTS, "REQUEST_ID_REUSED"), other
        assert refused.facts["first_digest"]


async def test_an_id_is_unique_within_its_lease_only(bank: Bank) -> None:
    agent, lease = await bank.lent()
    other = await bank.handshake(agent)
    await bank.report(agent, lease, request_id="once", cost_nanousd=1)
    await bank.report(agent, other.lease_id, request_id="once", cost_nanousd=2)
    assert money(bank.sound_books(), agent)[0] == 3


async def test_repetitions_at_the_same_time_are_booked_once(bank: Bank) -> None:
    agent, lease = await bank.lent()
    report = usage_fields(cost_nanousd=11)
    answers = await asyncio.gather(*(bank.report(agent, lease, **report) for _ in range(50)))
    assert all(answer == answers[0] for answer in answers)
    assert money(bank.sound_books(), agent)[0] == 11


async def test_concurrent_reports_of_many_leases_are_all_booked(bank: Bank) -> None:
    agents = [await bank.lent() for _ in range(4)]
    draw = random.Random(1)
    reports = [
        (agent, lease, usage_fields(cost_nanousd=draw.randrange(1_000)))
        for agent, lease in agents
        for _ in range(60)
    ]
    repeated = reports + draw.sample(reports, 60)
    draw.shuffle(repeated)

    answers = await asyncio.gather(
        *(bank.report(agent, lease, **fields) for agent, lease, fields in repeated)
    )

    books = bank.sound_books()
    for agent, lease in agents:
        own = [fields for who, _, fields in reports if who is agent]
        assert money(books, agent)[0] == sum(fields["cost_nanousd"] for fields in own)
        numbers = {
            answer.sequence
            for answer, (who, *_) in zip(answers, repeated, strict=True)
            if who is agent
        }
        assert numbers == set(range(1, 61))
        assert books.lease(lease).sequence == 60


async def test_a_call_given_up_is_booked_once_when_it_is_repeated(bank: Bank) -> None:
    agent, lease = await bank.lent()
    reports = [usage_fields(cost_nanousd=1) for _ in range(40)]
    for fields in reports:
        call = asyncio.ensure_future(bank.report(agent, lease, **fields))
        await asyncio.sleep(0.0005)
        call.cancel()
    await asyncio.gather(*(bank.report(agent, lease, **fields) for fields in reports))
    assert money(bank.sound_books(), agent)[0] == 40


# Zero, and more than there is.


async def test_a_call_that_cost_nothing_is_booked_as_such(bank: Bank) -> None:
    agent, lease = await bank.lent()
    booked = await bank.report(agent, lease, cost_nanousd=0)
    assert (booked.cost_nanousd, booked.sequence) == (0, 1)
    assert booked.lease_remaining_nanousd == USD
    assert money(bank.sound_books(), agent) == (0, USD, 0)


async def test_a_lease_may_be_spent_to_the_last_nano_dollar(bank: Bank) -> None:
    agent, lease = await bank.lent()
    booked = await bank.report(agent, lease, cost_nanousd=USD)
    assert (booked.lease_remaining_nanousd, booked.overrun_nanousd) == (0, 0)
    assert booked.lease_status == pb.LEASE_STATE_ACTIVE
    assert booked.desired_state == pb.DESIRED_STATE_RUNNING


async def test_what_no_grant_covered_is_booked_and_freezes_the_lease(bank: Bank) -> None:
    agent, lease = await bank.lent(budget_usd=2)

    booked = await bank.report(agent, lease, cost_nanousd=USD + 7)

    assert booked.success
    assert (booked.cost_nanousd, booked.overrun_nanousd) == (USD + 7, 7)
    assert (booked.lease_spent_nanousd, booked.lease_remaining_nanousd) == (USD, 0)
    assert booked.budget_remaining_nanousd == USD - 7
    assert booked.lease_status == pb.LEASE_STATE_DRAINING
    assert booked.desired_state == pb.DESIRED_STATE_STOPPED
    books = bank.sound_books()
    assert money(books, agent) == (USD, 0, 7)
    draining = [row for row in books.of_kind("lease.draining") if row.subject == lease]
    assert [row.body["why"] for row in draining] == ["overrun"]
    warned = [row for row in books.of_kind("budget.warning") if row.agent_id == agent.agent_id]
    assert [row.body["threshold"] for row in warned] == [50]
    assert (await bank.status(agent)).budget.overrun_nanousd == 7


async def test_after_an_overrun_calls_under_way_are_settled_and_nothing_more_is_lent(
    bank: Bank,
) -> None:
    agent, lease = await bank.lent()
    await bank.report(agent, lease, cost_nanousd=USD + 7)
    late = await bank.report(agent, lease, cost_nanousd=5)
    denied = await bank.refresh(agent, lease)
    assert (late.overrun_nanousd, late.sequence) == (5, 2)
    assert (denied.status, denied.reason) == ("denied", "lease_draining")
    assert money(bank.sound_books(), agent) == (USD, 0, 12)


async def test_rest_reports_the_same_way(bank: Bank) -> None:
    agent, lease = await bank.lent()
    rest = bank.live.api.acting_as(x_ic_key=agent.ic_token)
    body = {"lease_id": lease, "request_id": "one", "model": "gpt-4o", "cost_usd": 0.25}
    booked = await rest.call("POST", "/api/budget/report", body)
    again = await rest.call("POST", "/api/v1/budget/report", body)
    other = await rest.call("POST", "/api/budget/report", body | {"cost_usd": 0.5})
    gap = await rest.call("POST", "/api/budget/report", body | {"request_id": "2", "sequence": 9})
    assert booked.status == 200
    assert booked.body["success"] is True
    assert booked.body["lease_spent_usd"] == 0.25
    assert booked.body["desired_state"] == "running"
    assert again.body == booked.body
    assert (other.status, other.body["error"]["reason"]) == (409, "REQUEST_ID_REUSED")
    assert (gap.status, gap.body["error"]["reason"]) == (409, "SEQUENCE_GAP")
