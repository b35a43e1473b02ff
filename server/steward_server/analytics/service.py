"""AnalyticsService: translates between protos and the room."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from steward.analytics.v1 import analytics_pb2 as pb
from steward.analytics.v1 import analytics_pb2_grpc as rpc
from steward_server.analytics.figures import Sums, percent, rounded_share, total
from steward_server.analytics.ingestion import MAX_EVENTS, Ingestion
from steward_server.analytics.needs import KnownAgent
from steward_server.analytics.numbered_pages import Page, page_of
from steward_server.analytics.periods import ALL_TIME, PERIODS, TODAY
from steward_server.analytics.queries import Apart
from steward_server.analytics.risk import Risk, Standing
from steward_server.analytics.room import AgentFigures, AnalyticsRoom, GroupOverTime, Question
from steward_server.analytics.steps import Step, usual_step
from steward_server.analytics.telling import Told
from steward_server.calls import Context, call_of, caller
from steward_server.checks import Checks
from steward_server.clock import timestamp
from steward_server.errors import InvalidArgument

RISKS = {
    Risk.LOW: pb.RISK_LEVEL_LOW,
    Risk.MEDIUM: pb.RISK_LEVEL_MEDIUM,
    Risk.HIGH: pb.RISK_LEVEL_HIGH,
    Risk.CRITICAL: pb.RISK_LEVEL_CRITICAL,
    Risk.EXHAUSTED: pb.RISK_LEVEL_EXHAUSTED,
}
STANDINGS = {
    Standing.ACTIVE: pb.SPENDING_STATUS_ACTIVE,
    Standing.EXHAUSTED: pb.SPENDING_STATUS_EXHAUSTED,
    Standing.INACTIVE: pb.SPENDING_STATUS_INACTIVE,
}
STEPS = {
    pb.SPENDING_STEP_MINUTE: Step.MINUTE,
    pb.SPENDING_STEP_HOUR: Step.HOUR,
    pb.SPENDING_STEP_DAY: Step.DAY,
    pb.SPENDING_STEP_WEEK: Step.WEEK,
}
STEPS_SHOWN = {step: shown for shown, step in STEPS.items()}
GROUPS = {
    pb.SPENDING_GROUP_BY_UNSPECIFIED: Apart(),
    pb.SPENDING_GROUP_BY_AGENT: Apart(agent=True),
    pb.SPENDING_GROUP_BY_PROVIDER: Apart(provider=True),
    pb.SPENDING_GROUP_BY_MODEL: Apart(model=True),
}
LAST_SECOND = 253_402_300_799
"""Of the year 9999: what protobuf's timestamps end with."""


