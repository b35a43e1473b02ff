"""Alerts on their way to a real receiver: signed, in order, again and again, and not twice."""

from __future__ import annotations

import asyncio
import base64
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from steward.events.v1 import events_pb2
from steward_server.alerts.config import AlertsConfig
from steward_server.settings import Settings
from tests.integration.alerts.receiver import (
    WAIT_S,
    Receiver,
    deliveries,
    lend,
    receiving,
    spend,
    try_out,
    until_done,
    verify,
    webhook,
)
from tests.integration.budget.runtime import session
from tests.live import Live, create_agent, create_provider, live_server, live_settings

CONFIG = AlertsConfig(
    allow_private=True, timeout_s=0.3, backoff_s=0.05, backoff_limit_s=0.2, max_attempts=5
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("alerts") / "data"


@asynccontextmanager
async def serving(data_dir: Path, config: AlertsConfig = CONFIG) -> AsyncIterator[Live]:
    async with live_server(live_settings(data_dir, Settings(alerts=config))) as live:
        yield live


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live(data_dir: Path) -> AsyncIterator[Live]:
    async with serving(data_dir) as live:
        await create_provider(live.admin)
        yield live


async def test_warnings_arrive_signed_and_in_order(live: Live, receiver: Receiver) -> None:
    agent = await create_agent(live.admin, budget_usd=1)
    async with webhook(live.admin, receiver) as made:
        lease_id = (await lend(live.api, agent)).body["lease_id"]
        await spend(live.api, agent, lease_id, 0.6, 0.3, 0.1, 0.5)
        await receiver.has(5)

        told = [(body["type"], body["data"].get("threshold_percent")) for body in receiver.bodies]
        assert told == [
            ("BudgetWarning", 50),
            ("BudgetWarning", 80),
            ("BudgetWarning", 95),
            ("BudgetExhausted", 100),
            ("Overrun", None),
        ]
        data = receiver.bodies[0]["data"]
        assert (data["agent_id"], data["spent_usd"], data["limit_usd"]) == (agent.agent_id, 0.6, 1)
        assert all(verify(made["secret"], *each) for each in receiver.received)
        headers, body = receiver.received[0]
        assert not verify(made["secret"], headers, body + b" ")
        assert headers["content-type"] == "application/json"
        sequences = [body["data"]["sequence"] for body in receiver.bodies]
        assert sequences == sorted(set(sequences))
        assert receiver.most_under_way == 1
        await until_done(live.admin, made, len(receiver.received))


async def test_money_that_is_refused_is_an_alert_once(live: Live, receiver: Receiver) -> None:
    agent = await create_agent(live.admin, budget_usd=1)
    async with webhook(live.admin, receiver, events=["BudgetExhausted"]):
        assert (await lend(live.api, agent)).status == 200
        assert [(await lend(live.api, agent)).status for _ in range(3)] == [402] * 3
        await receiver.has(1)
        await asyncio.sleep(0.1)
        (body,) = receiver.bodies
        assert body["type"] == "BudgetExhausted"
        assert body["data"]["agent_id"] == agent.agent_id
        assert body["data"]["reason"] == "BUDGET_EXCEEDED"


async def test_what_a_runtime_tells_is_an_alert_but_not_again_and_again(
    live: Live, receiver: Receiver
) -> None:
    agent = await create_agent(live.admin)
    email = events_pb2.PiiFinding(kind=events_pb2.PII_KIND_EMAIL, count=2)
    pii = events_pb2.PiiAlert(
        direction=events_pb2.PII_DIRECTION_INPUT,
        action=events_pb2.PII_ACTION_REDACT,
        findings=[email],
    )
    broken = events_pb2.CircuitOpened(provider="openai", failures=7, retry_after_ms=10_000)
    async with (
        webhook(live.admin, receiver, events=["PiiAlert", "CircuitOpen"]),
        session(live.channel, agent) as runtime,
    ):
        for _ in range(3):
            await runtime.ask(pii_alert=pii)
            await runtime.ask(circuit_opened=broken)
        await receiver.has(2)
        await asyncio.sleep(0.1)
        assert receiver.types == ["PiiAlert", "CircuitOpen"]
        assert receiver.bodies[0]["data"]["findings"] == [{"kind": "email", "count": 2}]
        assert receiver.bodies[1]["data"]["failures"] == 7


async def test_an_opened_circuit_is_seen_as_an_event_too(live: Live) -> None:
    agent = await create_agent(live.admin)
    told = events_pb2.CircuitOpened(provider="openai", failures=3, retry_after_ms=5_000)
    async with session(live.channel, agent) as runtime:
        sequence = (await runtime.ask(circuit_opened=told)).sequence
    url = live.api.base_url.replace("http", "ws")
    headers = live.admin.headers
    async with live.api.session.ws_connect(
        f"{url}/ws?type=CircuitOpened&since={sequence - 1}", headers=headers
    ) as socket:
        event = await asyncio.wait_for(socket.receive_json(), WAIT_S)
    assert event["type"] == "CircuitOpened"
    assert event["agent_id"] == agent.agent_id
    assert event["data"] == {"provider": "openai", "failures": 3, "retry_after_ms": 5_000}


async def test_a_failing_receiver_is_tried_again_with_the_same_id(
    live: Live, receiver: Receiver
) -> None:
    receiver.answers = [500, 0, 302]
    async with webhook(live.admin, receiver) as made:
        assert (await try_out(live.admin, made)).status == 202
        await receiver.has(4)
        await until_done(live.admin, made, 1)

        assert len({headers["webhook-id"] for headers, _ in receiver.received}) == 1
        assert len({body for _, body in receiver.received}) == 1
        assert all(verify(made["secret"], *each) for each in receiver.received)
        (delivery,) = await deliveries(live.admin, made)
        assert (delivery["attempts"], delivery["last_status_code"]) == (4, 200)
        assert delivery["event_type"] == "Test"


async def test_a_delivery_is_given_up_after_so_many_attempts_and_says_why(
    live: Live, receiver: Receiver
) -> None:
    receiver.answers = [503] * 5
    async with webhook(live.admin, receiver) as made:
        await try_out(live.admin, made)
        await try_out(live.admin, made)
        await receiver.has(6)
        async with asyncio.timeout(WAIT_S):
            while (found := await deliveries(live.admin, made))[0]["status"] != "delivered":
                await asyncio.sleep(0.01)
        assert [each["status"] for each in found] == ["delivered", "dead"]
        assert found[1]["last_error"] == (
            "given up after 5 attempts; the last: the receiver answered 503"
        )
        assert found[1]["next_attempt_at"] is None
        # In order: the second was not sent before the first was over.
        ids = [headers["webhook-id"] for headers, _ in receiver.received]
        assert ids == [found[1]["id"]] * 5 + [found[0]["id"]]


async def test_a_receiver_that_is_gone_disables_its_webhook(live: Live, receiver: Receiver) -> None:
    receiver.answers = [410]
    async with webhook(live.admin, receiver) as made:
        await try_out(live.admin, made)
        await receiver.has(1)
        path = f"/api/v1/webhooks/{made['id']}"
        async with asyncio.timeout(WAIT_S):
            while (shown := (await live.admin.call("GET", path)).body)["enabled"]:
                await asyncio.sleep(0.01)
        assert shown["disabled_reason"] == "gone"
        refused = await try_out(live.admin, made)
        assert (refused.status, refused.body["error"]["reason"]) == (409, "WEBHOOK_DISABLED")
        enabled = await live.admin.call("PATCH", path, {"enabled": True})
        assert (enabled.body["enabled"], enabled.body["disabled_reason"]) == (True, "")
        await try_out(live.admin, made)
        await receiver.has(2)


async def test_a_receiver_that_cannot_be_reached_is_told_apart(live: Live) -> None:
    nobody = Receiver(url="http://127.0.0.1:9")
    async with webhook(live.admin, nobody) as made:
        await try_out(live.admin, made)
        async with asyncio.timeout(WAIT_S):
            while not (found := await deliveries(live.admin, made))[0]["attempts"]:
                await asyncio.sleep(0.01)
        assert "cannot be reached" in found[0]["last_error"]


async def test_a_webhook_is_shown_changed_and_deleted(live: Live, receiver: Receiver) -> None:
    async with webhook(live.admin, receiver, events=["Overrun"], description="ops") as made:
        path = f"/api/v1/webhooks/{made['id']}"
        shown = (await live.admin.call("GET", path)).body
        listed = (await live.admin.call("GET", "/api/v1/webhooks")).body["webhooks"]
        changes = {"events": {"types": ["PiiAlert"]}, "description": "", "url": receiver.url + "/x"}
        changed = (await live.admin.call("PATCH", path, changes)).body
        nothing = await live.admin.call("PATCH", path, {})

        assert made["secret"].startswith("whsec_")
        assert "secret" not in shown
        assert shown == {name: value for name, value in made.items() if name != "secret"}
        assert listed == [shown]
        assert (changed["events"], changed["description"]) == (["PiiAlert"], "")
        assert changed["url"].endswith("/x")
        assert nothing.status == 400
    for method, below in (("GET", ""), ("DELETE", ""), ("GET", "/deliveries"), ("POST", "/test")):
        body: dict[str, str] | None = {} if method == "POST" else None
        answer = await live.admin.call(method, path + below, body)
        assert answer.status == 404
        assert answer.body["error"]["reason"] == "WEBHOOK_NOT_FOUND"


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"url"}),
        ({"url": "ftp://x"}, {"url"}),
        (
            {"url": "", "events": ["Nothing"], "secret": "whsec_short", "description": "x" * 201},
            {"url", "events", "secret", "description"},
        ),
    ],
)
async def test_a_webhook_that_cannot_be_meant_is_refused(
    live: Live, body: dict[str, Any], fields: set[str]
) -> None:
    answer = await live.admin.call("POST", "/api/v1/webhooks", body)
    assert answer.status == 400
    assert set(answer.body["error"]["fields"]) == fields


