"""Limits: how much agents may call, beside their budgets. Start reading at shares.py and book.py.

The server divides what a limit allows among the open leases; runtimes keep to their share without
asking. Together they cannot exceed it, because a share that was told is not given to another
before its holder has said that it keeps to less, or has been silent for as long as it counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from steward.limits.v1.limits_pb2_grpc import add_LimitServiceServicer_to_server
from steward_server.db import Database
from steward_server.limits.book import LimitBook
from steward_server.limits.needs import People, Projects, Purse
from steward_server.limits.room import LimitRoom
from steward_server.limits.service import LimitService


def register(
    methods: Any,
    database: Database,
    *,
    book: LimitBook,
    purse: Purse,
    people: People,
    projects: Projects,
    clock: Callable[[], int],
) -> LimitRoom:
    """Serve LimitService. Beside it, run `keep_sweeping` of the room."""
    room = LimitRoom(database, book, purse, people, projects, clock)
    add_LimitServiceServicer_to_server(LimitService(room), methods)
    return room
