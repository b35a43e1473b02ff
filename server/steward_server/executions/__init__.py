"""Runs of playbooks. Start reading at run.py, the rules; worker.py makes the steps of one run."""

from __future__ import annotations

from typing import Any

from steward.executions.v1.executions_pb2_grpc import add_ExecutionServiceServicer_to_server
from steward_server.executions.engine import Engine
from steward_server.executions.room import ExecutionRoom
from steward_server.executions.service import ExecutionService


def register(methods: Any, *, room: ExecutionRoom, engine: Engine) -> None:
    """Serve ExecutionService."""
    add_ExecutionServiceServicer_to_server(ExecutionService(room, engine), methods)
