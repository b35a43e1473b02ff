"""Borrowing, and prices."""

from __future__ import annotations

from google.protobuf.message import Message

from steward.budget.v1 import prices_pb2
from tests.integration.access.tables import ADMIN, AGENTS, BUDGET_AGENTS, PEOPLE, Recorded
from tests.integration.access.world import World

BUDGET = "steward.budget.v1.BudgetService"
KEYS = "steward.budget.v1.ProviderKeyService"
PRICES = "steward.budget.v1.PriceService"

ACCESS = {
    BUDGET: {
        "Handshake": BUDGET_AGENTS,
        "Report": BUDGET_AGENTS,
        "Refresh": BUDGET_AGENTS,
        "Return": BUDGET_AGENTS,
        "Session": BUDGET_AGENTS,
    },
    KEYS: {"GetProviderKey": BUDGET_AGENTS},
    PRICES: {
        "ListPrices": PEOPLE | AGENTS,
        "SetPrice": ADMIN,
    },
}


async def _set(_world: World) -> Message:
    price = prices_pb2.Price(provider="openai", model="house", input_picousd=1, output_picousd=2)
    return prices_pb2.SetPriceRequest(price=price)


RECORDED = {PRICES: {"SetPrice": Recorded(_set, ("price.set",))}}
