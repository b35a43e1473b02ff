"""Sessions: opened by a sign-in, carried on by refresh tokens, ended at once and everywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from steward.gateway.v1 import options_pb2 as options
from steward_server import clock
from steward_server.audit import Change, record
from steward_server.auth import store, user_store
from steward_server.auth.access_tokens import Claims, Signer
from steward_server.auth.accounts import Role, User, UserState
from steward_server.auth.refresh import RefreshToken, Verdict, successor_text
from steward_server.auth.store import Session
from steward_server.completion import complete
from steward_server.db import Database, Reader, Transaction
from steward_server.errors import Unauthenticated
from steward_server.events.store import NewEntry, append
from steward_server.ids import digest, new_id, new_secret
from steward_server.interceptors.authentication import LiveStreams
from steward_server.principals import Kind, Principal
from steward_server.vault import Vault
from steward_server.verified import Verified

ROLES = {
    Role.ADMIN: options.ROLE_ADMIN,
    Role.USER: options.ROLE_USER,
    Role.VIEWER: options.ROLE_VIEWER,
}


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long tokens are good for."""

    access_token_us: int
    refresh_token_us: int
    grace_us: int


@dataclass(frozen=True, slots=True)
class Pair:
    """What a sign-in or a refresh hands out."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_at_us: int
    user: User


@dataclass(frozen=True, slots=True)
class Opened:
    """A session as it was written down, and its refresh token."""

    session: Session
    refresh_token: str = field(repr=False)
    user: User


class Sessions:
    """Knows which access tokens are good."""

    def __init__(
        self,
        database: Database,
        signer: Signer,
        vault: Vault,
        streams: LiveStreams,
        lifetimes: Lifetimes,
        clock: Callable[[], int],
    ) -> None:
        self._database = database
        self._signer = signer
        self._successor_key = vault.derive("auth/refresh-successor")
        self._streams = streams
        self._lifetimes = lifetimes
        self._clock = clock
        self._verified = Verified()

    async def verify(self, access_token: str) -> Principal:
        """The person an access token stands for.

        Raises:
            Unauthenticated: it is malformed, expired, or its session has ended.
        """
        now_us = self._clock()

        async def load() -> Principal:
            claims = self._signer.read(access_token, now_us)
            session = await store.session(self._database, claims.session_id)
            user = await user_store.user_by_id(self._database, claims.user_id)
            return _principal(claims, session, user)

        return await self._verified.find(access_token, now_us, load)

    async def open(self, transaction: Transaction, user: User, now_us: int) -> Opened:
        """Start a family for someone who has just signed in; give the result to `pair`."""
        text = new_secret("rt")
        return await self._issue(transaction, user, new_id("family"), text, "login", now_us)

    def pair(self, opened: Opened) -> Pair:
        """The tokens to hand out once the session is durable."""
        session, user = opened.session, opened.user
        claims = Claims(
            session.session_id,
            user.user_id,
            user.role.value,
            session.created_at_us // 1_000_000,
            session.expires_at_us // 1_000_000,
        )
        token = self._signer.sign(claims)
        return Pair(token, opened.refresh_token, session.expires_at_us, user)

    async def refresh(self, caller: Principal, refresh_token: str) -> Pair:
        """Spend a refresh token for a new pair.

        Raises:
            Unauthenticated: it is unknown, expired or revoked; or it was spent before, and then its
                family has ended.
        """
        return await complete(self._refresh(caller, refresh_token))

    async def end(self, caller: Principal) -> None:
        """End the caller's session and its family: its tokens, on open streams too."""
        await complete(self._end(caller))

    async def end_all(
        self, transaction: Transaction, user_id: str, *, but: str = "", why: str, now_us: int
    ) -> list[str]:
        """End every sign-in of a person, but the one `but` is of.

        Returns:
            Ids of the sessions that this ended, to `drop` after the commit.
        """
        kept = await store.session(transaction, but) if but else None
        session_ids = await store.end_all(
            transaction, user_id, but_family=kept.family_id if kept else "", why=why, now_us=now_us
        )
        if session_ids:
            body = {"user_id": user_id, "session_ids": session_ids, "why": why}
            await append(transaction, now_us, NewEntry("session.ended", body, subject=user_id))
        return session_ids

    def drop(self, session_ids: Sequence[str]) -> None:
        """Refuse what these sessions' tokens open, and end the streams that they have opened."""
        self._verified.forget(session_ids)
        for session_id in session_ids:
            self._streams.end(session_id)

    async def family_of(self, reader: Reader, session_id: str) -> list[str]:
        """Ids of the sessions that came of the same sign-in; none of no session."""
        session = await store.session(reader, session_id)
        return [] if session is None else await store.sessions_of_family(reader, session.family_id)

    def forget(self, session_ids: Sequence[str]) -> None:
        """Read anew what these sessions may do when they are used next."""
        self._verified.forget(session_ids)

    async def _refresh(self, caller: Principal, text: str) -> Pair:
        now_us = self._clock()

        async def work(transaction: Transaction) -> Opened | list[str]:
            token = await store.refresh_token(transaction, digest(text))
            if token is None:
                raise Unauthenticated(
                    "the refresh token is not known; sign in again", reason="INVALID_TOKEN"
                )
            verdict = token.verdict(now_us, self._lifetimes.grace_us)
            if verdict is Verdict.EXPIRED:
                raise Unauthenticated(
                    f"the refresh token expired at {clock.text(token.expires_at_us)}; "
                    "sign in again",
                    reason="TOKEN_EXPIRED",
                )
            if verdict is Verdict.REUSED:
                why = "refresh_token_reused"
                change = Change("session.ended", token.session_id, reason=why)
                await record(transaction, now_us, caller, change)
                return await _end_family(transaction, token.family_id, token.user_id, why, now_us)
            user = await user_store.user_by_id(transaction, token.user_id)
            if verdict is Verdict.REVOKED or user is None or user.state is not UserState.ACTIVE:
                raise _revoked_refresh_token()
            successor = successor_text(self._successor_key, text)
            if verdict is Verdict.REPEAT:
                return await _repeated(transaction, user, successor)
            return await self._issue(
                transaction, user, token.family_id, successor, "refresh", now_us, token
            )

        outcome = await self._database.run(work)
        if isinstance(outcome, Opened):
            return self.pair(outcome)
        self.drop(outcome)
        raise Unauthenticated(
            "the refresh token was used before; whoever has a copy is signed out with you: "
            "sign in again",
            reason="REFRESH_TOKEN_REUSED",
        )

    async def _end(self, caller: Principal) -> None:
        now_us = self._clock()

        async def work(transaction: Transaction) -> list[str]:
            session = await store.session(transaction, caller.credential)
            if session is None:
                return []
            family_id, user_id = session.family_id, session.user_id
            change = Change("session.ended", session.session_id, reason="logout")
            await record(transaction, now_us, caller, change)
            return await _end_family(transaction, family_id, user_id, "logout", now_us)

        self.drop(await self._database.run(work))

    async def _issue(
        self,
        transaction: Transaction,
        user: User,
        family_id: str,
        refresh_token: str,
        via: str,
        now_us: int,
        parent: RefreshToken | None = None,
    ) -> Opened:
        second_us = now_us - now_us % 1_000_000  # a JWT counts whole seconds
        session = Session(
            new_id("session"),
            family_id,
            user.user_id,
            now_us,
            second_us + self._lifetimes.access_token_us,
        )
        token = RefreshToken(
            new_id("refresh"),
            family_id,
            user.user_id,
            session.session_id,
            now_us + self._lifetimes.refresh_token_us,
        )
        await store.insert_session(transaction, session)
        await store.insert_refresh_token(transaction, token, digest(refresh_token))
        if parent is not None:
            await store.spend(
                transaction,
                parent.refresh_token_id,
                successor_id=token.refresh_token_id,
                now_us=now_us,
            )
        body = {"user_id": user.user_id, "family_id": family_id, "via": via}
        entry = NewEntry("session.opened", body, subject=session.session_id)
        await append(transaction, now_us, entry)
        return Opened(session, refresh_token, user)


