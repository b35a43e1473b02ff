"""Shares of limits on the wire."""

from __future__ import annotations

from steward.budget.v1 import budget_pb2 as pb
from steward_server.budget.needs import Allotted


def allotment_of(allotted: Allotted | None) -> pb.Allotment | None:
    """What a runtime is told; None where no limit applies, nor ever did."""
    if allotted is None or not allotted.is_limited:
        return None
    share = allotted.allotment
    told = pb.Allotment(
        lease_id=share.lease_id,
        version=share.version,
        requests_per_minute=share.requests_told,
        tokens=share.tokens_told,
        tokens_reset_ms=allotted.tokens_reset_us // 1_000,
    )
    if (limit := allotted.requests_limit) is not None:
        told.requests_scope = limit.scope
        told.requests_limit = limit.max_requests_per_minute or 0
    if (limit := allotted.tokens_limit) is not None:
        told.tokens_scope = limit.scope
        told.tokens_limit = limit.max_tokens_per_day or 0
    return told
