"""Limits, what was used, and the shares of leases as rows. No rule lives here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from steward_server.db import Reader, Row, Transaction
from steward_server.limits.scopes import Limit, Use

_LIMITS = (
    "SELECT scope, max_requests_per_minute, max_tokens_per_day, max_cost_per_month_nanousd,"
    " created_at_us, updated_at_us, version FROM scope_limit WHERE lifted_at_us IS NULL"
)
_ALLOTMENTS = (
    "SELECT lease_id, agent_id, owner_id, project_id, acknowledges, version, requests_told,"
    " requests_held, tokens_told, tokens_held, tokens_booked, opened_at_us, ended_at_us"
    " FROM allotment"
)


class Recent(NamedTuple):
    """Calls of one lease that were reported lately."""

    lease_id: str
    agent_id: str
    owner_id: str
    project_id: str
    requests: int
    first_s: int
    """The second the first of them was reported in."""


@dataclass(frozen=True, slots=True)
class Allotment:
    """The shares of one lease."""

    lease_id: str
    agent_id: str
    owner_id: str
    project_id: str
    acknowledges: bool
    version: int
    requests_told: int | None
    requests_held: int | None
    tokens_told: int | None
    tokens_held: int | None
    tokens_booked: int
    opened_at_us: int
    ended_at_us: int | None

    @property
    def is_open(self) -> bool:
        return self.ended_at_us is None


async def limits(reader: Reader) -> dict[str, Limit]:
    """Every limit, by scope."""
    rows = await reader.fetch_all(f"{_LIMITS} ORDER BY scope")
    return {row["scope"]: _limit(row) for row in rows}


async def limits_of(reader: Reader, scopes: Sequence[str]) -> dict[str, Limit]:
    """The limits of these scopes."""
    marks = ", ".join("?" * len(scopes))
    rows = await reader.fetch_all(f"{_LIMITS} AND scope IN ({marks})", *scopes)
    return {row["scope"]: _limit(row) for row in rows}


async def save_limit(transaction: Transaction, limit: Limit) -> None:
    await transaction.execute(
        "INSERT INTO scope_limit (scope, max_requests_per_minute, max_tokens_per_day,"
        " max_cost_per_month_nanousd, created_at_us, updated_at_us, version)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (scope) DO UPDATE SET"
        " max_requests_per_minute = excluded.max_requests_per_minute,"
        " max_tokens_per_day = excluded.max_tokens_per_day,"
        " max_cost_per_month_nanousd = excluded.max_cost_per_month_nanousd,"
        " created_at_us = excluded.created_at_us, updated_at_us = excluded.updated_at_us,"
        " version = excluded.version, lifted_at_us = NULL",
        *limit,
    )


async def lift_limit(transaction: Transaction, scope: str, now_us: int) -> None:
    """Hide a limit until it is set again; its row stays, and with it its version."""
    await transaction.execute(
        "UPDATE scope_limit SET lifted_at_us = ? WHERE scope = ?", now_us, scope
    )


async def uses(reader: Reader, period: str, agent_id: str | None = None) -> list[Use]:
    """What agents used in a period: one of them or all."""
    where, parameters = ("", ()) if agent_id is None else (" AND agent_id = ?", (agent_id,))
    rows = await reader.fetch_all(
        "SELECT agent_id, owner_id, project_id, requests, tokens, cost_nanousd FROM agent_use"
        f" WHERE period = ?{where}",
        period,
        *parameters,
    )
    return [
        Use(
            row["agent_id"],
            row["owner_id"],
            row["project_id"],
            row["requests"],
            row["tokens"],
            row["cost_nanousd"],
        )
        for row in rows
    ]


async def add_uses(transaction: Transaction, periods: Sequence[str], added: Iterable[Use]) -> None:
    await transaction.execute_many(
        "INSERT INTO agent_use (period, agent_id, owner_id, project_id, requests, tokens,"
        " cost_nanousd) VALUES (?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (period, agent_id, project_id) DO UPDATE SET"
        " owner_id = excluded.owner_id, requests = agent_use.requests + excluded.requests,"
        " tokens = agent_use.tokens + excluded.tokens,"
        " cost_nanousd = agent_use.cost_nanousd + excluded.cost_nanousd",
        [(period, *use) for use in added for period in periods],
    )


async def add_recent(
    transaction: Transaction, slot_s: int, added: Iterable[tuple[str, str, str, str, int]]
) -> None:
    """Add reported calls: of lease, agent, owner and project, how many."""
    await transaction.execute_many(
        "INSERT INTO recent_use (slot_s, lease_id, agent_id, owner_id, project_id, requests)"
        " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (slot_s, lease_id) DO UPDATE SET"
        " requests = recent_use.requests + excluded.requests",
        [(slot_s, *each) for each in added],
    )


async def recent(reader: Reader, since_slot_s: int) -> list[Recent]:
    """The calls that were reported from this second on."""
    rows = await reader.fetch_all(
        "SELECT lease_id, agent_id, owner_id, project_id, sum(requests) AS requests,"
        " min(slot_s) AS first_s FROM recent_use WHERE slot_s >= ?"
        " GROUP BY lease_id, agent_id, owner_id, project_id",
        since_slot_s,
    )
    return [
        Recent(
            row["lease_id"],
            row["agent_id"],
            row["owner_id"],
            row["project_id"],
            row["requests"],
            row["first_s"],
        )
        for row in rows
    ]


async def has_past(
    reader: Reader, *, ended_before_us: int, slot_before_s: int, period: str
) -> bool:
    """Whether there is something to prune."""
    [row] = await reader.fetch_all(
        "SELECT (SELECT count(*) FROM allotment WHERE ended_at_us <= ?) +"
        " (SELECT count(*) FROM recent_use WHERE slot_s < ?) +"
        " (SELECT count(*) FROM agent_use WHERE period < ?) AS past",
        ended_before_us,
        slot_before_s,
        period,
    )
    return bool(row["past"])


async def prune(
    transaction: Transaction, *, before_us: int, before_slot_s: int, before_period: str
) -> None:
    """Drop leases that ended, calls that were reported and periods that were over before."""
    await transaction.execute("DELETE FROM allotment WHERE ended_at_us <= ?", before_us)
    await transaction.execute("DELETE FROM recent_use WHERE slot_s < ?", before_slot_s)
    await transaction.execute("DELETE FROM agent_use WHERE period < ?", before_period)


async def allotments(reader: Reader, agent_id: str | None = None) -> list[Allotment]:
    """The shares of all leases, or of one agent's, the oldest first."""
    where, parameters = ("", ()) if agent_id is None else (" WHERE agent_id = ?", (agent_id,))
    rows = await reader.fetch_all(
        f"{_ALLOTMENTS}{where} ORDER BY opened_at_us, lease_id", *parameters
    )
    return [_allotment(row) for row in rows]


