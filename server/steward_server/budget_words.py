"""Modes and periods of budgets, as protos spell them and as rooms do."""

from __future__ import annotations

from steward.budget.v1 import scopes_pb2 as pb
from steward_server.checks import Checks

MODES = {
    "restrictive": pb.BUDGET_MODE_RESTRICTIVE,
    "informative": pb.BUDGET_MODE_INFORMATIVE,
}
PERIODS = {
    "none": pb.BUDGET_PERIOD_NONE,
    "day": pb.BUDGET_PERIOD_DAY,
    "week": pb.BUDGET_PERIOD_WEEK,
    "month": pb.BUDGET_PERIOD_MONTH,
}
_MODE_WORDS = {number: word for word, number in MODES.items()}
_PERIOD_WORDS = {number: word for word, number in PERIODS.items()}


def mode_word(checks: Checks, field: str, number: pb.BudgetMode.ValueType) -> str | None:
    """The mode a caller gave; None if nothing was said."""
    if number == pb.BUDGET_MODE_UNSPECIFIED:
        return None
    if number not in _MODE_WORDS:
        checks.add(field, f"is {number}; it must be one of {', '.join(MODES)}")
    return _MODE_WORDS.get(number)


def period_word(checks: Checks, field: str, number: pb.BudgetPeriod.ValueType) -> str | None:
    """The period a caller gave; None if nothing was said."""
    if number == pb.BUDGET_PERIOD_UNSPECIFIED:
        return None
    if number not in _PERIOD_WORDS:
        checks.add(field, f"is {number}; it must be one of {', '.join(PERIODS)}")
    return _PERIOD_WORDS.get(number)
