"""What the server answers about spending, usage and single calls, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal

Period = Literal[
    "last-hour",
    "today",
    "yesterday",
    "last-7-days",
    "last-30-days",
    "this-month",
    "last-month",
    "all-time",
]
SpendingStep = Literal["unspecified", "minute", "hour", "day", "week"]
SpendingGroupBy = Literal["unspecified", "agent", "provider", "model"]
RiskLevel = Literal["unspecified", "low", "medium", "high", "critical", "exhausted"]
SpendingStatus = Literal["unspecified", "active", "exhausted", "inactive"]
TraceStatus = Literal["unspecified", "completed", "failed"]


@dataclass(frozen=True, slots=True)
class TotalSpending:
    """What was spent in a period."""

    total_spend_usd: Decimal
    period: str
    calculated_at: datetime | None


@dataclass(frozen=True, slots=True)
class AgentSpending:
    """What one agent spent in a period."""

    agent_id: str
    agent_name: str
    spending_usd: Decimal
    budget_usd: Decimal
    percent_used: float
    request_count: int


@dataclass(frozen=True, slots=True)
class AgentSpendingSummary:
    """What all of them spent together."""

    total_spend_usd: Decimal
    total_budget_usd: Decimal
    total_agents: int
    average_percent_used: float


@dataclass(frozen=True, slots=True)
class SpendingByAgent:
    """Agents that spent, the most first."""

    data: tuple[AgentSpending, ...]
    summary: AgentSpendingSummary
    period: str
    calculated_at: datetime | None


@dataclass(frozen=True, slots=True)
class ProviderSpending:
    """What one provider was paid in a period."""

    provider: str
    provider_id: str
    spending_usd: Decimal
    request_count: int
    avg_cost_per_request_usd: Decimal
    agent_count: int


@dataclass(frozen=True, slots=True)
class ProviderSpendingSummary:
    """What all of them were paid together."""

    total_spend_usd: Decimal
    total_requests: int
    providers_count: int
    average_cost_per_request_usd: Decimal


@dataclass(frozen=True, slots=True)
class SpendingByProvider:
    """Providers that were paid, the most first."""

    data: tuple[ProviderSpending, ...]
    summary: ProviderSpendingSummary
    period: str
    calculated_at: datetime | None


@dataclass(frozen=True, slots=True)
class SpendingPoint:
    """What was spent in one step of a period."""

    begins_at: datetime | None
    spending_usd: Decimal
    request_count: int
    total_tokens: int


@dataclass(frozen=True, slots=True)
class SpendingGroup:
    """What one agent, provider or model spent in each step, or all the others together."""

    key: str
    name: str
    is_other: bool
    spending_usd: Decimal
    request_count: int
    total_tokens: int
    data: tuple[SpendingPoint, ...]


@dataclass(frozen=True, slots=True)
class SpendingOverTime:
    """What was spent in each step of a period, those without spending too."""

    data: tuple[SpendingPoint, ...]
    groups: tuple[SpendingGroup, ...]
    total_spend_usd: Decimal
    total_requests: int
    total_tokens: int
    step: SpendingStep
    period: str
    calculated_at: datetime | None


@dataclass(frozen=True, slots=True)
class CostPerRequest:
    """What a call cost in a period; zeros without any."""

    average_cost_per_request_usd: Decimal
    min_cost_per_request_usd: Decimal
    max_cost_per_request_usd: Decimal
    total_requests: int
    total_spend_usd: Decimal
    period: str
    calculated_at: datetime | None


@dataclass(frozen=True, slots=True)
class AgentBudgetStatus:
    """How much of its budget an agent has used."""

    agent_id: str
    agent_name: str
    budget_usd: Decimal
    spent_usd: Decimal
    remaining_usd: Decimal
    percent_used: float
    status: SpendingStatus
    risk_level: RiskLevel
    risk_scope: str
    """Whose budget the risk is of: the agent's own, its project's or the organisation's."""


