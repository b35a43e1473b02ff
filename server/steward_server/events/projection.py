"""Journal entries as the events people see, and what runtimes tell as journal entries. Pure."""

from __future__ import annotations

from typing import Any

from steward.events.v1 import events_pb2 as pb
from steward_server.checks import Checks
from steward_server.clock import timestamp
from steward_server.errors import InvalidArgument
from steward_server.events.hub import Entry

KINDS: dict[str, tuple[str, ...]] = {
    "AgentStarted": ("agent.started",),
    "CostUpdate": ("usage",),
    "PiiAlert": ("pii.detected",),
    "BudgetWarning": ("budget.warning",),
    "AgentStopped": ("agent.stopped",),
    "BudgetRequested": ("budget.requested",),
    "BudgetReviewed": ("budget.approved", "budget.rejected", "budget.cancelled"),
    "BudgetChanged": ("account.reallocated", "budget.changed"),
    "CircuitOpened": ("circuit.opened",),
    "EnvironmentStarted": ("environment.started",),
    "EnvironmentStopped": ("environment.stopped",),
    "EnvironmentFailed": ("environment.failed",),
    "EnvironmentExpired": ("environment.expired",),
    "PolicyLoaded": ("policy.loaded",),
    "PolicyUnloaded": ("policy.unloaded",),
    "PolicyFailed": ("policy.failed",),
}
"""Event types, by the name callers filter by, and the journal's kinds that are seen as them."""

STOP_REASONS = ("exited", "stopped", "killed", "lost")

MAX_RETRY_AFTER_MS = 24 * 60 * 60 * 1_000

Told = pb.AgentStarted | pb.AgentStopped | pb.PiiAlert | pb.CircuitOpened


def kinds_of(types: list[str]) -> frozenset[str]:
    """The journal's kinds for these event types; all of them for none.

    Raises:
        InvalidArgument: a type that does not exist.
    """
    if unknown := sorted(set(types) - KINDS.keys()):
        raise InvalidArgument.of(
            {"type": f"is {unknown[0]!r}; it must be one of {', '.join(KINDS)}"}
        )
    return frozenset(kind for name in types or KINDS for kind in KINDS[name])


def event_of(entry: Entry) -> pb.Event:
    """The event an entry is seen as."""
    event = pb.Event(
        event_id=f"evt_{entry.lsn}",
        sequence=entry.lsn,
        timestamp=timestamp(entry.at_us),
        agent_id=entry.agent_id,
    )
    body = entry.body
    match entry.kind:
        case "usage":
            event.cost_update.CopyFrom(_cost_update(entry, body))
        case "budget.warning":
            event.budget_warning.CopyFrom(
                pb.BudgetWarning(
                    threshold_percent=body["threshold"],
                    spent_nanousd=body["spent"],
                    limit_nanousd=body["limit"],
                    scope=body.get("scope", f"agent:{entry.agent_id}"),
                )
            )
        case "agent.started":
            event.agent_started.CopyFrom(pb.AgentStarted(**body))
        case "agent.stopped":
            event.agent_stopped.CopyFrom(pb.AgentStopped(**body))
        case "circuit.opened":
            event.circuit_opened.CopyFrom(pb.CircuitOpened(**body))
        case "pii.detected":
            event.pii_alert.CopyFrom(_pii_alert(body))
        case "budget.requested":
            event.budget_requested.CopyFrom(_budget_requested(entry.subject, body))
        case "budget.approved" | "budget.rejected" | "budget.cancelled" as kind:
            event.budget_reviewed.CopyFrom(_budget_reviewed(kind, entry.subject, body))
        case "account.reallocated" | "budget.changed":
            event.budget_changed.CopyFrom(_budget_changed(entry.agent_id, body))
        case "environment.started":
            event.environment_started.CopyFrom(
                pb.EnvironmentStarted(
                    environment_id=entry.subject,
                    name=body["name"],
                    image=body["image"],
                    owner_id=body["owner_id"],
                )
            )
        case "environment.stopped":
            event.environment_stopped.CopyFrom(
                pb.EnvironmentStopped(
                    environment_id=entry.subject,
                    name=body["name"],
                    reason=body["reason"],
                    exit_code=body["exit_code"],
                )
            )
        case "environment.failed":
            event.environment_failed.CopyFrom(
                pb.EnvironmentFailed(
                    environment_id=entry.subject,
                    name=body["name"],
                    reason=body["reason"],
                    exit_code=body["exit_code"],
                )
            )
        case "environment.expired":
            event.environment_expired.CopyFrom(
                pb.EnvironmentExpired(
                    environment_id=entry.subject, name=body["name"], cause=body["cause"]
                )
            )
        case "policy.loaded":
            event.policy_loaded.CopyFrom(pb.PolicyLoaded(policy=entry.subject, **body))
        case "policy.unloaded":
            event.policy_unloaded.CopyFrom(pb.PolicyUnloaded(policy=entry.subject, **body))
        case "policy.failed":
            event.policy_failed.CopyFrom(pb.PolicyFailed(policy=entry.subject, **body))
        case other:
            raise ValueError(f"{other} is not seen as an event")
    return event


