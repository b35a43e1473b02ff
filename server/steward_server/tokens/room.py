"""What is done with IC tokens: made, checked, rotated, revoked, with effect from the answer on."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from steward_server import clock
from steward_server.audit import Change, record
from steward_server.completion import complete
from steward_server.db import Database, Reader, Transaction
from steward_server.errors import (
    AlreadyExists,
    FailedPrecondition,
    NotFound,
    Unauthenticated,
)
from steward_server.events.store import NewEntry, append
from steward_server.ids import new_id
from steward_server.interceptors.authentication import LiveStreams
from steward_server.last_use import LastUse
from steward_server.principals import Kind, Principal
from steward_server.tokens import store
from steward_server.tokens.token import Token, TokenStatus, TokenText
from steward_server.verified import Verified


class Agents(Protocol):
    """The part of the agents room that tokens need."""

    async def exists(self, reader: Reader, agent_id: str) -> bool:
        """Whether there is such an agent."""
        ...


class Purse(Protocol):
    """The part of the budget room that tokens need."""

    async def drain(self, transaction: Transaction, *, agent_id: str, why: str, now_us: int) -> int:
        """Let the agent's leases end: calls under way settle, none starts. How many leases."""
        ...


class Tokens:
    """Knows which IC tokens are good."""

    def __init__(
        self,
        database: Database,
        streams: LiveStreams,
        agents: Agents,
        purse: Purse,
        clock: Callable[[], int],
    ) -> None:
        self._database = database
        self._streams = streams
        self._agents = agents
        self._purse = purse
        self._clock = clock
        self._verified = Verified()
        self.last_use = LastUse(database, store.save_last_use)

    async def verify(self, text: str) -> Principal:
        """The agent a token stands for.

        Raises:
            Unauthenticated: it is malformed, unknown, expired or revoked.
        """
        now_us = self._clock()

        async def load() -> Principal:
            parsed = TokenText.parse(text)
            if parsed is None:
                raise Unauthenticated(
                    "the IC token is malformed; it looks like ic_<16 characters>_<43 characters>",
                    reason="INVALID_TOKEN",
                )
            token = await store.by_public_part(self._database, parsed.public_part)
            if token is None or not hmac.compare_digest(token.digest, parsed.digest):
                raise Unauthenticated(
                    "the IC token is not known; it may have been rotated: ask for its new text",
                    reason="INVALID_TOKEN",
                )
            return _principal(token, now_us)

        principal = await self._verified.find(text, now_us, load)
        self.last_use.note(principal.credential, now_us)
        return principal

    async def principal_of(self, token_id: str) -> Principal:
        """The agent a token stands for, which presented it earlier.

        Raises:
            NotFound: there is none with this id.
            Unauthenticated: it is expired or revoked.
        """
        return _principal(await store.get(self._database, token_id), self._clock())

    async def create(
        self,
        caller: Principal,
        *,
        agent_id: str,
        name: str,
        expires_in_us: int | None,
        scopes: tuple[str, ...],
    ) -> tuple[Token, TokenText]:
        """Create the token of an agent.

        Raises:
            NotFound: there is no such agent.
            AlreadyExists: it has a live token.
        """
        now_us = self._clock()
        text = TokenText.new()
        token = Token(
            new_id("token"),
            agent_id,
            name,
            text.public_part,
            text.digest,
            scopes,
            now_us,
            None if expires_in_us is None else now_us + expires_in_us,
        )

        async def work(transaction: Transaction) -> None:
            if not await self._agents.exists(transaction, agent_id):
                raise NotFound.of("agent", agent_id)
            current = await store.current_of(transaction, agent_id)
            if current is not None:
                if current.status(now_us) is TokenStatus.ACTIVE:
                    raise AlreadyExists(
                        f"agent {agent_id!r} has the live token {current.token_id!r}; "
                        "rotate or revoke that",
                        reason="TOKEN_EXISTS",
                        facts={"token_id": current.token_id, "agent_id": agent_id},
                    )
                await store.replace(transaction, current.token_id, now_us)
            await store.insert(transaction, token)
            body = {"name": name, "scopes": list(scopes), "expires_at_us": token.expires_at_us}
            await _journal(transaction, now_us, "token.created", token, body)
            after = {"agent_id": agent_id, "prefix": token.prefix, **body}
            change = Change("token.created", token.token_id, after=after)
            await record(transaction, now_us, caller, change)

        await self._database.run(work)
        return token, text

    async def get(self, token_id: str) -> Token:
        """One token.

        Raises:
            NotFound: there is none with this id.
        """
        return self._with_last_use(await store.get(self._database, token_id))

    async def listed(
        self, *, agent_id: str | None, status: TokenStatus | None, limit: int, offset: int
    ) -> tuple[list[Token], int]:
        """Tokens, the newest first, and how many match in all."""
        tokens, total = await store.listed(
            self._database,
            agent_id=agent_id,
            status=status,
            now_us=self._clock(),
            limit=limit,
            offset=offset,
        )
        return [self._with_last_use(token) for token in tokens], total

    async def rotate(self, caller: Principal, token_id: str) -> tuple[Token, TokenText]:
        """Give a token another text; the old one ends with this.

        Raises:
            NotFound: there is none with this id.
            FailedPrecondition: it is expired or revoked.
        """
        now_us = self._clock()
        text = TokenText.new()

        async def work(transaction: Transaction) -> Token:
            before = await store.get(transaction, token_id)
            if before.status(now_us) is TokenStatus.REVOKED:
                raise _revoked_already(before)
            if before.status(now_us) is TokenStatus.EXPIRED:
                raise FailedPrecondition(
                    f"token {token_id!r} expired at {clock.text(before.expires_at_us or 0)}; "
                    "create another",
                    reason="TOKEN_EXPIRED",
                    facts={"token_id": token_id},
                )
            after = before.rotate(text, now_us)
            await store.save_text(transaction, after)
            await _journal(transaction, now_us, "token.rotated", after, {})
            old, new = {"prefix": before.prefix}, {"prefix": after.prefix}
            change = Change("token.rotated", token_id, old, new)
            await record(transaction, now_us, caller, change)
            return after

        async def rotate_and_drop() -> Token:
            token = await self._database.run(work)
            self.drop([token_id])
            return token

        return self._with_last_use(await complete(rotate_and_drop())), text

    async def revoke(self, caller: Principal, token_id: str) -> None:
        """End a token for good, and let the leases taken with it end.

        Raises:
            NotFound: there is none with this id.
            FailedPrecondition: it is revoked already.
        """
        now_us = self._clock()

        async def work(transaction: Transaction) -> None:
            token = await store.get(transaction, token_id)
            if token.status(now_us) is TokenStatus.REVOKED:
                raise _revoked_already(token)
            await store.revoke(transaction, token_id, now_us)
            await _journal(transaction, now_us, "token.revoked", token, {"why": "revoked"})
            before = {"agent_id": token.agent_id, "prefix": token.prefix}
            change = Change("token.revoked", token_id, before=before)
            await record(transaction, now_us, caller, change)
            # A token that was replaced has no lease left: those of now are its successor's.
            if await store.current_of(transaction, token.agent_id) is None:
                await self._purse.drain(
                    transaction, agent_id=token.agent_id, why="token_revoked", now_us=now_us
                )

        async def revoke_and_drop() -> None:
            await self._database.run(work)
            self.drop([token_id])

        await complete(revoke_and_drop())

    async def revoke_of(
        self, transaction: Transaction, *, agent_id: str, why: str, now_us: int
    ) -> list[str]:
        """Revoke the agent's token; the ids of what was revoked, to `drop` after the commit."""
        token = await store.current_of(transaction, agent_id)
        if token is None:
            return []
        await store.revoke(transaction, token.token_id, now_us)
        await _journal(transaction, now_us, "token.revoked", token, {"why": why})
        return [token.token_id]

    def drop(self, token_ids: Sequence[str]) -> None:
        """Refuse what was verified by these ids, and end the streams that were opened with it."""
        self._verified.forget(token_ids)
        for token_id in token_ids:
            self._streams.end(token_id)

    def _with_last_use(self, token: Token) -> Token:
        newest_us = self.last_use.newest_us(token.token_id, token.last_used_at_us)
        return replace(token, last_used_at_us=newest_us)


