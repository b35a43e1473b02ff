"""Finds out who calls, and keeps hold of open streams so that they end with their credential."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Protocol

from grpc_interceptor.server import AsyncServerInterceptor

from steward.gateway.v1.options_pb2 import ACCESS_PUBLIC, MethodRule
from steward_server.calls import Call
from steward_server.db import now_us
from steward_server.errors import Unauthenticated
from steward_server.principals import Principal


class Authenticator(Protocol):
    """Knows credentials."""

    async def authenticate(self, call: Call, ic_token: str) -> Principal:
        """Who the call's metadata (or `ic_token`, from a request's body) says is calling.

        Raises:
            Unauthenticated: no credential, or one that is unknown, expired or revoked.
        """
        ...


class _Guarded:
    """One open stream; knows the task that waits for its next response."""

    __slots__ = ("has_ended", "waiting")

    def __init__(self) -> None:
        self.has_ended = False
        self.waiting: asyncio.Task[Any] | None = None

    def end(self) -> None:
        self.has_ended = True
        if self.waiting is not None:
            self.waiting.cancel()


class LiveStreams:
    """Open streams by what they depend on: a credential, a user, an agent."""

    def __init__(self) -> None:
        self._open: defaultdict[str, set[_Guarded]] = defaultdict(set)

    def end(self, dependency: str) -> None:
        """End every stream that depends on this id with UNAUTHENTICATED."""
        for guarded in self._open.get(dependency, ()):
            guarded.end()

    async def guard(self, responses: Any, principal: Principal) -> AsyncIterator[Any]:
        """Pass `responses` on until they, or the caller's credential, end."""
        guarded = _Guarded()
        dependencies = {principal.credential, principal.subject} - {""}
        for dependency in dependencies:
            self._open[dependency].add(guarded)
        timer = _arm(guarded, principal)
        try:
            async with aclosing(responses):
                while True:
                    try:
                        response = await _next(responses, guarded)
                    except StopAsyncIteration:
                        return
                    yield response
        finally:
            if timer is not None:
                timer.cancel()
            for dependency in dependencies:
                self._open[dependency].discard(guarded)
                if not self._open[dependency]:
                    del self._open[dependency]


async def _next(responses: Any, guarded: _Guarded) -> Any:
    """The next response, or UNAUTHENTICATED as soon as the stream was ended."""
    task = asyncio.current_task()
    guarded.waiting = task
    try:
        if guarded.has_ended:
            raise _ended()
        return await anext(responses)
    except asyncio.CancelledError:
        # Cancelled by `end`, or by the caller's leaving, which comes first.
        if guarded.has_ended and task is not None and task.uncancel() == 0:
            raise _ended() from None
        raise
    finally:
        guarded.waiting = None


def _ended() -> Unauthenticated:
    return Unauthenticated(
        "the credential this stream was opened with has ended; authenticate again",
        reason="CREDENTIAL_ENDED",
    )


def _arm(guarded: _Guarded, principal: Principal) -> asyncio.TimerHandle | None:
    if principal.expires_at_us is None:
        return None
    left_s = (principal.expires_at_us - now_us()) / 1e6
    return asyncio.get_running_loop().call_later(left_s, guarded.end)


class Authentication(AsyncServerInterceptor):
    """Sets the call's principal, or refuses it."""

    def __init__(
        self, rule: MethodRule, authenticator: Authenticator, streams: LiveStreams
    ) -> None:
        self._public = rule.access == ACCESS_PUBLIC
        self._authenticator = authenticator
        self._streams = streams

    async def intercept(
        self, method: Any, request_or_iterator: Any, context: Any, method_name: str
    ) -> Any:
        call: Call = context
        if self._public:
            return await method(request_or_iterator, context)
        ic_token = getattr(request_or_iterator, "ic_token", "")
        call.principal = await self._authenticator.authenticate(call, ic_token)
        response = await method(request_or_iterator, context)
        if hasattr(response, "__aiter__"):
            return self._streams.guard(response, call.principal)
        return response
