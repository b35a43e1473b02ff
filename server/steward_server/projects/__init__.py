"""Projects and the organisation: budgets that agents share. Start reading at project.py."""

from __future__ import annotations

from typing import Any

from steward.projects.v1.projects_pb2_grpc import add_ProjectServiceServicer_to_server
from steward_server.projects.room import ProjectRoom
from steward_server.projects.service import ProjectService


def register(methods: Any, room: ProjectRoom) -> None:
    """Serve ProjectService."""
    add_ProjectServiceServicer_to_server(ProjectService(room), methods)
