"""Money for what the server itself sells to agents: the same ledger, without a runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from steward_server.budget.bookings import Batch, Fact
from steward_server.budget.ledger_errors import LeaseClosed
from steward_server.budget.room import BudgetRoom, stopped
from steward_server.budget.store import Terms
from steward_server.budget.values import LeaseState
from steward_server.db import Transaction
from steward_server.errors import NotFound
from steward_server.ids import new_id
from steward_server.sale import Sale

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class House:
    """One seller of the server's own."""

    room: BudgetRoom
    seller: str
    """Stands where the provider of a call does."""

    async def open(
        self, agent_id: str, token_id: str, *, wanted_nanousd: int, least_nanousd: int
    ) -> tuple[str, int]:
        """Lend an agent's money to the seller: the lease, and what was lent.

        Raises:
            NotFound: there is no such agent.
            FailedPrecondition: AGENT_STOPPED.
            ResourceExhausted: BUDGET_EXCEEDED, or a limit leaves less than `least_nanousd`.
        """
        room = self.room
        now_us = room.clock()
        terms = Terms(self.seller, self.seller, token_id, self.seller, None, b"", 0)

        async def work(transaction: Transaction) -> tuple[str, int]:
            if (await room.agents.record(transaction, agent_id)).stop_wanted:
                raise stopped(agent_id)
            lent = await room.desk.open_lease(
                transaction,
                lease_id=new_id("lease"),
                agent_id=agent_id,
                requested_nanousd=wanted_nanousd,
                minimum_nanousd=least_nanousd,
                terms=terms,
                now_us=now_us,
            )
            return lent.lease.lease_id, lent.granted_nanousd

        return await room.lend(agent_id, work, now_us)

    async def grow(self, agent_id: str, lease_id: str, *, wanted_nanousd: int) -> int:
        """Lend more; how much was added: nothing, if there is none or the agent is to stop.

        Raises:
            NotFound, FailedPrecondition: the lease has ended; open another.
            ResourceExhausted: a limit leaves nothing.
        """
        room = self.room
        now_us = room.clock()

        async def work(transaction: Transaction) -> int:
            agent = await room.agents.record(transaction, agent_id)
            grown = await room.desk.grow_lease(
                transaction,
                lease_id=lease_id,
                agent_id=agent_id,
                requested_nanousd=wanted_nanousd,
                request_id=None,
                stop_wanted=agent.stop_wanted,
                now_us=now_us,
            )
            return grown.added_nanousd

        return await room.lend(agent_id, work, now_us)

    async def book(self, agent_id: str, lease_id: str, sales: Sequence[Sale]) -> bool:
        """Book what was sold; whether the lease may be sold on.

        Raises:
            Unavailable: the commit failed; book it again.
        """
        facts = [
            Fact(
                request_id=each.request_id,
                sequence=0,
                provider=self.seller,
                model=each.item,
                input_tokens=0,
                output_tokens=0,
                cache_read_tokens=0,
                cache_write_tokens=0,
                cost_nanousd=each.cost_nanousd,
                price_version="",
                certainty="measured",
                at_us=each.at_us,
            )
            for each in sales
        ]
        batch = Batch(lease_id, agent_id, len(facts), lambda _: facts)
        (answer,) = await self.room.teller.book([batch])
        if not isinstance(answer, NotFound):
            for sale, outcome in zip(sales, answer.outcomes, strict=True):
                if isinstance(outcome, Exception):
                    log.warning("budget.sale_refused", item=sale.item, reason=str(outcome))
        return not isinstance(answer, NotFound) and answer.lease.state is LeaseState.ACTIVE

    async def close(self, agent_id: str, lease_id: str) -> None:
        """Give back what was not spent; nothing if it has ended already."""
        room = self.room
        now_us = room.clock()

        async def work(transaction: Transaction) -> None:
            await room.desk.close_lease(
                transaction,
                lease_id=lease_id,
                agent_id=agent_id,
                believed_spent_nanousd=None,
                now_us=now_us,
            )

        try:
            await room.database.run(work)
        except (NotFound, LeaseClosed):
            return
