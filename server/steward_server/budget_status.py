"""The money of an agent on the wire, for the rooms that show it."""

from __future__ import annotations

from steward.agents.v1 import agents_pb2 as pb
from steward_server.balance import Balance
from steward_server.budget_words import PERIODS
from steward_server.clock import timestamp


def budget_status(balance: Balance) -> pb.BudgetStatus:
    """The proto's form of a balance."""
    return pb.BudgetStatus(
        limit_nanousd=balance.allocated_nanousd,
        spent_nanousd=balance.spent_nanousd,
        reserved_nanousd=balance.leased_nanousd,
        available_nanousd=balance.available_nanousd,
        overrun_nanousd=balance.overrun_nanousd,
        percent_used=balance.percent_used,
        state=(pb.BUDGET_STATE_EXHAUSTED if balance.is_exhausted else pb.BUDGET_STATE_ACTIVE),
        period=PERIODS[balance.period],
        period_start=timestamp(balance.starts_at_us),
        period_end=timestamp(balance.ends_at_us),
    )
