"""What the server answers, as frozen values: money in exact dollars, times with their zone.

A value is read from a message field by field, by name: `spent_usd` from `spent_nanousd`,
`input_usd_per_million` from `input_picousd`, words from enums, dates from timestamps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from steward_client.money import usd

T = TypeVar("T")

AgentStatus = Literal["unspecified", "idle", "running", "stopping", "stopped", "failed"]
DesiredState = Literal["unspecified", "running", "stopped"]
BudgetState = Literal["unspecified", "active", "exhausted"]
BudgetMode = Literal["unspecified", "restrictive", "informative"]
BudgetPeriod = Literal["unspecified", "none", "day", "week", "month"]
TokenStatus = Literal["unspecified", "active", "expired", "revoked"]
BudgetRequestStatus = Literal["unspecified", "pending", "approved", "rejected", "cancelled"]
BudgetChangeCause = Literal["unspecified", "set", "raised", "raise_ended", "period_began"]
ProviderKind = Literal["unspecified", "openai", "anthropic"]
DeliveryStatus = Literal["unspecified", "pending", "delivered", "dead"]
AlertType = Literal["BudgetWarning", "BudgetExhausted", "Overrun", "PiiAlert", "CircuitOpen"]
Role = Literal["unspecified", "admin", "user", "viewer"]
KeyKind = Literal["unspecified", "agentbox", "itk"]
KeyRole = Literal["unspecified", "admin", "user", "readonly", "executor"]
PermissionWord = Literal["unspecified", "read", "write", "admin"]
PersonState = Literal["unspecified", "active", "suspended"]


@dataclass(frozen=True, slots=True)
class User:
    """A person who may sign in."""

    id: str
    username: str
    email: str
    role: Role


@dataclass(frozen=True, slots=True)
class Me:
    """Who is signed in."""

    id: str
    username: str
    email: str
    role: Role
    must_change_password: bool
    """Whether nothing else can be done before."""
    created_at: datetime | None
    last_login_at: datetime | None


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who may sign in, as administrators see them."""

    id: str
    username: str
    email: str
    role: Role
    state: PersonState
    must_change_password: bool
    created_at: datetime | None
    last_login_at: datetime | None
    suspended_at: datetime | None
    suspend_reason: str


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Something that somebody changed."""

    number: int
    at: datetime | None
    action: str
    """What happened, as "agent.created"."""
    resource_type: str
    resource_id: str
    actor_kind: str
    actor_id: str
    actor_role: str
    credential: str
    address: str
    user_agent: str
    request_id: str
    method: str
    before: dict[str, Any] | None
    """The fields that changed, as they were."""
    after: dict[str, Any] | None
    reason: str
    hash: str


@dataclass(frozen=True, slots=True)
class AuditVerdict:
    """What came of reading the whole audit log."""

    verified: bool
    entries: int
    head_number: int
    head_hash: str
    """Kept elsewhere, it shows later that the log is still the same up to here."""
    broken_at: int
    what: str
    """What is wrong with the entry of that number."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The money of an agent in its present period."""

    limit_usd: Decimal
    spent_usd: Decimal
    reserved_usd: Decimal
    """Lent to runtimes and not yet spent."""
    available_usd: Decimal
    """What could be lent to it, its project and the organisation considered."""
    overrun_usd: Decimal
    """Spent beyond what was lent; normally 0."""
    percent_used: float
    state: BudgetState
    period: BudgetPeriod
    period_start: datetime | None
    """None: it is for ever."""
    period_end: datetime | None


@dataclass(frozen=True, slots=True)
class ScopeBudget:
    """The money of an agent, a project or the organisation by itself, in its present period."""

    scope: str
    """`agent:…`, `project:…` or `organisation`."""
    id: str
    name: str
    limit_usd: Decimal | None
    """None: no limit."""
    spent_usd: Decimal
    reserved_usd: Decimal
    """Lent to runtimes and not yet spent."""
    available_usd: Decimal | None
    """None: it blocks nothing."""
    overrun_usd: Decimal
    """Spent beyond what was lent; normally 0."""
    percent_used: float | None
    mode: BudgetMode
    period: BudgetPeriod
    period_start: datetime | None
    """None: it is for ever."""
    period_end: datetime | None


@dataclass(frozen=True, slots=True)
class Project:
    """A budget that agents share."""

    id: str
    name: str
    budget: ScopeBudget
    created_at: datetime | None
    updated_at: datetime | None


@dataclass(frozen=True, slots=True)
class Organisation:
    """What holds every project and every agent."""

    id: str
    name: str
    budget: ScopeBudget
    updated_at: datetime | None


@dataclass(frozen=True, slots=True)
class BudgetPath:
    """The budgets that limit an agent, its own first."""

    path: tuple[ScopeBudget, ...]
    available_usd: Decimal
    """What could be lent to it: the least of what they have."""


