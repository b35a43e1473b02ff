"""What time and others do to a lease: expiry, grace, stop, revocation, warnings, the audit."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from steward.budget.v1 import budget_pb2 as pb
from steward_server.budget.desk import SWEEP_AT_ONCE
from tests.books import DATABASE, Books
from tests.integration.budget.conftest import USD, Bank, lease_is, open_bank
from tests.integration.conftest import refusal
from tests.live import Agent

pytestmark = pytest.mark.asyncio(loop_scope="module")

TTL_S, GRACE_S = 20, 5


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bank(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bank]:
    folder = tmp_path_factory.mktemp("bank")
    async with open_bank(folder, lease_ttl_s=TTL_S, settle_grace_s=GRACE_S) as opened:
        yield opened


def money(books: Books, agent: Agent) -> tuple[int, int, int]:
    """Spent, leased, overrun."""
    account = books.account(agent.agent_id)
    return account.spent_nanousd, account.leased_nanousd, account.overrun_nanousd


async def expire(bank: Bank, lease_id: str) -> Books:
    """Let a lease's time and its grace go by."""
    await bank.pass_time(TTL_S, lease_is(lease_id, "draining"))
    return await bank.pass_time(GRACE_S, lease_is(lease_id, "expired"))


# Expiry.


async def test_a_silent_lease_drains_settles_and_gives_back_the_rest_once(bank: Bank) -> None:
    agent, lease = await bank.lent(2 * USD)
    await bank.report(agent, lease, cost_nanousd=300)

    drained = await bank.pass_time(TTL_S, lease_is(lease, "draining"))
    settled = await bank.report(agent, lease, cost_nanousd=500)
    ended = await bank.pass_time(GRACE_S, lease_is(lease, "expired"))

    assert money(drained, agent) == (300, 2 * USD - 300, 0)
    assert drained.lease(lease).settle_until_us == bank.clock()
    assert (settled.overrun_nanousd, settled.lease_status) == (0, pb.LEASE_STATE_DRAINING)
    assert settled.desired_state == pb.DESIRED_STATE_STOPPED
    assert money(ended, agent) == (800, 0, 0)
    (row,) = [row for row in ended.of_kind("lease.ended") if row.subject == lease]
    assert row.body == {"state": "expired", "returned": 2 * USD - 800}
    bank.sound_books()


async def test_a_lease_lives_to_its_last_microsecond(bank: Bank) -> None:
    _, earlier = await bank.lent()
    bank.clock.advance(1)
    agent, lease = await bank.lent()
    # The sweep that ends the earlier one sees this one at the same time.
    bank.clock.advance(TTL_S - 1 - 1e-6)
    at_edge = await bank.pass_time(1e-6, lease_is(earlier, "draining"))
    almost = await bank.pass_time(1 - 2e-6, lambda _: True)
    denied_not = await bank.refresh(agent, lease, 1)
    assert at_edge.lease(lease).state == almost.lease(lease).state == "active"
    assert denied_not.status == "approved"
    bank.sound_books()


async def test_a_lease_past_its_time_that_nobody_ended_yet_does_not_grow(tmp_path: Path) -> None:
    async with open_bank(tmp_path, lease_ttl_s=TTL_S, sweep_interval_s=3_600) as bank:
        agent, lease = await bank.lent()
        bank.clock.advance(TTL_S)
        denied = await bank.refresh(agent, lease)
        settled = await bank.report(agent, lease, cost_nanousd=5)
        assert (denied.status, denied.reason) == ("denied", "lease_expired")
        assert (settled.overrun_nanousd, settled.lease_remaining_nanousd) == (0, USD - 5)
        assert bank.sound_books().lease(lease).expires_at_us == bank.clock()


async def test_reports_and_refreshes_keep_a_lease_alive(bank: Bank) -> None:
    agent, lease = await bank.lent()
    for _ in range(3):
        bank.clock.advance(TTL_S * 0.9)
        await bank.report(agent, lease)
        bank.clock.advance(TTL_S * 0.9)
        await bank.refresh(agent, lease, 1)
    assert bank.sound_books().lease(lease).state == "active"


