"""A connection that drives one agent, with its credential in every message."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from steward.inference.v1 import inference_pb2 as pb
from steward_server.calls import Context
from steward_server.errors import StewardError, Unauthenticated
from steward_server.inference.engine import Engine
from steward_server.inference.metering import Owner
from steward_server.inference.reading import (
    MISSING,
    failed,
    fill_action,
    observation_of,
    owner_for,
)
from steward_server.inference.served import Agent
from steward_server.principals import Principal

Authenticate: TypeAlias = Callable[[str, Context], Awaitable[Principal]]
"""Who a token stands for, if they may make steps; raises a `StewardError` otherwise."""

CHECK_AGAIN_S = 10.0
"""How long a token is believed that was looked at: it may be revoked."""
_TEXTS = {
    "INVALID_TOKEN": "Invalid authentication token",
    "TOKEN_EXPIRED": "Token has expired",
}
"""What the document of these connections says, whatever kind of token it is."""
MOST_FAILURES = 5
"""Bad tokens in a row, after which the connection is ended."""


class Drive:
    """One connection. Its agent is begun by the first good message; end it with `end`."""

    def __init__(self, engine: Engine, authenticate: Authenticate, context: Context) -> None:
        self._engine = engine
        self._authenticate = authenticate
        self._context = context
        self._agent: Agent | None = None
        self._token = ""
        self._owner = Owner("")
        self._believed_until_s = 0.0
        self._failures = 0

    async def answer(self, request: pb.DriveRequest) -> pb.DriveResponse:
        """Make a step, or say what is wrong with the message.

        Raises:
            Unauthenticated: too many of them had no good token.
        """
        try:
            return await self._answer(request)
        except StewardError as error:
            if self._failures >= MOST_FAILURES:
                raise
            return pb.DriveResponse(error=error.message)

    async def _answer(self, request: pb.DriveRequest) -> pb.DriveResponse:
        if not request.token:
            return pb.DriveResponse(error="Missing 'token' field in message")
        if not request.observation:
            return pb.DriveResponse(error=MISSING)
        if request.token != self._token or time.monotonic() >= self._believed_until_s:
            await self._look_at(request.token)
        agent = self._agent
        if agent is None:
            agent = self._agent = await self._engine.begin_nameless(self._owner, request.policy)
        deterministic = request.deterministic if request.HasField("deterministic") else True
        observation = observation_of(request.observation, agent.served)
        step = await self._engine.step_one(agent, observation, deterministic=deterministic)
        if step.failed:
            raise failed(["this connection's agent"])
        response = pb.DriveResponse(value=step.value, pressure=step.pressure)
        fill_action(response.action, step.action)
        return response

    async def _look_at(self, token: str) -> None:
        """Find out who sends the token.

        Raises:
            Unauthenticated: it is not good.
        """
        try:
            who = await self._authenticate(token, self._context)
        except StewardError as error:
            self._failures += 1
            self._token = ""
            text = _TEXTS.get(error.reason, error.message)
            raise Unauthenticated(f"Authentication failed: {text}", reason=error.reason) from None
        owner = owner_for(who)
        if self._agent is not None and owner.name != self._owner.name:
            self.end()  # what was kept of it is not the other's to go on with
        self._failures = 0
        self._token, self._owner = token, owner
        self._believed_until_s = time.monotonic() + CHECK_AGAIN_S
        if who.expires_at_us is not None:
            left_s = who.expires_at_us / 1e6 - time.time()
            self._believed_until_s = min(self._believed_until_s, time.monotonic() + left_s)

    def end(self) -> None:
        """Let go of the agent."""
        if self._agent is not None:
            self._engine.end(self._agent)
            self._agent = None
