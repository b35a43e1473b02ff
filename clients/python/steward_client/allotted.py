"""A lease's share of the limits, from the wire into its allowance."""

from __future__ import annotations

from steward.budget.v1 import budget_pb2 as pb
from steward_client.allowance import LimitReached, Told
from steward_client.errors import StewardError

LIMIT_REASONS = ("LIMIT_REQUESTS_PER_MINUTE", "LIMIT_TOKENS_PER_DAY", "LIMIT_COST_PER_MONTH")


def told_of(allotment: pb.Allotment, now_s: float) -> Told:
    """What the server tells, its times by the runtime's clock."""
    return Told(
        allotment.version,
        allotment.requests_per_minute if allotment.HasField("requests_per_minute") else None,
        allotment.tokens if allotment.HasField("tokens") else None,
        allotment.requests_scope,
        allotment.requests_limit,
        allotment.tokens_scope,
        allotment.tokens_limit,
        now_s + allotment.tokens_reset_ms / 1_000,
    )


def limit_of(error: StewardError) -> LimitReached | None:
    """The limit a refusal speaks of; None if it is about something else."""
    if error.reason not in LIMIT_REASONS:
        return None
    return LimitReached(
        error.message,
        retry_after_s=error.retry_after_s,
        is_money=error.reason == "LIMIT_COST_PER_MONTH",
    )
