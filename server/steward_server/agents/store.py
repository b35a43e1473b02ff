"""Agents as rows. No rule lives here."""

from __future__ import annotations

from collections.abc import Sequence

from steward_server.agents.agent import Agent, DesiredState, RunState
from steward_server.db import Reader, Row, Transaction
from steward_server.errors import NotFound

_SELECT = (
    "SELECT agent_id, name, owner_id, project_id, provider, desired_state, stop_reason, run_state,"
    " runtime_id, started_at_us, stopped_at_us, exit_code, last_seen_at_us, created_at_us,"
    " updated_at_us, version FROM agent"
)


async def get(reader: Reader, agent_id: str) -> Agent:
    """The agent.

    Raises:
        NotFound: there is none, or none any more.
    """
    row = await reader.fetch_one(
        f"{_SELECT} WHERE agent_id = ? AND deleted_at_us IS NULL", agent_id
    )
    if row is None:
        raise NotFound.of("agent", agent_id)
    return _agent(row)


async def page(
    reader: Reader,
    *,
    owner_id: str | None,
    project_id: str | None,
    before: tuple[int, str] | None,
    limit: int,
) -> list[Agent]:
    """Agents, the newest first, after the last of the page before.

    Of one owner or of all, of one project or of all.
    """
    conditions, parameters = ["deleted_at_us IS NULL"], list[object]()
    if owner_id is not None:
        conditions.append("owner_id = ?")
        parameters.append(owner_id)
    if project_id is not None:
        conditions.append("project_id = ?")
        parameters.append(project_id)
    if before is not None:
        conditions.append("(created_at_us, agent_id) < (?, ?)")
        parameters.extend(before)
    rows = await reader.fetch_all(
        f"{_SELECT} WHERE {' AND '.join(conditions)}"
        " ORDER BY created_at_us DESC, agent_id DESC LIMIT ?",
        *parameters,
        limit,
    )
    return [_agent(row) for row in rows]


async def of_owner(reader: Reader, owner_id: str | None, *, deleted_too: bool) -> list[Agent]:
    """All agents of one owner, or all there are, the newest first."""
    conditions = [] if deleted_too else ["deleted_at_us IS NULL"]
    if owner_id is not None:
        conditions.append("owner_id = ?")
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    rows = await reader.fetch_all(
        f"{_SELECT}{where} ORDER BY created_at_us DESC, agent_id DESC",
        *([] if owner_id is None else [owner_id]),
    )
    return [_agent(row) for row in rows]


async def owners(reader: Reader) -> dict[str, str]:
    """Who owns each agent."""
    rows = await reader.fetch_all(
        "SELECT agent_id, owner_id FROM agent WHERE deleted_at_us IS NULL"
    )
    return {row["agent_id"]: row["owner_id"] for row in rows}


async def projects(reader: Reader) -> dict[str, str]:
    """The project of each agent that belongs to one."""
    rows = await reader.fetch_all(
        "SELECT agent_id, project_id FROM agent WHERE deleted_at_us IS NULL AND project_id <> ''"
    )
    return {row["agent_id"]: row["project_id"] for row in rows}


async def count_using(reader: Reader, provider: str) -> int:
    """How many agents are assigned to a provider."""
    [row] = await reader.fetch_all(
        "SELECT count(*) AS agent_count FROM agent WHERE provider = ? AND deleted_at_us IS NULL",
        provider,
    )
    return int(row["agent_count"])


async def count_in_project(reader: Reader, project_id: str) -> int:
    """How many agents belong to a project."""
    [row] = await reader.fetch_all(
        "SELECT count(*) AS agent_count FROM agent WHERE project_id = ? AND deleted_at_us IS NULL",
        project_id,
    )
    return int(row["agent_count"])


