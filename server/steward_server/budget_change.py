"""Changes of what an agent may spend in all, as the rooms of budgets and requests speak of them."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Cause(StrEnum):
    """Why an agent's budget changed. The values are what the tables and the journal hold."""

    SET = "set"
    """An administrator set it."""
    RAISED = "raised"
    """A request was approved."""
    RAISE_ENDED = "raise_ended"
    """A raise was over, and something of it was taken back."""
    PERIOD_BEGAN = "period_began"
    """A new period allows something else than the one before it did in the end."""


class Why(NamedTuple):
    """What led to a change."""

    cause: Cause
    by: str = ""
    """The user who decided; empty for the server itself."""
    reason: str = ""
    request_id: str = ""
    """Of the budget request that led to it."""


class BudgetChange(NamedTuple):
    """One change, as it is kept."""

    lsn: int
    """Of its entry in the journal."""
    agent_id: str
    at_us: int
    old_nanousd: int
    new_nanousd: int
    cause: str
    changed_by: str
    reason: str
    request_id: str


class BudgetSummary(NamedTuple):
    """What the changes of an agent's budget add up to."""

    initial_nanousd: int
    current_nanousd: int
    increases_nanousd: int
    change_count: int
    temporary_nanousd: int
    """What raises have added that are to end."""
    temporary_until_us: int | None
    """When the first of them ends."""