@dataclass(frozen=True, slots=True)
class BudgetStatusSummary:
    """How many agents are how far."""

    total_agents: int
    active: int
    inactive: int
    exhausted: int
    critical: int
    high: int
    medium: int
    low: int


@dataclass(frozen=True, slots=True)
class BudgetStatusReport:
    """Agents, those that used the largest share of their budget first."""

    data: tuple[AgentBudgetStatus, ...]
    summary: BudgetStatusSummary
    calculated_at: datetime | None


@dataclass(frozen=True, slots=True)
class RequestUsage:
    """How many calls were made in a period, and how many failed."""

    total_requests: int
    successful_requests: int
    failed_requests: int
    unbilled_requests: int
    """Of the successful ones: told of by an event, and not booked."""
    success_rate: float
    period: str
    calculated_at: datetime | None


@dataclass(frozen=True, slots=True)
class AgentTokens:
    """The tokens of one agent in a period."""

    agent_id: str
    agent_name: str
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    total_tokens: int
    unbilled_tokens: int
    request_count: int
    avg_tokens_per_request: float


@dataclass(frozen=True, slots=True)
class TokensSummary:
    """The tokens of all of them together."""

    total_input_tokens: int
    total_output_tokens: int
    total_cached_tokens: int
    total_tokens: int
    total_unbilled_tokens: int
    total_requests: int
    average_tokens_per_request: float


@dataclass(frozen=True, slots=True)
class TokensByAgent:
    """Agents, the one with the most tokens first."""

    data: tuple[AgentTokens, ...]
    summary: TokensSummary
    period: str
    calculated_at: datetime | None


@dataclass(frozen=True, slots=True)
class ModelUsage:
    """What was asked of one model in a period."""

    model: str
    provider: str
    request_count: int
    spending_usd: Decimal
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    total_tokens: int
    unbilled_requests: int
    avg_cost_per_request_usd: Decimal


@dataclass(frozen=True, slots=True)
class ModelsSummary:
    """What was asked of all of them."""

    unique_models: int
    total_requests: int
    total_spend_usd: Decimal


@dataclass(frozen=True, slots=True)
class UsageByModel:
    """Models, the one asked most often first."""

    data: tuple[ModelUsage, ...]
    summary: ModelsSummary
    period: str
    calculated_at: datetime | None


@dataclass(frozen=True, slots=True)
class AgentUsage:
    """How the money of an agent stands, and what was asked for it, of all time."""

    agent_id: str
    agent_name: str
    allocated_usd: Decimal
    reserved_usd: Decimal
    spent_usd: Decimal
    overrun_usd: Decimal
    """Of what was spent: more than was lent."""
    available_usd: Decimal
    percent_used: float
    risk_level: RiskLevel
    requests: int
    tokens: int
    risk_scope: str
    """Whose budget the risk is of."""


@dataclass(frozen=True, slots=True)
class UsageTotals:
    """The same of all of them together."""

    allocated_usd: Decimal
    reserved_usd: Decimal
    spent_usd: Decimal
    overrun_usd: Decimal
    available_usd: Decimal
    percent_used: float
    requests: int
    tokens: int
    agents: int


@dataclass(frozen=True, slots=True)
class Usage:
    """How the money of agents stands."""

    agents: tuple[AgentUsage, ...]
    totals: UsageTotals
    calculated_at: datetime | None


@dataclass(frozen=True, slots=True)
class Trace:
    """What is known of one LLM call; never what was asked or answered."""

    id: str
    agent_id: str
    lease_id: str
    request_id: str
    provider: str
    model: str
    status: TraceStatus
    billed: bool
    """False for a call that an event tells of and that is not booked."""
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    total_tokens: int
    cost_usd: Decimal
    overrun_usd: Decimal
    claimed_cost_usd: Decimal | None
    certainty: str
    error_code: str
    error_message: str
    duration_ms: int | None
    ended_at: datetime | None
    recorded_at: datetime | None
