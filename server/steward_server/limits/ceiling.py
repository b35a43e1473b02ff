"""How much the limits let be lent: asked before each loan."""

from __future__ import annotations

from collections.abc import Mapping

from steward_server.db import Reader, Transaction
from steward_server.limits import store
from steward_server.limits.reading import (
    Reading,
    by_scope,
    only,
    request_limits,
    token_limits,
)
from steward_server.limits.refusals import no_money, no_requests, no_tokens
from steward_server.limits.scopes import (
    WINDOW_US,
    Limit,
    month_of,
    next_day_us,
)
from steward_server.limits.shares import Seats, fair_seats
from steward_server.limits.store import Allotment

SOON_S = 5.0
"""When to try again for tokens that others hold and may give back."""


class Ceiling:
    """Looks at every limit on an agent."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    async def most(
        self,
        transaction: Transaction,
        *,
        agent_id: str,
        lease_id: str = "",
        minimum_nanousd: int = 0,
        now_us: int,
    ) -> int | None:
        """The most that may be lent to the agent now; None: as much as there is.

        Args:
            transaction: of the loan.
            agent_id: who borrows.
            lease_id: of the lease that is to grow; empty for a new one.
            minimum_nanousd: less is of no use.
            now_us: the time.

        Raises:
            ResourceExhausted: nothing may be lent: LIMIT_COST_PER_MONTH, LIMIT_TOKENS_PER_DAY or
                LIMIT_REQUESTS_PER_MINUTE.
        """
        limits = await store.limits_of(transaction, self._reading.scopes(agent_id))
        if not limits:
            return None
        lease = await store.allotment(transaction, lease_id) if lease_id else None
        most = await self._money(transaction, limits, agent_id, minimum_nanousd, now_us)
        if lease is None or not lease.acknowledges:
            # A runtime keeps to its share by itself, and may need money within it.
            await self._check_tokens(transaction, limits, agent_id, now_us)
            await self._check_requests(transaction, limits, agent_id, lease, now_us)
        return most

    async def _money(
        self,
        reader: Reader,
        limits: Mapping[str, Limit],
        agent_id: str,
        minimum_nanousd: int,
        now_us: int,
    ) -> int | None:
        limited = {
            scope: limit.max_cost_per_month_nanousd
            for scope, limit in limits.items()
            if limit.max_cost_per_month_nanousd is not None
        }
        if not limited:
            return None
        uses = await store.uses(reader, month_of(now_us), only(limited, agent_id))
        spent = by_scope(uses, lambda use: use.cost_nanousd)
        leased = await self._reading.leased(reader)
        scope = min(limited, key=lambda each: limited[each] - spent[each] - leased[each])
        most = limited[scope] - spent[scope] - leased[scope]
        if most <= 0 or most < minimum_nanousd:
            raise no_money(
                scope, limited[scope], spent_nanousd=spent[scope], leased_nanousd=leased[scope]
            )
        return most

    async def _check_tokens(
        self, reader: Reader, limits: Mapping[str, Limit], agent_id: str, now_us: int
    ) -> None:
        limited = token_limits(limits)
        if not limited:
            return
        used, free = await self._reading.free_tokens(reader, limited, agent_id, now_us)
        scope = min(limited, key=free.__getitem__)
        if free[scope] == 0:
            is_used = used[scope] >= limited[scope]
            retry_after_s = (next_day_us(now_us) - now_us) / 1e6 if is_used else SOON_S
            raise no_tokens(scope, limited[scope], used[scope], retry_after_s=retry_after_s)

    async def _check_requests(
        self,
        reader: Reader,
        limits: Mapping[str, Limit],
        agent_id: str,
        lease: Allotment | None,
        now_us: int,
    ) -> None:
        if not (limited := request_limits(limits)):
            return
        every, seats, recent = await self._reading.seats(reader, agent_id, limited, now_us)
        scopes = tuple(limited)
        new = Seats("", scopes, is_open=True, acknowledges=True, told=None, held=0, made=0)
        if lease is None:
            part, made = fair_seats(every, [*seats, new], ""), 0
        else:
            part = fair_seats(every, seats, lease.lease_id)
            made = sum(each.requests for each in recent if each.lease_id == lease.lease_id)
        if part > made:
            return
        scope = min(limited, key=limited.__getitem__)
        first_s = min((each.first_s for each in recent), default=now_us // 1_000_000)
        retry_after_s = max(1.0, first_s + 1 + WINDOW_US / 1e6 - now_us / 1e6)
        raise no_requests(scope, limited[scope], retry_after_s=retry_after_s)
