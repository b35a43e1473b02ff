"""What is asked about spending and usage: which agents it concerns, and the figures of those."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from steward_server.analytics.edges import Edges
from steward_server.analytics.figures import NOTHING, Key, Sums, percent, total
from steward_server.analytics.needs import Agents, KnownAgent, Projects, Providers, Purse
from steward_server.analytics.over_time import FIELDS, OTHERS, points
from steward_server.analytics.periods import ALL_TIME, window_of
from steward_server.analytics.queries import Apart, Scope, payers, sums
from steward_server.analytics.risk import Risk, Standing, risk_of, standing_of
from steward_server.analytics.steps import Step, fault_in, fault_in_count, numbers
from steward_server.balance import Balance
from steward_server.db import Database
from steward_server.errors import InvalidArgument, NotFound
from steward_server.principals import Principal

BALANCES_AT_ONCE = 500
MAX_GROUPS = 8
"""That are told apart over time; the rest is one more."""

SPENDING = ("request_count", "cost_nanousd")
TOKENS = (
    "request_count",
    "unbilled_count",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "unbilled_tokens",
)
USAGE = (*TOKENS, "failed_count")
"""What is summed up of each agent, where there may be many."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked for; empty texts leave it open."""

    period: str = ALL_TIME
    agent_id: str = ""
    provider_id: str = ""
    provider: str = ""
    model: str = ""
    project_id: str = ""


@dataclass(frozen=True, slots=True)
class AgentFigures:
    """An agent with its money in its present period, and its sums."""

    agent: KnownAgent
    balance: Balance
    sums: Sums

    @property
    def spent_nanousd(self) -> int:
        """Overrun included."""
        return self.balance.spent_nanousd + self.balance.overrun_nanousd

    @property
    def remaining_nanousd(self) -> int:
        return max(0, self.balance.allocated_nanousd - self.spent_nanousd)

    @property
    def risk(self) -> Risk:
        """By its own budget and those above it: it can spend no more once one of them is used."""
        return risk_of(self.balance.tightest_percent)

    @property
    def standing(self) -> Standing:
        return standing_of(self.balance.tightest_percent, stop_wanted=self.agent.stop_wanted)


@dataclass(frozen=True, slots=True)
class Spender:
    """An agent with what it spent and what it may spend."""

    agent: KnownAgent
    allocated_nanousd: int
    """In its present period."""
    sums: Sums

    @property
    def percent_used(self) -> float:
        """The spending summed up, as a share of the budget."""
        return percent(self.sums.cost_nanousd, self.allocated_nanousd)


@dataclass(frozen=True, slots=True)
class ProviderFigures:
    """A provider with its sums."""

    name: str
    provider_id: str
    sums: Sums
    agent_count: int


@dataclass(frozen=True, slots=True)
class GroupOverTime:
    """What some calls add up to in each step."""

    key: str
    """Empty for the others together."""
    name: str
    points: list[Sums]

    @property
    def together(self) -> Sums:
        return total(self.points)


@dataclass(frozen=True, slots=True)
class OverTime:
    """A period in steps."""

    begins_us: list[int]
    whole: GroupOverTime
    groups: list[GroupOverTime]


