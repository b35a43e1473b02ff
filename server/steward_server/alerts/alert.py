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


MAX_TOLD = 20
"""Different alerts of one type that one agent's runtimes may have sent to a webhook in a short
time: what they tell is their own choice of words."""


class Alert(NamedTuple):
    """Something that should not go unnoticed."""

    event_type: str
    topic: str
    """The same for alerts that need not be sent twice in a short time."""
    data: dict[str, Any]
    teller: str = ""
    """What the topics begin with of all that the same runtimes could tell; empty: the server's."""


def alert_of(kind: str, agent_id: str, subject: str, body: Mapping[str, Any]) -> Alert:
    """The alert a journal entry of one of `KINDS` is."""
    match kind:
        case "budget.warning":
            percent, limit = body["threshold"], body["limit"]
            name = "BudgetExhausted" if percent >= 100 else "BudgetWarning"
            data = {
                "scope": body.get("scope", f"agent:{agent_id}"),
                "threshold_percent": percent,
                "spent_usd": _usd(body["spent"]),
                "limit_usd": _usd(limit),
            }
            # Of the account: each scope and each period of it has its own. Another limit is news.
            return Alert(name, f"{name} {subject} {limit} {percent}", data)
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
            teller = f"PiiAlert {agent_id} "
            topic = f"{teller}{body['direction']} {body['action']} {what}"
            return Alert("PiiAlert", topic, data, teller)
        case "circuit.opened":
            teller = f"CircuitOpen {agent_id} "
            return Alert("CircuitOpen", f"{teller}{body['provider']}", dict(body), teller)
    raise ValueError(f"{kind} is no alert")


def refusal_alert(agent_id: str, reason: str, facts: Mapping[str, str]) -> Alert:
    """The alert a loan is that was refused for lack of money; one for all who share what lacks."""
    name, scope = "BudgetExhausted", facts.get("scope", f"agent:{agent_id}")
    data = {"scope": scope, "reason": reason, "details": dict(facts)}
    return Alert(name, f"{name} {scope} {reason}", data)


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