async def test_a_late_report_is_booked_as_overrun(bank: Bank) -> None:
    agent, lease = await bank.lent()
    await bank.report(agent, lease, request_id="in time", cost_nanousd=100)
    await expire(bank, lease)

    late = await bank.report(agent, lease, cost_nanousd=40)
    again = await bank.report(agent, lease, request_id="in time", cost_nanousd=100)

    assert late.success
    assert (late.overrun_nanousd, late.lease_remaining_nanousd, late.sequence) == (40, 0, 2)
    assert late.lease_status == pb.LEASE_STATE_EXPIRED
    assert late.budget_remaining_nanousd == 10 * USD - 140
    assert again.lease_status == pb.LEASE_STATE_ACTIVE
    assert money(bank.sound_books(), agent) == (100, 0, 40)


async def test_an_expired_lease_is_not_returned_again(bank: Bank) -> None:
    agent, lease = await bank.lent()
    await expire(bank, lease)
    refused = await refusal(bank.give_back(agent, lease))
    assert (refused.code, refused.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "LEASE_CLOSED",
    )
    assert (await bank.refresh(agent, lease)).reason == "lease_ended"
    assert money(bank.sound_books(), agent) == (0, 0, 0)


async def test_a_draining_lease_may_be_returned_early(bank: Bank) -> None:
    agent, lease = await bank.lent()
    await bank.pass_time(TTL_S, lease_is(lease, "draining"))
    returned = await bank.give_back(agent, lease)
    assert (returned.returned_nanousd, returned.lease_status) == (USD, pb.LEASE_STATE_CLOSED)
    bank.sound_books()


async def test_many_leases_expire_together(bank: Bank) -> None:
    agent = await bank.agent(budget_usd=1_000)
    leases = [(await bank.handshake(agent, USD)).lease_id for _ in range(2 * SWEEP_AT_ONCE + 1)]

    def all_are(state: str) -> Any:
        return lambda books: all(books.lease(lease).state == state for lease in leases)

    await bank.pass_time(TTL_S, all_are("draining"))
    ended = await bank.pass_time(GRACE_S, all_are("expired"))
    assert money(ended, agent) == (0, 0, 0)
    bank.sound_books()


async def test_leases_whose_time_went_by_while_the_server_was_down_end(tmp_path: Path) -> None:
    async with open_bank(tmp_path, lease_ttl_s=TTL_S, settle_grace_s=GRACE_S) as bank:
        agent, lease = await bank.lent()
        await bank.report(agent, lease, cost_nanousd=9)
    async with open_bank(tmp_path, lease_ttl_s=TTL_S, settle_grace_s=GRACE_S) as bank:
        await expire(bank, lease)
        assert money(bank.sound_books(), agent) == (9, 0, 0)


# Stop and revocation.


async def test_a_stop_lets_calls_under_way_settle_and_then_takes_the_money_back(
    bank: Bank,
) -> None:
    agent, lease = await bank.lent()
    await bank.stop(agent, "enough")

    settled = await bank.report(agent, lease, cost_nanousd=70)
    ended = await bank.pass_time(GRACE_S, lease_is(lease, "revoked"))
    late = await bank.report(agent, lease, cost_nanousd=30)

    assert (settled.overrun_nanousd, settled.lease_remaining_nanousd) == (0, USD - 70)
    assert settled.desired_state == pb.DESIRED_STATE_STOPPED
    assert money(ended, agent) == (70, 0, 0)
    assert (late.overrun_nanousd, late.lease_status) == (30, pb.LEASE_STATE_REVOKED)
    assert money(bank.sound_books(), agent) == (70, 0, 30)


async def test_a_revoked_token_takes_its_leases_with_it(bank: Bank) -> None:
    agent, lease = await bank.lent()
    await bank.revoke_token(agent)
    refused = await refusal(bank.report(agent, lease))
    ended = await bank.pass_time(GRACE_S, lease_is(lease, "revoked"))
    assert refused.code is grpc.StatusCode.UNAUTHENTICATED
    assert money(ended, agent) == (0, 0, 0)
    bank.sound_books()


async def test_a_rotated_token_leaves_the_leases_to_its_successor(bank: Bank) -> None:
    agent, lease = await bank.lent()
    rotated = await bank.live.admin.call("POST", f"/api/tokens/{agent.token_id}/rotate")
    successor = Agent(agent.agent_id, agent.token_id, rotated.body["token"])
    assert (await refusal(bank.report(agent, lease))).code is grpc.StatusCode.UNAUTHENTICATED
    assert (await bank.report(successor, lease)).sequence == 1


