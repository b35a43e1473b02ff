"""Runs, what happened to them and what they made, as rows. No rule lives here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from steward_server.db import Reader, Row, Transaction
from steward_server.executions.execution import About, Event, Execution
from steward_server.executions.run import Change, Kind, State
from steward_server.executions.work import Artifact, ArtifactKind
from steward_server.playbooks.references import Reference

_COLUMNS = (
    "execution_id, owner_id, agent_id, credential_id, playbook_path, playbook_name,"
    " playbook_digest, parameters, gateway_url, credential_name, debug_mode, parent_id,"
    " parent_step_id, rerun_of, total_steps, created_at_us, state, step_index, started_at_us,"
    " ended_at_us"
)
_SELECT = f"SELECT {_COLUMNS} FROM execution"
_EVENT = "number, at_us, kind, step_id, text, state, is_final, data, run_state, step_index"
_ARTIFACT = "artifact_id, name, kind, content_type, size_bytes, step_id, created_at_us"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which runs to list.

    Attributes:
        owner_id: only this person's; None: everybody's.
        agent_id: only those that this agent started; None: whoever did.
        before: only those before this one, by time and id.
    """

    owner_id: str | None = None
    agent_id: str | None = None
    state: State | None = None
    playbook_path: str = ""
    parent_id: str = ""
    before: tuple[int, str] | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """An artifact, and of what it is."""

    artifact: Artifact
    step_id: str
    created_at_us: int


# Runs.


async def insert(transaction: Transaction, execution: Execution, text: str) -> None:
    """A new run, of a playbook with this text."""
    await transaction.execute(
        "INSERT INTO execution_playbook (digest, text) VALUES (?, ?) ON CONFLICT DO NOTHING",
        execution.playbook_digest,
        text,
    )
    each = execution
    await transaction.execute(
        f"INSERT INTO execution ({_COLUMNS})"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        each.execution_id,
        each.owner_id,
        each.agent_id,
        each.credential_id,
        each.playbook_path,
        each.playbook_name,
        each.playbook_digest,
        _parameters_text(each.parameters),
        each.gateway_url,
        each.credential_name,
        int(each.debug_mode),
        each.parent_id,
        each.parent_step_id,
        each.rerun_of,
        each.total_steps,
        each.created_at_us,
        each.state,
        each.step_index,
        each.started_at_us,
        each.ended_at_us,
    )


async def find(reader: Reader, execution_id: str) -> Execution | None:
    """The run; None if there is none."""
    row = await reader.fetch_one(f"{_SELECT} WHERE execution_id = ?", execution_id)
    return _execution(row) if row else None


async def page(reader: Reader, wanted: Wanted, limit: int) -> list[Execution]:
    """Runs, the newest first."""
    conditions, values = ["parent_id = ?"], list[object]([wanted.parent_id])
    for column, value in (
        ("owner_id", wanted.owner_id),
        ("agent_id", wanted.agent_id),
        ("state", wanted.state),
        ("playbook_path", wanted.playbook_path or None),
    ):
        if value is not None:
            conditions.append(f"{column} = ?")
            values.append(value)
    if wanted.before is not None:
        conditions.append("(created_at_us, execution_id) < (?, ?)")
        values.extend(wanted.before)
    rows = await reader.fetch_all(
        f"{_SELECT} WHERE {' AND '.join(conditions)}"
        " ORDER BY created_at_us DESC, execution_id DESC LIMIT ?",
        *values,
        limit,
    )
    return [_execution(row) for row in rows]


async def unfinished(reader: Reader) -> list[Execution]:
    """Every run that is not over, the oldest first."""
    rows = await reader.fetch_all(
        f"{_SELECT} WHERE state IN ('pending', 'running', 'paused')"
        " ORDER BY created_at_us, execution_id"
    )
    return [_execution(row) for row in rows]


async def ended_before(reader: Reader, before_us: int, limit: int) -> list[Execution]:
    """Runs that were over before a time."""
    rows = await reader.fetch_all(
        f"{_SELECT} WHERE parent_id = '' AND ended_at_us < ? ORDER BY ended_at_us LIMIT ?",
        before_us,
        limit,
    )
    return [_execution(row) for row in rows]