class AnalyticsService(rpc.AnalyticsServiceServicer):
    """Serves figures to people, and takes events from runtimes."""

    def __init__(self, room: AnalyticsRoom, ingestion: Ingestion, clock: Callable[[], int]) -> None:
        self._room = room
        self._ingestion = ingestion
        self._clock = clock

    async def IngestEvents(
        self, request: pb.IngestEventsRequest, context: Context
    ) -> pb.IngestEventsResponse:
        events, is_one = _events_in(request)
        agent_id = call_of(context).principal.subject
        done = await self._ingestion.ingest(agent_id, events)
        if is_one and done.rejected:
            raise InvalidArgument.of(done.rejected[0][1])
        status = "rejected" if len(done.rejected) == len(events) else "partial"
        return pb.IngestEventsResponse(
            status=status if done.rejected else "accepted",
            accepted=done.accepted,
            duplicates=done.duplicates,
            rejected=[
                pb.RejectedEvent(
                    index=index,
                    reason="; ".join(f"{field} {text}" for field, text in faults.items()),
                )
                for index, faults in done.rejected
            ],
        )

    async def GetTotalSpending(
        self, request: pb.GetTotalSpendingRequest, context: Context
    ) -> pb.GetTotalSpendingResponse:
        question = _question(request)
        found = await self._room.total(caller(context), question)
        return pb.GetTotalSpendingResponse(
            total_spend_nanousd=found.cost_nanousd, currency="USD", **self._asked(question)
        )

    async def ListSpendingByAgent(
        self, request: pb.ListSpendingByAgentRequest, context: Context
    ) -> pb.ListSpendingByAgentResponse:
        question, page = _question(request), _page(request)
        found = await self._room.spenders(caller(context), question)
        shares = [each.percent_used for each in found]
        return pb.ListSpendingByAgentResponse(
            data=[
                pb.AgentSpending(
                    agent_id=each.agent.agent_id,
                    agent_name=each.agent.name,
                    spending_nanousd=each.sums.cost_nanousd,
                    budget_nanousd=each.allocated_nanousd,
                    percent_used=each.percent_used,
                    request_count=each.sums.request_count,
                )
                for each in page.of(found)
            ],
            summary=pb.AgentSpendingSummary(
                total_spend_nanousd=sum(each.sums.cost_nanousd for each in found),
                total_budget_nanousd=sum(each.allocated_nanousd for each in found),
                total_agents=len(found),
                average_percent_used=sum(shares) / len(shares) if shares else 0.0,
            ),
            pagination=page.described(len(found)),
            **self._asked(question),
        )

    async def ListSpendingByProvider(
        self, request: pb.ListSpendingByProviderRequest, context: Context
    ) -> pb.ListSpendingByProviderResponse:
        question, page = _question(request), _page(request)
        found = await self._room.by_provider(caller(context), question)
        together = total(each.sums for each in found)
        return pb.ListSpendingByProviderResponse(
            data=[
                pb.ProviderSpending(
                    provider=each.name,
                    provider_id=each.provider_id,
                    spending_nanousd=each.sums.cost_nanousd,
                    request_count=each.sums.request_count,
                    avg_cost_per_request_nanousd=each.sums.average_nanousd,
                    agent_count=each.agent_count,
                )
                for each in page.of(found)
            ],
            summary=pb.ProviderSpendingSummary(
                total_spend_nanousd=together.cost_nanousd,
                total_requests=together.request_count,
                providers_count=len(found),
                average_cost_per_request_nanousd=together.average_nanousd,
            ),
            pagination=page.described(len(found)),
            **self._asked(question),
        )

    async def ListSpendingOverTime(
        self, request: pb.ListSpendingOverTimeRequest, context: Context
    ) -> pb.ListSpendingOverTimeResponse:
        question = _question(request)
        with Checks() as checks:
            for name, known in (("step", {0, *STEPS}), ("group_by", GROUPS)):
                if (value := getattr(request, name)) not in known:
                    checks.add(name, f"is {value}, which is no value of it")
        step = STEPS.get(request.step) or usual_step(question.period)
        found = await self._room.over_time(
            caller(context), question, step, GROUPS[request.group_by]
        )
        together = found.whole.together
        return pb.ListSpendingOverTimeResponse(
            data=_points(found.whole, found.begins_us),
            groups=[
                pb.SpendingGroup(
                    key=group.key,
                    name=group.name,
                    is_other=not group.key,
                    spending_nanousd=(of_group := group.together).cost_nanousd,
                    request_count=of_group.successful_count,
                    total_tokens=of_group.total_tokens,
                    data=_points(group, found.begins_us),
                )
                for group in found.groups
            ],
            total_spend_nanousd=together.cost_nanousd,
            total_requests=together.successful_count,
            total_tokens=together.total_tokens,
            step=STEPS_SHOWN[step],
            **self._asked(question),
        )

    async def GetCostPerRequest(
        self, request: pb.GetCostPerRequestRequest, context: Context
    ) -> pb.GetCostPerRequestResponse:
        question = _question(request)
        found = await self._room.total(caller(context), question)
        is_paid = found.request_count > 0
        return pb.GetCostPerRequestResponse(
            average_cost_per_request_nanousd=found.average_nanousd,
            min_cost_per_request_nanousd=found.least_nanousd if is_paid else 0,
            max_cost_per_request_nanousd=found.most_nanousd if is_paid else 0,
            total_requests=found.request_count,
            total_spend_nanousd=found.cost_nanousd,
            **self._asked(question),
        )

    async def ListBudgetStatus(
        self, request: pb.ListBudgetStatusRequest, context: Context
    ) -> pb.ListBudgetStatusResponse:
        with Checks() as checks:
            checks.text("agent_id", request.agent_id, 0, 100)
            checks.text("project_id", request.project_id, 0, 100)
            if request.HasField("threshold") and not 0 <= request.threshold <= MAX_THRESHOLD:
                checks.add(
                    "threshold", f"is {request.threshold}; it must be from 0 to {MAX_THRESHOLD}"
                )
        page = _page(request)
        threshold = request.threshold if request.HasField("threshold") else -1.0
        found = await self._room.standing(caller(context), request.agent_id, request.project_id)
        matching = [
            each
            for each in found
            if each.balance.percent_used > threshold
            and request.status in (pb.SPENDING_STATUS_UNSPECIFIED, STANDINGS[each.standing])
            and request.risk_level in (pb.RISK_LEVEL_UNSPECIFIED, RISKS[each.risk])
        ]
        matching.sort(key=lambda each: (-each.balance.percent_used, each.agent.agent_id))
        return pb.ListBudgetStatusResponse(
            data=[_budget_status(each) for each in page.of(matching)],
            summary=_budget_summary(matching),
            pagination=page.described(len(matching)),
            calculated_at=self._now(),
        )

    async def GetRequestUsage(
        self, request: pb.GetRequestUsageRequest, context: Context
    ) -> pb.GetRequestUsageResponse:
        question = _question(request, default=TODAY)
        found = await self._room.total(caller(context), question)
        return pb.GetRequestUsageResponse(
            total_requests=found.total_count,
            successful_requests=found.successful_count,
            failed_requests=found.failed_count,
            unbilled_requests=found.unbilled_count,
            success_rate=percent(found.successful_count, found.total_count),
            **self._asked(question),
        )

    async def ListTokenUsageByAgent(
        self, request: pb.ListTokenUsageByAgentRequest, context: Context
    ) -> pb.ListTokenUsageByAgentResponse:
        question, page = _question(request), _page(request)
        found = await self._room.token_users(caller(context), question)
        together = total(each for _, each in found)
        return pb.ListTokenUsageByAgentResponse(
            data=[_tokens(*each) for each in page.of(found)],
            summary=pb.TokensSummary(
                total_input_tokens=together.input_tokens,
                total_output_tokens=together.output_tokens,
                total_cached_tokens=together.cached_tokens,
                total_tokens=together.total_tokens,
                total_unbilled_tokens=together.unbilled_tokens,
                total_requests=together.successful_count,
                average_tokens_per_request=_average_tokens(together),
            ),
            pagination=page.described(len(found)),
            **self._asked(question),
        )

    async def ListModelUsage(
        self, request: pb.ListModelUsageRequest, context: Context
    ) -> pb.ListModelUsageResponse:
        question, page = _question(request), _page(request)
        found = await self._room.by_model(caller(context), question)
        together = total(each for _, each in found)
        return pb.ListModelUsageResponse(
            data=[
                pb.ModelUsage(
                    model=key.model,
                    provider=key.provider,
                    request_count=each.successful_count,
                    spending_nanousd=each.cost_nanousd,
                    input_tokens=each.input_tokens,
                    output_tokens=each.output_tokens,
                    cached_tokens=each.cached_tokens,
                    total_tokens=each.total_tokens,
                    unbilled_requests=each.unbilled_count,
                    avg_cost_per_request_nanousd=each.average_nanousd,
                )
                for key, each in page.of(found)
            ],
            summary=pb.ModelsSummary(
                unique_models=len({key.model for key, _ in found}),
                total_requests=together.successful_count,
                total_spend_nanousd=together.cost_nanousd,
            ),
            pagination=page.described(len(found)),
            **self._asked(question),
        )

    def _asked(self, question: Question) -> dict[str, Any]:
        """What every answer says of what was asked."""
        return {
            "period": question.period,
            "filters": pb.Filters(
                agent_id=question.agent_id or None,
                provider_id=question.provider_id or None,
                provider=question.provider or None,
                model=question.model or None,
                project_id=question.project_id or None,
            ),
            "calculated_at": self._now(),
        }

    def _now(self) -> Timestamp | None:
        return timestamp(self._clock())