async def test_a_stop_shortens_the_grace_of_an_expired_lease_never_lengthens_it(
    bank: Bank,
) -> None:
    agent, lease = await bank.lent()
    drained = await bank.pass_time(TTL_S, lease_is(lease, "draining"))
    bank.clock.advance(GRACE_S - 1)
    await bank.stop(agent)
    stopped = bank.books().lease(lease)
    assert (stopped.ending, stopped.settle_until_us) == (
        "revoked",
        drained.lease(lease).settle_until_us,
    )
    await bank.pass_time(1, lease_is(lease, "revoked"))
    bank.sound_books()


# Warnings.


def warned(books: Books, agent: Agent) -> list[int]:
    rows = books.of_kind("budget.warning")
    return [row.body["threshold"] for row in rows if row.agent_id == agent.agent_id]


async def test_each_threshold_is_warned_of_once(bank: Bank) -> None:
    agent, lease = await bank.lent(10 * USD, budget_usd=10)
    seen = []
    for cost_usd in (4.9, 0.1, 1, 1.9, 0.1, 1.4, 0.1, 0.4, 0.1):
        await bank.report(agent, lease, cost_nanousd=round(cost_usd * 10) * USD // 10)
        seen.append(warned(bank.books(), agent))
    fifty, eighty, most = [50], [50, 80], [50, 80, 95]
    assert seen == [[], fifty, fifty, fifty, eighty, eighty, most, most, [50, 80, 95, 100]]


async def test_one_report_may_pass_several_thresholds(bank: Bank) -> None:
    agent, lease = await bank.lent(10 * USD, budget_usd=10)
    await bank.report(agent, lease, cost_nanousd=11 * USD)
    books = bank.sound_books()
    assert warned(books, agent) == [50, 80, 95, 100]
    newest = books.of_kind("budget.warning")[-1]
    assert newest.body == {
        "threshold": 100,
        "spent": 11 * USD,
        "limit": 10 * USD,
        "scope": f"agent:{agent.agent_id}",
    }


async def test_a_raise_arms_the_warnings_again(bank: Bank) -> None:
    agent, lease = await bank.lent(9 * USD, budget_usd=10)
    await bank.report(agent, lease, cost_nanousd=9 * USD)
    await bank.allocate(agent, 40 * USD)
    more = await bank.handshake(agent, 11 * USD)
    await bank.report(agent, more.lease_id, cost_nanousd=10 * USD)
    assert warned(bank.books(), agent) == [50, 80]
    await bank.report(agent, more.lease_id, cost_nanousd=USD)
    assert warned(bank.sound_books(), agent) == [50, 80, 50]


async def test_a_cut_of_the_budget_warns_of_what_it_reaches(bank: Bank) -> None:
    agent, lease = await bank.lent(4 * USD, budget_usd=10)
    await bank.report(agent, lease, cost_nanousd=4 * USD)
    await bank.allocate(agent, 5 * USD)
    assert warned(bank.sound_books(), agent) == [50, 80]


# The audit.


async def test_the_server_proves_its_books_and_says_so(tmp_path: Path) -> None:
    async with open_bank(tmp_path, audit_interval_s=0.1) as bank:
        agent, lease = await bank.lent()
        booked = await bank.report(agent, lease, cost_nanousd=2 * USD)

        async def audit(*, lsn: int) -> Any:
            while True:
                health = await bank.live.api.call("GET", "/health")
                if health.body["ledger"]["commit_number"] >= lsn:
                    return health.body
                await bank.wait(lambda _: True)

        proven = await audit(lsn=booked.commit_number)
        with closing(sqlite3.connect(bank.folder / DATABASE, timeout=5)) as connection:
            connection.execute("UPDATE account SET leased_nanousd = leased_nanousd + 1")
            connection.commit()
        more = await bank.refresh(agent, lease, 1, request_id="another commit")
        disproven = await audit(lsn=more.commit_number)
        metrics = await bank.live.api.call("GET", "/metrics")

        assert proven["status"] == "healthy"
        assert proven["ledger"]["balanced"] is True
        assert proven["ledger"]["overrun_usd"] == 1
        assert disproven["ledger"]["balanced"] is False
        assert disproven["status"] == "degraded"
        assert "ledger_balanced 0.0" in metrics.body
