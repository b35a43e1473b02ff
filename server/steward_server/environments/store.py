"""Environments as rows. No rule lives here."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from steward_server.db import Reader, Row, Transaction
from steward_server.environments.driver import LogRecord
from steward_server.environments.environment import Environment, Resources, Spec, State
from steward_server.environments.quota import Use
from steward_server.environments.rows import spec_of, spec_text
from steward_server.environments.selectors import Operator, Requirement
from steward_server.errors import NotFound

_COLUMNS = (
    "environment_id, name, owner_id, image, state, cpu_millicores, memory_bytes, storage_bytes,"
    " spec, sealed_env, created_at_us, expires_at_us, idle_timeout_s, started_at_us, ended_at_us,"
    " last_used_at_us, paused, reason, exit_code, delete_wanted, agent_id, log_start"
)
_SELECT = f"SELECT {_COLUMNS} FROM environment AS e"
_LABELS = (
    "(SELECT json_group_object(key, value) FROM (SELECT key, value FROM environment_label AS l"
    " WHERE l.environment_id = e.environment_id ORDER BY key)) AS labels"
)
_LIVE = "state IN ('pending', 'running', 'terminating')"


@dataclass(frozen=True, slots=True)
class Stored:
    """An environment as its row has it: its variables still sealed, so not in its spec."""

    environment: Environment
    sealed_env: bytes | None = field(default=None, repr=False)
    delete_wanted: bool = False
    """Whether it is to be hidden once it is over."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which environments to list."""

    state: State | None = None
    selector: Sequence[Requirement] = ()
    reader_id: str | None = None
    """Only what this person owns or shares; None: everybody's."""
    only: Collection[str] | None = None
    """Only these; None: all."""
    agent_id: str | None = None
    """Only what this agent has created; None: whoever did."""


async def get(reader: Reader, environment_id: str) -> Stored:
    """The environment.

    Raises:
        NotFound: there is none, or none any more.
    """
    stored = await find(reader, environment_id)
    if stored is None:
        raise NotFound.of("environment", environment_id)
    return stored


async def find(reader: Reader, environment_id: str) -> Stored | None:
    """The environment; None if there is none, or none any more."""
    row = await reader.fetch_one(
        f"SELECT {_COLUMNS}, {_LABELS} FROM environment AS e"
        " WHERE environment_id = ? AND deleted_at_us IS NULL",
        environment_id,
    )
    return _stored(row, orjson.loads(row["labels"])) if row else None


async def living(reader: Reader) -> list[Stored]:
    """Every environment that is not over, the oldest first."""
    rows = await reader.fetch_all(f"{_SELECT} WHERE {_LIVE} ORDER BY created_at_us, environment_id")
    return [_stored(row, {}) for row in rows]


async def running_ids(reader: Reader) -> list[str]:
    """Those that run."""
    rows = await reader.fetch_all("SELECT environment_id FROM environment WHERE state = 'running'")
    return [row["environment_id"] for row in rows]


async def unsettled(reader: Reader) -> list[tuple[str, State]]:
    """Those that are to become something else: pending, or terminating."""
    rows = await reader.fetch_all(
        "SELECT environment_id, state FROM environment WHERE state IN ('pending', 'terminating')"
    )
    return [(row["environment_id"], State(row["state"])) for row in rows]


async def maybe_due(reader: Reader, now_us: int) -> list[Environment]:
    """Those whose time is over, and those that may end for idleness."""
    rows = await reader.fetch_all(
        f"{_SELECT} WHERE state IN ('pending', 'running')"
        " AND (expires_at_us <= ? OR idle_timeout_s IS NOT NULL)",
        now_us,
    )
    return [_stored(row, {}).environment for row in rows]


async def owners(reader: Reader) -> dict[str, str]:
    """Whose each environment is, or was."""
    rows = await reader.fetch_all("SELECT environment_id, owner_id FROM environment")
    return {row["environment_id"]: row["owner_id"] for row in rows}


async def page(reader: Reader, wanted: Wanted, *, limit: int, offset: int) -> list[Environment]:
    """Environments, the newest first."""
    where, parameters = _conditions(wanted)
    rows = await reader.fetch_all(
        f"SELECT {_COLUMNS}, {_LABELS} FROM environment AS e WHERE {where}"
        " ORDER BY created_at_us DESC, environment_id DESC LIMIT ? OFFSET ?",
        *parameters,
        limit,
        offset,
    )
    return [_stored(row, orjson.loads(row["labels"])).environment for row in rows]


