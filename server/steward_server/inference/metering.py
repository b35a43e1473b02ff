"""Steps that agents pay for: charged before they are made, and booked together.

An agent's money is lent to the meter ahead, so that no step is made that nobody can pay; what is
not spent is given back when the agent steps no more. A server that is killed has not booked the
steps of its last moment.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import structlog

from steward_server.errors import FailedPrecondition, NotFound, StewardError
from steward_server.ids import new_id
from steward_server.inference.repository import Reference
from steward_server.sale import Sale

log = structlog.get_logger(__name__)

IDLE_US = 30_000_000
"""What an agent has not spent is given back after so long without a step."""

STEPS_AHEAD = 10_000
"""Money is lent for so many: little enough to leave an agent the rest for its calls."""

PARTS = 1_000
"""A price is of a thousand steps: one costs so many of what the ledger counts in, in parts."""


class Owner(NamedTuple):
    """Whose agents they are, of all that step.

    Attributes:
        name: of the caller, whatever kind they are of.
        agent_id: who pays; empty for callers that are no agents of a budget.
        token_id: of the credential that the money is lent to.
    """

    name: str
    agent_id: str = ""
    token_id: str = ""


class House(Protocol):
    """The part of the budget room that lends to sellers of the server's own."""

    async def open(
        self, agent_id: str, token_id: str, *, wanted_nanousd: int, least_nanousd: int
    ) -> tuple[str, int]:
        """Lend an agent's money: the lease, and what was lent.

        Raises:
            NotFound, FailedPrecondition, ResourceExhausted: the agent may spend nothing.
        """
        ...

    async def grow(self, agent_id: str, lease_id: str, *, wanted_nanousd: int) -> int:
        """Lend more; how much was added: nothing, if there is none or the agent is to stop.

        Raises:
            NotFound, FailedPrecondition: the lease has ended; open another.
            ResourceExhausted: a limit leaves nothing.
        """
        ...

    async def book(self, agent_id: str, lease_id: str, sales: Sequence[Sale]) -> bool:
        """Book what was sold; whether the lease may be sold on.

        Raises:
            Unavailable: the commit failed; book it again.
        """
        ...

    async def close(self, agent_id: str, lease_id: str) -> None:
        """Give back what was not spent."""
        ...


class _Tab:
    """What one agent has before it, and what it owes. Money is counted in parts."""

    def __init__(self, agent_id: str, now_us: int) -> None:
        self.agent_id = agent_id
        self.lease_id = ""
        self.left = 0
        self.used_at_us = now_us
        self.steps: Counter[Reference] = Counter()
        self.over: Counter[Reference] = Counter()
        """Parts of bills before that were less than the ledger counts."""
        self.sales: list[Sale] = []
        """Not booked yet; kept until they are."""
        self.lock = asyncio.Lock()


class Meter:
    """Lets agents pay for their steps."""

    def __init__(self, house: House, *, price_nanousd: int, clock: Callable[[], int]) -> None:
        """`price_nanousd` is that of a thousand steps; 0: they cost nothing."""
        self._house = house
        self._price = price_nanousd
        self._clock = clock
        self._tabs: dict[str, _Tab] = {}

    def charges(self, owner: Owner) -> bool:
        """Whether this caller's steps cost anything."""
        return bool(self._price and owner.agent_id)

    async def charge(self, owner: Owner, policy: Reference, steps: int) -> None:
        """Put steps on an agent's bill, before they are made.

        Raises:
            ResourceExhausted: BUDGET_EXCEEDED, or a limit leaves nothing.
            FailedPrecondition: AGENT_STOPPED.
        """
        tab = self._tabs.get(owner.agent_id)
        if tab is None:
            tab = self._tabs[owner.agent_id] = _Tab(owner.agent_id, self._clock())
        cost = steps * self._price
        if tab.left < cost:
            async with tab.lock:
                await self._lend(tab, owner, cost)
                self._put_down(tab, policy, steps, cost)
        else:
            self._put_down(tab, policy, steps, cost)

    def _put_down(self, tab: _Tab, policy: Reference, steps: int, cost: int) -> None:
        tab.left -= cost
        tab.steps[policy] += steps
        tab.used_at_us = self._clock()

    async def _lend(self, tab: _Tab, owner: Owner, cost: int) -> None:
        """See to it that there is enough for some steps."""
        wanted = max(cost, STEPS_AHEAD * self._price) // PARTS + 2
        if tab.lease_id and tab.left < cost:
            try:
                added = await self._house.grow(tab.agent_id, tab.lease_id, wanted_nanousd=wanted)
                tab.left += added * PARTS
            except (NotFound, FailedPrecondition):  # it has ended
                tab.left = 0
                await self._book(tab)
                tab.lease_id = ""
        if tab.left < cost:
            # Little is left: what another lease brings is all there is.
            await self._give_back(tab)
            owed = tab.over.total()
            tab.lease_id, lent = await self._house.open(
                owner.agent_id,
                owner.token_id,
                wanted_nanousd=wanted,
                least_nanousd=-(-(cost + owed) // PARTS),
            )
            tab.left = lent * PARTS - owed

    async def keep_booking(self, interval_s: float) -> None:
        """Book what was charged, and give back what is not used, for ever."""
        while True:
            await asyncio.sleep(interval_s)
            for tab in list(self._tabs.values()):
                try:
                    async with tab.lock:
                        await self._settle(tab)
                except StewardError:  # such as a full disk: it is booked with the next
                    log.exception("inference.not_booked", agent_id=tab.agent_id)

    async def _settle(self, tab: _Tab) -> None:
        if self._clock() - tab.used_at_us > IDLE_US:
            await self._give_back(tab)
            if not tab.steps and not tab.over.total():
                del self._tabs[tab.agent_id]
        elif not await self._book(tab):
            tab.lease_id, tab.left = "", 0

    async def close(self) -> None:
        """Book all, and give back all."""
        for tab in list(self._tabs.values()):
            try:
                async with tab.lock:
                    await self._give_back(tab)
            except StewardError:
                log.exception("inference.not_booked", agent_id=tab.agent_id)

    async def _give_back(self, tab: _Tab) -> None:
        if tab.lease_id:
            tab.left = (
                0  # before others run: what they want to charge is to wait for the next lease
            )
            await self._book(tab)
            lease_id, tab.lease_id = tab.lease_id, ""
            await self._house.close(tab.agent_id, lease_id)

    async def _book(self, tab: _Tab) -> bool:
        """Book what was charged; whether the lease may be charged on."""
        now_us = self._clock()
        for policy, steps in tab.steps.items():
            parts = steps * self._price + tab.over[policy]
            cost_nanousd, tab.over[policy] = divmod(parts, PARTS)
            tab.sales.append(Sale(new_id("steps"), str(policy), cost_nanousd, now_us))
        tab.steps.clear()
        if not tab.sales:
            return True
        is_active = await self._house.book(tab.agent_id, tab.lease_id, tab.sales)
        tab.sales.clear()
        return is_active
