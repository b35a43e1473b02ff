"""What the rules of limits need to know, read together for one agent or for all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from steward_server.db import Reader
from steward_server.limits import store
from steward_server.limits.needs import Agents, Leased
from steward_server.limits.scopes import (
    EVERYONE,
    PROJECT,
    USER,
    WINDOW_US,
    Limit,
    Use,
    day_of,
    scopes_of,
    scopes_with,
)
from steward_server.limits.shares import Seats, Tokens, free_tokens
from steward_server.limits.store import Allotment


class Reading:
    """Reads within a transaction, or what is committed."""

    def __init__(self, agents: Agents, leased: Leased) -> None:
        self._agents = agents
        self._leased = leased

    async def seats(
        self,
        reader: Reader,
        agent_id: str | None,
        limited: Mapping[str, int],
        now_us: int,
    ) -> tuple[dict[str, int], list[Seats], list[store.Recent]]:
        """The limits on requests that matter, who shares them, and the calls reported lately."""
        rows = await self.rows(reader, agent_id, limited)
        if agent_id is not None and only(limited, agent_id) is None:
            limited = request_limits(await store.limits(reader))
        recent = await store.recent(reader, (now_us - WINDOW_US) // 1_000_000)
        made = {each.lease_id: each.requests for each in recent}
        counted = [
            row for row in rows if row.ended_at_us is None or row.ended_at_us > now_us - WINDOW_US
        ]
        seats = [
            seats_of(
                row,
                [each for each in scopes_with(row) if each in limited],
                made.get(row.lease_id, 0),
            )
            for row in counted
        ]
        concerned = [
            each for each in recent if any(scope in limited for scope in scopes_with(each))
        ]
        return dict(limited), seats, concerned

    async def limited_seats(self, reader: Reader, agent_id: str | None) -> dict[str, int]:
        if agent_id is None:
            return request_limits(await store.limits(reader))
        return request_limits(await store.limits_of(reader, self.scopes(agent_id)))

    async def rows(
        self, reader: Reader, agent_id: str | None, limited: Mapping[str, int]
    ) -> list[Allotment]:
        """The leases that share what limits an agent; all of them unless only its own do."""
        return await store.allotments(reader, agent_id and only(limited, agent_id))

    async def free_tokens(
        self, reader: Reader, limited: Mapping[str, int], agent_id: str, now_us: int
    ) -> tuple[Counter[str], dict[str, int]]:
        used = await self.used_tokens(reader, only(limited, agent_id), now_us)
        leases = [
            tokens_of(row, scopes_with(row), limited)
            for row in await self.rows(reader, agent_id, limited)
            if row.is_open
        ]
        return used, free_tokens(limited, used, leases)

    async def used_tokens(self, reader: Reader, agent_id: str | None, now_us: int) -> Counter[str]:
        uses = await store.uses(reader, day_of(now_us), agent_id)
        return by_scope(uses, lambda use: use.tokens)

    async def leased(self, reader: Reader) -> Counter[str]:
        """The money that open leases hold, by scope."""
        totals: Counter[str] = Counter()
        for agent_id, amount in (await self._leased(reader)).items():
            for scope in self.scopes(agent_id):
                totals[scope] += amount
        return totals

    def scopes(self, agent_id: str) -> tuple[str, ...]:
        """The scopes that hold an agent now."""
        return scopes_of(agent_id, self.owner(agent_id), self.project(agent_id))

    def owner_of(self, agent_id: str) -> str | None:
        """Who owns the agent; None if there is no such agent."""
        return self._agents.owner_of(agent_id)

    def owner(self, agent_id: str) -> str:
        """Who owns the agent; empty if there is no such agent."""
        return self._agents.owner_of(agent_id) or ""

    def project(self, agent_id: str) -> str:
        """The project the agent belongs to; empty for none."""
        return self._agents.project_of(agent_id)

    async def projects_of(self, reader: Reader, owner_id: str) -> set[str]:
        """The projects that agents of this owner belong to."""
        return await self._agents.projects_of(reader, owner_id)


def request_limits(limits: Mapping[str, Limit]) -> dict[str, int]:
    return {
        scope: limit.max_requests_per_minute
        for scope, limit in limits.items()
        if limit.max_requests_per_minute is not None
    }


def token_limits(limits: Mapping[str, Limit]) -> dict[str, int]:
    return {
        scope: limit.max_tokens_per_day
        for scope, limit in limits.items()
        if limit.max_tokens_per_day is not None
    }


def only(limited: Iterable[str], agent_id: str) -> str | None:
    """The agent, if nothing but itself shares what limits it."""
    is_shared = any(scope == EVERYONE or scope.startswith((USER, PROJECT)) for scope in limited)
    return None if is_shared else agent_id


def by_scope(uses: Iterable[Use], amount: Callable[[Use], int]) -> Counter[str]:
    totals: Counter[str] = Counter()
    for use in uses:
        for scope in scopes_with(use):
            totals[scope] += amount(use)
    return totals


def seats_of(row: Allotment, scopes: Sequence[str], made: int) -> Seats:
    return Seats(
        row.lease_id,
        tuple(scopes),
        row.is_open,
        row.acknowledges,
        row.requests_told,
        row.requests_held,
        made,
    )


def tokens_of(
    row: Allotment, scopes: Sequence[str], limited: Mapping[str, int] | None = None
) -> Tokens:
    kept = tuple(each for each in scopes if limited is None or each in limited)
    return Tokens(
        row.lease_id,
        kept,
        row.acknowledges,
        row.tokens_told,
        row.tokens_held,
        row.tokens_booked,
    )
