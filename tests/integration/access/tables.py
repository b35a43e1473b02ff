"""The tables a room adds itself to: who may call it, what is whose, what is written down.

Each room has a file in `rooms/` with any of `ACCESS`, `FOREIGN` and `RECORDED`; they are found
there. A method that stands in no table where it should fails the test of that table.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from steward_gateway.contracts import load_contracts
from steward_server.dispatch import rule_of
from tests.integration.access.callers import CALLERS
from tests.integration.access.world import Headers, World

# Sets of callers, by name, for `ACCESS`. Every caller of callers.py stands in some of them.

EVERYONE = frozenset(CALLERS)
ADMIN = frozenset({"admin", "admin key"})
WRITERS = ADMIN | {"user", "user key"}
PEOPLE = WRITERS | {"viewer", "readonly key", "executor key"}
KEYS = frozenset({"admin key", "user key", "executor key", "readonly key"})
IN_PERSON = PEOPLE - KEYS
"""People by their own sign-in, and by no key."""
NEWCOMERS = frozenset({"newcomer"})
"""An administrator who must change their password first."""
BUDGET_AGENTS = frozenset({"agent", "agent for budget"})
EVENT_AGENTS = frozenset({"agent", "agent for events"})
ENVIRONMENT_AGENTS = frozenset({"agent", "agent for environments"})
EXECUTION_AGENTS = frozenset({"agent", "agent for executions"})
INFERENCE_AGENTS = frozenset({"agent", "agent for inference"})
AGENTS = BUDGET_AGENTS | EVENT_AGENTS | ENVIRONMENT_AGENTS | EXECUTION_AGENTS | INFERENCE_AGENTS
CLIENTS = frozenset({"client"})
"""Of inference, by the static token."""

Make = Callable[[World], Awaitable[Message]]


@dataclass(frozen=True, slots=True)
class Recorded:
    """A call that succeeds, and the actions it leaves in the audit log."""

    request: Make
    actions: tuple[str, ...]
    caller: Callable[[World], Awaitable[Headers]] | None = None
    """None: the administrator."""


def _collected(table: str) -> dict[str, Any]:
    """One table of all rooms: keys as ``steward.agents.v1.AgentService/GetAgent``."""
    rows: dict[str, Any] = {}
    for found in pkgutil.iter_modules([str(Path(__file__).with_name("rooms"))]):
        module = importlib.import_module(f"tests.integration.access.rooms.{found.name}")
        for service, methods in getattr(module, table, {}).items():
            rows |= {f"{service}/{method}": row for method, row in methods.items()}
    return rows


ACCESS: dict[str, frozenset[str]] = _collected("ACCESS")
"""Who may call each method."""

FOREIGN: dict[str, Make | str] = _collected("FOREIGN")
"""For methods that take an id: a request for what is `World.owner`'s; or why there is none."""

RECORDED: dict[str, Recorded | str] = _collected("RECORDED")
"""For methods that change something; or why nothing is written down."""


def name_of(method: MethodDescriptor) -> str:
    return f"{method.containing_service.full_name}/{method.name}"


METHODS: dict[str, MethodDescriptor] = {
    name_of(method): method for method in load_contracts().methods()
}
RULES = {name: rule_of(method) for name, method in METHODS.items()}