async def projects_of(reader: Reader, owner_id: str) -> set[str]:
    """The projects that agents of this owner belong to."""
    rows = await reader.fetch_all(
        "SELECT DISTINCT project_id FROM agent WHERE owner_id = ? AND deleted_at_us IS NULL",
        owner_id,
    )
    return {row["project_id"] for row in rows} - {""}


async def names(reader: Reader, agent_ids: Sequence[str]) -> dict[str, str]:
    """The names of these agents, of deleted ones too."""
    marks = ", ".join("?" * len(agent_ids))
    rows = await reader.fetch_all(
        f"SELECT agent_id, name FROM agent WHERE agent_id IN ({marks})", *agent_ids
    )
    return {row["agent_id"]: row["name"] for row in rows}


async def insert(transaction: Transaction, agent: Agent) -> None:
    await transaction.execute(
        "INSERT INTO agent (agent_id, name, owner_id, project_id, provider, desired_state,"
        " stop_reason, run_state, runtime_id, started_at_us, stopped_at_us, exit_code,"
        " last_seen_at_us, created_at_us, updated_at_us)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        agent.agent_id,
        agent.name,
        agent.owner_id,
        agent.project_id,
        agent.provider,
        agent.desired_state.value,
        agent.stop_reason,
        agent.run_state.value,
        agent.runtime_id,
        agent.started_at_us,
        agent.stopped_at_us,
        agent.exit_code,
        agent.last_seen_at_us,
        agent.created_at_us,
        agent.updated_at_us,
    )


async def save(transaction: Transaction, agent: Agent) -> None:
    """Write what may change of an agent but its version, which `versions.AGENTS` raises."""
    await transaction.execute(
        "UPDATE agent SET name = ?, project_id = ?, provider = ?, desired_state = ?,"
        " stop_reason = ?, run_state = ?, runtime_id = ?, started_at_us = ?, stopped_at_us = ?,"
        " exit_code = ?, last_seen_at_us = ?, updated_at_us = ? WHERE agent_id = ?",
        agent.name,
        agent.project_id,
        agent.provider,
        agent.desired_state.value,
        agent.stop_reason,
        agent.run_state.value,
        agent.runtime_id,
        agent.started_at_us,
        agent.stopped_at_us,
        agent.exit_code,
        agent.last_seen_at_us,
        agent.updated_at_us,
        agent.agent_id,
    )


async def save_seen(transaction: Transaction, agent_id: str, now_us: int) -> None:
    await transaction.execute(
        "UPDATE agent SET last_seen_at_us = ? WHERE agent_id = ?", now_us, agent_id
    )


async def reassign(transaction: Transaction, owner_id: str, heir_id: str, now_us: int) -> list[str]:
    """Give the agents of one person to another; their ids."""
    rows = await transaction.fetch_all(
        "SELECT agent_id FROM agent WHERE owner_id = ? AND deleted_at_us IS NULL"
        " ORDER BY created_at_us, agent_id",
        owner_id,
    )
    await transaction.execute(
        "UPDATE agent SET owner_id = ?, updated_at_us = ?, version = version + 1"
        " WHERE owner_id = ? AND deleted_at_us IS NULL",
        heir_id,
        now_us,
        owner_id,
    )
    return [row["agent_id"] for row in rows]


async def delete(transaction: Transaction, agent_id: str, now_us: int) -> None:
    """Hide the agent for good; its row stays, since the journal names it."""
    await transaction.execute(
        "UPDATE agent SET deleted_at_us = ? WHERE agent_id = ?", now_us, agent_id
    )


def _agent(row: Row) -> Agent:
    return Agent(
        row["agent_id"],
        row["name"],
        row["owner_id"],
        row["project_id"],
        row["provider"],
        DesiredState(row["desired_state"]),
        row["stop_reason"],
        RunState(row["run_state"]),
        row["runtime_id"],
        row["started_at_us"],
        row["stopped_at_us"],
        row["exit_code"],
        row["last_seen_at_us"],
        row["created_at_us"],
        row["updated_at_us"],
        row["version"],
    )
