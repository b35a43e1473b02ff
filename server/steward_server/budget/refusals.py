"""The ledger's refusals as callers are told them."""

from __future__ import annotations

from steward_server.budget.ledger_errors import (
    BudgetBelowCommitted,
    BudgetExceeded,
    IllegalTransition,
    InvalidAmount,
    LeaseClosed,
    LedgerError,
    SequenceGap,
    SequenceReused,
)
from steward_server.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    OutOfRange,
    ResourceExhausted,
    StewardError,
)

REFUSALS: dict[type[LedgerError], type[StewardError]] = {
    BudgetExceeded: ResourceExhausted,
    LeaseClosed: FailedPrecondition,
    SequenceGap: OutOfRange,
    SequenceReused: AlreadyExists,
    BudgetBelowCommitted: FailedPrecondition,
    InvalidAmount: InvalidArgument,
    IllegalTransition: FailedPrecondition,
}


FIELDS = {
    "minimum_nanousd": "minimum_budget_usd",
    "requested_nanousd": "requested_budget_usd",
    "cost_nanousd": "cost_usd",
    "allocated_nanousd": "budget_usd",
}
"""The ledger's amounts as callers name them."""


def refused(error: LedgerError) -> StewardError:
    """The status an error of the rules becomes, its facts kept."""
    kind = REFUSALS[type(error)]
    fields = {FIELDS[error.field]: str(error)} if isinstance(error, InvalidAmount) else None
    return kind(str(error), reason=error.reason, facts=error.facts(), fields=fields)


def reused(request_id: str, first: str) -> AlreadyExists:
    """A caller's id for a request came again with another body; `first` tells the first body."""
    return AlreadyExists(
        f"request id {request_id!r} was used before with another body; use a new id",
        reason="REQUEST_ID_REUSED",
        facts={"request_id": request_id, "first_digest": first},
    )
