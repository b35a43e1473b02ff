"""Budget requests: asking for more money and deciding about it. Start reading at request.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from steward.requests.v1.requests_pb2_grpc import add_BudgetRequestServiceServicer_to_server
from steward_server.db import Database, now_us
from steward_server.requests.config import RequestsConfig
from steward_server.requests.needs import Agents, Allocations, People, Purse
from steward_server.requests.room import RequestRoom
from steward_server.requests.service import BudgetRequestService


def register(
    methods: Any,
    database: Database,
    *,
    agents: Agents,
    people: People,
    purse: Purse,
    allocations: Allocations,
    config: RequestsConfig,
    clock: Callable[[], int] = now_us,
) -> RequestRoom:
    """Serve BudgetRequestService; the room is for those who end agents."""
    room = RequestRoom(
        database, agents, people, purse, allocations, config.pending_per_agent, clock
    )
    add_BudgetRequestServiceServicer_to_server(BudgetRequestService(room), methods)
    return room