async def count(reader: Reader, wanted: Wanted) -> int:
    """How many there are of them."""
    where, parameters = _conditions(wanted)
    [row] = await reader.fetch_all(
        f"SELECT count(*) AS environment_count FROM environment AS e WHERE {where}", *parameters
    )
    return int(row["environment_count"])


async def use(reader: Reader, owner_id: str | None) -> Use:
    """What environments that are not over hold: one person's, or everybody's."""
    whose, parameters = ("", ()) if owner_id is None else (" AND owner_id = ?", (owner_id,))
    [row] = await reader.fetch_all(
        "SELECT count(*) AS environment_count, COALESCE(sum(cpu_millicores), 0) AS cpu,"
        " COALESCE(sum(memory_bytes), 0) AS memory, COALESCE(sum(storage_bytes), 0) AS storage"
        f" FROM environment WHERE {_LIVE}{whose}",
        *parameters,
    )
    return Use(row["environment_count"], row["cpu"], row["memory"], row["storage"])


async def count_by_state(reader: Reader) -> dict[str, int]:
    """How many there are in each state."""
    rows = await reader.fetch_all(
        "SELECT state, count(*) AS environment_count FROM environment"
        " WHERE deleted_at_us IS NULL GROUP BY state"
    )
    return {row["state"]: row["environment_count"] for row in rows}


async def insert(
    transaction: Transaction, environment: Environment, sealed_env: bytes | None
) -> None:
    spec = environment.spec
    await transaction.execute(
        "INSERT INTO environment (environment_id, name, owner_id, image, state, cpu_millicores,"
        " memory_bytes, storage_bytes, spec, sealed_env, created_at_us, expires_at_us,"
        " idle_timeout_s, agent_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        environment.environment_id,
        environment.name,
        environment.owner_id,
        spec.image,
        environment.state.value,
        spec.resources.cpu_millicores,
        spec.resources.memory_bytes,
        spec.resources.storage_bytes,
        spec_text(spec),
        sealed_env,
        environment.created_at_us,
        environment.expires_at_us,
        environment.idle_timeout_s,
        environment.agent_id,
    )
    await save_labels(transaction, environment.environment_id, environment.labels)


async def save(transaction: Transaction, environment: Environment) -> None:
    """Write what changes in a life; once it is over, its variables are forgotten."""
    forget = ", sealed_env = NULL" if environment.state.is_over else ""
    await transaction.execute(
        "UPDATE environment SET state = ?, owner_id = ?, image = ?, spec = ?, expires_at_us = ?,"
        " idle_timeout_s = ?, started_at_us = ?, ended_at_us = ?, last_used_at_us = ?, paused = ?,"
        f" reason = ?, exit_code = ?, log_start = ?{forget}"
        " WHERE environment_id = ?",
        environment.state.value,
        environment.owner_id,
        environment.spec.image,
        spec_text(environment.spec),
        environment.expires_at_us,
        environment.idle_timeout_s,
        environment.started_at_us,
        environment.ended_at_us,
        environment.last_used_at_us,
        int(environment.paused),
        environment.reason,
        environment.exit_code,
        environment.log_start,
        environment.environment_id,
    )


async def save_labels(
    transaction: Transaction, environment_id: str, labels: Mapping[str, str]
) -> None:
    await transaction.execute(
        "DELETE FROM environment_label WHERE environment_id = ?", environment_id
    )
    await transaction.execute_many(
        "INSERT INTO environment_label (environment_id, key, value) VALUES (?, ?, ?)",
        [(environment_id, key, value) for key, value in labels.items()],
    )


async def save_last_use(transaction: Transaction, used_at_us: Mapping[str, int]) -> None:
    await transaction.execute_many(
        "UPDATE environment SET last_used_at_us = ? WHERE environment_id = ?",
        [(at_us, environment_id) for environment_id, at_us in used_at_us.items()],
    )


async def want_deletion(transaction: Transaction, environment_id: str) -> None:
    await transaction.execute(
        "UPDATE environment SET delete_wanted = 1 WHERE environment_id = ?", environment_id
    )


async def hide(transaction: Transaction, environment_id: str, now_us: int) -> None:
    """Let nobody find an environment again; who shares it and what it logged is forgotten."""
    await transaction.execute(
        "UPDATE environment SET deleted_at_us = ? WHERE environment_id = ?", now_us, environment_id
    )
    for table in ("environment_share", "environment_last_log", "environment_label"):
        await transaction.execute(f"DELETE FROM {table} WHERE environment_id = ?", environment_id)


