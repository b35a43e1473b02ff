"""Settings of the budget room."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from steward_server.budget.values import NANOUSD_PER_USD, LeasePolicy
from steward_server.config import setting


@dataclass(frozen=True, slots=True)
class BudgetConfig:
    """How money is lent."""

    default_tranche_usd: Decimal = setting(
        Decimal(10), "Lent to a handshake that names no amount, in dollars.", minimum=0
    )
    maximum_tranche_usd: Decimal = setting(
        Decimal(1_000),
        "Lent at once at most, in dollars; larger wishes are granted in part.",
        minimum=0,
    )
    lease_ttl_s: float = setting(
        900.0, "How long a lease lives without a sign of life, in seconds.", minimum=0.1
    )
    settle_grace_s: float = setting(
        60.0, "How long calls under way may be settled after a lease's end, in seconds.", minimum=0
    )
    sweep_interval_s: float = setting(
        0.5,
        "How often leases are looked through for those whose time is over, in seconds.",
        minimum=0.01,
    )
    audit_interval_s: float = setting(
        10.0,
        "How often the server proves to itself that the books balance, in seconds.",
        minimum=0.1,
    )

    def policy(self) -> LeasePolicy:
        """The same as the ledger's rules take it."""
        return LeasePolicy(
            default_tranche_nanousd=int(self.default_tranche_usd * NANOUSD_PER_USD),
            maximum_tranche_nanousd=int(self.maximum_tranche_usd * NANOUSD_PER_USD),
            lease_ttl_ms=round(self.lease_ttl_s * 1_000),
            settle_grace_ms=round(self.settle_grace_s * 1_000),
        )