def _principal(token: Token, now_us: int) -> Principal:
    _check_live(token, now_us)
    return Principal(
        Kind.AGENT,
        token.agent_id,
        credential=token.token_id,
        scopes=frozenset(token.scopes),
        expires_at_us=token.expires_at_us,
    )


def _check_live(token: Token, now_us: int) -> None:
    status = token.status(now_us)
    if status is TokenStatus.REVOKED:
        raise Unauthenticated(
            f"the IC token {token.prefix} was revoked at {clock.text(token.revoked_at_us or 0)}; "
            "ask an administrator for another",
            reason="TOKEN_REVOKED",
        )
    if status is TokenStatus.EXPIRED:
        raise Unauthenticated(
            f"the IC token {token.prefix} expired at {clock.text(token.expires_at_us or 0)}; "
            "ask an administrator for another",
            reason="TOKEN_EXPIRED",
        )


def _revoked_already(token: Token) -> FailedPrecondition:
    return FailedPrecondition(
        f"token {token.token_id!r} was revoked at {clock.text(token.revoked_at_us or 0)}",
        reason="TOKEN_REVOKED",
        facts={"token_id": token.token_id},
    )


async def _journal(
    transaction: Transaction, now_us: int, kind: str, token: Token, body: dict[str, Any]
) -> None:
    entry = NewEntry(kind, {**body, "prefix": token.prefix}, token.agent_id, token.token_id)
    await append(transaction, now_us, entry)