MAX_THRESHOLD = 1_000_000


def _question(request: Any, *, default: str = ALL_TIME) -> Question:
    period = request.period or default
    if period not in PERIODS:
        text = f"is {period[:50]!r}; it must be one of {', '.join(PERIODS)}"
        raise InvalidArgument(
            f"invalid request: period: {text}", reason="INVALID_PERIOD", fields={"period": text}
        )
    with Checks() as checks:
        checks.text("agent_id", request.agent_id, 0, 100)
        checks.text("provider_id", request.provider_id, 0, 100)
        checks.text("provider", request.provider, 0, 50)
        checks.text("model", request.model, 0, 100)
        checks.text("project_id", request.project_id, 0, 100)
    return Question(
        period,
        request.agent_id,
        request.provider_id,
        request.provider,
        request.model,
        request.project_id,
    )


def _page(request: Any) -> Page:
    with Checks() as checks:
        return page_of(checks, request)


def _events_in(request: pb.IngestEventsRequest) -> tuple[list[Told], bool]:
    """The events, and whether it is one that stands by itself.

    Raises:
        InvalidArgument: neither or both were given, or too many.
    """
    given = [field.name for field, _ in request.ListFields() if field.name in ONE_EVENT]
    with Checks() as checks:
        if len(request.events) > MAX_EVENTS:
            checks.add(
                "events", f"has {len(request.events)} items; at most {MAX_EVENTS} are allowed"
            )
        if request.events and given:
            checks.add(given[0], "cannot be given beside events")
        if not request.events and not given:
            checks.add("events", "is missing; give the fields of one event, or up to 1,000 events")
    if request.events:
        return [_told(event) for event in request.events], False
    return [_told(request)], True


