"""What the two clients ask and are told; every test runs on both."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from steward_client import AsyncClient
from steward_client.client.values import (
    Agent,
    AgentReport,
    ApiKey,
    BudgetHistory,
    BudgetPath,
    BudgetRequest,
    BudgetTree,
    Credential,
    EnvironmentPermission,
    Organisation,
    Project,
    Token,
)
from steward_client.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    RateLimited,
    Unauthorized,
)
from steward_server.rates import RatesConfig
from tests.integration.sdk.conftest import Call
from tests.live import ADMIN_PASSWORD, Live, live_server, live_settings

KEY = "sk-live-canary-0123456789abcdef"


async def test_an_agent_is_created_listed_changed_and_deleted(call: Call) -> None:
    made: Agent = await call("agents.create", "scout", budget_usd="2.000000001")
    seen: Agent = await call("agents.get", made.id)
    changed = await call("agents.update", made.id, name="ranger", budget_usd=3)
    listed = await call("agents.list")
    await call("agents.delete", made.id)

    assert seen == made
    assert made.budget.limit_usd == Decimal("2.000000001")
    assert (made.status, made.budget.state, made.last_seen_at) == ("idle", "active", None)
    assert made.created_at is not None
    assert made.created_at.utcoffset() == timedelta(0)
    assert (changed.name, changed.budget.limit_usd) == ("ranger", 3)
    assert listed == (changed,)
    with pytest.raises(NotFound) as gone:
        await call("agents.get", made.id)
    assert gone.value.reason == "AGENT_NOT_FOUND"
    assert gone.value.facts == {"agent": made.id}


async def test_a_creation_repeated_by_its_id_gives_the_same_agent(call: Call) -> None:
    first = await call("agents.create", "scout", budget_usd=1, request_id="once")
    again = await call("agents.create", "scout", budget_usd=1, request_id="once")

    assert again.id == first.id
    assert len(await call("agents.list")) == 1


async def test_a_budget_is_asked_for_decided_about_and_looked_back_on(call: Call) -> None:
    why = "The crawl has grown to twice its size."
    agent = await call("agents.create", "scout", budget_usd=5)
    made: BudgetRequest = await call(
        "budget_requests.create", agent.id, "8.000000001", why, expires_in_s=60
    )
    others = [await call("budget_requests.create", agent.id, 8, why) for _ in range(2)]
    seen = await call("budget_requests.get", made.id)
    approved = await call("budget_requests.approve", made.id, budget_usd=7, notes="go on")
    rejected = await call("budget_requests.reject", others[0].id, "There is none left to give.")
    await call("budget_requests.cancel", others[1].id)
    listed = await call("budget_requests.list", agent_id=agent.id)
    history: BudgetHistory = await call("budget_requests.history", agent.id)

    assert seen == made
    assert (made.status, made.reviewer_id, made.approved_budget_usd) == ("pending", None, None)
    assert made.requested_budget_usd == Decimal("8.000000001")
    assert made.agent_budget is not None
    assert made.agent_budget.limit_usd == 5
    assert (approved.previous_budget_usd, approved.approved_budget_usd) == (5, 7)
    assert approved.expires_at - approved.reviewed_at == timedelta(seconds=60)
    assert approved.review_notes == "go on"
    assert rejected.rejection_reason == "There is none left to give."
    assert sorted(each.status for each in listed) == ["approved", "cancelled", "rejected"]
    (change,) = history.changes
    assert (change.cause, change.budget_request_id) == ("raised", made.id)
    assert change.change_usd == 2
    assert history.summary.current_budget_usd == 7
    assert history.summary.temporary_usd == 2
    pending = await call("budget_requests.list", status="pending", requester_id=made.requester_id)
    assert pending == ()
    with pytest.raises(Conflict) as decided:
        await call("budget_requests.approve", made.id)
    assert decided.value.reason == "REQUEST_ALREADY_REVIEWED"
    assert decided.value.facts["status"] == "approved"


async def test_an_agent_stops_and_starts(call: Call) -> None:
    agent = await call("agents.create", "scout", budget_usd=1)

    assert await call("agents.stop", agent.id, reason="enough") == "stopping"
    stopped: AgentReport = await call("agents.status", agent.id)
    assert stopped.desired_state == "stopped"
    assert await call("agents.start", agent.id) == "idle"
    started = await call("agents.status", agent.id)
    assert started.desired_state == "running"
    assert (started.exit_code, started.open_leases) == (None, 0)
    assert started.budget == await call("budget.status", agent.id)


async def test_a_project_is_created_shared_changed_and_deleted(call: Call) -> None:
    made: Project = await call("projects.create", "shared", budget_usd=5, period="week")
    agent = await call(
        "agents.create", "scout", budget_usd=9, project_id=made.id, budget_period="month"
    )
    path: BudgetPath = await call("budget.path", agent.id)
    tree: BudgetTree = await call("projects.budget", made.id)
    changed = await call("projects.update", made.id, unlimited=True, mode="informative")

    assert made.budget.scope == f"project:{made.id}"
    assert made.budget.limit_usd == 5
    assert (made.budget.mode, made.budget.period) == ("restrictive", "week")
    assert made.budget.period_start is not None
    assert made.budget.period_end == made.budget.period_start + timedelta(days=7)
    assert (agent.project_id, agent.budget.period, agent.budget.available_usd) == (
        made.id,
        "month",
        5,
    )
    assert [each.name for each in path.path] == ["scout", "shared", "default"]
    assert path.available_usd == 5
    assert [each.id for each in tree.children] == [agent.id]
    assert (changed.budget.limit_usd, changed.budget.available_usd) == (None, None)
    assert changed.budget.percent_used is None
    assert await call("projects.list") == (changed,)
    assert await call("agents.list", project_id=made.id) == (await call("agents.get", agent.id),)
    with pytest.raises(Conflict) as in_use:
        await call("projects.delete", made.id)
    assert in_use.value.reason == "PROJECT_HAS_AGENTS"
    moved = await call("agents.update", agent.id, project_id="", budget_period="none")
    await call("projects.delete", made.id)
    assert (moved.project_id, moved.budget.period, moved.budget.period_end) == ("", "none", None)
    with pytest.raises(NotFound):
        await call("projects.get", made.id)


async def test_the_organisation_is_read_and_changed(call: Call) -> None:
    before: Organisation = await call("organisation.get")
    changed = await call("organisation.update", name="acme", budget_usd="12.5", period="day")
    tree: BudgetTree = await call("organisation.budget")

    assert (before.id, before.name, before.budget.limit_usd) == ("default", "default", None)
    assert (changed.name, changed.budget.limit_usd) == ("acme", Decimal("12.5"))
    assert (tree.budget, tree.children) == (changed.budget, ())


async def test_a_token_shows_its_text_twice_and_ends_once(call: Call) -> None:
    agent = await call("agents.create", "scout", budget_usd=1)
    made: Token = await call("tokens.create", agent.id, name="ci", expires_in_days=30)
    rotated = await call("tokens.rotate", made.id)
    listed = await call("tokens.list", agent_id=agent.id, status="active")
    await call("tokens.revoke", made.id)

    assert made.token
    assert made.token not in repr(made)
    assert rotated.token not in ("", made.token)
    assert [each.token for each in listed] == [""]
    assert (await call("tokens.get", made.id)).status == "revoked"
    assert await call("tokens.list", status="active") == ()
    with pytest.raises(Conflict) as twice:
        await call("tokens.revoke", made.id)
    assert twice.value.reason == "TOKEN_REVOKED"


async def test_a_provider_keeps_its_key_to_itself(call: Call) -> None:
    made = await call(
        "providers.create", "local", api_key=KEY, kind="openai", base_url="http://127.0.0.1:9/v1"
    )
    listed = await call("providers.list")
    await call("providers.delete", made.id)

    assert KEY not in repr(listed)
    assert [(each.name, each.kind, each.usable) for each in listed] == [("local", "openai", True)]
    assert await call("providers.list") == ()


async def test_prices_are_dollars_a_million_tokens(call: Call) -> None:
    set_price = await call(
        "prices.set",
        "openai",
        "house-model",
        input_usd_per_million="0.15",
        output_usd_per_million="0.6",
        cache_read_usd_per_million="0.075",
    )
    listed = {each.model: each for each in await call("prices.list", provider="openai")}

    assert listed["house-model"] == set_price
    assert set_price.input_usd_per_million == Decimal("0.15")
    assert set_price.cache_read_usd_per_million == Decimal("0.075")
    assert set_price.cache_write_usd_per_million == Decimal("0.15")
    assert set_price.source == "administrator"
    assert listed["gpt-4o"].output_usd_per_million == 10
    with pytest.raises(ValueError, match="6 decimals"):
        await call(
            "prices.set",
            "openai",
            "finer",
            input_usd_per_million="0.0000001",
            output_usd_per_million=1,
        )


async def test_every_page_of_a_list_is_read(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steward_client.client.resources.PAGE_SIZE", 2)
    made = [await call("agents.create", f"agent {n}", budget_usd=1) for n in range(5)]
    for agent in made:
        await call("tokens.create", agent.id)

    agents = await call("agents.list")
    tokens = await call("tokens.list")

    assert [each.id for each in agents] == [each.id for each in reversed(made)]
    assert {each.agent_id for each in tokens} == {each.id for each in made}
    assert len(tokens) == 5


async def test_a_wrong_value_is_named(call: Call) -> None:
    with pytest.raises(InvalidRequest) as wrong:
        await call("agents.create", "", budget_usd=0)
    assert set(wrong.value.fields) == {"name", "budget_usd"}
    assert wrong.value.reason == "VALIDATION_ERROR"


@pytest.mark.parametrize("amount", ["-1", "0.0000000001", "nan", "much"])
async def test_what_is_no_amount_of_money_is_not_sent(call: Call, amount: str) -> None:
    with pytest.raises(ValueError, match=amount):
        await call("agents.create", "scout", budget_usd=amount)


async def test_a_wrong_password_is_refused_and_too_many_are_told_to_wait(call: Call) -> None:
    with pytest.raises(Unauthorized) as wrong:
        await call("login", "admin", "guess")
    assert wrong.value.reason == "INVALID_CREDENTIALS"

    refusals: list[Any] = []
    for _ in range(10):
        try:
            await call("login", "nobody", "guess")
        except Unauthorized:
            continue
        except RateLimited as error:
            refusals.append(error)
    assert refusals
    assert refusals[0].retry_after_s > 0


async def test_nothing_is_seen_after_a_logout(call: Call) -> None:
    assert await call("agents.list") == ()
    await call("logout")

    with pytest.raises(Unauthorized):
        await call("agents.list")
    assert (await call("health")).status == "healthy"


async def test_health_says_that_the_books_balance(call: Call) -> None:
    health = await call("health")

    assert health.ledger.balanced
    assert health.version
    assert health.ledger.overrun_usd == 0


async def test_a_credential_is_saved_listed_and_deleted(call: Call) -> None:
    fields = {"gateway_url": "http://localhost:8088", "description": "Local"}
    await call("credentials.save", "my-gateway", username="me", password=KEY)
    await call("credentials.save", "my-gateway", username="admin", password=KEY, **fields)
    shown = await call("credentials.list")
    await call("credentials.delete", "my-gateway")

    assert shown == (Credential("my-gateway", "admin", **fields),)
    assert await call("credentials.list") == ()
    with pytest.raises(NotFound) as refused:
        await call("credentials.delete", "my-gateway")
    assert refused.value.reason == "CREDENTIAL_NOT_FOUND"


async def test_a_key_is_created_listed_used_and_revoked(call: Call, live: Live) -> None:
    made: ApiKey = await call(
        "api_keys.create",
        description="CI",
        expires_in_days=1,
        role="readonly",
        permissions={"env-1": "write"},
        kind="itk",
    )
    async with AsyncClient(live.running.grpc_address, token=made.key) as program:
        assert await program.agents.list() == ()
        with pytest.raises(Forbidden) as refused:
            await program.agents.create("scout", budget_usd=1)
    (shown,) = await call("api_keys.list")
    await call("api_keys.revoke", made.id)

    assert made.key.startswith(f"{made.prefix}_")
    assert made.key not in repr(made)
    assert (made.kind, made.role, made.last_used_at) == ("itk", "readonly", None)
    assert made.permissions == (EnvironmentPermission("env-1", "write"),)
    assert made.expires_at is not None
    assert made.created_at is not None
    assert made.expires_at - made.created_at == timedelta(days=1)
    assert refused.value.reason == "ROLE_NOT_ALLOWED"
    assert (shown.id, shown.key) == (made.id, "")
    assert shown.last_used_at is not None
    with pytest.raises(NotFound):
        await call("api_keys.revoke", made.id)
    async with AsyncClient(live.running.grpc_address, token=made.key) as program:
        with pytest.raises(Unauthorized):
            await program.agents.list()


async def test_who_calls_too_often_is_told_when_to_come_back(tmp_path: Path) -> None:
    settings = live_settings(tmp_path / "data", rates=RatesConfig(default_per_minute=2))
    async with live_server(settings) as live, AsyncClient(live.running.grpc_address) as client:
        await client.login("admin", ADMIN_PASSWORD)
        for _ in range(2):
            await client.agents.list()
        with pytest.raises(RateLimited) as limited:
            await client.agents.list()

    assert limited.value.reason == "RATE_LIMITED"
    assert limited.value.facts == {"limit": "2"}
    assert limited.value.retry_after_s is not None
    assert 50 <= limited.value.retry_after_s <= 61
