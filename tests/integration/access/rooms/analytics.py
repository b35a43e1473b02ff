"""Analytics, usage and traces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from steward.analytics.v1 import analytics_pb2, traces_pb2, usage_pb2
from tests.integration.access.tables import EVENT_AGENTS, PEOPLE, Make
from tests.integration.access.world import World

ANALYTICS = "steward.analytics.v1.AnalyticsService"
USAGE = "steward.analytics.v1.UsageService"
TRACES = "steward.analytics.v1.TraceService"

QUERIES = (
    "GetTotalSpending",
    "ListSpendingByAgent",
    "ListSpendingByProvider",
    "ListSpendingOverTime",
    "GetCostPerRequest",
    "ListBudgetStatus",
    "GetRequestUsage",
    "ListTokenUsageByAgent",
    "ListModelUsage",
)

ACCESS = {
    ANALYTICS: {"IngestEvents": EVENT_AGENTS, **dict.fromkeys(QUERIES, PEOPLE)},
    USAGE: {"GetUsage": PEOPLE},
    TRACES: {"ListTraces": PEOPLE, "GetTrace": PEOPLE},
}


def _of_agent(request: Callable[..., Message]) -> Make:
    async def make(world: World) -> Message:
        return request(agent_id=(await world.agent(owner_id=world.owner.user_id)).id)

    return make


FOREIGN: dict[str, dict[str, Any]] = {
    ANALYTICS: {query: _of_agent(getattr(analytics_pb2, f"{query}Request")) for query in QUERIES},
    USAGE: {"GetUsage": _of_agent(usage_pb2.GetUsageRequest)},
    TRACES: {
        "ListTraces": _of_agent(traces_pb2.ListTracesRequest),
        "GetTrace": "a trace is made by a call: tests/integration/analytics",
    },
}
