"""What the budget room needs of rooms that have a say in lending, or listen to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from steward_server.db import Reader, Transaction
from steward_server.events.store import NewEntry


class Limits(Protocol):
    """The part of the limits room that lending needs."""

    async def ceiling(
        self,
        transaction: Transaction,
        *,
        agent_id: str,
        lease_id: str = "",
        minimum_nanousd: int = 0,
        now_us: int,
    ) -> int | None:
        """The most that may be lent to the agent now, or to a lease of it; None: any amount.

        Raises:
            ResourceExhausted: nothing may be lent, or less than the minimum.
        """
        ...

    async def lease_opened(
        self,
        transaction: Transaction,
        *,
        lease_id: str,
        agent_id: str,
        acknowledges: bool,
        now_us: int,
    ) -> None:
        """Give a new lease its shares; `acknowledges` if its runtime obeys what is pushed to it."""
        ...

    async def lease_ended(
        self,
        transaction: Transaction,
        *,
        lease_id: str,
        requests_last_minute: int | None,
        now_us: int,
    ) -> None:
        """Take a lease's shares back."""
        ...


class NoLimits:
    """Limits of a desk without any."""

    async def ceiling(self, *_: Any, **__: Any) -> int | None:
        return None

    async def lease_opened(self, *_: Any, **__: Any) -> None:
        """Nothing is shared."""

    async def lease_ended(self, *_: Any, **__: Any) -> None:
        """Nothing was shared."""


class Limit(Protocol):
    """A limit, as a share names it."""

    @property
    def scope(self) -> str: ...
    @property
    def max_requests_per_minute(self) -> int | None: ...
    @property
    def max_tokens_per_day(self) -> int | None: ...


class Share(Protocol):
    """What is set aside for one lease."""

    @property
    def lease_id(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def requests_told(self) -> int | None: ...
    @property
    def tokens_told(self) -> int | None: ...


class Allotted(Protocol):
    """What a lease is told of its limits."""

    @property
    def is_limited(self) -> bool: ...
    @property
    def allotment(self) -> Share: ...
    @property
    def requests_limit(self) -> Limit | None: ...
    @property
    def tokens_limit(self) -> Limit | None: ...
    @property
    def tokens_reset_us(self) -> int: ...


class Allotments(Protocol):
    """The part of the limits room that tells leases their shares."""

    async def allotted(self, reader: Reader, lease_id: str, now_us: int) -> Allotted | None:
        """What a lease is told; None if nothing is known of it."""
        ...

    async def take(
        self,
        transaction: Transaction,
        *,
        lease_id: str,
        agent_id: str,
        version: int,
        requests_held: int,
        tokens_held: int,
        tokens_wanted: int,
        now_us: int,
    ) -> Allotted | None:
        """A runtime obeys its allotment, or wants more tokens; what it has then.

        Raises:
            NotFound: the agent has no such lease.
        """
        ...


class Listener(Protocol):
    """Counts what is booked, in the transaction that books it."""

    async def usages_booked(
        self, transaction: Transaction, now_us: int, entries: Sequence[NewEntry], last_lsn: int
    ) -> None:
        """These entries were written, the last under this number.

        Those of other kinds than `usage` are passed over.
        """
        ...


class Alarm(Protocol):
    """Is told of loans that were refused for lack of money."""

    async def refused(self, agent_id: str, *, reason: str, facts: dict[str, str]) -> None:
        """A loan was refused; may be told again and again."""
        ...
