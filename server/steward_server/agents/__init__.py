"""Agents: who may spend, and whether they should be running. Start reading at agent.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from steward.agents.v1.agents_pb2_grpc import add_AgentServiceServicer_to_server
from steward_server.agents.config import AgentsConfig
from steward_server.agents.directory import Directory
from steward_server.agents.needs import People, Projects, Providers, Purse, Requests, Tokens
from steward_server.agents.room import AgentRoom
from steward_server.agents.service import AgentService
from steward_server.db import Database, now_us


def register(
    methods: Any,
    database: Database,
    *,
    directory: Directory,
    purse: Purse,
    tokens: Tokens,
    providers: Providers,
    people: People,
    projects: Projects,
    requests: Requests,
    on_stopped: Sequence[Callable[[str], None]],
    config: AgentsConfig,
    clock: Callable[[], int] = now_us,
) -> None:
    """Serve AgentService."""
    room = AgentRoom(
        database,
        directory,
        purse,
        tokens,
        providers,
        people,
        projects,
        requests,
        on_stopped,
        config.vanished_after_us,
        clock,
    )
    add_AgentServiceServicer_to_server(AgentService(room), methods)