async def test_a_rotated_secret_and_the_one_before_both_sign(
    live: Live, receiver: Receiver
) -> None:
    given = "whsec_" + base64.b64encode(b"k" * 32).decode()
    async with webhook(live.admin, receiver, secret=given) as made:
        path = f"/api/v1/webhooks/{made['id']}/rotate"
        rotated = (await live.admin.call("POST", path, {})).body
        await try_out(live.admin, made)
        await receiver.has(1)
        assert made["secret"] == given
        assert rotated["secret"] != given
        assert verify(given, *receiver.received[0])
        assert verify(rotated["secret"], *receiver.received[0])


async def test_no_secret_stands_in_the_database_or_the_audit_log(
    live: Live, receiver: Receiver, data_dir: Path
) -> None:
    async with webhook(live.admin, receiver) as made:
        rotated = (await live.admin.call("POST", f"/api/v1/webhooks/{made['id']}/rotate", {})).body
        await try_out(live.admin, made)
        await receiver.has(1)
        stored = b"".join(
            path.read_bytes() for path in data_dir.iterdir() if path.name.startswith("steward.db")
        )
        for secret in (made["secret"], rotated["secret"]):
            text = secret.removeprefix("whsec_")
            assert text.encode() not in stored
            assert base64.b64decode(text) not in stored
        with closing(sqlite3.connect(data_dir / "steward.db", timeout=10)) as connection:
            actions = connection.execute(
                "SELECT action FROM audit_entry WHERE resource_id = ? ORDER BY number",
                (made["id"],),
            ).fetchall()
        assert actions == [("webhook.created",), ("webhook.rotated",), ("webhook.tested",)]


