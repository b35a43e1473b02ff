"""What can be asked of a server, a class for each noun; every method is one rpc.

Methods return a value on `Client` and are awaited on `AsyncClient`. Each may raise what is drawn
in errors.py; only what a method adds to that is said at it. Reads, and changes that have the same
effect done twice, are tried again while the server is away; the others never are.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from steward.agents.v1 import agents_pb2
from steward.agents.v1.agents_pb2_grpc import AgentServiceStub
from steward.budget.v1 import prices_pb2
from steward.budget.v1.prices_pb2_grpc import PriceServiceStub
from steward.projects.v1 import projects_pb2
from steward.projects.v1.projects_pb2_grpc import ProjectServiceStub
from steward.providers.v1 import providers_pb2
from steward.providers.v1.providers_pb2_grpc import ProviderServiceStub
from steward.tokens.v1 import tokens_pb2
from steward.tokens.v1.tokens_pb2_grpc import TokenServiceStub
from steward_client.client.calls import Call, Manner, Resource, every, first, nothing, rpc
from steward_client.client.projects import PAGE_SIZE, Usd, period_number
from steward_client.client.values import (
    Agent,
    AgentReport,
    AgentStatus,
    Budget,
    BudgetPath,
    BudgetPeriod,
    Price,
    Provider,
    ProviderKind,
    Token,
    TokenStatus,
    enum_word,
    value_of,
)
from steward_client.money import nanousd


class Agents(Resource[Manner]):
    """Who may spend, how much, on which provider, and whether they should be running."""

    @rpc
    def create(
        self,
        name: str,
        *,
        budget_usd: Usd,
        provider: str = "",
        owner_id: str = "",
        project_id: str = "",
        budget_period: BudgetPeriod = "none",
        request_id: str = "",
    ) -> Call[Agent]:
        """Create an agent with its budget, for ever or for each `budget_period`.

        `provider` is the only one it may use; empty: any. `project_id` is whose budget it shares.
        `request_id` names the creation, so that repeating it gives the same agent; made up if
        empty.
        """
        return Call(
            AgentServiceStub,
            "CreateAgent",
            agents_pb2.CreateAgentRequest(
                name=name,
                budget_nanousd=nanousd(budget_usd),
                provider=provider,
                owner_id=owner_id,
                project_id=project_id,
                budget_period=period_number(budget_period),
                request_id=request_id or secrets.token_hex(16),
            ),
            read=first(lambda answer: value_of(Agent, answer.agent)),
            repeatable=True,
        )

    @rpc
    def list(self, *, owner_id: str = "", project_id: str = "") -> Call[tuple[Agent, ...]]:
        """All agents the caller may see, newest first; of one owner or one project if given."""

        def page(token: str) -> agents_pb2.ListAgentsRequest:
            return agents_pb2.ListAgentsRequest(
                page_size=PAGE_SIZE, page_token=token, owner_id=owner_id, project_id=project_id
            )

        return Call(
            AgentServiceStub,
            "ListAgents",
            page(""),
            read=every(lambda answer: [value_of(Agent, each) for each in answer.agents]),
            next_page=lambda answer: (
                page(answer.next_page_token) if answer.next_page_token else None
            ),
            repeatable=True,
        )

    @rpc
    def get(self, agent_id: str) -> Call[Agent]:
        """One agent."""
        return Call(
            AgentServiceStub,
            "GetAgent",
            agents_pb2.GetAgentRequest(agent_id=agent_id),
            read=first(lambda answer: value_of(Agent, answer.agent)),
            repeatable=True,
        )

    @rpc
    def update(
        self,
        agent_id: str,
        *,
        name: str | None = None,
        budget_usd: Usd | None = None,
        provider: str | None = None,
        project_id: str | None = None,
        budget_period: BudgetPeriod | None = None,
    ) -> Call[Agent]:
        """Change what is given; a new budget reaches open sessions at once.

        An empty `project_id` is none. With another period the budget begins anew.

        Raises:
            Conflict: the new budget is below what is spent and lent already, or the agent is to
                move to another project while money is lent to it.
        """
        return Call(
            AgentServiceStub,
            "UpdateAgent",
            agents_pb2.UpdateAgentRequest(
                agent_id=agent_id,
                name=name,
                budget_nanousd=None if budget_usd is None else nanousd(budget_usd),
                provider=provider,
                project_id=project_id,
                budget_period=period_number(budget_period),
            ),
            read=first(lambda answer: value_of(Agent, answer.agent)),
            repeatable=True,
        )

    @rpc
    def delete(self, agent_id: str) -> Call[None]:
        """Delete an agent and revoke its token; its journal stays.

        Raises:
            Conflict: money is lent to it; stop it first.
        """
        return Call(
            AgentServiceStub,
            "DeleteAgent",
            agents_pb2.DeleteAgentRequest(agent_id=agent_id),
            read=nothing,
        )

    @rpc
    def status(self, agent_id: str) -> Call[AgentReport]:
        """How an agent and its money are, as of the newest commit."""
        return Call(
            AgentServiceStub,
            "GetAgentStatus",
            agents_pb2.GetAgentStatusRequest(agent_id=agent_id),
            read=first(lambda answer: value_of(AgentReport, answer)),
            repeatable=True,
        )

    @rpc
    def start(self, agent_id: str) -> Call[AgentStatus]:
        """Let a stopped agent run again; how it is now."""
        return Call(
            AgentServiceStub,
            "StartAgent",
            agents_pb2.StartAgentRequest(agent_id=agent_id),
            read=first(_status),
            repeatable=True,
        )

    @rpc
    def stop(self, agent_id: str, *, reason: str = "") -> Call[AgentStatus]:
        """Ask an agent to stop; its runtime is told at once, with the reason."""
        return Call(
            AgentServiceStub,
            "StopAgent",
            agents_pb2.StopAgentRequest(agent_id=agent_id, reason=reason),
            read=first(_status),
            repeatable=True,
        )


class Tokens(Resource[Manner]):
    """IC tokens: the credential of an agent's runtime. An agent has at most one live token."""

    @rpc
    def create(
        self,
        agent_id: str,
        *,
        name: str = "",
        expires_in_days: int | None = None,
        scopes: Sequence[str] = (),
        request_id: str = "",
    ) -> Call[Token]:
        """Create the token of an agent. Its text is in the answer's `token`, and nowhere else.

        None for `expires_in_days` means that it does not expire; no `scopes` means all.

        Raises:
            Conflict: the agent has a live token; rotate or revoke that.
        """
        return Call(
            TokenServiceStub,
            "CreateToken",
            tokens_pb2.CreateTokenRequest(
                agent_id=agent_id,
                name=name,
                expires_in_days=expires_in_days,
                scopes=scopes,
                request_id=request_id or secrets.token_hex(16),
            ),
            read=first(_token),
            repeatable=True,
        )

    @rpc
    def list(
        self, *, agent_id: str = "", status: TokenStatus | None = None
    ) -> Call[tuple[Token, ...]]:
        """All tokens, newest first, dead ones included unless a `status` is given."""

        def page(offset: int) -> tokens_pb2.ListTokensRequest:
            return tokens_pb2.ListTokensRequest(
                agent_id=agent_id,
                limit=PAGE_SIZE,
                offset=offset,
                status=tokens_pb2.TokenStatus.Value(f"TOKEN_STATUS_{status.upper()}")
                if status
                else tokens_pb2.TOKEN_STATUS_UNSPECIFIED,
            )

        def next_page(answer: tokens_pb2.ListTokensResponse) -> Any:
            offset = answer.offset + len(answer.tokens)
            return page(offset) if answer.tokens and offset < answer.total else None

        return Call(
            TokenServiceStub,
            "ListTokens",
            page(0),
            read=every(lambda answer: [value_of(Token, each) for each in answer.tokens]),
            next_page=next_page,
            repeatable=True,
        )

    @rpc
    def get(self, token_id: str) -> Call[Token]:
        """One token, without its text."""
        return Call(
            TokenServiceStub,
            "GetToken",
            tokens_pb2.GetTokenRequest(token_id=token_id),
            read=first(_token),
            repeatable=True,
        )

    @rpc
    def rotate(self, token_id: str) -> Call[Token]:
        """Replace the token's text; the old one is refused from now on.

        Raises:
            Conflict: the token is revoked or has expired.
        """
        return Call(
            TokenServiceStub,
            "RotateToken",
            tokens_pb2.RotateTokenRequest(token_id=token_id),
            read=first(_token),
        )

    @rpc
    def revoke(self, token_id: str) -> Call[None]:
        """End a token for good, and drain what was lent with it.

        Raises:
            Conflict: it is revoked already.
        """
        return Call(
            TokenServiceStub,
            "RevokeToken",
            tokens_pb2.RevokeTokenRequest(token_id=token_id),
            read=nothing,
        )


