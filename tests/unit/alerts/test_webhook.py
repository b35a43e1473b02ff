"""What follows from an answer, and what is an alert."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steward_server.alerts.alert import Alert, alert_of, payload, refusal_alert, wants
from steward_server.alerts.webhook import (
    DEAD,
    DELIVERED,
    PENDING,
    Delivery,
    Patience,
    Webhook,
    answered,
)

PATIENCE = Patience(max_attempts=4, backoff_us=1_000_000, backoff_limit_us=5_000_000)
NEW = Delivery("msg_1", "wh_1", 7, "Overrun", "t", b"{}", PENDING, 0, 10, 10, None, 0, "")


def after(delivery: Delivery, status_code: int, error: str = "", jitter: float = 0) -> Delivery:
    return answered(
        delivery,
        status_code=status_code,
        error=error,
        patience=PATIENCE,
        jitter=jitter,
        now_us=1_000,
    )


@pytest.mark.parametrize("status_code", [200, 201, 202, 204, 299])
def test_an_answer_in_the_two_hundreds_ends_a_delivery(status_code: int) -> None:
    done = after(NEW, status_code)
    assert (done.status, done.attempts, done.delivered_at_us) == (DELIVERED, 1, 1_000)


@pytest.mark.parametrize("status_code", [301, 302, 400, 401, 404, 429, 500, 503])
def test_any_other_answer_is_tried_again(status_code: int) -> None:
    again = after(NEW, status_code)
    assert (again.status, again.next_attempt_at_us) == (PENDING, 1_001_000)
    assert again.last_error == f"the receiver answered {status_code}"


def test_pauses_double_up_to_a_limit_and_then_it_is_given_up() -> None:
    delivery, pauses_us = NEW, []
    while delivery.status == PENDING:
        delivery = after(delivery, 0, "no answer within 1 s")
        pauses_us.append(delivery.next_attempt_at_us - 1_000)
    assert pauses_us[:3] == [1_000_000, 2_000_000, 4_000_000]
    assert (delivery.status, delivery.attempts) == (DEAD, 4)
    assert delivery.last_error == "given up after 4 attempts; the last: no answer within 1 s"


def test_gone_is_given_up_at_once() -> None:
    assert after(NEW, 410).status == DEAD


@given(st.integers(1, 100), st.floats(0, 1))
def test_a_pause_is_never_longer_than_its_limit_nor_nothing(attempts: int, jitter: float) -> None:
    assert 500_000 <= PATIENCE.pause_us(attempts, jitter) <= 5_000_000


def test_a_secret_that_was_replaced_signs_for_a_day() -> None:
    webhook = Webhook("wh", "u", (), "", True, "", b"old", None, None, 0, 0, 0)
    rotated = webhook.rotated(b"new", 1_000)
    day_us = 24 * 3600 * 1_000_000
    assert rotated.secrets_at(1_000) == [b"new", b"old"]
    assert rotated.secrets_at(1_000 + day_us) == [b"new"]
    assert "old" not in repr(rotated)


def test_a_webhook_without_types_is_sent_all_and_a_test_always() -> None:
    assert wants((), "Overrun")
    assert wants(("Overrun",), "Overrun")
    assert wants(("Overrun",), "Test")
    assert not wants(("Overrun",), "PiiAlert")


@pytest.mark.parametrize(
    ("kind", "body", "event_type", "data"),
    [
        (
            "budget.warning",
            {"threshold": 80, "spent": 800_000_000, "limit": 1_000_000_000},
            "BudgetWarning",
            {"scope": "agent:agent_1", "threshold_percent": 80, "spent_usd": 0.8, "limit_usd": 1},
        ),
        (
            "budget.warning",
            {"threshold": 100, "spent": 1, "limit": 1},
            "BudgetExhausted",
            {
                "scope": "agent:agent_1",
                "threshold_percent": 100,
                "spent_usd": 0.000000001,
                "limit_usd": 0.000000001,
            },
        ),
        (
            "budget.overrun",
            {"over": 5_000_000, "cost": 7_000_000},
            "Overrun",
            {"lease_id": "lease_1", "overrun_usd": 0.005, "cost_usd": 0.007},
        ),
        (
            "pii.detected",
            {"request_id": "r", "direction": "input", "action": "block", "findings": {"ssn": 2}},
            "PiiAlert",
            {
                "request_id": "r",
                "direction": "input",
                "action": "block",
                "findings": [{"kind": "ssn", "count": 2}],
            },
        ),
        (
            "circuit.opened",
            {"provider": "openai", "failures": 5, "retry_after_ms": 10_000},
            "CircuitOpen",
            {"provider": "openai", "failures": 5, "retry_after_ms": 10_000},
        ),
    ],
)
def test_an_entry_of_the_journal_becomes_an_alert(
    kind: str, body: dict[str, object], event_type: str, data: dict[str, object]
) -> None:
    alert = alert_of(kind, "agent_1", "lease_1", body)
    sent = orjson.loads(payload(alert.event_type, 1_000_001, alert.data))
    assert sent == {"type": event_type, "timestamp": "1970-01-01T00:00:01.000001Z", "data": data}


def test_what_differs_in_agent_threshold_or_kind_is_another_topic() -> None:
    def warning(agent_id: str, percent: int) -> Alert:
        body = {"threshold": percent, "spent": 1, "limit": 1}
        return alert_of("budget.warning", agent_id, agent_id, body)

    topics = {
        warning("a", 50).topic,
        warning("a", 80).topic,
        warning("b", 80).topic,
        refusal_alert("a", "BUDGET_EXCEEDED", {}).topic,
        refusal_alert("a", "LIMIT_COST_PER_MONTH", {}).topic,
    }
    assert len(topics) == 5
    assert warning("a", 80).topic == warning("a", 80).topic
    assert replace(NEW, attempts=1) != NEW