async def ended_before(reader: Reader, ended_before_us: int) -> list[str]:
    """What has been over for so long, a thousand at most."""
    rows = await reader.fetch_all(
        "SELECT environment_id FROM environment WHERE ended_at_us < ? LIMIT 1000", ended_before_us
    )
    return [row["environment_id"] for row in rows]


async def forget(transaction: Transaction, environment_ids: Sequence[str]) -> None:
    """Delete rows for good."""
    tables = ("environment", "environment_share", "environment_last_log", "environment_label")
    for table in tables:
        await transaction.execute_many(
            f"DELETE FROM {table} WHERE environment_id = ?", [(each,) for each in environment_ids]
        )


async def owned_by(reader: Reader, user_id: str) -> list[Environment]:
    """Somebody's environments, those that are over included."""
    rows = await reader.fetch_all(
        f"{_SELECT} WHERE owner_id = ? AND deleted_at_us IS NULL"
        " ORDER BY created_at_us, environment_id",
        user_id,
    )
    return [_stored(row, {}).environment for row in rows]


# What it wrote last.


async def save_last_log(
    transaction: Transaction, environment_id: str, records: Iterable[LogRecord]
) -> None:
    lines = [(each.sequence, each.at_us, each.stream, each.message) for each in records]
    await transaction.execute(
        "INSERT INTO environment_last_log (environment_id, lines) VALUES (?, ?)"
        " ON CONFLICT (environment_id) DO UPDATE SET lines = excluded.lines",
        environment_id,
        orjson.dumps(lines).decode(),
    )


async def last_log(reader: Reader, environment_id: str) -> list[LogRecord]:
    """Its last lines, of one that is over."""
    row = await reader.fetch_one(
        "SELECT lines FROM environment_last_log WHERE environment_id = ?", environment_id
    )
    return [LogRecord(*each) for each in orjson.loads(row["lines"])] if row else []


def _conditions(wanted: Wanted) -> tuple[str, list[object]]:
    conditions, parameters = ["deleted_at_us IS NULL"], list[object]()
    if wanted.state is not None:
        conditions.append("state = ?")
        parameters.append(wanted.state.value)
    if wanted.reader_id is not None:
        conditions.append(
            "(owner_id = ? OR environment_id IN"
            " (SELECT environment_id FROM environment_share WHERE user_id = ?))"
        )
        parameters += [wanted.reader_id, wanted.reader_id]
    if wanted.only is not None:
        conditions.append(f"environment_id IN ({', '.join('?' * len(wanted.only))})")
        parameters += sorted(wanted.only)
    if wanted.agent_id is not None:
        conditions.append("agent_id = ?")
        parameters.append(wanted.agent_id)
    for requirement in wanted.selector:
        condition, values = _requirement(requirement)
        conditions.append(condition)
        parameters += values
    return " AND ".join(conditions), parameters


def _requirement(requirement: Requirement) -> tuple[str, list[object]]:
    values: list[object] = [requirement.key, *requirement.values]
    among = f" AND l.value IN ({', '.join('?' * len(requirement.values))})"
    match requirement.operator:
        case Operator.EXISTS | Operator.NOT_EXISTS:
            among = ""
    is_without = requirement.operator in (Operator.NOT_IN, Operator.NOT_EXISTS)
    condition = (
        f"{'NOT ' if is_without else ''}EXISTS (SELECT 1 FROM environment_label AS l"
        f" WHERE l.environment_id = e.environment_id AND l.key = ?{among})"
    )
    return condition, values


def _stored(row: Row, labels: Mapping[str, str]) -> Stored:
    resources = Resources(row["cpu_millicores"], row["memory_bytes"], row["storage_bytes"])
    spec: Spec = spec_of(row["spec"], row["image"], resources, {})
    environment = Environment(
        row["environment_id"],
        row["name"],
        row["owner_id"],
        spec,
        State(row["state"]),
        row["created_at_us"],
        row["expires_at_us"],
        row["idle_timeout_s"],
        labels,
        row["started_at_us"],
        row["ended_at_us"],
        row["last_used_at_us"],
        bool(row["paused"]),
        row["reason"],
        row["exit_code"],
        row["agent_id"],
        row["log_start"],
    )
    return Stored(environment, row["sealed_env"], bool(row["delete_wanted"]))