async def give(transaction: Transaction, owner_id: str, heir_id: str) -> None:
    """Make a person's runs another's."""
    await transaction.execute(
        "UPDATE execution SET owner_id = ? WHERE owner_id = ?", heir_id, owner_id
    )


async def family(reader: Reader, execution_id: str) -> list[str]:
    """A run and those that it has run, and they; those first that were started by others."""
    rows = await reader.fetch_all(
        "WITH RECURSIVE family (execution_id, depth) AS ("
        " SELECT execution_id, 0 FROM execution WHERE execution_id = ?"
        " UNION ALL SELECT e.execution_id, f.depth + 1 FROM execution AS e"
        " JOIN family AS f ON e.parent_id = f.execution_id)"
        " SELECT execution_id FROM family ORDER BY depth DESC",
        execution_id,
    )
    return [row["execution_id"] for row in rows]


async def delete(transaction: Transaction, execution_id: str) -> int:
    """Delete a run and all of it; gives how many screenshots it had."""
    row = await transaction.fetch_one(
        "SELECT count(*) AS count FROM execution_artifact"
        " WHERE execution_id = ? AND kind = 'screenshot'",
        execution_id,
    )
    for table in ("execution_artifact", "execution_event", "execution"):
        await transaction.execute(f"DELETE FROM {table} WHERE execution_id = ?", execution_id)
    await transaction.execute(
        "DELETE FROM execution_playbook WHERE NOT EXISTS"
        " (SELECT 1 FROM execution WHERE playbook_digest = digest)"
    )
    return row["count"] if row else 0


async def text_of(reader: Reader, playbook_digest: bytes) -> str:
    """The text of a playbook as it was."""
    row = await reader.fetch_one(
        "SELECT text FROM execution_playbook WHERE digest = ?", playbook_digest
    )
    return str(row["text"]) if row else ""


# What happened to them.


async def append(
    transaction: Transaction,
    execution_id: str,
    after: int,
    at_us: int,
    changes: Sequence[tuple[Change, State, int]],
) -> None:
    """Write down changes after so many, each with the run's state and index after it."""
    await transaction.execute_many(
        "INSERT INTO execution_event (execution_id, ordinal, at_us, kind, step_id, text, state,"
        " is_final, data, run_state, step_index) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                execution_id,
                ordinal,
                at_us,
                change.kind,
                change.step_id,
                change.text,
                change.state,
                int(change.is_final),
                orjson.dumps(dict(change.data)).decode() if change.data else "",
                state,
                index,
            )
            for ordinal, (change, state, index) in enumerate(changes, after + 1)
        ],
    )
    _, state, index = changes[-1]
    is_started = any(change.kind is Kind.STARTED for change, _, _ in changes)
    await transaction.execute(
        "UPDATE execution SET state = ?, step_index = ?,"
        " started_at_us = coalesce(started_at_us, ?), ended_at_us = ? WHERE execution_id = ?",
        state,
        index,
        at_us if is_started else None,
        at_us if state.is_over else None,
        execution_id,
    )


async def events_of(reader: Reader, execution_id: str, after: int = 0) -> list[Event]:
    """What happened to a run after a number, in order."""
    rows = await reader.fetch_all(
        f"SELECT {_EVENT} FROM execution_event WHERE execution_id = ? AND number > ?"
        " ORDER BY ordinal",
        execution_id,
        after,
    )
    return [_event(row) for row in rows]


async def events_after(reader: Reader, after: int, limit: int) -> list[tuple[About, Event]]:
    """What happened to all runs after a number, in order."""
    columns = ", ".join(f"v.{each.strip()}" for each in _EVENT.split(","))
    rows = await reader.fetch_all(
        f"SELECT {columns}, e.execution_id, e.owner_id, e.agent_id, e.playbook_name,"
        " e.total_steps, e.parent_id FROM execution_event AS v"
        " JOIN execution AS e ON e.execution_id = v.execution_id"
        " WHERE v.number > ? ORDER BY v.number LIMIT ?",
        after,
        limit,
    )
    return [
        (
            About(
                row["execution_id"],
                row["owner_id"],
                row["agent_id"],
                row["playbook_name"],
                row["total_steps"],
                row["parent_id"],
            ),
            _event(row),
        )
        for row in rows
    ]


