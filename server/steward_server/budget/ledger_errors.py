"""What the ledger's rules refuse, with the facts. Pure."""

from typing import ClassVar

from steward_server.budget.values import (
    NANOUSD_PER_USD,
    AccountId,
    AgentId,
    LeaseId,
    LeaseState,
    ScopeId,
)


class LedgerError(Exception):
    """A rule said no. Nothing has changed; the facts are public."""

    reason: ClassVar[str] = "LEDGER_ERROR"

    def facts(self) -> dict[str, str]:
        """What the refusal is about, by name; amounts in nano-dollars."""
        return {name: str(value) for name, value in vars(self).items()}


class BudgetExceeded(LedgerError):
    """Nothing is left to lend, or less than the caller can use."""

    reason = "BUDGET_EXCEEDED"

    def __init__(
        self, agent_id: AgentId, requested_nanousd: int, available_nanousd: int, scope: ScopeId
    ) -> None:
        super().__init__(
            f"agent {agent_id!r} asked for {_dollars(requested_nanousd)} and {scope!r} can "
            f"lend {_dollars(available_nanousd)}; raise its budget or return open leases"
        )
        self.agent_id = agent_id
        self.requested_nanousd = requested_nanousd
        self.available_nanousd = available_nanousd
        self.scope = scope


class LeaseClosed(LedgerError):
    """The lease has ended and takes nothing more."""

    reason = "LEASE_CLOSED"

    def __init__(self, lease_id: LeaseId, state: LeaseState) -> None:
        super().__init__(f"lease {lease_id!r} is {state}; take another by a handshake")
        self.lease_id = lease_id
        self.state = state


class SequenceGap(LedgerError):
    """A report before this one is missing."""

    reason = "SEQUENCE_GAP"

    def __init__(self, lease_id: LeaseId, expected: int, got: int) -> None:
        super().__init__(
            f"lease {lease_id!r} expects report {expected}, got {got}; send from {expected} on"
        )
        self.lease_id = lease_id
        self.expected = expected
        self.got = got


class SequenceReused(LedgerError):
    """Another report was booked under this number."""

    reason = "SEQUENCE_REUSED"

    def __init__(self, lease_id: LeaseId, expected: int, got: int) -> None:
        super().__init__(
            f"lease {lease_id!r} has another report under number {got}; the next is {expected}"
        )
        self.lease_id = lease_id
        self.expected = expected
        self.got = got


class BudgetBelowCommitted(LedgerError):
    """An allocation may not fall below what is spent and leased."""

    reason = "BUDGET_BELOW_COMMITTED"

    def __init__(
        self, account_id: AccountId, allocated_nanousd: int, committed_nanousd: int
    ) -> None:
        super().__init__(
            f"account {account_id!r} cannot be allocated {_dollars(allocated_nanousd)}: "
            f"{_dollars(committed_nanousd)} are spent or leased; allocate at least that"
        )
        self.account_id = account_id
        self.allocated_nanousd = allocated_nanousd
        self.committed_nanousd = committed_nanousd


class InvalidAmount(LedgerError):
    """An amount outside its range."""

    reason = "INVALID_AMOUNT"

    def __init__(self, field: str, amount_nanousd: int, allowed: str) -> None:
        super().__init__(f"{field} is {amount_nanousd}; it must be {allowed}")
        self.field = field
        self.amount_nanousd = amount_nanousd
        self.allowed = allowed


class IllegalTransition(LedgerError):
    """The lease cannot go from its state to that one, or not yet."""

    reason = "ILLEGAL_TRANSITION"

    def __init__(self, lease_id: LeaseId, state: LeaseState, to: LeaseState, why: str = "") -> None:
        super().__init__(
            f"lease {lease_id!r} is {state} and cannot become {to}" + (f": {why}" if why else "")
        )
        self.lease_id = lease_id
        self.state = state
        self.to = to


def _dollars(nanousd: int) -> str:
    """Exact decimal dollars for people: `$0.5`, `$12`."""
    whole, nanos = divmod(nanousd, NANOUSD_PER_USD)
    return f"${whole}.{nanos:09d}".rstrip("0").rstrip(".")
