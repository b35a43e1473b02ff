"""Events as they happen, over a stream that is opened again after a cut where it left off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

from steward.events.v1 import events_pb2
from steward.events.v1.events_pb2_grpc import EventServiceStub
from steward_client.client.calls import Call, Manner, nothing
from steward_client.client.conversation import Conversation, Read, Wait
from steward_client.client.holding import CUTS, Holder, Holding, Open, held, no_matter
from steward_client.client.values import value_of
from steward_client.errors import StewardError

EventType = Literal[
    "AgentStarted",
    "AgentStopped",
    "CostUpdate",
    "PiiAlert",
    "BudgetWarning",
    "BudgetRequested",
    "BudgetReviewed",
    "BudgetChanged",
    "CircuitOpened",
    "EnvironmentStarted",
    "EnvironmentStopped",
    "EnvironmentFailed",
    "EnvironmentExpired",
    "PolicyLoaded",
    "PolicyUnloaded",
    "PolicyFailed",
]


@dataclass(frozen=True, slots=True)
class AgentStarted:
    """An agent began to run."""

    runtime_id: str
    runtime_version: str
    script: str
    budget_usd: Decimal


@dataclass(frozen=True, slots=True)
class AgentStopped:
    """An agent's script ended."""

    runtime_id: str
    exit_code: int | None
    reason: str
    """"exited", "stopped", "killed" or "lost"."""


@dataclass(frozen=True, slots=True)
class CostUpdate:
    """Usage was booked."""

    lease_id: str
    request_id: str
    provider: str
    model: str
    input_tokens: int
    output_tokens: int
    cost_usd: Decimal
    spent_usd: Decimal
    """Of the agent, this usage included."""
    remaining_usd: Decimal
    """What could be lent to the agent still."""
    lease_remaining_usd: Decimal


@dataclass(frozen=True, slots=True)
class PiiFinding:
    """How much personal data of one kind."""

    kind: str
    count: int


@dataclass(frozen=True, slots=True)
class PiiAlert:
    """Personal data was seen in a call. Carries kinds and counts, never the data."""

    request_id: str
    direction: Literal["unspecified", "input", "output"]
    action: Literal["unspecified", "alert", "redact", "block"]
    findings: tuple[PiiFinding, ...]


@dataclass(frozen=True, slots=True)
class BudgetWarning:
    """The use of a budget passed a threshold."""

    threshold_percent: int
    spent_usd: Decimal
    limit_usd: Decimal
    scope: str
    """Whose: `agent:…`, `project:…` or `organisation`."""


@dataclass(frozen=True, slots=True)
class CircuitOpened:
    """A runtime asks its provider no more for a while, because it keeps failing."""

    provider: str
    failures: int
    retry_after_ms: int


@dataclass(frozen=True, slots=True)
class BudgetRequested:
    """A larger budget was asked for."""

    budget_request_id: str
    requester_id: str
    current_budget_usd: Decimal
    requested_budget_usd: Decimal
    expires_in_s: int | None


@dataclass(frozen=True, slots=True)
class BudgetReviewed:
    """A request for a larger budget was decided."""

    budget_request_id: str
    status: str
    """"approved", "rejected" or "cancelled"."""
    requester_id: str
    reviewer_id: str
    requested_budget_usd: Decimal
    previous_budget_usd: Decimal | None
    approved_budget_usd: Decimal | None
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class BudgetChanged:
    """A budget changed: of an agent, or one that agents share. None: no limit."""

    old_budget_usd: Decimal | None
    new_budget_usd: Decimal | None
    cause: str
    """"set", "raised", "raise_ended" or "period_began"."""
    changed_by: str
    """Empty for the server itself."""
    budget_request_id: str
    scope: str
    """"agent:…", "project:…" or "organisation"."""


@dataclass(frozen=True, slots=True)
class EnvironmentStarted:
    """An environment runs. Events of environments have no `agent_id`."""

    environment_id: str
    name: str
    image: str
    owner_id: str


@dataclass(frozen=True, slots=True)
class EnvironmentStopped:
    """An environment is over, and nothing of it is left."""

    environment_id: str
    name: str
    reason: str
    exit_code: int | None
    """Of its main command, where that ended by itself."""


@dataclass(frozen=True, slots=True)
class EnvironmentFailed:
    """An environment could not be made, was lost, or its main command ended badly."""

    environment_id: str
    name: str
    reason: str
    exit_code: int | None
    """Of its main command, where that ended by itself."""


@dataclass(frozen=True, slots=True)
class EnvironmentExpired:
    """An environment's time is over; it ends."""

    environment_id: str
    name: str
    cause: str
    """"timeout" or "idle"."""


@dataclass(frozen=True, slots=True)
class PolicyLoaded:
    """Agents can step with a version of a policy from now on. Events of policies have no agent."""

    policy: str
    """With its version: "cartpole@3"."""
    model_sha256: str
    best_batch: int
    """The number of rows that cost least for each."""