def body_of(told: Told) -> tuple[str, dict[str, Any]]:
    """The journal's kind and body for what a runtime tells.

    Raises:
        InvalidArgument: with every field that is wrong.
    """
    with Checks() as checks:
        match told:
            case pb.AgentStarted():
                checks.text("runtime_id", told.runtime_id, 0, 100)
                checks.text("runtime_version", told.runtime_version, 0, 100)
                checks.text("script", told.script, 0, 255)
                checks.between("budget_usd", told.budget_nanousd, 0, 10**18)
                return "agent.started", {
                    "runtime_id": told.runtime_id,
                    "runtime_version": told.runtime_version,
                    "script": told.script,
                    "budget_nanousd": told.budget_nanousd,
                }
            case pb.AgentStopped():
                checks.text("runtime_id", told.runtime_id, 0, 100)
                checks.one_of("reason", told.reason, STOP_REASONS)
                return "agent.stopped", {
                    "runtime_id": told.runtime_id,
                    "exit_code": told.exit_code if told.HasField("exit_code") else None,
                    "reason": told.reason,
                }
            case pb.CircuitOpened():
                checks.text("provider", told.provider, 0, 50)
                checks.between("failures", told.failures, 0, 1_000_000)
                checks.between("retry_after_ms", told.retry_after_ms, 0, MAX_RETRY_AFTER_MS)
                return "circuit.opened", {
                    "provider": told.provider,
                    "failures": told.failures,
                    "retry_after_ms": told.retry_after_ms,
                }
            case pb.PiiAlert():
                return "pii.detected", _pii_body(told, checks)
    raise TypeError(f"{type(told).__name__} is not an event of a runtime")


def _cost_update(entry: Entry, body: dict[str, Any]) -> pb.CostUpdate:
    return pb.CostUpdate(
        lease_id=entry.subject,
        request_id=entry.key or "",
        provider=body["provider"],
        model=body["model"],
        input_tokens=body["input"] + body["cache_read"] + body["cache_write"],
        output_tokens=body["output"],
        cost_nanousd=body["cost"],
        spent_nanousd=body["spent"],
        remaining_nanousd=body["available"],
        lease_remaining_nanousd=body["lease_left"],
    )


def _budget_requested(request_id: str, body: dict[str, Any]) -> pb.BudgetRequested:
    return pb.BudgetRequested(
        budget_request_id=request_id,
        requester_id=body["requester"],
        current_budget_nanousd=body["current_nanousd"],
        requested_budget_nanousd=body["requested_nanousd"],
        expires_in_s=body["expires_in_s"],
    )


def _budget_reviewed(kind: str, request_id: str, body: dict[str, Any]) -> pb.BudgetReviewed:
    return pb.BudgetReviewed(
        budget_request_id=request_id,
        status=kind.removeprefix("budget."),
        requester_id=body["requester"],
        reviewer_id=body["reviewer"],
        requested_budget_nanousd=body["requested_nanousd"],
        previous_budget_nanousd=body.get("previous_nanousd"),
        approved_budget_nanousd=body.get("approved_nanousd"),
        expires_at=timestamp(body.get("ends_at_us")),
    )


def _budget_changed(agent_id: str, body: dict[str, Any]) -> pb.BudgetChanged:
    return pb.BudgetChanged(
        old_budget_nanousd=body["previous"],
        new_budget_nanousd=body["allocated"],
        # Entries from before budget requests do not say what led to them.
        cause=body.get("cause", ""),
        changed_by=body.get("by", ""),
        budget_request_id=body.get("request", ""),
        # Nor, in an agent's, whose budget it was.
        scope=body.get("scope", f"agent:{agent_id}" if agent_id else ""),
    )


def _pii_alert(body: dict[str, Any]) -> pb.PiiAlert:
    findings = [
        pb.PiiFinding(kind=pb.PiiKind.Value(f"PII_KIND_{kind.upper()}"), count=count)
        for kind, count in body["findings"].items()
    ]
    return pb.PiiAlert(
        request_id=body["request_id"],
        direction=pb.PiiDirection.Value(f"PII_DIRECTION_{body['direction'].upper()}"),
        action=pb.PiiAction.Value(f"PII_ACTION_{body['action'].upper()}"),
        findings=findings,
    )


def _pii_body(told: pb.PiiAlert, checks: Checks) -> dict[str, Any]:
    checks.text("request_id", told.request_id, 0, 100)
    direction = _word(checks, "direction", pb.PiiDirection, told.direction, "PII_DIRECTION_")
    action = _word(checks, "action", pb.PiiAction, told.action, "PII_ACTION_")
    findings: dict[str, int] = {}
    for at, finding in enumerate(told.findings):
        kind = _word(checks, f"findings[{at}].kind", pb.PiiKind, finding.kind, "PII_KIND_")
        checks.between(f"findings[{at}].count", finding.count, 1, 1_000_000)
        findings[kind] = findings.get(kind, 0) + finding.count
    if not findings:
        checks.add("findings", "is empty; say what was found")
    return {
        "request_id": told.request_id,
        "direction": direction,
        "action": action,
        "findings": findings,
    }


def _word(checks: Checks, field: str, enum: Any, number: int, prefix: str) -> str:
    """An enum's value as the lower-case word the journal keeps."""
    if number == 0 or number not in enum.values():
        words = [name.removeprefix(prefix).lower() for name in enum.keys()[1:]]
        checks.add(field, f"is missing or unknown; it must be one of {', '.join(words)}")
        return ""
    return str(enum.Name(number)).removeprefix(prefix).lower()
