"""Between a purse and whoever lends to it: what it may ask, and why it lets no call begin."""

from __future__ import annotations

from typing import Protocol

from steward_client.allowance import LimitReached
from steward_client.wallet import Refusal


class OutOfMoney(Exception):
    """The call's worst case does not fit into the lease.

    `raise_helps` says that it would fit if the agent's budget were raised: the runtime's own budget
    has room for it.
    """

    def __init__(
        self,
        refusal: Refusal,
        *,
        needed_nanousd: int,
        available_nanousd: int,
        raise_helps: bool = False,
    ) -> None:
        super().__init__(refusal.value)
        self.refusal = refusal
        self.needed_nanousd = needed_nanousd
        self.available_nanousd = available_nanousd
        self.raise_helps = raise_helps


class NotLent(Exception):
    """The call's worst case does not fit, and whether more would be lent could not be asked."""

    def __init__(self, *, needed_nanousd: int, available_nanousd: int) -> None:
        super().__init__("the server cannot be asked for more")
        self.needed_nanousd = needed_nanousd
        self.available_nanousd = available_nanousd


class NotSpending(Exception):
    """No call is started: `refusal` says whether it stopped, drains, or has no live lease."""

    def __init__(self, refusal: Refusal, reason: str) -> None:
        super().__init__(reason)
        self.refusal = refusal
        self.reason = reason


class Lender(Protocol):
    """Where more comes from."""

    async def refresh(self, requested_nanousd: int) -> bool:
        """Ask to grow the lease, or only its time with 0; True if something came of it."""
        ...

    async def renew(self, lease_id: str) -> bool:
        """Ask for a new lease in place of this one, which is over; True if there is one now."""
        ...

    async def allot(self, tokens: int) -> bool:
        """Ask for more tokens of the day's limit; True if something came of it."""
        ...

    @property
    def limit(self) -> LimitReached | None:
        """Why a limit had the last question refused; None if none did."""
        ...

    @property
    def has_nothing_left(self) -> bool:
        """There is no new lease because there is no money for one."""
        ...

    @property
    def is_reachable(self) -> bool:
        """It can be asked now."""
        ...
