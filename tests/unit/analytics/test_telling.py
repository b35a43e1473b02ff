"""What an event may say."""

from __future__ import annotations

from typing import Any

import pytest

from steward_server.analytics.telling import (
    COMPLETED,
    FAILED,
    MAX_AGE_US,
    MAX_SKEW_US,
    MAX_TOKENS,
    Told,
    faults_of,
)

NOW_US = 1_900_000_000_000_000
KNOWN_SINCE_US = NOW_US - 2 * MAX_AGE_US
SOUND = Told("call-1", COMPLETED, NOW_US, "gpt-5", "openai", 1, 2, None, "", "", 0)


def faults(**changes: Any) -> dict[str, str]:
    told = SOUND._replace(**changes)
    return faults_of(told, known_since_us=KNOWN_SINCE_US, now_us=NOW_US)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"at_us": NOW_US + MAX_SKEW_US},
        {"at_us": NOW_US - MAX_AGE_US},
        {"input_tokens": MAX_TOKENS, "output_tokens": 0, "cost_nanousd": 0},
        {"event_type": FAILED, "error_code": "500", "error_message": "line\nline"},
        {"event_id": "x" * 100, "model": "m" * 100, "provider": "p" * 50},
    ],
)
def test_a_sound_event_has_no_faults(changes: dict[str, Any]) -> None:
    assert faults(**changes) == {}


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("event_id", "", "is missing"),
        ("event_id", "x" * 101, "has 101 characters; at most 100"),
        ("event_id", "a\nb", "cannot be printed"),
        ("model", "", "is missing"),
        ("provider", "", "is missing"),
        ("provider", "p" * 51, "at most 50"),
        ("event_type", "", "is missing; it must be one of llm_request_completed"),
        ("event_type", "llm_request_pondered", "is 'llm_request_pondered'"),
        ("input_tokens", -1, "is -1; it must be from 0"),
        ("output_tokens", MAX_TOKENS + 1, f"it must be from 0 to {MAX_TOKENS}"),
        ("duration_ms", -5, "is -5"),
        ("error_code", "500", "goes with llm_request_failed only"),
    ],
)
def test_a_fault_names_its_field_and_what_is_allowed(field: str, value: Any, says: str) -> None:
    found = faults(**{field: value})
    assert list(found) == [field]
    assert says in found[field]


@pytest.mark.parametrize("cost", [-1, 10**15 + 1])
def test_a_cost_out_of_range_is_told_in_dollars(cost: int) -> None:
    assert "from $0 to $1,000,000" in faults(cost_nanousd=cost)["cost_usd"]


@pytest.mark.parametrize(
    ("at_us", "says"),
    [
        (None, "is missing"),
        (NOW_US + MAX_SKEW_US + 1, "more than 5 minutes in the future"),
        (NOW_US - MAX_AGE_US - 1, "more than 400 days ago"),
    ],
)
def test_a_time_out_of_range_is_a_fault(at_us: int | None, says: str) -> None:
    assert says in faults(at_us=at_us)["timestamp"]


def test_no_call_was_made_before_its_agent_was_there() -> None:
    told = SOUND._replace(at_us=NOW_US - MAX_SKEW_US - 1)
    found = faults_of(told, known_since_us=NOW_US, now_us=NOW_US)
    assert found == {"timestamp": "is before the agent was created"}
    slow = SOUND._replace(at_us=NOW_US - MAX_SKEW_US)
    assert faults_of(slow, known_since_us=NOW_US, now_us=NOW_US) == {}


def test_all_faults_are_told_at_once() -> None:
    assert set(faults(event_id="", model="", input_tokens=-1, at_us=None)) == {
        "event_id",
        "model",
        "input_tokens",
        "timestamp",
    }


def test_a_digest_is_of_all_an_event_says() -> None:
    assert SOUND.digest == SOUND._replace().digest
    others: dict[str, Any] = {"input_tokens": 2, "cost_nanousd": 0, "at_us": NOW_US + 1}
    for field, value in others.items():
        assert SOUND._replace(**{field: value}).digest != SOUND.digest