@dataclass(frozen=True, slots=True)
class AnalyticsRoom:
    """Figures of the agents a caller may see."""

    database: Database
    agents: Agents
    purse: Purse
    providers: Providers
    projects: Projects
    clock: Callable[[], int]
    edges: Edges = field(default_factory=Edges)

    async def total(self, caller: Principal, question: Question) -> Sums:
        """Everything together.

        Raises:
            NotFound: there is no such agent that the caller may see, or no such provider; as below.
        """
        scope = await self._scope(caller, question)
        found = await sums(self.database, scope, Apart(), edges=self.edges)
        return found.get(Key("", "", ""), NOTHING)

    async def spenders(self, caller: Principal, question: Question) -> list[Spender]:
        """Each agent that paid for a call, the one that spent the most first."""
        found = await self._by_agent(caller, question, SPENDING)
        paid = [(agent, each) for agent, each in found if each.request_count]
        allocated: dict[str, int] = {}
        for first in range(0, len(paid), BALANCES_AT_ONCE):
            ids = [agent.agent_id for agent, _ in paid[first : first + BALANCES_AT_ONCE]]
            allocated |= await self.purse.allocations(self.database, ids, self.clock())
        spenders = [Spender(agent, allocated[agent.agent_id], each) for agent, each in paid]
        return sorted(spenders, key=lambda one: (-one.sums.cost_nanousd, one.agent.agent_id))

    async def token_users(
        self, caller: Principal, question: Question
    ) -> list[tuple[KnownAgent, Sums]]:
        """Each agent with a call that succeeded, the one with the most tokens first."""
        found = await self._by_agent(caller, question, TOKENS)
        answered = [(agent, each) for agent, each in found if each.successful_count]
        return sorted(answered, key=lambda one: (-one[1].total_tokens, one[0].agent_id))

    async def _by_agent(
        self, caller: Principal, question: Question, fields: Collection[str]
    ) -> list[tuple[KnownAgent, Sums]]:
        scope = await self._scope(caller, question)
        found = await sums(self.database, scope, Apart(agent=True), fields, self.edges)
        owner_id = None if caller.is_admin else caller.subject
        known = await self.agents.of_owner(self.database, owner_id, deleted_too=True)
        of_agents = [(agent, found.get(Key(agent.agent_id, "", ""))) for agent in known]
        return [(agent, each) for agent, each in of_agents if each is not None]

    async def by_provider(self, caller: Principal, question: Question) -> list[ProviderFigures]:
        """Each provider that was paid, the one that was paid the most first."""
        scope = await self._scope(caller, question)
        found = await sums(self.database, scope, Apart(provider=True), edges=self.edges)
        agent_counts = Counter(name for _, name in await payers(self.database, scope, self.edges))
        ids = {name: number for number, name in (await self.providers.names(self.database)).items()}
        listed = [
            ProviderFigures(
                key.provider, ids.get(key.provider, ""), each, agent_counts[key.provider]
            )
            for key, each in found.items()
            if each.request_count
        ]
        return sorted(listed, key=lambda one: (-one.sums.cost_nanousd, one.name))

    async def by_model(self, caller: Principal, question: Question) -> list[tuple[Key, Sums]]:
        """Each model of each provider that answered a call, the one asked most often first."""
        scope = await self._scope(caller, question)
        apart = Apart(provider=True, model=True)
        found = await sums(self.database, scope, apart, edges=self.edges)
        answered = [(key, each) for key, each in found.items() if each.successful_count]
        return sorted(answered, key=lambda one: (-one[1].successful_count, one[0]))

    async def over_time(
        self, caller: Principal, question: Question, step: Step, apart: Apart
    ) -> OverTime:
        """What was spent in each step of the period.

        Raises:
            InvalidArgument: these are too many steps.
        """
        now_us = self.clock()
        scope = (await self._scope(caller, question))._replace(
            window=(window := window_of(question.period, now_us))
        )
        if fault := fault_in(step, question.period, window, now_us):
            raise _too_many_points(fault)
        named: list[str] = []
        if any(apart):
            by_key = await sums(self.database, scope, apart, FIELDS, self.edges)
            answered = [key for key, each in by_key.items() if each.successful_count]
            answered.sort(key=lambda key: (-by_key[key].cost_nanousd, key))
            named = ["".join(key) for key in answered[:MAX_GROUPS]]
        found = await points(self.database, scope, step, apart, named, now_us, self.edges)
        since_us = window.since_us
        if since_us is None:
            first = min((number for number, _ in found), default=step.number(now_us))
            since_us = step.begins_us(first)
        steps = numbers(step, since_us, window, now_us)
        if fault := fault_in_count(step, len(steps)):
            raise _too_many_points(fault)
        names = await self._names(caller) if apart.agent else {}
        groups = [
            GroupOverTime(
                key,
                names.get(key, key) or "other",
                [found.get((number, key), NOTHING) for number in steps],
            )
            for key in (*named, OTHERS)
        ]
        whole = [total(group.points[index] for group in groups) for index in range(len(steps))]
        told = [one for one in groups if one.key or one.together.successful_count]
        return OverTime(
            [step.begins_us(number) for number in steps],
            GroupOverTime("", "", whole),
            told if any(apart) else [],
        )

    async def _names(self, caller: Principal) -> dict[str, str]:
        owner_id = None if caller.is_admin else caller.subject
        known = await self.agents.of_owner(self.database, owner_id, deleted_too=True)
        return {agent.agent_id: agent.name for agent in known}

    async def standing(
        self,
        caller: Principal,
        agent_id: str = "",
        project_id: str = "",
        *,
        with_sums: bool = False,
    ) -> list[AgentFigures]:
        """The agents there are, newest first, with their money, and with sums of all time."""
        asked = await self._whose(caller, agent_id, project_id)
        if agent_id:
            agents: Sequence[KnownAgent] = [
                await self.agents.record(self.database, each) for each in asked or ()
            ]
        else:
            owner_id = None if caller.is_admin else caller.subject
            known = await self.agents.of_owner(self.database, owner_id, deleted_too=False)
            agents = [one for one in known if project_id in ("", one.project_id)]
        found: dict[Key, Sums] = {}
        if with_sums:
            scope = Scope(window_of(ALL_TIME, self.clock()), asked)
            found = await sums(self.database, scope, Apart(agent=True), USAGE)
        balances = await self._balances(agents)
        return [
            AgentFigures(
                agent,
                balances[agent.agent_id],
                found.get(Key(agent.agent_id, "", ""), NOTHING),
            )
            for agent in agents
        ]

    async def lendable_together(self, figures: Sequence[AgentFigures]) -> int:
        """What could be lent to all of these agents, what they share counted once."""
        ids = [each.agent.agent_id for each in figures]
        return await self.purse.lendable_together(self.database, ids, self.clock())

    async def _balances(self, agents: Sequence[KnownAgent]) -> dict[str, Balance]:
        balances: dict[str, Balance] = {}
        for first in range(0, len(agents), BALANCES_AT_ONCE):
            ids = [agent.agent_id for agent in agents[first : first + BALANCES_AT_ONCE]]
            balances |= await self.purse.balances(self.database, ids, self.clock())
        return balances

    async def _scope(self, caller: Principal, question: Question) -> Scope:
        """What a question is about, of what the caller may see."""
        window = window_of(question.period, self.clock())
        agent_ids = await self._whose(caller, question.agent_id, question.project_id)
        provider = question.provider
        if question.provider_id:
            names = await self.providers.names(self.database)
            if question.provider_id not in names:
                raise NotFound.of("provider", question.provider_id)
            of_id = names[question.provider_id]
            if provider not in ("", of_id):
                return Scope(window, [])
            provider = of_id
        return Scope(window, agent_ids, provider, question.model)

    async def _whose(self, caller: Principal, agent_id: str, project_id: str) -> list[str] | None:
        return await whose(self.agents, self.projects, self.database, caller, agent_id, project_id)


