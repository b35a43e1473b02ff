"""Who uses environments now: they do not idle, and what is open ends with the right to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from steward_server.db import Database
from steward_server.environments import store
from steward_server.environments.environment import Environment
from steward_server.errors import FailedPrecondition, PermissionDenied
from steward_server.interceptors.authentication import LiveStreams
from steward_server.last_use import LastUse
from steward_server.principals import Kind, Principal


class Uses:
    """Commands and terminals under way, and open streams of those who were let in."""

    def __init__(self, database: Database, clock: Callable[[], int]) -> None:
        self.last_use = LastUse(database, store.save_last_use)
        self._clock = clock
        self._active: Counter[str] = Counter()
        self._streams = LiveStreams()
        self.on_right_changed: list[Callable[[str, str], None]] = []
        """Told of an environment and of somebody whose right to it was changed."""
        self.on_agent_stopped: list[Callable[[str], None]] = []
        """Told of an agent that is to stop."""

    @contextmanager
    def of(self, environment_id: str) -> Iterator[None]:
        """Say for the block that an environment is used."""
        self._active[environment_id] += 1
        self.last_use.note(environment_id, self._clock())
        try:
            yield
        finally:
            self._active[environment_id] -= 1
            if not self._active[environment_id]:
                del self._active[environment_id]
            self.last_use.note(environment_id, self._clock())

    def refreshed(self, environment: Environment) -> Environment:
        """It, with its last use as of now."""
        name = environment.environment_id
        used_us = (
            self._clock()
            if name in self._active
            else self.last_use.newest_us(name, environment.last_used_at_us)
        )
        return replace(environment, last_used_at_us=used_us)

    def guard(
        self,
        responses: Any,
        caller: Principal,
        environment_id: str,
        check: Callable[[], Coroutine[Any, Any, object]],
        *,
        only_looks: bool = False,
    ) -> AsyncGenerator[Any, None]:
        """Pass a stream on until it, or the caller's right to the environment, ends.

        `check` raises if the right has ended already. An agent that is told to stop may go on only
        with what looks.
        """
        stops = caller.kind is Kind.AGENT and not only_looks
        key = replace(
            caller,
            subject=_key(environment_id, caller.subject),
            credential=_agent(caller.subject) if stops else "",
            expires_at_us=None,
        )
        return self._streams.guard(responses, key, check)

    def end_streams(self, environment_id: str, user_id: str) -> None:
        """End what somebody has open of an environment, since what they may do was changed."""

        def why() -> PermissionDenied:
            return PermissionDenied(
                f"what you may do with environment {environment_id!r} was changed; connect again",
                reason="PERMISSION_CHANGED",
                facts={"environment_id": environment_id},
            )

        self._streams.end(_key(environment_id, user_id), why)
        for tell in self.on_right_changed:
            tell(environment_id, user_id)

    def end_of_agent(self, agent_id: str) -> None:
        """End what an agent has open that does more than look, since it was told to stop."""
        self._streams.end(_agent(agent_id), lambda: agent_stopped(agent_id))
        for tell in self.on_agent_stopped:
            tell(agent_id)


def agent_stopped(agent_id: str) -> FailedPrecondition:
    """What is said to an agent that is to stop."""
    return FailedPrecondition(
        f"agent {agent_id!r} was told to stop; let it run again with "
        f"POST /api/agents/{agent_id}/start",
        reason="AGENT_STOPPED",
        facts={"agent_id": agent_id},
    )


def _agent(agent_id: str) -> str:
    return f"agent {agent_id}"


def _key(environment_id: str, user_id: str) -> str:
    return f"{environment_id} {user_id}"
