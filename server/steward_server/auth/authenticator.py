"""Tells who a call's credential stands for, whatever kind it is."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

from steward.gateway.v1.options_pb2 import ROLE_ADMIN
from steward_server.auth import user_store as store
from steward_server.auth.sessions import Sessions
from steward_server.calls import Call
from steward_server.config import BadSetting
from steward_server.db import Reader
from steward_server.errors import Unauthenticated
from steward_server.peers import (
    is_forwarded_by_loopback,
    is_loopback,
    is_loopback_host,
    is_loopback_origin,
)
from steward_server.principals import Kind, Principal

IC_TOKEN_PREFIX = "ic_"  # noqa: S105 - what tokens begin with, not one
API_KEY_PREFIXES = ("agentbox_", "itk_")
LEAST_STATIC_TOKEN = 16
_CREDENTIAL_KEYS = ("x-ic-key", "authorization", "x-api-key")

WELL_KNOWN_STATIC_TOKENS = frozenset(
    {
        "cyborgmind-secret",
        "cyborg-secret-v1",
        "cyborg-secret-v2",
        "your-secret-token-here",
        "fallback-static-token",
        "use-strong-random-token-here",
        "your-production-token",
        "changeme-changeme",
        "your-secret-token",
        "your-static-token",
        "secret-token-1234",
        "0123456789abcdef",
        "1234567890123456",
    }
)


class Verifier(Protocol):
    """The part of IC tokens, and of API keys, that authentication needs."""

    async def verify(self, text: str) -> Principal:
        """The agent or the person it stands for.

        Raises:
            Unauthenticated: it is malformed, unknown, expired or revoked.
        """
        ...


class ClientTokens(Protocol):
    """Tokens of inference clients."""

    def verify(self, text: str, now_us: int) -> Principal | None:
        """Whom one stands for; None if it is none of these.

        Raises:
            Unauthenticated: it is one, and not good (any more).
        """
        ...


class Ticket(Protocol):
    """What a ticket stands for."""

    @property
    def environment_id(self) -> str: ...
    @property
    def credentials(self) -> Mapping[str, str]: ...


class Tickets(Protocol):
    """What stands once for a caller who can send no header."""

    def take(self, text: str, method: str) -> Ticket:
        """What a ticket stands for; it is good no more.

        Raises:
            Unauthenticated: it is unknown, was used, or its time is over.
            PermissionDenied: it is for another method.
        """
        ...


class Preview(Protocol):
    """What a link to a port stands for."""

    @property
    def bound_to(self) -> str: ...
    @property
    def credentials(self) -> Mapping[str, str]: ...
    @property
    def expires_at_us(self) -> int: ...


class Previews(Protocol):
    """Links for browsers, good for one thing until their time is over."""

    def look_up(self, text: str, method: str) -> Preview:
        """What a token stands for.

        Raises:
            Unauthenticated: it is unknown, or its time is over.
            PermissionDenied: it is for another method.
        """
        ...


class Credentials:
    """The `Authenticator` of the server."""

    def __init__(
        self,
        *,
        sessions: Sessions,
        tokens: Verifier,
        keys: Verifier,
        tickets: Tickets,
        previews: Previews,
        clients: ClientTokens,
        people: Reader,
        clock: Callable[[], int],
        static_token: str | None,
        local_single_user: bool,
    ) -> None:
        self._sessions = sessions
        self._tokens = tokens
        self._keys = keys
        self._tickets = tickets
        self._previews = previews
        self._clients = clients
        self._people = people
        self._clock = clock
        self._static_token = static_token.encode() if static_token else None
        self._local_single_user = local_single_user

    async def authenticate(self, call: Call, ic_token: str) -> Principal:
        """Who is calling.

        `x-ic-key` comes first, then an IC token as Bearer or in the request's body, then
        `x-api-key`, then whatever else the Bearer is. Where none of these is sent, a ticket in
        `x-ticket` is as good as what it was given for.

        Raises:
            Unauthenticated: no credential, or one that is unknown, expired or revoked.
            PermissionDenied: a ticket for something else.
        """
        if "x-ticket" in call.metadata:
            self._take_ticket(call)
        if "x-preview" not in call.metadata:
            return await self._who(call, ic_token)
        ends_at_us = self._take_preview(call)
        who = await self._who(call, ic_token)
        if who.expires_at_us is not None:
            ends_at_us = min(ends_at_us, who.expires_at_us)
        return replace(who, expires_at_us=ends_at_us)

    async def _who(self, call: Call, ic_token: str) -> Principal:
        if ic_key := call.metadata.get("x-ic-key", "").strip():
            return await self._tokens.verify(ic_key)
        bearer = _bearer(call.metadata.get("authorization", ""))
        if bearer.startswith(IC_TOKEN_PREFIX):
            return await self._tokens.verify(bearer)
        if ic_token:
            return await self._tokens.verify(ic_token)
        if api_key := call.metadata.get("x-api-key", "").strip():
            # Pages of a single user send a made-up key: to them it is as good as none.
            is_made_up = not api_key.startswith(API_KEY_PREFIXES)
            if not (is_made_up and self._is_single_user(call)):
                return await self._keys.verify(api_key)
        if bearer:
            return await self._bearer_of(bearer)
        if self._is_single_user(call):
            return await self._first_administrator()
        raise Unauthenticated(
            "send an access token or an API key as `authorization: Bearer …`, or an IC token as "
            "`x-ic-key: ic_…`",
            reason="CREDENTIAL_MISSING",
        )

    def _take_ticket(self, call: Call) -> None:
        text = call.metadata["x-ticket"].strip()
        if text and not any(call.metadata.get(key) for key in _CREDENTIAL_KEYS):
            ticket = self._tickets.take(text, call.endpoint)
            call.stand_for(ticket.credentials, ticket.environment_id)

    def _take_preview(self, call: Call) -> int:
        """When what is opened by the link ends."""
        # Whatever else is sent beside it, the call is bound to what the link is for.
        preview = self._previews.look_up(call.metadata["x-preview"].strip(), call.endpoint)
        call.stand_for(preview.credentials, preview.bound_to)
        return preview.expires_at_us

    async def _bearer_of(self, bearer: str) -> Principal:
        if bearer.startswith(API_KEY_PREFIXES):
            return await self._keys.verify(bearer)
        static = self._static_token
        if static is not None and hmac.compare_digest(bearer.encode(), static):
            return Principal(Kind.CLIENT, "client", credential="static_token")
        if (client := self._clients.verify(bearer, self._clock())) is not None:
            return client
        return await self._sessions.verify(bearer)

    def _is_single_user(self, call: Call) -> bool:
        return self._local_single_user and _is_local(call)

    async def _first_administrator(self) -> Principal:
        user = await store.first_administrator(self._people)
        if user is None:
            raise Unauthenticated(
                "no administrator can act for local callers; sign in", reason="CREDENTIAL_MISSING"
            )
        return Principal(Kind.PERSON, user.user_id, role=ROLE_ADMIN)


def check_static_token(token: str | None, *, development: bool) -> None:
    """Refuse a static token that can be guessed.

    Raises:
        BadSetting: it is short or well known, and this is not the development profile.
    """
    if token is None or development:
        return
    if len(token) < LEAST_STATIC_TOKEN:
        raise BadSetting(
            f"STEWARD_STATIC_TOKEN has {len(token)} characters; it needs {LEAST_STATIC_TOKEN} or "
            "more: openssl rand -hex 24"
        )
    if token.lower() in WELL_KNOWN_STATIC_TOKENS:
        raise BadSetting("STEWARD_STATIC_TOKEN is a well-known one: openssl rand -hex 24")


def _bearer(authorization: str) -> str:
    """The text after ``Bearer``; empty without the header."""
    if not authorization.strip():
        return ""
    scheme, _, text = authorization.strip().partition(" ")
    if scheme.lower() != "bearer" or not text.strip():
        raise Unauthenticated(
            "`authorization` must be `Bearer <access token>`", reason="INVALID_TOKEN"
        )
    return text.strip()


def _is_local(call: Call) -> bool:
    """Whether a call surely comes from this machine, and not from a page of another site.

    The gateway passes on the `Host` and `Origin` it was called with: a name of another site that
    resolves to 127.0.0.1 is told by them, and so is a page of another site that calls localhost. A
    proxy on this machine is told by the callers it names.
    """
    metadata = call.metadata
    return (
        is_loopback(call.peer())
        and is_forwarded_by_loopback(call.forwarded)
        and is_loopback_host(metadata.get("x-steward-host", "localhost"))
        and is_loopback_origin(metadata.get("x-steward-origin", "http://localhost"))
    )
