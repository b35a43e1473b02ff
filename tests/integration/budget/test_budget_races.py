"""Many at once: never more lent than there is, and money comes back exactly once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import combinations_with_replacement
from typing import Any

import grpc
import pytest
import pytest_asyncio

from tests.integration.budget.conftest import USD, Bank, lease_is, open_bank
from tests.integration.conftest import Refusal, refusal_of
from tests.live import Agent

pytestmark = pytest.mark.asyncio(loop_scope="module")

TTL_S, GRACE_S = 10, 2
ENDED = ("closed", "expired", "revoked")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bank(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bank]:
    folder = tmp_path_factory.mktemp("bank")
    async with open_bank(folder, lease_ttl_s=TTL_S, settle_grace_s=GRACE_S) as opened:
        yield opened


async def outcomes(*calls: Awaitable[Any]) -> list[Any]:
    """The answers of calls made together; of those that were refused, the refusal."""

    async def outcome(call: Awaitable[Any]) -> Any:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            return refusal_of(error)

    return list(await asyncio.gather(*map(outcome, calls)))


def split(found: list[Any]) -> tuple[list[Any], list[Refusal]]:
    """Answers, and refusals."""
    return (
        [each for each in found if not isinstance(each, Refusal)],
        [each for each in found if isinstance(each, Refusal)],
    )


# Lending.


async def test_a_hundred_handshakes_share_exactly_what_there_is(bank: Bank) -> None:
    for tranches in (1, 7, 99):
        agent = await bank.agent(budget_usd=tranches)
        granted, refused = split(await outcomes(*(bank.handshake(agent) for _ in range(100))))
        assert [each.budget_granted_nanousd for each in granted] == [USD] * tranches
        assert {each.reason for each in refused} == {"BUDGET_EXCEEDED"}
        assert len(refused) == 100 - tranches
        account = bank.sound_books().account(agent.agent_id)
        assert (account.leased_nanousd, account.free_nanousd) == (tranches * USD, 0)


async def test_a_hundred_handshakes_of_odd_sizes_never_exceed_the_budget(bank: Bank) -> None:
    draw = random.Random(7)
    agent = await bank.agent(budget_usd=20)
    amounts = [draw.randrange(1, 2 * USD) for _ in range(100)]
    granted, _ = split(await outcomes(*(bank.handshake(agent, amount) for amount in amounts)))
    full = [each for each in granted if not each.partial]
    assert sum(each.budget_granted_nanousd for each in granted) == 20 * USD
    assert len(granted) - len(full) <= 1
    # Told in the order of their commits, what remained only ever fell, by what was granted.
    remaining = 20 * USD
    for each in sorted(granted, key=lambda answer: answer.commit_number):
        remaining -= each.budget_granted_nanousd
        assert each.budget_remaining_nanousd == remaining
    bank.sound_books()


async def test_handshakes_over_both_doors_and_refreshes_share_one_budget(bank: Bank) -> None:
    agent = await bank.agent(budget_usd=10)
    lease = (await bank.handshake(agent, USD)).lease_id
    rest = bank.live.api.acting_as(x_ic_key=agent.ic_token)
    body = {"requested_budget_usd": 1}
    found = await outcomes(
        *(bank.handshake(agent) for _ in range(10)),
        *(bank.refresh(agent, lease) for _ in range(10)),
        *(rest.call("POST", "/api/budget/handshake", body) for _ in range(10)),
    )
    granted = [
        *(answer.budget_granted_nanousd for answer in split(found[:20])[0]),
        *(
            round(answer.body["budget_granted_usd"] * USD)
            for answer in found[20:]
            if answer.status == 200
        ),
    ]
    assert sum(granted) == 9 * USD
    assert bank.sound_books().account(agent.agent_id).leased_nanousd == 10 * USD


async def test_a_budget_is_not_cut_below_what_is_lent_meanwhile(bank: Bank) -> None:
    for _ in range(10):
        agent = await bank.agent(budget_usd=10)
        found = await outcomes(
            *(bank.handshake(agent) for _ in range(8)),
            *(bank.allocate(agent, amount * USD) for amount in (2, 4, 6, 8)),
            *(bank.handshake(agent) for _ in range(8)),
        )
        _, refused = split(found)
        assert {each.reason for each in refused} <= {"BUDGET_EXCEEDED", "BUDGET_BELOW_COMMITTED"}
        bank.sound_books()


async def test_nothing_is_lent_after_a_stop(bank: Bank) -> None:
    for _ in range(10):
        agent = await bank.agent(budget_usd=50)
        found = await outcomes(
            *(bank.handshake(agent) for _ in range(10)),
            bank.stop(agent),
            *(bank.handshake(agent) for _ in range(10)),
        )
        granted, refused = split([each for each in found if each is not None])
        assert {each.reason for each in refused} <= {"AGENT_STOPPED"}
        books = bank.sound_books()
        stops = [
            row.lsn for row in books.of_kind("agent.stopping") if row.agent_id == agent.agent_id
        ]
        assert all(each.commit_number < stops[0] for each in granted)
        assert {books.lease(each.lease_id).state for each in granted} <= {"draining"}


# Endings.

Ending = Callable[[Bank, Agent, str], Awaitable[Any]]


async def give_back(bank: Bank, agent: Agent, lease: str) -> Any:
    return await bank.give_back(agent, lease)


async def revoke(bank: Bank, agent: Agent, lease: str) -> Any:
    await bank.revoke_token(agent)


async def stop(bank: Bank, agent: Agent, lease: str) -> Any:
    await bank.stop(agent)


async def expire(bank: Bank, agent: Agent, lease: str) -> Any:
    bank.clock.advance(TTL_S)


async def delete(bank: Bank, agent: Agent, lease: str) -> Any:
    await bank.delete(agent)


ENDINGS: dict[str, tuple[Ending, set[str]]] = {
    "return": (give_back, {"LEASE_CLOSED", "TOKEN_REVOKED"}),
    "revocation": (revoke, {"TOKEN_REVOKED"}),
    "stop": (stop, {"AGENT_NOT_FOUND"}),
    "expiry": (expire, set()),
    "deletion": (delete, {"AGENT_HAS_LEASES", "AGENT_NOT_FOUND"}),
}
"""How a lease may end, and what the later one of two may be told."""


@pytest.mark.parametrize(("one", "other"), [*combinations_with_replacement(ENDINGS, 2)])
async def test_of_two_endings_at_once_the_money_comes_back_once(
    bank: Bank, one: str, other: str
) -> None:
    for first, second in ((one, other), (other, one)) * 2:
        agent, lease = await bank.lent(2 * USD)
        await bank.report(agent, lease, cost_nanousd=300)
        (end_one, told_one), (end_other, told_other) = ENDINGS[first], ENDINGS[second]

        found = await outcomes(end_one(bank, agent, lease), end_other(bank, agent, lease))

        _, refused = split(found)
        assert {each.reason for each in refused} <= told_one | told_other
        bank.clock.advance(TTL_S)
        await bank.wait(lease_is(lease, "draining", *ENDED))
        await bank.pass_time(GRACE_S, lease_is(lease, *ENDED))
        books = bank.sound_books()
        account = books.account(agent.agent_id)
        assert (account.spent_nanousd, account.leased_nanousd) == (300, 0)
        (ended,) = [row for row in books.of_kind("lease.ended") if row.subject == lease]
        assert ended.body["returned"] == 2 * USD - 300


async def test_of_many_returns_one_gives_back(bank: Bank) -> None:
    agent, lease = await bank.lent(2 * USD)
    answers, refused = split(await outcomes(*(bank.give_back(agent, lease) for _ in range(30))))
    assert [answer.returned_nanousd for answer in answers] == [2 * USD]
    assert {each.reason for each in refused} == {"LEASE_CLOSED"}
    bank.sound_books()


async def test_a_report_that_races_with_a_return_is_covered_by_the_lease_or_refused(
    bank: Bank,
) -> None:
    draw = random.Random(3)
    seen = set()
    for _ in range(20):
        agent, lease = await bank.lent(USD)
        before, after = draw.randrange(8), draw.randrange(8)
        found = await outcomes(
            *(bank.report(agent, lease, cost_nanousd=7) for _ in range(before)),
            bank.give_back(agent, lease),
            *(bank.report(agent, lease, cost_nanousd=7) for _ in range(after)),
        )
        answers, refused = split(found)
        returned = next(answer for answer in answers if hasattr(answer, "returned_nanousd"))
        booked = [answer for answer in answers if answer is not returned]
        assert {each.reason for each in refused} <= {"LEASE_CLOSED"}
        assert all(answer.commit_number < returned.commit_number for answer in booked)
        assert returned.lease_spent_nanousd == 7 * len(booked)
        assert returned.returned_nanousd == USD - 7 * len(booked)
        seen |= {bool(booked), not refused}
        account = bank.sound_books().account(agent.agent_id)
        assert (account.spent_nanousd, account.overrun_nanousd) == (7 * len(booked), 0)
    assert seen == {True, False}


async def test_a_report_that_races_with_an_expiry_is_never_lost(bank: Bank) -> None:
    for _ in range(10):
        agent, lease = await bank.lent(USD)
        await bank.pass_time(TTL_S, lease_is(lease, "draining"))
        bank.clock.advance(GRACE_S)
        answers = await asyncio.gather(
            *(bank.report(agent, lease, cost_nanousd=7) for _ in range(20))
        )
        ended = await bank.wait(lease_is(lease, "expired"))
        account = ended.account(agent.agent_id)
        late = sum(answer.overrun_nanousd for answer in answers)
        assert (account.spent_nanousd, account.overrun_nanousd) == (140 - late, late)
        bank.sound_books()
