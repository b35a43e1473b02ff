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


class LiveStreams:
    """Open streams by what they depend on: a credential, a user, an agent."""

    def __init__(self) -> None:
        self._open: defaultdict[str, set[asyncio.Future[None]]] = defaultdict(set)

    def end(self, dependency: str) -> None:
        """End every stream that depends on this id with UNAUTHENTICATED."""
        for ended in self._open.get(dependency, ()):
            _settle(ended)

    async def guard(self, responses: Any, principal: Principal) -> AsyncIterator[Any]:
        """Pass `responses` on until they, or the caller's credential, end."""
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        dependencies = {principal.credential, principal.subject} - {""}
        for dependency in dependencies:
            self._open[dependency].add(ended)
        timer = self._arm(ended, principal)
        try:
            async with aclosing(responses):
                upcoming = asyncio.ensure_future(anext(responses))
                try:
                    while True:
                        await asyncio.wait((upcoming, ended), return_when=asyncio.FIRST_COMPLETED)
                        if ended.done():
                            raise Unauthenticated(
                                "the credential this stream was opened with has ended; "
                                "authenticate again",
                                reason="CREDENTIAL_ENDED",
                            )
                        try:
                            response = upcoming.result()
                        except StopAsyncIteration:
                            return
                        yield response
                        upcoming = asyncio.ensure_future(anext(responses))
                finally:
                    upcoming.cancel()
                    await asyncio.gather(upcoming, return_exceptions=True)
        finally:
            if timer is not None:
                timer.cancel()
            for dependency in dependencies:
                self._open[dependency].discard(ended)
                if not self._open[dependency]:
                    del self._open[dependency]

    def _arm(self, ended: asyncio.Future[None], principal: Principal) -> asyncio.TimerHandle | None:
        if principal.expires_at_us is None:
            return None
        left_s = (principal.expires_at_us - now_us()) / 1e6
        loop = asyncio.get_running_loop()
        return loop.call_later(left_s, _settle, ended)


def _settle(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)


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
