"""Projects and the organisation: what agents belong to. Their money is in the ledger. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from steward_server.balance import BudgetTerms


@dataclass(frozen=True, slots=True)
class Project:
    """Something that agents work for together."""

    project_id: str
    name: str
    created_at_us: int
    updated_at_us: int
    version: int = 1

    @property
    def scope(self) -> str:
        """Under which name the ledger knows it."""
        return f"project:{self.project_id}"


@dataclass(frozen=True, slots=True)
class Organisation:
    """What holds every project and every agent."""

    organisation_id: str
    name: str
    updated_at_us: int | None
    """None: never changed."""
    version: int = 1

    @property
    def scope(self) -> str:
        """Under which name the ledger knows it."""
        return "organisation"


@dataclass(frozen=True, slots=True)
class Changes:
    """What an update gives; None leaves it."""

    name: str | None = None
    budget_nanousd: int | None = None
    unlimited: bool = False
    """Takes the limit away."""
    mode: str | None = None
    period: str | None = None

    def terms(self, before: BudgetTerms) -> BudgetTerms:
        """A budget with these changes."""
        after = before
        if self.unlimited:
            after = replace(after, budget_nanousd=None)
        elif self.budget_nanousd is not None:
            after = replace(after, budget_nanousd=self.budget_nanousd)
        return replace(
            after,
            mode=before.mode if self.mode is None else self.mode,
            period=before.period if self.period is None else self.period,
        )