async def _repeated(transaction: Transaction, user: User, successor: str) -> Opened:
    token = await store.refresh_token(transaction, digest(successor))
    session = await store.session(transaction, token.session_id) if token else None
    if session is None:  # the master key was rotated within the grace
        raise _revoked_refresh_token()
    return Opened(session, successor, user)


async def _end_family(
    transaction: Transaction, family_id: str, user_id: str, why: str, now_us: int
) -> list[str]:
    session_ids = await store.end_family(transaction, family_id, why=why, now_us=now_us)
    if session_ids:
        body = {"user_id": user_id, "session_ids": session_ids, "why": why}
        await append(transaction, now_us, NewEntry("session.ended", body, subject=family_id))
    return session_ids


def _principal(claims: Claims, session: Session | None, user: User | None) -> Principal:
    if session is None or session.user_id != claims.user_id:
        raise Unauthenticated(
            "the access token is not valid: its session is not known; sign in again",
            reason="INVALID_TOKEN",
        )
    if session.ended_at_us is not None:
        raise Unauthenticated(
            f"the access token was revoked at {clock.text(session.ended_at_us)}; sign in again",
            reason="TOKEN_REVOKED",
        )
    if user is None or user.state is not UserState.ACTIVE:
        raise Unauthenticated(
            "the access token was revoked: the account is not active", reason="TOKEN_REVOKED"
        )
    return Principal(
        Kind.PERSON,
        user.user_id,
        role=ROLES[user.role],
        credential=session.session_id,
        expires_at_us=claims.expires_at_s * 1_000_000,
        must_change_password=user.must_change_password,
    )


def _revoked_refresh_token() -> Unauthenticated:
    return Unauthenticated("the refresh token was revoked; sign in again", reason="TOKEN_REVOKED")
