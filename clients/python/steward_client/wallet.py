"""The money of one lease as its runtime sees it: what is granted, spent, held. Pure.

Never spends more than was granted: a call starts only after its worst case is held, and a hold
ends exactly once. Time is a monotonic clock's seconds and comes in as an argument.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from steward_client.allowance import Allowance


class WalletState(enum.Enum):
    ACTIVE = "active"
    """May start calls."""
    DRAINING = "draining"
    """Settles the calls under way and starts none."""
    STOPPED = "stopped"
    """Told to stop: as draining, and the calls under way are being cut."""


class Refusal(enum.Enum):
    """Why a hold was refused."""

    IN_FLIGHT = "in_flight"
    """It would fit once calls under way have settled."""
    TOO_LARGE = "too_large"
    """It does not fit into what is left, whatever else settles."""
    EXPIRED = "expired"
    """The lease is over, or so near its end that a call could outlive it."""
    DRAINING = "draining"
    STOPPED = "stopped"


class UnknownHold(KeyError):
    """The hold was never taken, or has ended already."""


@dataclass(slots=True)
class Wallet:
    """The ledger of one lease.

    `expires_at_s` counts from before the lease was asked for, so it is never later than the
    server's own.
    """

    lease_id: str
    granted_nanousd: int
    expires_at_s: float
    duration_s: float
    last_grant_nanousd: int
    spent_nanousd: int = 0
    held_nanousd: int = 0
    state: WalletState = WalletState.ACTIVE
    allowance: Allowance = field(default_factory=Allowance)
    _holds: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of_lease(
        cls, lease_id: str, *, granted_nanousd: int, duration_s: float, asked_at_s: float
    ) -> Wallet:
        return cls(
            lease_id=lease_id,
            granted_nanousd=granted_nanousd,
            expires_at_s=asked_at_s + duration_s,
            duration_s=duration_s,
            last_grant_nanousd=granted_nanousd,
        )

    @property
    def available_nanousd(self) -> int:
        """What a new call could hold; 0 when an overrun has eaten more than there was."""
        return max(0, self.granted_nanousd - self.spent_nanousd - self.held_nanousd)

    @property
    def unspent_nanousd(self) -> int:
        """What would be available if every call under way turned out free."""
        return max(0, self.granted_nanousd - self.spent_nanousd)

    @property
    def overrun_nanousd(self) -> int:
        """Spent above the grant, because a provider billed more than a call's worst case."""
        return max(0, self.spent_nanousd - self.granted_nanousd)

    @property
    def open_calls(self) -> int:
        return len(self._holds)

    @property
    def margin_s(self) -> float:
        """No call starts this close to the end of the lease."""
        return min(2.0, self.duration_s * 0.05)

    def hold(self, call_id: str, bound_nanousd: int, now_s: float) -> Refusal | None:
        """Set a call's worst case aside; None when it is held.

        Raises:
            ValueError: the bound is negative, or the call already has a hold.
        """
        if bound_nanousd < 0:
            raise ValueError(f"a bound is 0 or more, not {bound_nanousd}")
        if call_id in self._holds:
            raise ValueError(f"call {call_id!r} already has a hold")
        refusal = self.refusal_for(bound_nanousd, now_s)
        if refusal is None:
            self._holds[call_id] = bound_nanousd
            self.held_nanousd += bound_nanousd
        return refusal

    def refusal_for(self, bound_nanousd: int, now_s: float) -> Refusal | None:
        """What `hold` would answer now."""
        if self.state is WalletState.STOPPED:
            return Refusal.STOPPED
        if self.state is WalletState.DRAINING:
            return Refusal.DRAINING
        if now_s >= self.expires_at_s - self.margin_s:
            return Refusal.EXPIRED
        if bound_nanousd <= self.available_nanousd:
            return None
        if bound_nanousd <= self.unspent_nanousd:
            return Refusal.IN_FLIGHT
        return Refusal.TOO_LARGE

    def settle(self, call_id: str, cost_nanousd: int) -> None:
        """End a hold with what the call cost: a fact, booked in full even above the hold.

        Raises:
            UnknownHold: the hold has ended already, or never was.
            ValueError: the cost is negative.
        """
        if cost_nanousd < 0:
            raise ValueError(f"a cost is 0 or more, not {cost_nanousd}")
        self._end(call_id)
        self.spent_nanousd += cost_nanousd

    def release(self, call_id: str) -> None:
        """End a hold without a cost: nothing was charged.

        Raises:
            UnknownHold: the hold has ended already, or never was.
        """
        self._end(call_id)

    def _end(self, call_id: str) -> None:
        bound_nanousd = self._holds.pop(call_id, None)
        if bound_nanousd is None:
            raise UnknownHold(call_id)
        self.held_nanousd -= bound_nanousd

    def grow(self, *, granted_nanousd: int, duration_s: float, asked_at_s: float) -> None:
        """Add what a refresh granted and move the expiry, never backwards."""
        if granted_nanousd < 0:
            raise ValueError(f"a grant is 0 or more, not {granted_nanousd}")
        self.granted_nanousd += granted_nanousd
        if granted_nanousd > 0:
            self.last_grant_nanousd = granted_nanousd
        self.extend(duration_s=duration_s, asked_at_s=asked_at_s)

    def extend(self, *, duration_s: float, asked_at_s: float) -> None:
        if asked_at_s + duration_s > self.expires_at_s:
            self.expires_at_s = asked_at_s + duration_s
            self.duration_s = duration_s

    def drain(self) -> None:
        if self.state is WalletState.ACTIVE:
            self.state = WalletState.DRAINING

    def stop(self) -> None:
        self.state = WalletState.STOPPED

    def wants_money(self) -> bool:
        """Less than a third of the last grant is left to hold."""
        if self.state is not WalletState.ACTIVE:
            return False
        return self.available_nanousd * 3 < self.last_grant_nanousd

    def wants_time(self, now_s: float) -> bool:
        """More than two thirds of the lease's time have passed."""
        if self.state is not WalletState.ACTIVE:
            return False
        return now_s >= self.expires_at_s - self.duration_s / 3

    def expired(self, now_s: float) -> bool:
        return now_s >= self.expires_at_s
