"""How messages are read as values."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from steward.agents.v1 import agents_pb2
from steward.audit.v1 import audit_pb2
from steward.budget.v1 import prices_pb2
from steward.events.v1 import events_pb2
from steward_client.client.events import AgentStopped, CostUpdate, PiiAlert, PiiFinding, event_of
from steward_client.client.values import AgentReport, AuditEntry, Budget, Price, value_of

NANOUSD = st.integers(min_value=-(2**63), max_value=2**63 - 1)


@given(NANOUSD)
def test_money_is_exact(amount_nanousd: int) -> None:
    message = agents_pb2.BudgetStatus(spent_nanousd=amount_nanousd)

    assert value_of(Budget, message).spent_usd * 10**9 == amount_nanousd


@given(st.integers(min_value=0, max_value=10**12))
def test_prices_are_exact(rate_picousd: int) -> None:
    message = prices_pb2.Price(input_picousd=rate_picousd)

    assert value_of(Price, message).input_usd_per_million * 10**6 == rate_picousd


def test_what_is_absent_is_none_and_what_is_zero_is_zero() -> None:
    absent = value_of(AgentReport, agents_pb2.GetAgentStatusResponse())
    zero = value_of(AgentReport, agents_pb2.GetAgentStatusResponse(exit_code=0))

    assert (absent.exit_code, absent.last_seen_at) == (None, None)
    assert zero.exit_code == 0


def test_states_are_words_and_those_not_known_yet_are_numbers() -> None:
    stopping = agents_pb2.GetAgentStatusResponse(status=agents_pb2.AGENT_STATUS_STOPPING)
    newer = agents_pb2.GetAgentStatusResponse()
    newer.MergeFromString(b"\x18\x63")  # field 3, 99

    assert value_of(AgentReport, stopping).status == "stopping"
    assert str(value_of(AgentReport, newer).status) == "99"


def test_what_an_audit_entry_counts_is_whole() -> None:
    entry = audit_pb2.AuditEntry()
    entry.after.update({"budget_nanousd": 400_000, "share": 0.5, "scopes": ["budget", 3]})
    entry.at.FromDatetime(datetime(2026, 1, 2, tzinfo=UTC))

    after = value_of(AuditEntry, entry).after

    assert after == {"budget_nanousd": 400_000, "share": 0.5, "scopes": ["budget", 3]}
    assert after is not None
    assert type(after["budget_nanousd"]) is int


def test_an_event_has_its_kind_and_its_time() -> None:
    told = events_pb2.Event(
        sequence=7, cost_update=events_pb2.CostUpdate(cost_nanousd=1_500, model="m")
    )
    told.timestamp.FromDatetime(datetime(2026, 1, 2, tzinfo=UTC))
    event = event_of(told)

    assert event is not None
    assert (event.type, event.sequence) == ("CostUpdate", 7)
    assert event.timestamp == datetime(2026, 1, 2, tzinfo=UTC)
    assert isinstance(event.data, CostUpdate)
    assert event.data.cost_usd == Decimal("0.0000015")


def test_findings_and_exit_codes_are_read() -> None:
    finding = events_pb2.PiiFinding(kind=events_pb2.PII_KIND_EMAIL, count=2)
    alert = event_of(events_pb2.Event(pii_alert=events_pb2.PiiAlert(findings=[finding])))
    ended = event_of(events_pb2.Event(agent_stopped=events_pb2.AgentStopped(reason="lost")))

    assert alert is not None
    assert isinstance(alert.data, PiiAlert)
    assert alert.data.findings == (PiiFinding("email", 2),)
    assert ended is not None
    assert ended.data == AgentStopped("", None, "lost")


def test_a_heartbeat_is_no_event() -> None:
    assert event_of(events_pb2.Event(sequence=9, heartbeat=events_pb2.Heartbeat())) is None