@dataclass(frozen=True, slots=True)
class PolicyUnloaded:
    """Nobody steps with it any more."""

    policy: str
    agents_ended: int
    """Agents that were ended with it."""


@dataclass(frozen=True, slots=True)
class PolicyFailed:
    """It cannot be served."""

    policy: str
    reason: str


@dataclass(frozen=True, slots=True)
class Gap:
    """The reader was too slow: the events between are not sent. Both ends included."""

    from_sequence: int
    to_sequence: int


EventData = (
    AgentStarted
    | AgentStopped
    | CostUpdate
    | PiiAlert
    | BudgetWarning
    | BudgetRequested
    | BudgetReviewed
    | BudgetChanged
    | CircuitOpened
    | EnvironmentStarted
    | EnvironmentStopped
    | EnvironmentFailed
    | EnvironmentExpired
    | PolicyLoaded
    | PolicyUnloaded
    | PolicyFailed
    | Gap
)

_KINDS: dict[str, type[Any]] = {
    "agent_started": AgentStarted,
    "agent_stopped": AgentStopped,
    "cost_update": CostUpdate,
    "pii_alert": PiiAlert,
    "budget_warning": BudgetWarning,
    "circuit_opened": CircuitOpened,
    "budget_requested": BudgetRequested,
    "budget_reviewed": BudgetReviewed,
    "budget_changed": BudgetChanged,
    "environment_started": EnvironmentStarted,
    "environment_stopped": EnvironmentStopped,
    "environment_failed": EnvironmentFailed,
    "environment_expired": EnvironmentExpired,
    "policy_loaded": PolicyLoaded,
    "policy_unloaded": PolicyUnloaded,
    "policy_failed": PolicyFailed,
    "gap": Gap,
}


@dataclass(frozen=True, slots=True)
class Event:
    """One event; `sequence` grows, with holes, and is what `since` takes."""

    event_id: str
    sequence: int
    timestamp: datetime
    agent_id: str
    data: EventData

    @property
    def type(self) -> str:
        """The name of its kind: "CostUpdate"."""
        return type(self.data).__name__


class Events(Open[Manner, Event]):
    """One event after the other, over as many streams as it takes, until it is closed.

    A cut before the first event or heartbeat of a subscription without `since` leaves no place to
    go on from: it then goes on from when the stream stands again.
    """

    def __init__(
        self,
        holder: Holder,
        agent_id: str,
        types: Sequence[EventType],
        since: int | None,
        *,
        reconnect_s: float,
        on_cut: Callable[[StewardError], None],
    ) -> None:
        super().__init__(holder)
        self._agent_id = agent_id
        self._types = types
        self._since = since
        self._reconnecting = replace(holder.manners, patience_s=reconnect_s)
        self._delays_s = holder.manners.delays_s()
        self._on_cut = on_cut

    def open(self) -> Conversation[None]:
        self.stream = yield from self.holder.manners.ask(self._call())

    def next_item(self) -> Conversation[Event]:
        while True:
            if self.stream is None:
                yield Wait(next(self._delays_s))
                self.stream = yield from self._reconnecting.ask(self._call())
                self._end_if_closed()
            try:
                answer = yield Read(self.stream)
            except CUTS as cut:
                if self.closed:
                    raise
                self.stream = None
                self._on_cut(cut)
                continue
            self._since = answer.event.sequence
            self._delays_s = self.holder.manners.delays_s()
            if event := event_of(answer.event):
                return event

    def _call(self) -> Call[Any]:
        request = events_pb2.SubscribeRequest(
            agent_id=self._agent_id, type=self._types, since=self._since
        )
        return Call(
            EventServiceStub, "Subscribe", request, read=nothing, repeatable=True, streams=True
        )


class Feed(Holding[Manner]):
    """What happens, as it happens."""

    @held
    def subscribe(
        self,
        *,
        agent_id: str = "",
        types: Sequence[EventType] = (),
        since: int | None = None,
        reconnect_s: float = 60.0,
        on_cut: Callable[[StewardError], None] = no_matter,
    ) -> Conversation[Events[Manner]]:
        """Events of one agent, or of all the caller may see.

        Returns when the server has let the caller in. `since` asks for what came after that
        sequence first, 0 for all there is. A cut stream is opened again where it left off, for up
        to `reconnect_s`; `on_cut` is told.

        Raises:
            StewardError: it is refused, here or by the first event asked for.
        """
        events: Events[Manner] = Events(
            self.holder, agent_id, types, since, reconnect_s=reconnect_s, on_cut=on_cut
        )
        yield from events.open()
        return events


def event_of(event: events_pb2.Event) -> Event | None:
    """The event in a message; None for a heartbeat, and for kinds this version does not know."""
    name = event.WhichOneof("data") or ""
    if name not in _KINDS:
        return None
    return Event(
        event.event_id,
        event.sequence,
        event.timestamp.ToDatetime(UTC),
        event.agent_id,
        value_of(_KINDS[name], getattr(event, name)),
    )
