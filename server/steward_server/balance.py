"""The money of agents, projects and the organisation, as rooms speak of it to each other."""

from __future__ import annotations

from dataclasses import dataclass

MAX_BUDGET_NANOUSD = 1_000_000 * 1_000_000_000
"""Of one agent."""


@dataclass(frozen=True, slots=True)
class BudgetTerms:
    """What a budget is from now on."""

    budget_nanousd: int | None
    """None: no limit."""
    mode: str
    """"restrictive": nothing is lent beyond it; "informative": it counts and warns."""
    period: str
    """"none", "day", "week" or "month"."""


@dataclass(frozen=True, slots=True)
class Balance:
    """The money of an agent in its present period."""

    allocated_nanousd: int
    spent_nanousd: int
    leased_nanousd: int
    overrun_nanousd: int
    available_nanousd: int
    """What could be lent to it, its project and the organisation considered."""
    open_leases: int
    period: str = "none"
    starts_at_us: int | None = None
    ends_at_us: int | None = None
    """None: it is for ever."""
    tightest_percent: float = 0.0
    """Used of the budget that is closest to its end, of those that block: its own or one above."""
    tightest_scope: str = ""
    """Whose budget that is."""

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


@dataclass(frozen=True, slots=True)
class ScopeBalance:
    """The money of one scope by itself in its present period."""

    scope: str
    """`agent:…`, `project:…` or `organisation`."""
    parent: str | None
    terms: BudgetTerms
    spent_nanousd: int
    leased_nanousd: int
    overrun_nanousd: int
    available_nanousd: int | None
    """None: it blocks nothing."""
    starts_at_us: int | None
    ends_at_us: int | None

    @property
    def id(self) -> str:
        """Of what it is the budget of."""
        return self.scope.partition(":")[2] or self.scope

    @property
    def percent_used(self) -> float | None:
        """Spent and overrun as a share of the budget; None: there is no limit."""
        if self.terms.budget_nanousd is None:
            return None
        if not self.terms.budget_nanousd:
            return 100.0
        return (self.spent_nanousd + self.overrun_nanousd) * 100 / self.terms.budget_nanousd