async def test_what_is_queued_survives_a_restart_and_is_sent_once(
    tmp_path: Path, receiver: Receiver
) -> None:
    receiver.answers = [503] * 100
    slow = AlertsConfig(allow_private=True, backoff_s=30.0, backoff_limit_s=30.0)
    async with serving(tmp_path / "data", slow) as live:
        await create_provider(live.admin)
        agent = await create_agent(live.admin, budget_usd=1)
        answer = await live.admin.call("POST", "/api/v1/webhooks", {"url": receiver.url})
        lease_id = (await lend(live.api, agent)).body["lease_id"]
        await spend(live.api, agent, lease_id, 0.6)
        await receiver.has(1)
        # While the server is told of this, it ends.
        await spend(live.api, agent, lease_id, 0.3)
    with closing(sqlite3.connect(tmp_path / "data" / "steward.db")) as connection, connection:
        connection.execute("UPDATE webhook_delivery SET next_attempt_at_us = 0")
    receiver.answers.clear()
    async with serving(tmp_path / "data", slow) as live:
        await receiver.has(3)
        await asyncio.sleep(0.2)
        percents = [body["data"]["threshold_percent"] for body in receiver.bodies]
        assert percents == [50, 50, 80]
        assert all(verify(answer.body["secret"], *each) for each in receiver.received)
        ids = [headers["webhook-id"] for headers, _ in receiver.received]
        assert ids[0] == ids[1] != ids[2]


async def test_private_addresses_are_refused_unless_allowed(tmp_path: Path) -> None:
    async with serving(tmp_path / "data", AlertsConfig(timeout_s=0.3, backoff_s=0.05)) as live:
        for url in (
            "http://example.com/",
            "https://127.0.0.1/",
            "https://169.254.169.254/latest/meta-data/",
            "https://[::ffff:10.0.0.1]/",
            "https://localhost:8443/",
            "https://2130706433/",
        ):
            answer = await live.admin.call("POST", "/api/v1/webhooks", {"url": url})
            assert answer.status == 400, url
            assert set(answer.body["error"]["fields"]) == {"url"}

        # One that was allowed when it was made is not called now.
        body = {"url": "https://hooks.invalid/"}
        made = (await live.admin.call("POST", "/api/v1/webhooks", body)).body
        with closing(sqlite3.connect(tmp_path / "data" / "steward.db", timeout=10)) as one, one:
            one.execute("UPDATE webhook SET url = 'https://localhost:9/'")
        await try_out(live.admin, made)
        async with asyncio.timeout(WAIT_S):
            while not (found := await deliveries(live.admin, made))[0]["attempts"]:
                await asyncio.sleep(0.01)
        assert "private network" in found[0]["last_error"]


async def test_outcomes_are_counted(live: Live, receiver: Receiver) -> None:
    async with webhook(live.admin, receiver) as made:
        await try_out(live.admin, made)
        await receiver.has(1)
        await until_done(live.admin, made, 1)
    metrics = (await live.api.call("GET", "/metrics")).body
    assert 'webhook_deliveries_total{outcome="delivered"}' in metrics
    assert receiver.url not in metrics