@dataclass(frozen=True, slots=True)
class BudgetTree:
    """A budget, and those right below it."""

    budget: ScopeBudget
    children: tuple[ScopeBudget, ...]


@dataclass(frozen=True, slots=True)
class Agent:
    """Who may spend, how much, on which provider."""

    id: str
    name: str
    owner_id: str
    provider: str
    """The only provider it may use; empty: any."""
    status: AgentStatus
    desired_state: DesiredState
    budget: Budget
    created_at: datetime | None
    updated_at: datetime | None
    last_seen_at: datetime | None
    project_id: str
    """The project whose budget it shares; empty: none."""


@dataclass(frozen=True, slots=True)
class AgentReport:
    """How an agent and its money are, as of `commit_number`."""

    agent_id: str
    name: str
    status: AgentStatus
    desired_state: DesiredState
    budget: Budget
    last_seen_at: datetime | None
    started_at: datetime | None
    stopped_at: datetime | None
    exit_code: int | None
    open_leases: int
    commit_number: int


@dataclass(frozen=True, slots=True)
class BudgetRequest:
    """A request for a larger budget. Amounts are what the budget is to be."""

    id: str
    agent_id: str
    agent_name: str
    requester_id: str
    requester_name: str
    requester_kind: str
    """"person" or "agent"."""
    current_budget_usd: Decimal
    """When it was asked."""
    requested_budget_usd: Decimal
    justification: str
    expires_in_s: int | None
    """How long the raise is to hold from its approval; None: for good."""
    status: BudgetRequestStatus
    reviewer_id: str | None
    """Who approved, rejected or cancelled it; this and the following are None until then."""
    reviewed_at: datetime | None
    review_notes: str | None
    rejection_reason: str | None
    previous_budget_usd: Decimal | None
    """Just before the approval."""
    approved_budget_usd: Decimal | None
    expires_at: datetime | None
    """When what the approval added is taken back; None: never."""
    created_at: datetime | None
    updated_at: datetime | None
    agent_budget: Budget | None
    """The agent's money now; None once the agent is deleted."""


@dataclass(frozen=True, slots=True)
class BudgetChange:
    """One change of an agent's budget."""

    sequence: int
    agent_id: str
    old_budget_usd: Decimal
    new_budget_usd: Decimal
    change_usd: Decimal
    cause: BudgetChangeCause
    changed_by: str
    """The user who decided; empty for the server itself."""
    reason: str
    budget_request_id: str
    changed_at: datetime | None


@dataclass(frozen=True, slots=True)
class BudgetSummary:
    """What the changes of an agent's budget add up to."""

    initial_budget_usd: Decimal
    current_budget_usd: Decimal
    total_increases_usd: Decimal
    change_count: int
    temporary_usd: Decimal
    """The part of the current budget that raises which are to end have added."""
    temporary_until: datetime | None
    """When the first of those ends."""


@dataclass(frozen=True, slots=True)
class BudgetHistory:
    """Every change of an agent's budget, newest first, and their sum."""

    agent_id: str
    changes: tuple[BudgetChange, ...]
    summary: BudgetSummary


@dataclass(frozen=True, slots=True)
class Token:
    """An agent's IC token. Its text is in `token`, in the answers of create and rotate only."""

    id: str
    agent_id: str
    name: str
    status: TokenStatus
    prefix: str
    scopes: tuple[str, ...]
    created_at: datetime | None
    expires_at: datetime | None
    last_used_at: datetime | None
    rotated_at: datetime | None
    revoked_at: datetime | None
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class EnvironmentPermission:
    """What an API key may do with one environment."""

    environment_id: str
    permission: PermissionWord


@dataclass(frozen=True, slots=True)
class ApiKey:
    """The key of somebody's programs. Its text is in `key`, in the answer of create only."""

    id: str
    key: str = field(repr=False)
    description: str
    created_at: datetime | None
    expires_at: datetime | None
    last_used_at: datetime | None
    permissions: tuple[EnvironmentPermission, ...]
    """The environments it is limited to; none: whichever its owner may use."""
    kind: KeyKind
    role: KeyRole
    prefix: str
    user_id: str


@dataclass(frozen=True, slots=True)
class Provider:
    """An LLM provider whose key the server keeps."""

    id: str
    name: str
    kind: ProviderKind
    base_url: str
    masked_key: str
    created_at: datetime | None
    last_used_at: datetime | None
    usable: bool
    """False when the server can no longer decrypt the key."""
    allow_plaintext_key: bool
    """A runtime that holds a lease may have the key without a seal."""


@dataclass(frozen=True, slots=True)
class Credential:
    """What playbooks sign in to a gateway with, without the password."""

    name: str
    username: str
    gateway_url: str
    """Where it is good for; empty if that was not said."""
    description: str


