"""The house rules of JSON: names, presence, words, numbers, times, and what is refused."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from steward.agents.v1 import agents_pb2
from steward.auth.v1 import auth_pb2
from steward.budget.v1 import budget_pb2
from steward.events.v1 import events_pb2
from steward.tokens.v1 import tokens_pb2
from steward_gateway.codec import BadJson, Codecs, FieldErrors, Style

CODECS = Codecs(Style.HOUSE)


def shown(message: Any) -> Any:
    return orjson.loads(CODECS.of(message.DESCRIPTOR).to_json(message))


def read(message: Any, text: str) -> Any:
    return CODECS.of(message.DESCRIPTOR).from_json(text)


def faults(message: Any, text: str) -> dict[str, str]:
    with pytest.raises(FieldErrors) as errors:
        read(message, text)
    return errors.value.fields


def test_every_field_is_present_even_when_empty() -> None:
    assert shown(agents_pb2.GetAgentStatusResponse()) == {
        "agent_id": "",
        "name": "",
        "status": None,
        "desired_state": None,
        "budget": None,
        "last_seen_at": None,
        "started_at": None,
        "stopped_at": None,
        "exit_code": None,
        "open_leases": 0,
        "commit_number": 0,
    }


def test_a_field_that_may_be_left_out_is_when_empty() -> None:
    assert "token" not in shown(tokens_pb2.IcToken())
    assert shown(tokens_pb2.IcToken(token="ic_x"))["token"] == "ic_x"


def test_members_of_a_oneof_are_left_out_unless_set() -> None:
    assert set(shown(events_pb2.Event())) == {"event_id", "sequence", "timestamp", "agent_id"}
    heartbeat = events_pb2.Event(heartbeat=events_pb2.Heartbeat())
    assert shown(heartbeat)["heartbeat"] == {}


def test_enums_are_words_and_their_unspecified_value_is_null() -> None:
    agent = agents_pb2.Agent(
        status=agents_pb2.AGENT_STATUS_RUNNING, desired_state=agents_pb2.DESIRED_STATE_STOPPED
    )
    assert (shown(agent)["status"], shown(agent)["desired_state"]) == ("running", "stopped")
    assert shown(agents_pb2.Agent())["status"] is None


def test_a_number_of_an_enum_that_has_no_word_is_shown_as_a_number() -> None:
    message = agents_pb2.Agent.FromString(b"\x28\x63")  # field 5, the number 99
    assert shown(message)["status"] == 99


def test_integers_of_64_bits_are_numbers() -> None:
    assert shown(budget_pb2.ReportAck(sequence=2**63 - 1))["sequence"] == 2**63 - 1


@pytest.mark.parametrize(
    ("nanos", "text"),
    [
        (0, "2026-11-21T09:30:00Z"),
        (5_000_000, "2026-11-21T09:30:00.005Z"),
        (5_000, "2026-11-21T09:30:00.000005Z"),
        (5, "2026-11-21T09:30:00.000000005Z"),
    ],
)
def test_times_are_utc_with_as_many_decimals_as_they_need(nanos: int, text: str) -> None:
    answer = auth_pb2.LoginResponse()
    answer.expires_at.FromJsonString("2026-11-21T09:30:00Z")
    answer.expires_at.nanos = nanos
    assert shown(answer)["expires_at"] == text


def test_what_is_not_a_number_in_json_is_null() -> None:
    assert shown(agents_pb2.BudgetStatus(percent_used=float("nan")))["percent_used"] is None


def test_money_is_in_dollars_under_a_name_of_its_own() -> None:
    status = agents_pb2.BudgetStatus(limit_nanousd=50_000_000_000, spent_nanousd=1)
    printed = CODECS.of(status.DESCRIPTOR).to_json(status)
    assert b'"limit_usd":50,"spent_usd":0.000000001,' in printed
    assert b"nanousd" not in printed


def test_the_name_in_nano_dollars_is_no_name_in_json() -> None:
    assert faults(budget_pb2.ReportRequest(), '{"cost_nanousd":1}') == {
        "cost_nanousd": "unknown field"
    }


def test_camel_case_is_no_name_either() -> None:
    assert faults(budget_pb2.ReportRequest(), '{"leaseId":"x"}') == {"leaseId": "unknown field"}


def test_null_leaves_a_field_alone() -> None:
    request = read(budget_pb2.ReportRequest(), '{"lease_id":null,"cost_usd":null,"certainty":null}')
    assert request == budget_pb2.ReportRequest()
    assert not request.HasField("cost_nanousd")


def test_zero_is_not_null() -> None:
    assert read(budget_pb2.ReportRequest(), '{"cost_usd":0}').HasField("cost_nanousd")


@pytest.mark.parametrize("text", ["5", '"5"', "5.0", "5e0"])
def test_an_integer_may_be_written_in_several_ways(text: str) -> None:
    assert read(budget_pb2.ReportRequest(), f'{{"sequence":{text}}}').sequence == 5


@pytest.mark.parametrize(
    "text", ["5.5", "true", '"x"', '"5.0"', "[]", "9223372036854775808", "1e18", '" 5"', '"\u0665"']
)
def test_what_is_no_integer_is_refused(text: str) -> None:
    assert faults(budget_pb2.ReportRequest(), f'{{"sequence":{text}}}') == {
        "sequence": "must be an integer from -9223372036854775808 to 9223372036854775807"
    }


def test_text_is_no_integer_of_32_bits() -> None:
    assert "limit" in faults(tokens_pb2.ListTokensRequest(), '{"limit":"5"}')


@pytest.mark.parametrize("text", ['"CERTAINTY_MEASURED"', '"Measured"', "1", '"unspecified"'])
def test_only_the_word_of_an_enum_is_read(text: str) -> None:
    assert faults(budget_pb2.ReportRequest(), f'{{"certainty":{text}}}') == {
        "certainty": "must be one of: measured, counted, assumed"
    }


def test_every_fault_is_told_with_its_path() -> None:
    text = """{"lease_id": 1, "usages": [{"model": "m"}, {"cost_usd": "x", "tokens": 1.5, "y": 0},
               null, "z"], "timestamp": 0}"""
    assert faults(budget_pb2.ReportBatch(), text) == {
        "lease_id": "must be text",
        "usages[1].cost_usd": "must be an amount in dollars, such as 1.25",
        "usages[1].tokens": "must be an integer from -9223372036854775808 to 9223372036854775807",
        "usages[1].y": "unknown field",
        "usages[2]": "must not be null",
        "usages[3]": "must be an object",
        "timestamp": "unknown field",
    }


def test_two_members_of_a_oneof_are_refused() -> None:
    text = '{"Subscribe":{},"agent_started":{}}'
    assert faults(events_pb2.ExchangeRequest(), text) == {
        "agent_started": "cannot be given beside Subscribe"
    }


@pytest.mark.parametrize("text", ["[]", "1", '"x"', "null", "true"])
def test_what_is_no_object_is_refused(text: str) -> None:
    assert faults(budget_pb2.ReportRequest(), text) == {"": "must be an object"}


@pytest.mark.parametrize("text", ['{"percent_used":NaN}', '{"percent_used":1e999}'])
def test_infinities_are_refused(text: str) -> None:
    with pytest.raises(BadJson):
        read(agents_pb2.BudgetStatus(), text)


def test_exact_reading_takes_nothing_from_other_fields() -> None:
    text = '{"model":"0.12345678901234567890","timestamp":"2026-01-01T00:00:00Z","cost_usd":1.1}'
    request = read(budget_pb2.ReportRequest(), text)
    assert (request.model, request.cost_nanousd) == ("0.12345678901234567890", 1_100_000_000)
    assert request.timestamp.seconds == 1_767_225_600


@pytest.mark.parametrize("text", ['"2026-11-21"', '"now"', "1767225600", '"2026-11-21T09:30:00"'])
def test_what_is_no_time_is_refused(text: str) -> None:
    assert (
        "must be a time such as"
        in faults(budget_pb2.ReportRequest(), f'{{"timestamp":{text}}}')["timestamp"]
    )