ONE_EVENT = frozenset(pb.AnalyticsEvent.DESCRIPTOR.fields_by_name)


def _told(event: pb.AnalyticsEvent | pb.IngestEventsRequest) -> Told:
    return Told(
        event.event_id,
        event.event_type,
        _microseconds(event.timestamp) if event.HasField("timestamp") else None,
        event.model,
        event.provider,
        event.input_tokens,
        event.output_tokens,
        event.cost_nanousd if event.HasField("cost_nanousd") else None,
        event.error_code,
        event.error_message,
        event.duration_ms,
    )


def _microseconds(stamp: Timestamp) -> int:
    """As many as protobuf's timestamps may have; gRPC callers can send any number."""
    seconds = max(-LAST_SECOND, min(stamp.seconds, LAST_SECOND))
    return seconds * 1_000_000 + stamp.nanos // 1_000


def _budget_status(each: AgentFigures) -> pb.AgentBudgetStatus:
    return pb.AgentBudgetStatus(
        agent_id=each.agent.agent_id,
        agent_name=each.agent.name,
        budget_nanousd=each.balance.allocated_nanousd,
        spent_nanousd=each.spent_nanousd,
        remaining_nanousd=each.remaining_nanousd,
        percent_used=each.balance.percent_used,
        status=STANDINGS[each.standing],
        risk_level=RISKS[each.risk],
        risk_scope=each.balance.tightest_scope,
    )


def _points(group: GroupOverTime, begins_us: list[int]) -> list[pb.SpendingPoint]:
    return [
        pb.SpendingPoint(
            begins_at=timestamp(at_us),
            spending_nanousd=each.cost_nanousd,
            request_count=each.successful_count,
            total_tokens=each.total_tokens,
        )
        for at_us, each in zip(begins_us, group.points, strict=True)
    ]


def _budget_summary(matching: list[AgentFigures]) -> pb.BudgetStatusSummary:
    risks = [each.risk for each in matching]
    standings = [each.standing for each in matching]
    return pb.BudgetStatusSummary(
        total_agents=len(matching),
        active=standings.count(Standing.ACTIVE),
        inactive=standings.count(Standing.INACTIVE),
        exhausted=risks.count(Risk.EXHAUSTED),
        critical=risks.count(Risk.CRITICAL),
        high=risks.count(Risk.HIGH),
        medium=risks.count(Risk.MEDIUM),
        low=risks.count(Risk.LOW),
    )


def _tokens(agent: KnownAgent, found: Sums) -> pb.AgentTokens:
    return pb.AgentTokens(
        agent_id=agent.agent_id,
        agent_name=agent.name,
        input_tokens=found.input_tokens,
        output_tokens=found.output_tokens,
        cached_tokens=found.cached_tokens,
        total_tokens=found.total_tokens,
        unbilled_tokens=found.unbilled_tokens,
        request_count=found.successful_count,
        avg_tokens_per_request=_average_tokens(found),
    )


def _average_tokens(found: Sums) -> float:
    return rounded_share(found.total_tokens * 100, found.successful_count) / 100