async def newest(reader: Reader) -> int:
    """The number of the newest event; 0 before the first."""
    row = await reader.fetch_one("SELECT max(number) AS number FROM execution_event")
    return (row["number"] if row else None) or 0


# What they made.


async def keep(transaction: Transaction, execution_id: str, kept: Kept) -> None:
    artifact = kept.artifact
    await transaction.execute(
        f"INSERT INTO execution_artifact (execution_id, {_ARTIFACT})"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        execution_id,
        artifact.artifact_id,
        artifact.name,
        artifact.kind,
        artifact.content_type,
        artifact.size_bytes,
        kept.step_id,
        kept.created_at_us,
    )


async def artifacts_of(reader: Reader, execution_id: str) -> list[Kept]:
    """The artifacts of a run, the oldest first."""
    rows = await reader.fetch_all(
        f"SELECT {_ARTIFACT} FROM execution_artifact WHERE execution_id = ?"
        " ORDER BY created_at_us, artifact_id",
        execution_id,
    )
    return [_kept(row) for row in rows]


async def artifact_ids(reader: Reader) -> dict[str, set[str]]:
    """The ids of all artifacts, by their runs."""
    rows = await reader.fetch_all("SELECT execution_id, artifact_id FROM execution_artifact")
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(row["execution_id"], set()).add(row["artifact_id"])
    return found


async def artifact(reader: Reader, execution_id: str, artifact_id: str) -> Kept | None:
    """An artifact of a run; None if it has no such."""
    row = await reader.fetch_one(
        f"SELECT {_ARTIFACT} FROM execution_artifact WHERE execution_id = ? AND artifact_id = ?",
        execution_id,
        artifact_id,
    )
    return _kept(row) if row else None


# Rows.


def _parameters_text(parameters: Mapping[str, Any]) -> str:
    values = {name: value for name, value in parameters.items() if not isinstance(value, Reference)}
    references = {
        name: [value.namespace, *value.parts]
        for name, value in parameters.items()
        if isinstance(value, Reference)
    }
    return orjson.dumps({"values": values, "references": references}).decode()


def _parameters(text: str) -> dict[str, Any]:
    stored = orjson.loads(text)
    references: Iterable[tuple[str, list[str]]] = stored["references"].items()
    values: dict[str, Any] = stored["values"]
    return values | {
        name: Reference(namespace, tuple(parts)) for name, (namespace, *parts) in references
    }


def _execution(row: Row) -> Execution:
    return Execution(
        execution_id=row["execution_id"],
        owner_id=row["owner_id"],
        agent_id=row["agent_id"],
        credential_id=row["credential_id"],
        playbook_path=row["playbook_path"],
        playbook_name=row["playbook_name"],
        playbook_digest=row["playbook_digest"],
        parameters=_parameters(row["parameters"]),
        gateway_url=row["gateway_url"],
        credential_name=row["credential_name"],
        debug_mode=bool(row["debug_mode"]),
        parent_id=row["parent_id"],
        parent_step_id=row["parent_step_id"],
        rerun_of=row["rerun_of"],
        total_steps=row["total_steps"],
        created_at_us=row["created_at_us"],
        state=State(row["state"]),
        step_index=row["step_index"],
        started_at_us=row["started_at_us"],
        ended_at_us=row["ended_at_us"],
    )


def _event(row: Row) -> Event:
    change = Change(
        Kind(row["kind"]),
        row["step_id"],
        row["text"],
        State(row["state"]) if row["state"] else None,
        bool(row["is_final"]),
        orjson.loads(row["data"]) if row["data"] else {},
    )
    return Event(
        row["number"],
        row["at_us"],
        change,
        State(row["run_state"]),
        row["step_index"],
        len(row["data"]),
    )


def _kept(row: Row) -> Kept:
    artifact = Artifact(
        row["artifact_id"],
        row["name"],
        ArtifactKind(row["kind"]),
        row["content_type"],
        row["size_bytes"],
    )
    return Kept(artifact, row["step_id"], row["created_at_us"])
