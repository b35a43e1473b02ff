"""The money of an agent, as the rooms of budgets and agents both speak of it."""

from __future__ import annotations

from dataclasses import dataclass

MAX_BUDGET_NANOUSD = 1_000_000 * 1_000_000_000
"""Of one agent."""


@dataclass(frozen=True, slots=True)
class Balance:
    """The money of an agent."""

    allocated_nanousd: int
    spent_nanousd: int
    leased_nanousd: int
    overrun_nanousd: int
    available_nanousd: int
    open_leases: int

    @property
    def percent_used(self) -> float:
        """Spent and overrun as a share of what is allocated; for showing, not for deciding."""
        if not self.allocated_nanousd:
            return 100.0
        return (self.spent_nanousd + self.overrun_nanousd) * 100 / self.allocated_nanousd

    @property
    def is_exhausted(self) -> bool:
        """Whether nothing is left to lend."""
        return self.available_nanousd <= 0
