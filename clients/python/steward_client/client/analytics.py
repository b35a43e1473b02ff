"""What can be asked about spending, usage and single calls; as resources.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from steward.analytics.v1 import analytics_pb2 as pb
from steward.analytics.v1 import traces_pb2, usage_pb2
from steward.analytics.v1.analytics_pb2_grpc import AnalyticsServiceStub
from steward.analytics.v1.traces_pb2_grpc import TraceServiceStub
from steward.analytics.v1.usage_pb2_grpc import UsageServiceStub
from steward_client.client.calls import Call, Manner, Resource, every, first, rpc
from steward_client.client.figures import (
    BudgetStatusReport,
    CostPerRequest,
    Period,
    RequestUsage,
    RiskLevel,
    SpendingByAgent,
    SpendingByProvider,
    SpendingGroupBy,
    SpendingOverTime,
    SpendingStatus,
    SpendingStep,
    TokensByAgent,
    TotalSpending,
    Trace,
    TraceStatus,
    Usage,
    UsageByModel,
)
from steward_client.client.values import value_of

T = TypeVar("T")

PER_PAGE = 100


class Analytics(Resource[Manner]):
    """What agents spent and used. Spending is what the ledger has booked, to the nano-dollar.

    `agent_id`, `project_id`, `provider_id` (or `provider`, a name) and `model` choose; left out,
    all count that the caller may see. A project's are those of agents that belong to it now.
    NotFound is raised for an agent, a project or a provider that there is not.
    """

    @rpc
    def total_spending(
        self,
        *,
        period: Period = "all-time",
        agent_id: str = "",
        provider_id: str = "",
        provider: str = "",
        model: str = "",
        project_id: str = "",
    ) -> Call[TotalSpending]:
        """What was spent in all."""
        asked = _asked(period, agent_id, provider_id, provider, model, project_id)
        request = pb.GetTotalSpendingRequest(**asked)
        return _one(TotalSpending, "GetTotalSpending", request)

    @rpc
    def spending_by_agent(
        self,
        *,
        period: Period = "all-time",
        agent_id: str = "",
        provider_id: str = "",
        provider: str = "",
        model: str = "",
        project_id: str = "",
    ) -> Call[SpendingByAgent]:
        """Agents that spent, the most first."""
        asked = _asked(period, agent_id, provider_id, provider, model, project_id)
        return _pages(
            SpendingByAgent,
            "ListSpendingByAgent",
            lambda page: pb.ListSpendingByAgentRequest(**asked, page=page, per_page=PER_PAGE),
        )

    @rpc
    def spending_by_provider(
        self,
        *,
        period: Period = "all-time",
        agent_id: str = "",
        provider_id: str = "",
        provider: str = "",
        model: str = "",
        project_id: str = "",
    ) -> Call[SpendingByProvider]:
        """Providers that were paid, the most first."""
        asked = _asked(period, agent_id, provider_id, provider, model, project_id)
        return _pages(
            SpendingByProvider,
            "ListSpendingByProvider",
            lambda page: pb.ListSpendingByProviderRequest(**asked, page=page, per_page=PER_PAGE),
        )

    @rpc
    def spending_over_time(
        self,
        *,
        period: Period = "all-time",
        step: SpendingStep | None = None,
        group_by: SpendingGroupBy | None = None,
        agent_id: str = "",
        provider_id: str = "",
        provider: str = "",
        model: str = "",
        project_id: str = "",
    ) -> Call[SpendingOverTime]:
        """What was spent in each step of the period, oldest first.

        Raises:
            InvalidArgument: these are more than 400 steps, or minutes of more than the last hour.
        """
        asked = _asked(period, agent_id, provider_id, provider, model, project_id)
        request = pb.ListSpendingOverTimeRequest(
            **asked,
            step=pb.SpendingStep.Value(f"SPENDING_STEP_{step.upper()}")
            if step
            else pb.SPENDING_STEP_UNSPECIFIED,
            group_by=pb.SpendingGroupBy.Value(f"SPENDING_GROUP_BY_{group_by.upper()}")
            if group_by
            else pb.SPENDING_GROUP_BY_UNSPECIFIED,
        )
        return _one(SpendingOverTime, "ListSpendingOverTime", request)

    @rpc
    def cost_per_request(
        self,
        *,
        period: Period = "all-time",
        agent_id: str = "",
        provider_id: str = "",
        provider: str = "",
        model: str = "",
        project_id: str = "",
    ) -> Call[CostPerRequest]:
        """What a call cost: on average, the cheapest, the dearest."""
        asked = _asked(period, agent_id, provider_id, provider, model, project_id)
        return _one(CostPerRequest, "GetCostPerRequest", pb.GetCostPerRequestRequest(**asked))

    @rpc
    def budget_status(
        self,
        *,
        threshold: float | None = None,
        status: SpendingStatus | None = None,
        risk_level: RiskLevel | None = None,
        agent_id: str = "",
        project_id: str = "",
    ) -> Call[BudgetStatusReport]:
        """Agents by the share of their budget they have used, the largest first.

        `threshold` chooses those that have used more than so many percent.
        """

        def request(page: int) -> pb.ListBudgetStatusRequest:
            return pb.ListBudgetStatusRequest(
                threshold=threshold,
                status=pb.SpendingStatus.Value(f"SPENDING_STATUS_{status.upper()}")
                if status
                else pb.SPENDING_STATUS_UNSPECIFIED,
                risk_level=pb.RiskLevel.Value(f"RISK_LEVEL_{risk_level.upper()}")
                if risk_level
                else pb.RISK_LEVEL_UNSPECIFIED,
                agent_id=agent_id,
                project_id=project_id,
                page=page,
                per_page=PER_PAGE,
            )

        return _pages(BudgetStatusReport, "ListBudgetStatus", request)

    @rpc
    def request_usage(
        self,
        *,
        period: Period = "today",
        agent_id: str = "",
        provider_id: str = "",
        provider: str = "",
        model: str = "",
        project_id: str = "",
    ) -> Call[RequestUsage]:
        """How many calls were made, and how many failed."""
        asked = _asked(period, agent_id, provider_id, provider, model, project_id)
        return _one(RequestUsage, "GetRequestUsage", pb.GetRequestUsageRequest(**asked))

    @rpc
    def tokens_by_agent(
        self,
        *,
        period: Period = "all-time",
        agent_id: str = "",
        provider_id: str = "",
        provider: str = "",
        model: str = "",
        project_id: str = "",
    ) -> Call[TokensByAgent]:
        """Tokens of the calls that succeeded, the agent with the most first."""
        asked = _asked(period, agent_id, provider_id, provider, model, project_id)
        return _pages(
            TokensByAgent,
            "ListTokenUsageByAgent",
            lambda page: pb.ListTokenUsageByAgentRequest(**asked, page=page, per_page=PER_PAGE),
        )

    @rpc
    def models(
        self,
        *,
        period: Period = "all-time",
        agent_id: str = "",
        provider_id: str = "",
        provider: str = "",
        model: str = "",
        project_id: str = "",
    ) -> Call[UsageByModel]:
        """Models, the one asked most often first."""
        asked = _asked(period, agent_id, provider_id, provider, model, project_id)
        return _pages(
            UsageByModel,
            "ListModelUsage",
            lambda page: pb.ListModelUsageRequest(**asked, page=page, per_page=PER_PAGE),
        )


class Usages(Resource[Manner]):
    """How the money of agents stands, and what was asked for it."""

    @rpc
    def show(self, *, agent_id: str = "", project_id: str = "") -> Call[Usage]:
        """All agents the caller may see, newest first, one or a project's; and their totals."""
        return _pages(
            Usage,
            "GetUsage",
            lambda page: usage_pb2.GetUsageRequest(
                agent_id=agent_id, project_id=project_id, page=page, per_page=PER_PAGE
            ),
            service=UsageServiceStub,
            items="agents",
        )