async def allotment(reader: Reader, lease_id: str) -> Allotment | None:
    row = await reader.fetch_one(f"{_ALLOTMENTS} WHERE lease_id = ?", lease_id)
    return _allotment(row) if row else None


async def insert_allotment(transaction: Transaction, new: Allotment) -> None:
    await transaction.execute(
        "INSERT INTO allotment (lease_id, agent_id, owner_id, project_id, acknowledges, version,"
        " requests_told, requests_held, tokens_told, tokens_held, tokens_booked, opened_at_us,"
        " ended_at_us) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        new.lease_id,
        new.agent_id,
        new.owner_id,
        new.project_id,
        int(new.acknowledges),
        new.version,
        new.requests_told,
        new.requests_held,
        new.tokens_told,
        new.tokens_held,
        new.tokens_booked,
        new.opened_at_us,
        new.ended_at_us,
    )


async def save_allotments(transaction: Transaction, changed: Iterable[Allotment]) -> None:
    await transaction.execute_many(
        "UPDATE allotment SET version = ?, requests_told = ?, requests_held = ?, tokens_told = ?,"
        " tokens_held = ?, ended_at_us = ? WHERE lease_id = ?",
        [
            (
                each.version,
                each.requests_told,
                each.requests_held,
                each.tokens_told,
                each.tokens_held,
                each.ended_at_us,
                each.lease_id,
            )
            for each in changed
        ],
    )


async def add_booked(transaction: Transaction, tokens: Iterable[tuple[str, int]]) -> None:
    """Count tokens of leases as used."""
    await transaction.execute_many(
        "UPDATE allotment SET tokens_booked = tokens_booked + ? WHERE lease_id = ?",
        [(count, lease_id) for lease_id, count in tokens],
    )


def _limit(row: Row) -> Limit:
    return Limit(
        row["scope"],
        row["max_requests_per_minute"],
        row["max_tokens_per_day"],
        row["max_cost_per_month_nanousd"],
        row["created_at_us"],
        row["updated_at_us"],
        row["version"],
    )


def _allotment(row: Row) -> Allotment:
    return Allotment(
        row["lease_id"],
        row["agent_id"],
        row["owner_id"],
        row["project_id"],
        bool(row["acknowledges"]),
        row["version"],
        row["requests_told"],
        row["requests_held"],
        row["tokens_told"],
        row["tokens_held"],
        row["tokens_booked"],
        row["opened_at_us"],
        row["ended_at_us"],
    )
