"""Projects and the organisation as rows. No rule lives here."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from steward_server.db import Reader, Row, Transaction
from steward_server.errors import NotFound
from steward_server.projects.project import Organisation, Project

_SELECT = "SELECT project_id, name, created_at_us, updated_at_us, version FROM project"


async def get(reader: Reader, project_id: str) -> Project:
    """The project.

    Raises:
        NotFound: there is none, or none any more.
    """
    row = await reader.fetch_one(
        f"{_SELECT} WHERE project_id = ? AND deleted_at_us IS NULL", project_id
    )
    if row is None:
        raise NotFound.of("project", project_id)
    return _project(row)


async def page(
    reader: Reader,
    *,
    only: Collection[str] | None,
    before: tuple[int, str] | None,
    limit: int,
) -> list[Project]:
    """Projects, the newest first, after the last of the page before; all, or `only` some."""
    conditions, parameters = ["deleted_at_us IS NULL"], list[object]()
    if only is not None:
        conditions.append(f"project_id IN ({', '.join('?' * len(only))})")
        parameters.extend(sorted(only))
    if before is not None:
        conditions.append("(created_at_us, project_id) < (?, ?)")
        parameters.extend(before)
    rows = await reader.fetch_all(
        f"{_SELECT} WHERE {' AND '.join(conditions)}"
        " ORDER BY created_at_us DESC, project_id DESC LIMIT ?",
        *parameters,
        limit,
    )
    return [_project(row) for row in rows]


async def names(reader: Reader, project_ids: Sequence[str]) -> dict[str, str]:
    """The names of these projects, of deleted ones too."""
    marks = ", ".join("?" * len(project_ids))
    rows = await reader.fetch_all(
        f"SELECT project_id, name FROM project WHERE project_id IN ({marks})", *project_ids
    )
    return {row["project_id"]: row["name"] for row in rows}


async def insert(transaction: Transaction, project: Project) -> None:
    await transaction.execute(
        "INSERT INTO project (project_id, name, created_at_us, updated_at_us) VALUES (?, ?, ?, ?)",
        project.project_id,
        project.name,
        project.created_at_us,
        project.updated_at_us,
    )


async def save(transaction: Transaction, project: Project) -> None:
    await transaction.execute(
        "UPDATE project SET name = ?, updated_at_us = ? WHERE project_id = ?",
        project.name,
        project.updated_at_us,
        project.project_id,
    )


async def delete(transaction: Transaction, project_id: str, now_us: int) -> None:
    """Hide the project for good; its row stays, since the journal names it."""
    await transaction.execute(
        "UPDATE project SET deleted_at_us = ? WHERE project_id = ?", now_us, project_id
    )


async def organisation(reader: Reader) -> Organisation:
    """The one there is."""
    row = await reader.fetch_one(
        "SELECT organisation_id, name, updated_at_us, version FROM organisation"
    )
    if row is None:
        raise LookupError("the organisation's row is gone")
    return Organisation(row["organisation_id"], row["name"], row["updated_at_us"], row["version"])


async def save_organisation(transaction: Transaction, changed: Organisation) -> None:
    await transaction.execute(
        "UPDATE organisation SET name = ?, updated_at_us = ? WHERE organisation_id = ?",
        changed.name,
        changed.updated_at_us,
        changed.organisation_id,
    )


def _project(row: Row) -> Project:
    return Project(
        row["project_id"],
        row["name"],
        row["created_at_us"],
        row["updated_at_us"],
        row["version"],
    )