class Providers(Resource[Manner]):
    """The LLM providers whose keys the server keeps."""

    @rpc
    def create(
        self,
        name: str,
        *,
        api_key: str,
        kind: ProviderKind | None = None,
        base_url: str = "",
        allow_plaintext_key: bool = False,
    ) -> Call[Provider]:
        """Store a provider and its key.

        `kind` is taken from the name where that is "openai" or "anthropic"; an empty `base_url`
        means the provider's public address.

        Raises:
            Conflict: the name is taken.
        """
        return Call(
            ProviderServiceStub,
            "CreateProvider",
            providers_pb2.CreateProviderRequest(
                name=name,
                api_key=api_key,
                base_url=base_url,
                allow_plaintext_key=allow_plaintext_key,
                kind=providers_pb2.ProviderKind.Value(f"PROVIDER_KIND_{kind.upper()}")
                if kind
                else providers_pb2.PROVIDER_KIND_UNSPECIFIED,
            ),
            read=first(lambda answer: value_of(Provider, answer.provider)),
        )

    @rpc
    def list(self) -> Call[tuple[Provider, ...]]:
        """All providers, newest first; of their keys a few characters."""

        def page(token: str) -> providers_pb2.ListProvidersRequest:
            return providers_pb2.ListProvidersRequest(page_size=PAGE_SIZE, page_token=token)

        return Call(
            ProviderServiceStub,
            "ListProviders",
            page(""),
            read=every(lambda answer: [value_of(Provider, each) for each in answer.providers]),
            next_page=lambda answer: (
                page(answer.next_page_token) if answer.next_page_token else None
            ),
            repeatable=True,
        )

    @rpc
    def update(self, provider_id: str, *, allow_plaintext_key: bool) -> Call[Provider]:
        """Say whether runtimes that hold a lease may have the key without a seal."""
        return Call(
            ProviderServiceStub,
            "UpdateProvider",
            providers_pb2.UpdateProviderRequest(
                provider_id=provider_id, allow_plaintext_key=allow_plaintext_key
            ),
            read=first(lambda answer: value_of(Provider, answer.provider)),
            repeatable=True,
        )

    @rpc
    def delete(self, provider_id: str) -> Call[None]:
        """Delete a provider and its key.

        Raises:
            Conflict: an agent is assigned to it.
        """
        return Call(
            ProviderServiceStub,
            "DeleteProvider",
            providers_pb2.DeleteProviderRequest(provider_id=provider_id),
            read=nothing,
        )