class Traces(Resource[Manner]):
    """Single LLM calls: what is known of them, never what was asked or answered."""

    @rpc
    def list(
        self,
        *,
        agent_id: str = "",
        provider: str = "",
        model: str = "",
        status: TraceStatus | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        project_id: str = "",
        limit: int = 100,
    ) -> Call[tuple[Trace, ...]]:
        """The newest calls, up to `limit`, which is at most 1,000."""
        request = traces_pb2.ListTracesRequest(
            page_size=limit,
            agent_id=agent_id,
            provider=provider,
            model=model,
            status=traces_pb2.TraceStatus.Value(f"TRACE_STATUS_{status.upper()}")
            if status
            else traces_pb2.TRACE_STATUS_UNSPECIFIED,
            since=_stamp(since),
            until=_stamp(until),
            project_id=project_id,
        )
        return Call(
            TraceServiceStub,
            "ListTraces",
            request,
            read=every(lambda answer: [value_of(Trace, each) for each in answer.traces]),
            repeatable=True,
        )

    @rpc
    def get(self, trace_id: str) -> Call[Trace]:
        """One call.

        Raises:
            NotFound: there is none, or it is too long ago.
        """
        return Call(
            TraceServiceStub,
            "GetTrace",
            traces_pb2.GetTraceRequest(trace_id=trace_id),
            read=first(lambda answer: value_of(Trace, answer.trace)),
            repeatable=True,
        )


def _asked(
    period: Period, agent_id: str, provider_id: str, provider: str, model: str, project_id: str
) -> dict[str, Any]:
    return {
        "period": period,
        "agent_id": agent_id,
        "provider_id": provider_id,
        "provider": provider,
        "model": model,
        "project_id": project_id,
    }


def _one(kind: type[T], method: str, request: Message) -> Call[T]:
    return Call(
        AnalyticsServiceStub,
        method,
        request,
        read=first(lambda answer: value_of(kind, answer)),
        repeatable=True,
    )


def _pages(
    kind: type[T],
    method: str,
    request: Callable[[int], Message],
    *,
    service: type[Any] = AnalyticsServiceStub,
    items: str = "data",
) -> Call[T]:
    """All pages of a list as one value: totals and summary are the same on each."""

    def read(answers: Sequence[Any]) -> T:
        pages: list[Any] = [value_of(kind, answer) for answer in answers]
        together = tuple(item for page in pages for item in getattr(page, items))
        whole: T = replace(pages[0], **{items: together})
        return whole

    def next_page(answer: Any) -> Message | None:
        pagination = answer.pagination
        more = pagination.page < pagination.total_pages
        return request(pagination.page + 1) if more else None

    return Call(service, method, request(1), read=read, next_page=next_page, repeatable=True)


def _stamp(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
