"""Budget requests as rows. No rule lives here."""

from __future__ import annotations

from dataclasses import fields
from typing import NamedTuple

from steward_server.db import Reader, Row, Transaction
from steward_server.errors import NotFound
from steward_server.requests.request import BudgetRequest, Status

_COLUMNS = tuple(field.name for field in fields(BudgetRequest))
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM budget_request"


class Wanted(NamedTuple):
    """Which requests a page lists; empty texts leave out nothing."""

    agent_id: str = ""
    status: str = ""
    requester_id: str = ""
    seen_by: str = ""
    """Only what this person or agent asked for, or what is about an agent they own or are."""


async def get(reader: Reader, request_id: str) -> BudgetRequest:
    """The request.

    Raises:
        NotFound: there is none.
    """
    row = await reader.fetch_one(f"{_SELECT} WHERE request_id = ?", request_id)
    if row is None:
        raise NotFound.of("budget request", request_id)
    return _request(row)


async def page(
    reader: Reader, wanted: Wanted, *, before: tuple[int, str] | None, limit: int
) -> list[BudgetRequest]:
    """Requests, the newest first, after the last of the page before."""
    conditions, parameters = ["1 = 1"], list[object]()
    for column in ("agent_id", "status", "requester_id"):
        if value := getattr(wanted, column):
            conditions.append(f"{column} = ?")
            parameters.append(value)
    if wanted.seen_by:
        conditions.append("(requester_id = ? OR owner_id = ? OR agent_id = ?)")
        parameters += [wanted.seen_by] * 3
    if before is not None:
        conditions.append("(created_at_us, request_id) < (?, ?)")
        parameters.extend(before)
    rows = await reader.fetch_all(
        f"{_SELECT} WHERE {' AND '.join(conditions)}"
        " ORDER BY created_at_us DESC, request_id DESC LIMIT ?",
        *parameters,
        limit,
    )
    return [_request(row) for row in rows]


async def pending_of(reader: Reader, agent_id: str) -> list[BudgetRequest]:
    """The requests about an agent that wait for a decision."""
    rows = await reader.fetch_all(
        f"{_SELECT} WHERE agent_id = ? AND status = 'pending' ORDER BY created_at_us, request_id",
        agent_id,
    )
    return [_request(row) for row in rows]


async def pending_by(reader: Reader, requester_id: str) -> list[BudgetRequest]:
    """The requests that somebody made and that wait for a decision."""
    rows = await reader.fetch_all(
        f"{_SELECT} WHERE requester_id = ? AND status = 'pending'"
        " ORDER BY created_at_us, request_id",
        requester_id,
    )
    return [_request(row) for row in rows]


async def hand_on(transaction: Transaction, owner_id: str, heir_id: str) -> None:
    """Have the pending requests about one person's agents be about another's."""
    await transaction.execute(
        "UPDATE budget_request SET owner_id = ? WHERE owner_id = ? AND status = 'pending'",
        heir_id,
        owner_id,
    )


async def insert(transaction: Transaction, request: BudgetRequest) -> None:
    marks = ", ".join("?" * len(_COLUMNS))
    await transaction.execute(
        f"INSERT INTO budget_request ({', '.join(_COLUMNS)}) VALUES ({marks})",
        *(getattr(request, column) for column in _COLUMNS),
    )


async def save_decision(transaction: Transaction, request: BudgetRequest) -> bool:
    """Write down how a pending request was decided; False if that was done before."""
    changed = await transaction.execute(
        "UPDATE budget_request SET status = ?, reviewer_id = ?, reviewed_at_us = ?,"
        " updated_at_us = ?, notes = ?, previous_nanousd = ?, approved_nanousd = ?, ends_at_us = ?"
        " WHERE request_id = ? AND status = 'pending'",
        request.status.value,
        request.reviewer_id,
        request.reviewed_at_us,
        request.updated_at_us,
        request.notes,
        request.previous_nanousd,
        request.approved_nanousd,
        request.ends_at_us,
        request.request_id,
    )
    return changed == 1


def _request(row: Row) -> BudgetRequest:
    values = {column: row[column] for column in _COLUMNS}
    return BudgetRequest(**{**values, "status": Status(row["status"])})