class Budgets(Resource[Manner]):
    """The money of agents."""

    @rpc
    def path(self, agent_id: str) -> Call[BudgetPath]:
        """The budgets that limit an agent: its own, its project's and the organisation's.

        The organisation's is shown to administrators.
        """
        return Call(
            ProjectServiceStub,
            "GetAgentBudget",
            projects_pb2.GetAgentBudgetRequest(agent_id=agent_id),
            read=first(lambda answer: value_of(BudgetPath, answer)),
            repeatable=True,
        )

    @rpc
    def status(self, agent_id: str) -> Call[Budget]:
        """The limit, what is spent of it, lent, and left."""
        return Call(
            AgentServiceStub,
            "GetAgentStatus",
            agents_pb2.GetAgentStatusRequest(agent_id=agent_id),
            read=first(lambda answer: value_of(Budget, answer.budget)),
            repeatable=True,
        )


class Prices(Resource[Manner]):
    """What models' tokens cost."""

    @rpc
    def list(self, *, provider: ProviderKind | None = None) -> Call[tuple[Price, ...]]:
        """The prices in force, of one kind of provider or of all."""
        return Call(
            PriceServiceStub,
            "ListPrices",
            prices_pb2.ListPricesRequest(provider=provider or ""),
            read=every(lambda answer: [value_of(Price, each) for each in answer.prices]),
            repeatable=True,
        )

    @rpc
    def set(
        self,
        provider: ProviderKind,
        model: str,
        *,
        input_usd_per_million: Usd,
        output_usd_per_million: Usd,
        cache_read_usd_per_million: Usd | None = None,
        cache_write_usd_per_million: Usd | None = None,
    ) -> Call[Price]:
        """Set a model's price from now on, in dollars per million tokens.

        Cached tokens cost as much as plain input where nothing else is given. At most six decimals.
        """
        plain_picousd = _picousd(input_usd_per_million)
        cached_picousd = [
            plain_picousd if given is None else _picousd(given)
            for given in (cache_read_usd_per_million, cache_write_usd_per_million)
        ]
        return Call(
            PriceServiceStub,
            "SetPrice",
            prices_pb2.SetPriceRequest(
                price=prices_pb2.Price(
                    provider=provider,
                    model=model,
                    input_picousd=plain_picousd,
                    output_picousd=_picousd(output_usd_per_million),
                    cache_read_picousd=cached_picousd[0],
                    cache_write_picousd=cached_picousd[1],
                )
            ),
            read=first(lambda answer: value_of(Price, answer.price)),
            repeatable=True,
        )


def _picousd(usd_per_million: Usd) -> int:
    """Pico-dollars a token; the thousandth part of nano-dollars a million tokens."""
    picousd, rest = divmod(nanousd(usd_per_million), 1_000)
    if rest:
        raise ValueError(f"{usd_per_million!r} dollars per million tokens has over 6 decimals")
    return picousd


def _status(answer: Any) -> AgentStatus:
    word: AgentStatus = enum_word(agents_pb2.AgentStatus.DESCRIPTOR, answer.status)
    return word


def _token(answer: Any) -> Token:
    return value_of(Token, answer.ic_token)
