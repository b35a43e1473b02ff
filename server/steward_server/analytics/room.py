"""What is asked about spending and usage: which agents it concerns, and the figures of those."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from steward_server.analytics.figures import NOTHING, Key, Sums, percent
from steward_server.analytics.needs import Agents, KnownAgent, Providers, Purse
from steward_server.analytics.periods import ALL_TIME, window_of
from steward_server.analytics.queries import Apart, Scope, payers, sums
from steward_server.analytics.risk import Risk, Standing, risk_of, standing_of
from steward_server.balance import Balance
from steward_server.db import Database
from steward_server.errors import NotFound
from steward_server.principals import Principal

BALANCES_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked for; empty texts leave it open."""

    period: str = ALL_TIME
    agent_id: str = ""
    provider_id: str = ""
    provider: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class AgentFigures:
    """An agent with its money and its sums."""

    agent: KnownAgent
    balance: Balance
    sums: Sums

    @property
    def spent_nanousd(self) -> int:
        """Of all time, overrun included."""
        return self.balance.spent_nanousd + self.balance.overrun_nanousd

    @property
    def remaining_nanousd(self) -> int:
        return max(0, self.balance.allocated_nanousd - self.spent_nanousd)

    @property
    def period_percent(self) -> float:
        """The spending summed up, as a share of the budget."""
        return percent(self.sums.cost_nanousd, self.balance.allocated_nanousd)

    @property
    def risk(self) -> Risk:
        return risk_of(self.balance.percent_used)

    @property
    def standing(self) -> Standing:
        return standing_of(self.balance.percent_used, stop_wanted=self.agent.stop_wanted)


@dataclass(frozen=True, slots=True)
class ProviderFigures:
    """A provider with its sums."""

    name: str
    provider_id: str
    sums: Sums
    agent_count: int


@dataclass(frozen=True, slots=True)
class AnalyticsRoom:
    """Figures of the agents a caller may see."""

    database: Database
    agents: Agents
    purse: Purse
    providers: Providers
    clock: Callable[[], int]

    async def total(self, caller: Principal, question: Question) -> Sums:
        """Everything together.

        Raises:
            NotFound: there is no such agent that the caller may see, or no such provider; as below.
        """
        found = await sums(self.database, await self._scope(caller, question), Apart())
        return found.get(Key("", "", ""), NOTHING)

    async def spenders(self, caller: Principal, question: Question) -> list[AgentFigures]:
        """Each agent that paid for a call, the one that spent the most first."""
        found = await self._by_agent(caller, question)
        paid = [each for each in found if each.sums.request_count]
        return sorted(paid, key=lambda one: (-one.sums.cost_nanousd, one.agent.agent_id))

    async def token_users(self, caller: Principal, question: Question) -> list[AgentFigures]:
        """Each agent with a call that succeeded, the one with the most tokens first."""
        found = await self._by_agent(caller, question)
        answered = [each for each in found if each.sums.successful_count]
        return sorted(answered, key=lambda one: (-one.sums.total_tokens, one.agent.agent_id))

    async def _by_agent(self, caller: Principal, question: Question) -> list[AgentFigures]:
        scope = await self._scope(caller, question)
        found = await sums(self.database, scope, Apart(agent=True))
        owner_id = None if caller.is_admin else caller.subject
        known = await self.agents.of_owner(self.database, owner_id, deleted_too=True)
        chosen = [agent for agent in known if Key(agent.agent_id, "", "") in found]
        balances = await self._balances(chosen)
        return [
            AgentFigures(agent, balances[agent.agent_id], found[Key(agent.agent_id, "", "")])
            for agent in chosen
        ]

    async def by_provider(self, caller: Principal, question: Question) -> list[ProviderFigures]:
        """Each provider that was paid, the one that was paid the most first."""
        scope = await self._scope(caller, question)
        found = await sums(self.database, scope, Apart(provider=True))
        agent_counts = Counter(name for _, name in await payers(self.database, scope))
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
        found = await sums(self.database, scope, Apart(provider=True, model=True))
        answered = [(key, each) for key, each in found.items() if each.successful_count]
        return sorted(answered, key=lambda one: (-one[1].successful_count, one[0]))

    async def standing(
        self, caller: Principal, agent_id: str = "", *, with_sums: bool = False
    ) -> list[AgentFigures]:
        """The agents there are, newest first, with their money, and with sums of all time."""
        if agent_id:
            agents: Sequence[KnownAgent] = [
                await visible(self.agents, self.database, caller, agent_id)
            ]
        else:
            owner_id = None if caller.is_admin else caller.subject
            agents = await self.agents.of_owner(self.database, owner_id, deleted_too=False)
        found: dict[Key, Sums] = {}
        if with_sums:
            whose = None if caller.is_admin and not agent_id else [one.agent_id for one in agents]
            window = window_of(ALL_TIME, self.clock())
            found = await sums(self.database, Scope(window, whose), Apart(agent=True))
        balances = await self._balances(agents)
        return [
            AgentFigures(
                agent,
                balances[agent.agent_id],
                found.get(Key(agent.agent_id, "", ""), NOTHING),
            )
            for agent in agents
        ]

    async def _balances(self, agents: Sequence[KnownAgent]) -> dict[str, Balance]:
        balances: dict[str, Balance] = {}
        for first in range(0, len(agents), BALANCES_AT_ONCE):
            ids = [agent.agent_id for agent in agents[first : first + BALANCES_AT_ONCE]]
            balances |= await self.purse.balances(self.database, ids, self.clock())
        return balances

    async def _scope(self, caller: Principal, question: Question) -> Scope:
        """What a question is about, of what the caller may see."""
        window = window_of(question.period, self.clock())
        agent_ids = await whose(self.agents, self.database, caller, question.agent_id)
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
    agents: Agents, database: Database, caller: Principal, agent_id: str
) -> list[str] | None:
    """The agents asked about, by their ids; None is everyone's.

    Raises:
        NotFound: there is no such agent that the caller may see.
    """
    if agent_id:
        return [(await visible(agents, database, caller, agent_id)).agent_id]
    if caller.is_admin:
        return None
    owned = await agents.of_owner(database, caller.subject, deleted_too=True)
    return [agent.agent_id for agent in owned]
