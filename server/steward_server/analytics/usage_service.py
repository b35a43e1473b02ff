"""UsageService: how the money of agents stands."""

from __future__ import annotations

from collections.abc import Callable

from steward.analytics.v1 import usage_pb2 as pb
from steward.analytics.v1 import usage_pb2_grpc as rpc
from steward_server.analytics.figures import percent, total
from steward_server.analytics.numbered_pages import page_of
from steward_server.analytics.room import AgentFigures, AnalyticsRoom
from steward_server.analytics.service import RISKS
from steward_server.calls import Context, caller
from steward_server.checks import Checks
from steward_server.clock import timestamp


class UsageService(rpc.UsageServiceServicer):
    """Serves the usage of agents to people."""

    def __init__(self, room: AnalyticsRoom, clock: Callable[[], int]) -> None:
        self._room = room
        self._clock = clock

    async def GetUsage(self, request: pb.GetUsageRequest, context: Context) -> pb.GetUsageResponse:
        with Checks() as checks:
            checks.text("agent_id", request.agent_id, 0, 100)
            checks.text("project_id", request.project_id, 0, 100)
            page = page_of(checks, request)
        found = await self._room.standing(
            caller(context), request.agent_id, request.project_id, with_sums=True
        )
        available_nanousd = await self._room.lendable_together(found)
        return pb.GetUsageResponse(
            agents=[_usage(each) for each in page.of(found)],
            totals=_totals(found, available_nanousd),
            pagination=page.described(len(found)),
            calculated_at=timestamp(self._clock()),
        )


def _usage(each: AgentFigures) -> pb.AgentUsage:
    balance = each.balance
    return pb.AgentUsage(
        agent_id=each.agent.agent_id,
        agent_name=each.agent.name,
        allocated_nanousd=balance.allocated_nanousd,
        reserved_nanousd=balance.leased_nanousd,
        spent_nanousd=each.spent_nanousd,
        overrun_nanousd=balance.overrun_nanousd,
        available_nanousd=balance.available_nanousd,
        percent_used=balance.percent_used,
        risk_level=RISKS[each.risk],
        risk_scope=balance.tightest_scope,
        requests=each.sums.total_count,
        tokens=each.sums.total_tokens,
    )


def _totals(found: list[AgentFigures], available_nanousd: int) -> pb.UsageTotals:
    balances = [each.balance for each in found]
    allocated = sum(balance.allocated_nanousd for balance in balances)
    spent = sum(each.spent_nanousd for each in found)
    together = total(each.sums for each in found)
    return pb.UsageTotals(
        allocated_nanousd=allocated,
        reserved_nanousd=sum(balance.leased_nanousd for balance in balances),
        spent_nanousd=spent,
        overrun_nanousd=sum(balance.overrun_nanousd for balance in balances),
        available_nanousd=available_nanousd,
        percent_used=percent(spent, allocated),
        requests=together.total_count,
        tokens=together.total_tokens,
        agents=len(found),
    )
