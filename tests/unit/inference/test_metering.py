"""Bills for steps: to the thousandth of a nano-dollar, and never beyond what was lent."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from steward_server.errors import FailedPrecondition, ResourceExhausted
from steward_server.inference.metering import IDLE_US, Meter, Owner
from steward_server.inference.repository import Reference
from steward_server.sale import Sale

OWNER = Owner("agent:a", "a", "token")
POLICIES = [Reference("one", 1), Reference("two", 7)]


class Purse:
    """A budget, lent to one lease at a time."""

    def __init__(self, budget_nanousd: int) -> None:
        self.left = budget_nanousd
        self.leases: dict[str, int] = {}
        self.booked: Counter[str] = Counter()
        self.seen: set[str] = set()

    async def open(
        self, agent_id: str, token_id: str, *, wanted_nanousd: int, least_nanousd: int
    ) -> tuple[str, int]:
        assert (agent_id, token_id) == ("a", "token")
        await asyncio.sleep(0)
        if self.left < least_nanousd:
            raise ResourceExhausted("nothing is left", reason="BUDGET_EXCEEDED")
        lease_id = f"lease-{len(self.leases)}"
        lent = min(self.left, wanted_nanousd)
        self.leases[lease_id] = lent
        self.left -= lent
        return lease_id, lent

    async def grow(self, agent_id: str, lease_id: str, *, wanted_nanousd: int) -> int:
        del agent_id
        await asyncio.sleep(0)
        if lease_id not in self.leases:
            raise FailedPrecondition("it has ended", reason="LEASE_CLOSED")
        added = min(self.left, wanted_nanousd)
        self.leases[lease_id] += added
        self.left -= added
        return added

    async def book(self, agent_id: str, lease_id: str, sales: Sequence[Sale]) -> bool:
        del agent_id
        await asyncio.sleep(0)
        for sale in sales:
            assert sale.request_id not in self.seen
            self.seen.add(sale.request_id)
            self.booked[sale.item] += sale.cost_nanousd
            self.leases[lease_id] -= sale.cost_nanousd
            assert self.leases[lease_id] >= 0, "more was sold than was lent"
        return True

    async def close(self, agent_id: str, lease_id: str) -> None:
        del agent_id
        await asyncio.sleep(0)
        self.left += self.leases.pop(lease_id)


@given(
    price=st.integers(1, 5_000_000),
    budget=st.integers(0, 200_000),
    orders=st.lists(
        st.tuples(st.sampled_from(POLICIES), st.integers(1, 300), st.booleans()), max_size=40
    ),
)
def test_what_is_booked_is_what_was_stepped_and_what_is_left_comes_back(
    price: int, budget: int, orders: list[tuple[Reference, int, bool]]
) -> None:
    async def work() -> None:
        now_us = 0
        purse = Purse(budget)
        meter = Meter(purse, price_nanousd=price, clock=lambda: now_us)
        stepped: Counter[Reference] = Counter()
        booking = asyncio.create_task(meter.keep_booking(0))

        async def order(policy: Reference, steps: int) -> None:
            with suppress(ResourceExhausted):
                await meter.charge(OWNER, policy, steps)
                stepped[policy] += steps

        tasks = []
        for policy, steps, waits in orders:
            task = asyncio.create_task(order(policy, steps))
            tasks.append(task)
            if waits:
                await task
                now_us += IDLE_US // 2
        await asyncio.gather(*tasks)
        booking.cancel()
        with suppress(asyncio.CancelledError):
            await booking
        await meter.close()
        for policy in POLICIES:
            exact = stepped[policy] * price
            assert exact - 1000 < purse.booked[str(policy)] * 1000 <= exact
        assert purse.left == budget - purse.booked.total()
        assert purse.leases == {}

    asyncio.run(work())
