"""What is worth an alert, and what it says. Pure: journal entries in, JSON out."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson

from steward_client.money import usd

EVENT_TYPES = ("BudgetWarning", "BudgetExhausted", "Overrun", "PiiAlert", "CircuitOpen")
TEST = "Test"

KINDS = frozenset({"budget.warning", "budget.overrun", "pii.detected", "circuit.opened"})
"""The journal's kinds that may be alerts."""


class Alert(NamedTuple):
    """Something that should not go unnoticed."""

    event_type: str
    topic: str
    """The same for alerts that need not be sent twice in a short time."""
    data: dict[str, Any]


def alert_of(kind: str, agent_id: str, subject: str, body: Mapping[str, Any]) -> Alert:
    """The alert a journal entry of one of `KINDS` is."""
    match kind:
        case "budget.warning":
            percent = body["threshold"]
            name = "BudgetExhausted" if percent >= 100 else "BudgetWarning"
            amounts = {"spent_usd": _usd(body["spent"]), "limit_usd": _usd(body["limit"])}
            data = {"threshold_percent": percent, **amounts}
            return Alert(name, f"{name} {agent_id} {percent}", data)
        case "budget.overrun":
            data = {
                "lease_id": subject,
                "overrun_usd": _usd(body["over"]),
                "cost_usd": _usd(body["cost"]),
            }
            return Alert("Overrun", f"Overrun {agent_id}", data)
        case "pii.detected":
            findings = [{"kind": word, "count": n} for word, n in body["findings"].items()]
            data = {
                "request_id": body["request_id"],
                "direction": body["direction"],
                "action": body["action"],
                "findings": findings,
            }
            what = "+".join(sorted(body["findings"]))
            topic = f"PiiAlert {agent_id} {body['direction']} {body['action']} {what}"
            return Alert("PiiAlert", topic, data)
        case "circuit.opened":
            topic = f"CircuitOpen {agent_id} {body['provider']}"
            return Alert("CircuitOpen", topic, dict(body))
    raise ValueError(f"{kind} is no alert")


def refusal_alert(agent_id: str, reason: str, facts: Mapping[str, str]) -> Alert:
    """The alert a loan is that was refused for lack of money."""
    name = "BudgetExhausted"
    return Alert(name, f"{name} {agent_id} {reason}", {"reason": reason, "details": dict(facts)})


def payload(event_type: str, at_us: int, data: Mapping[str, Any]) -> bytes:
    """What is sent, as Standard Webhooks lay it out; the same bytes at every attempt."""
    at = datetime.fromtimestamp(at_us // 1_000_000, UTC).replace(microsecond=at_us % 1_000_000)
    timestamp = at.isoformat().replace("+00:00", "Z")
    return orjson.dumps({"type": event_type, "timestamp": timestamp, "data": data})


def wants(events: tuple[str, ...], event_type: str) -> bool:
    """Whether a webhook with these types is sent one of this type."""
    return not events or event_type in events or event_type == TEST


def _usd(nanousd: int) -> orjson.Fragment:
    text = f"{usd(nanousd):f}"
    return orjson.Fragment((text.rstrip("0").rstrip(".") if "." in text else text).encode())