def _too_many_points(fault: str) -> InvalidArgument:
    return InvalidArgument(
        f"invalid request: step: {fault}", reason="TOO_MANY_POINTS", fields={"step": fault}
    )


async def visible(
    agents: Agents, database: Database, caller: Principal, agent_id: str
) -> KnownAgent:
    """The agent.

    Raises:
        NotFound: there is none that the caller may see.
    """
    agent = await agents.record(database, agent_id)
    caller.must_own("agent", agent_id, agent.owner_id)
    return agent


async def whose(
    agents: Agents,
    projects: Projects,
    database: Database,
    caller: Principal,
    agent_id: str,
    project_id: str = "",
) -> list[str] | None:
    """The agents asked about, by their ids; None is everyone's.

    Raises:
        NotFound: there is no such agent or project that the caller may see.
    """
    one = await visible(agents, database, caller, agent_id) if agent_id else None
    if not project_id:
        if one is not None:
            return [one.agent_id]
        if caller.is_admin:
            return None
    owner_id = None if caller.is_admin else caller.subject
    owned = await agents.of_owner(database, owner_id, deleted_too=True)
    if not project_id:
        return [agent.agent_id for agent in owned]
    members = [agent.agent_id for agent in owned if agent.project_id == project_id]
    if not members and not (caller.is_admin and await projects.exists(database, project_id)):
        raise NotFound.of("project", project_id)
    return members if one is None else [each for each in members if each == one.agent_id]
