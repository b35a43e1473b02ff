"""Finds out who calls, and keeps hold of open streams so that they end with their credential."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from grpc_interceptor.server import AsyncServerInterceptor

from steward.gateway.v1.options_pb2 import ACCESS_PUBLIC
from steward_server.calls import Call
from steward_server.db import now_us
from steward_server.dispatch import Signature
from steward_server.errors import StewardError, Unauthenticated, Unavailable
from steward_server.interceptors.rate_limit import RateLimit
from steward_server.interceptors.request_id import ACCEPTED
from steward_server.principals import Kind, Principal


class Authenticator(Protocol):
    """Knows credentials."""

    async def authenticate(self, call: Call, ic_token: str) -> Principal:
        """Who the call's metadata (or `ic_token`, from a request's body) says is calling.

        Raises:
            Unauthenticated: no credential, or one that is unknown, expired or revoked.
        """
        ...


class CredentialEnded(Unauthenticated):
    def __init__(self) -> None:
        super().__init__(
            "the credential this stream was opened with has ended; authenticate again",
            reason="CREDENTIAL_ENDED",
        )


class Stopping(Unavailable):
    def __init__(self) -> None:
        super().__init__("the server is stopping; connect again", reason="SERVER_STOPPING")


class _Guarded:
    """One open stream; knows the task that waits for its next response."""

    __slots__ = ("ended_by", "has_end", "waiting")

    def __init__(self, *, has_end: bool) -> None:
        self.has_end = has_end
        self.ended_by: StewardError | None = None
        self.waiting: asyncio.Task[Any] | None = None

    def end(self, why: StewardError) -> None:
        if self.ended_by is not None:  # by another thing it depends on; cancel once
            return
        self.ended_by = why
        if self.waiting is not None:
            self.waiting.cancel()


class LiveStreams:
    """Open streams by what they depend on: a credential, a user, an agent."""

    def __init__(self) -> None:
        self._open: defaultdict[str, set[_Guarded]] = defaultdict(set)
        self._followers: list[Callable[[str], None]] = []

    def follow(self, told: Callable[[str], None]) -> None:
        """Have the ids told as well to who does on their behalf what is no stream."""
        self._followers.append(told)

    def end(self, dependency: str, why: Callable[[], StewardError] = CredentialEnded) -> None:
        """End every stream that depends on this id: with UNAUTHENTICATED, unless it is told why."""
        for guarded in self._open.get(dependency, ()):
            guarded.end(why())
        for told in self._followers:
            told(dependency)

    def end_all(self) -> None:
        """End every stream with UNAVAILABLE: the server stops, and they would not by themselves."""
        for guarded in set().union(*self._open.values()):
            if not guarded.has_end:
                guarded.end(Stopping())

    async def guard(
        self,
        responses: Any,
        principal: Principal,
        check: Callable[[], Awaitable[object]],
        *,
        has_end: bool = False,
    ) -> AsyncGenerator[Any, None]:
        """Pass `responses` on until they, or the caller's credential, end.

        `check` raises if the credential has ended already: it may have while the stream was being
        opened, when nothing here could be told of it. What `has_end` by itself is let come to it
        while the server stops.
        """
        guarded = _Guarded(has_end=has_end)
        dependencies = {principal.credential, principal.subject} - {""}
        for dependency in dependencies:
            self._open[dependency].add(guarded)
        timer = _arm(guarded, principal)
        try:
            async with aclosing(responses):
                await check()
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
        if guarded.ended_by is not None:
            raise guarded.ended_by
        return await anext(responses)
    except asyncio.CancelledError:
        # Cancelled by `end`, or by the caller's leaving, which comes first.
        if guarded.ended_by is not None and task is not None and task.uncancel() == 0:
            raise guarded.ended_by from None
        raise
    finally:
        guarded.waiting = None


def _arm(guarded: _Guarded, principal: Principal) -> asyncio.TimerHandle | None:
    if principal.expires_at_us is None:
        return None
    left_s = (principal.expires_at_us - now_us()) / 1e6
    return asyncio.get_running_loop().call_later(left_s, guarded.end, CredentialEnded())


class Authentication(AsyncServerInterceptor):
    """Sets the call's principal, or refuses it; refusals are counted by address."""

    def __init__(
        self,
        signature: Signature,
        authenticator: Authenticator,
        streams: LiveStreams,
        rate_limit: RateLimit,
    ) -> None:
        self._public = signature.rule.access == ACCESS_PUBLIC
        self._takes_token = "ic_token" in signature.request_fields
        self._names_agent = "agent_id" in signature.request_fields
        self._streams_responses = signature.streams_responses
        self._takes_long = signature.streams_requests or signature.rule.deadline_s > 0
        self._authenticator = authenticator
        self._streams = streams
        self._rate_limit = rate_limit

    async def intercept(
        self,
        method: Any,
        request_or_iterator: Any,
        context: Any,
        method_name: str,  # noqa: ARG002 - the shape of an interceptor
    ) -> Any:
        call: Call = context
        if self._public:
            return await method(request_or_iterator, context)
        ic_token = request_or_iterator.ic_token if self._takes_token else ""
        who = call.on_behalf_of or partial(self._authenticator.authenticate, call, ic_token)
        try:
            principal = await who()
        except Unauthenticated:
            if call.on_behalf_of is None:  # else nobody has guessed
                self._rate_limit.count(call)
            raise
        call.principal = principal
        call.agent_id = self._agent_of(principal, request_or_iterator)
        if self._streams_responses:
            response = await method(request_or_iterator, context)
            return self._streams.guard(response, principal, who)
        if not self._takes_long:
            return await method(request_or_iterator, context)

        async def answer() -> AsyncGenerator[Any, None]:
            yield await method(request_or_iterator, context)

        # It ends with its credential as a stream does, but not where that has only expired.
        lasting = replace(principal, expires_at_us=None)
        async with aclosing(self._streams.guard(answer(), lasting, who, has_end=True)) as answers:
            return await anext(answers)

    def _agent_of(self, principal: Principal, request: Any) -> str:
        """The agent a call is about, for the log; empty if none is known or its name is made up."""
        if principal.kind is Kind.AGENT:
            return principal.subject
        agent_id: str = request.agent_id if self._names_agent else ""
        return agent_id if ACCEPTED.fullmatch(agent_id) else ""
