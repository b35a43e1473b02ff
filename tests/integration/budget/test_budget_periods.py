"""Budgets that begin anew: what a midnight does to leases, late reports, warnings and restarts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from steward_client.call_bound import CallBound
from steward_client.lent_key import LentKey
from steward_client.outbox import Outbox
from steward_client.prices import TokenUsage
from steward_client.purse import MEASURED, Purse, PurseConfig
from steward_client.session import Session, SessionConfig
from steward_server.budget.period import DAY_US, Period, date_text, period_of
from steward_server.clock import microseconds
from tests.books import Books
from tests.integration.budget.conftest import USD, Bank, lease_is, open_bank
from tests.integration.budget.test_budget_projects import warned
from tests.integration.client.conftest import price_table, until
from tests.live import Agent

pytestmark = pytest.mark.asyncio(loop_scope="module")

GRACE_S = 60


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bank(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bank]:
    """Of its own: its clock is turned by days. It begins at noon."""
    async with open_bank(tmp_path_factory.mktemp("bank")) as opened:
        turn_to_noon(opened)
        yield opened


def turn_to_noon(bank: Bank) -> None:
    """Of the next day, so that no test meets a midnight by chance."""
    bank.clock.now_us = end_us(bank) + DAY_US // 2


async def created(bank: Bank, path: str, **fields: Any) -> Any:
    admin = await bank.live.api.sign_in()  # the clock has outrun the last sign-in
    made = await admin.call("POST", path, fields)
    assert made.status == 201, made
    return made.body


async def daily_agent(bank: Bank, budget_usd: float = 10, **fields: Any) -> Agent:
    wanted = {"name": "daily", "budget_usd": budget_usd, "budget_period": "day"} | fields
    agent_id = (await created(bank, "/api/v1/agents", **wanted))["id"]
    token = await created(bank, "/api/tokens", agent_id=agent_id)
    return Agent(agent_id, token["id"], token["token"])


def account_of(bank: Bank, name: str, period: Period = Period.DAY) -> str:
    """The account that something has now."""
    starts_at_us, _ = period_of(period, bank.clock())
    return f"{name}/{period}/{date_text(starts_at_us)}"


def end_us(bank: Bank, period: Period = Period.DAY) -> int:
    _, ends_at_us = period_of(period, bank.clock())
    assert ends_at_us is not None
    return ends_at_us


async def pass_midnight(bank: Bank, until_done: Any, period: Period = Period.DAY) -> Books:
    return await bank.pass_time((end_us(bank, period) - bank.clock()) / 1e6, until_done)


def money(books: Books, account: str) -> tuple[int, int, int]:
    """Spent, leased, overrun."""
    found = books.account(account)
    return found.spent_nanousd, found.leased_nanousd, found.overrun_nanousd


async def test_a_budget_begins_anew_at_midnight_and_the_day_before_stays_as_it_was(
    bank: Bank,
) -> None:
    agent = await daily_agent(bank, 10)
    yesterday = account_of(bank, agent.agent_id)
    lease = (await bank.handshake(agent, 10 * USD)).lease_id
    await bank.report(agent, lease, cost_nanousd=6 * USD)

    drained = await pass_midnight(bank, lease_is(lease, "draining"))
    late = await bank.report(agent, lease, cost_nanousd=USD)
    today = account_of(bank, agent.agent_id)
    anew = await bank.handshake(agent, 10 * USD)
    ended = await bank.pass_time(GRACE_S, lease_is(lease, "expired"))

    assert drained.lease(lease).ending == "expired"
    assert (late.overrun_nanousd, late.lease_status) == (0, 2)
    assert anew.budget_granted_nanousd == 10 * USD
    assert money(ended, yesterday) == (7 * USD, 0, 0)
    assert money(ended, today) == (0, 10 * USD, 0)

    settled = ended.account(yesterday)
    await bank.report(agent, lease, cost_nanousd=2 * USD, request_id="very late")
    books = bank.sound_books()
    assert books.account(yesterday) == settled._replace(overrun_nanousd=2 * USD)
    assert money(books, today) == (0, 10 * USD, 0)
    adjusted = [row for row in books.of_kind("usage") if row.body.get("adjusts")]
    assert [row.body["cost"] for row in adjusted if row.subject == lease] == [USD, 2 * USD]


async def test_the_server_itself_opens_the_next_day(bank: Bank) -> None:
    agent = await daily_agent(bank)
    assert bank.books().account(account_of(bank, agent.agent_id)).ends_at_us == end_us(bank)
    tomorrow = f"{agent.agent_id}/day/{date_text(end_us(bank))}"
    books = await pass_midnight(bank, lambda books: tomorrow in books.accounts)
    assert money(books, tomorrow) == (0, 0, 0)


async def test_no_lease_outlives_its_day_whatever_keeps_it_alive(bank: Bank) -> None:
    agent = await daily_agent(bank)
    bank.clock.advance((end_us(bank) - bank.clock()) / 1e6 - 100)
    granted = await bank.handshake(agent, USD)
    refreshed = await bank.refresh(agent, granted.lease_id, USD)
    await bank.report(agent, granted.lease_id)
    assert microseconds(granted.expires_at) == microseconds(refreshed.expires_at) == end_us(bank)
    assert granted.lease_duration_ms == 100_000
    assert bank.sound_books().lease(granted.lease_id).expires_at_us == end_us(bank)


async def test_warnings_are_given_again_in_each_period(bank: Bank) -> None:
    agent = await daily_agent(bank, 10)
    scope = f"agent:{agent.agent_id}"
    for expected in ([50], [50, 50]):
        lease = (await bank.handshake(agent, 10 * USD)).lease_id
        await bank.report(agent, lease, cost_nanousd=5 * USD)
        assert warned(bank.books(), scope) == expected
        await pass_midnight(bank, lease_is(lease, "draining"))


async def test_an_agent_for_ever_spends_from_a_project_by_the_month(bank: Bank) -> None:
    project = await created(bank, "/api/v1/projects", name="monthly", budget_usd=5, period="month")
    agent = await daily_agent(bank, 100, budget_period="none", project_id=project["id"])
    first = account_of(bank, project["id"], Period.MONTH)
    lease = (await bank.handshake(agent, 50 * USD)).lease_id
    await bank.report(agent, lease, cost_nanousd=5 * USD)
    assert (await bank.refresh(agent, lease)).reason == "insufficient_budget"

    await pass_midnight(bank, lease_is(lease, "draining"), Period.MONTH)
    second = account_of(bank, project["id"], Period.MONTH)
    anew = await bank.handshake(agent, 50 * USD)
    assert anew.budget_granted_nanousd == 5 * USD
    assert microseconds(anew.expires_at) == bank.clock() + 900 * 10**6
    books = bank.sound_books()
    assert (money(books, first), money(books, second)) == ((5 * USD, 0, 0), (0, 5 * USD, 0))
    assert money(books, agent.agent_id) == (5 * USD, 5 * USD, 0)


async def test_a_midnight_while_the_server_is_down_counts(tmp_path: Path) -> None:
    async with open_bank(tmp_path) as bank:
        turn_to_noon(bank)
        agent = await daily_agent(bank, 10)
        yesterday = account_of(bank, agent.agent_id)
        lease = (await bank.handshake(agent, 10 * USD)).lease_id
        await bank.report(agent, lease, cost_nanousd=9 * USD)
        stopped_at_us = bank.clock()
        wait_s = (end_us(bank) - stopped_at_us) / 1e6
    async with open_bank(tmp_path) as bank:
        bank.clock.now_us = stopped_at_us + round(wait_s * 1e6) + 5
        late = await bank.report(agent, lease, cost_nanousd=USD // 2)
        anew = await bank.handshake(agent, 10 * USD)
        await bank.wait(lease_is(lease, "draining"))
        ended = await bank.pass_time(GRACE_S, lease_is(lease, "expired"))
        assert late.overrun_nanousd == 0
        assert anew.budget_granted_nanousd == 10 * USD
        assert money(ended, yesterday) == (19 * USD // 2, 0, 0)
        bank.sound_books()


async def test_a_clock_set_back_does_not_bring_the_day_before_back(bank: Bank) -> None:
    agent = await daily_agent(bank, 10)
    lease = (await bank.handshake(agent, 10 * USD)).lease_id
    await bank.report(agent, lease, cost_nanousd=10 * USD)
    await pass_midnight(bank, lease_is(lease, "draining"))
    today = account_of(bank, agent.agent_id)
    await bank.handshake(agent, USD)
    bank.clock.advance(-2)
    assert (await bank.handshake(agent, USD)).budget_granted_nanousd == USD
    assert money(bank.sound_books(), today) == (0, 2 * USD, 0)
    bank.clock.advance(2)


async def test_another_period_begins_anew_and_what_was_lent_drains(bank: Bank) -> None:
    agent = await daily_agent(bank, 10, budget_period="none")
    lease = (await bank.handshake(agent, 10 * USD)).lease_id
    await bank.report(agent, lease, cost_nanousd=8 * USD)
    admin = await bank.live.api.sign_in()
    path = f"/api/v1/agents/{agent.agent_id}"
    changed = await admin.call("PATCH", path, {"budget_period": "week", "budget_usd": 3})
    assert changed.body["budget"]["period"] == "week"
    assert (changed.body["budget"]["spent_usd"], changed.body["budget"]["limit_usd"]) == (0, 3)
    anew = await bank.handshake(agent, 10 * USD)
    assert anew.budget_granted_nanousd == 3 * USD
    assert bank.books().lease(lease).state == "draining"
    await bank.pass_time(GRACE_S, lease_is(lease, "expired"))
    assert money(bank.sound_books(), agent.agent_id) == (8 * USD, 0, 0)
    too_low = await admin.call("PATCH", path, {"budget_period": "none", "budget_usd": 7.99})
    assert (too_low.status, too_low.body["error"]["reason"]) == (409, "BUDGET_BELOW_COMMITTED")
    assert money(bank.sound_books(), account_of(bank, agent.agent_id, Period.WEEK))[1] == 3 * USD
    back = await admin.call("PATCH", path, {"budget_period": "none", "budget_usd": 9})
    assert (back.status, back.body["budget"]["spent_usd"]) == (200, 8)
    assert back.body["budget"]["available_usd"] == 1
    bank.sound_books()


async def test_a_deleted_agents_days_are_over(bank: Bank) -> None:
    agent = await daily_agent(bank)
    other = await daily_agent(bank)
    admin = await bank.live.api.sign_in()
    await admin.call("DELETE", f"/api/v1/agents/{agent.agent_id}")
    tomorrow = date_text(end_us(bank))
    books = await pass_midnight(
        bank, lambda books: f"{other.agent_id}/day/{tomorrow}" in books.accounts
    )
    assert f"{agent.agent_id}/day/{tomorrow}" not in books.accounts


async def test_a_runtime_goes_on_with_a_lease_of_the_new_day(tmp_path: Path) -> None:
    async with open_bank(tmp_path) as bank:
        turn_to_noon(bank)
        agent = await daily_agent(bank, 1)
        yesterday = account_of(bank, agent.agent_id)
        purse = Purse(PurseConfig(budget_nanousd=100 * USD, tranche_nanousd=USD))
        outbox = Outbox.open(tmp_path / "outbox.sqlite")
        outbox.start()
        keys: list[LentKey] = []
        stops: list[str] = []
        session = Session(
            bank.live.channel,
            ic_token=agent.ic_token,
            purse=purse,
            config=SessionConfig("runtime_1", "1", backoff_s=0.01, heartbeat_s=0.2),
            outbox_of=lambda _: outbox,
            on_lease=lambda key, _: keys.append(key),
            on_stop=stops.append,
        )
        purse.attach(session)
        await session.open()
        try:
            await spend(purse, 700_000_000)
            first = purse.wallet.lease_id
            await pass_midnight(bank, lease_is(first, "draining"))
            await until(lambda: purse.wallet.lease_id != first)
            await spend(purse, 900_000_000)
            today = account_of(bank, agent.agent_id)
            spent = await bank.wait(lambda books: books.account(today).spent_nanousd == 900_000_000)
        finally:
            await session.close(timeout_s=5)
        assert (len(keys), stops) == (2, [])
        assert money(spent, yesterday)[0] == 700_000_000
        assert money(bank.sound_books(), yesterday) == (700_000_000, 0, 0)


async def spend(purse: Purse, cost_nanousd: int) -> None:
    tariff = price_table().find("openai", "gpt-4o-mini")
    assert tariff is not None
    async with asyncio.timeout(30):
        hold = await purse.hold(CallBound("gpt-4o-mini", tariff, 10, 100, 10))
    purse.settle(hold, cost_nanousd=cost_nanousd, usage=TokenUsage(input=1), certainty=MEASURED)