@dataclass(frozen=True, slots=True)
class Limit:
    """The limits of a scope and how far they are used; None is no limit. Times are UTC's."""

    scope: str
    max_requests_per_minute: int | None
    max_tokens_per_day: int | None
    max_cost_per_month_usd: Decimal | None
    requests_last_minute: int
    requests_shared: int
    """Handed out to open leases as their shares."""
    tokens_today: int
    tokens_allotted: int
    """Handed out to open leases and not reported as used."""
    cost_this_month_usd: Decimal
    leased_usd: Decimal
    tokens_reset_at: datetime | None
    cost_reset_at: datetime | None
    updated_at: datetime | None


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where alerts are sent. Its secret is in the answers of create and rotate only."""

    id: str
    url: str
    events: tuple[str, ...]
    """Empty: all."""
    description: str
    enabled: bool
    disabled_reason: str
    pending_count: int
    created_at: datetime | None
    updated_at: datetime | None
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One alert on its way to a webhook; `id` is what the receiver sees as `webhook-id`."""

    id: str
    event_type: str
    sequence: int
    status: DeliveryStatus
    attempts: int
    created_at: datetime | None
    next_attempt_at: datetime | None
    delivered_at: datetime | None
    last_status_code: int
    last_error: str


@dataclass(frozen=True, slots=True)
class Price:
    """What a model's tokens cost, in dollars per million tokens."""

    provider: str
    """The kind of provider, "openai" or "anthropic"; not the name of one."""
    model: str
    input_usd_per_million: Decimal
    output_usd_per_million: Decimal
    cache_read_usd_per_million: Decimal
    cache_write_usd_per_million: Decimal
    effective_from: datetime | None
    source: str


@dataclass(frozen=True, slots=True)
class LedgerAudit:
    """The newest proof that the books balance, made by the server of itself."""

    balanced: bool
    checked_at: datetime | None
    commit_number: int
    account_count: int
    open_lease_count: int
    overrun_usd: Decimal


@dataclass(frozen=True, slots=True)
class Health:
    """How the server is."""

    status: str
    version: str
    timestamp: datetime | None
    ledger: LedgerAudit
    notices: tuple[str, ...]


def value_of(kind: type[T], message: Message) -> T:
    """Read a value of this kind from a message that has its fields."""
    readers = _readers(kind, message.DESCRIPTOR)  # type: ignore[arg-type] # classes are hashable
    return kind(**{name: read(message) for name, read in readers})


@cache
def _readers(kind: Any, descriptor: Any) -> list[tuple[str, Callable[[Any], Any]]]:
    hints = get_type_hints(kind)
    return [
        (each.name, _reader(each.name, hints[each.name], descriptor.fields_by_name))
        for each in fields(kind)
    ]


def _reader(name: str, hint: Any, described: Any) -> Callable[[Any], Any]:
    source, convert = _conversion(name, hint, described)
    if described[source].has_presence and type(None) in get_args(hint):
        return lambda message: (
            convert(getattr(message, source)) if message.HasField(source) else None
        )
    return lambda message: convert(getattr(message, source))


def _conversion(name: str, hint: Any, described: Any) -> tuple[str, Callable[[Any], Any]]:
    if name.endswith("_usd_per_million"):
        # 1 pico-dollar a token is a millionth of a dollar a million tokens.
        source = name.removesuffix("_usd_per_million") + "_picousd"
        return source, lambda picousd: Decimal(picousd).scaleb(-6)
    if name.endswith("_usd"):
        return name.removesuffix("_usd") + "_nanousd", usd
    field_descriptor: FieldDescriptor = described[name]
    if field_descriptor.enum_type is not None:
        return name, lambda number: enum_word(field_descriptor.enum_type, number)
    if field_descriptor.message_type is not None:
        if field_descriptor.message_type.GetOptions().map_entry:
            return name, dict
        if field_descriptor.message_type.full_name == "google.protobuf.Timestamp":
            return name, lambda stamp: stamp.ToDatetime(UTC)
        if field_descriptor.message_type.full_name in _JSON:
            return name, lambda json: _whole(MessageToDict(json))
        if field_descriptor.is_repeated:
            item = get_args(hint)[0]
            return name, lambda items: tuple(value_of(item, each) for each in items)
        kind = next(each for each in (*get_args(hint), hint) if each is not type(None))
        return name, lambda message: value_of(kind, message)
    if field_descriptor.is_repeated:
        return name, tuple
    return name, lambda plain: plain


_JSON = ("google.protobuf.Struct", "google.protobuf.Value")


def _whole(value: Any) -> Any:
    """JSON with its whole numbers as such: a `Struct` holds every number as a double."""
    if isinstance(value, dict):
        return {name: _whole(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_whole(each) for each in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


def enum_word(described: Any, number: int) -> Any:
    """The word of an enum's value: `AGENT_STATUS_IDLE` is "idle"."""
    names = described.values_by_number
    prefix = names[0].name.removesuffix("UNSPECIFIED")
    known = names.get(number)
    return known.name.removeprefix(prefix).lower() if known else str(number)
