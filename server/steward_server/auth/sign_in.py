"""Signing in: the same time and the same words for an unknown name and a wrong password."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import replace

from steward_server import clock
from steward_server.audit import Change, record
from steward_server.auth import stranger_store as strangers
from steward_server.auth import user_store as store
from steward_server.auth.accounts import Attempts, LockPolicy, User, UserState
from steward_server.auth.passwords import Passwords
from steward_server.auth.sessions import ROLES, Opened, Pair, Sessions
from steward_server.db import Database, Reader, Transaction
from steward_server.errors import ResourceExhausted, Unauthenticated
from steward_server.events.store import NewEntry, append
from steward_server.principals import Kind, Principal


class SignIn:
    """Checks names and passwords."""

    def __init__(
        self,
        database: Database,
        passwords: Passwords,
        sessions: Sessions,
        policy: LockPolicy,
        name_key: bytes,
        clock: Callable[[], int],
    ) -> None:
        self._database = database
        self._passwords = passwords
        self._sessions = sessions
        self._policy = policy
        self._clock = clock
        self._name_key = name_key

    async def sign_in(self, caller: Principal, *, username: str, email: str, password: str) -> Pair:
        """Open a session for whoever has this name, or else this email, and this password.

        Raises:
            Unauthenticated: nobody has both.
            ResourceExhausted: too many wrong passwords were given for the name.
        """
        now_us = self._clock()
        user = await _find(self._database, username, email)
        name = self._digest(username, email)
        attempts = user.attempts if user else await strangers.attempts(self._database, name)
        check_lock(attempts, now_us)
        known_hash = user.password_hash if user else None
        matches = await self._passwords.matches(known_hash, password)
        user_id = user.user_id if user else ""

        async def work(transaction: Transaction) -> Opened | None:
            # Read again: others may have guessed meanwhile, or the password may have changed.
            if not user_id:
                await self._count_stranger(transaction, name, now_us)
                return None
            fresh = await store.user_by_id(transaction, user_id)
            if fresh is None:
                return None
            check_lock(fresh.attempts, now_us)
            if not matches or fresh.password_hash != known_hash:
                await note_failure(transaction, caller, fresh, self._policy, now_us)
                return None
            if fresh.state is not UserState.ACTIVE:
                return None
            entered = replace(fresh, attempts=Attempts(), last_login_at_us=now_us)
            await store.save(transaction, entered)
            opened = await self._sessions.open(transaction, entered, now_us)
            session_id = opened.session.session_id
            person = replace(
                caller,
                kind=Kind.PERSON,
                subject=user_id,
                role=ROLES[entered.role],
                credential=session_id,
            )
            change = Change("session.opened", session_id, after={"user_id": user_id})
            await record(transaction, now_us, person, change)
            return opened

        opened = await self._database.run(work)
        if opened is None:
            raise _refused()
        return self._sessions.pair(opened)

    async def _count_stranger(self, transaction: Transaction, name: bytes, now_us: int) -> None:
        """Count a wrong password for nobody: as much work as for somebody, and as durable."""
        attempts = await strangers.attempts(transaction, name)
        check_lock(attempts, now_us)
        after = attempts.after_failure(now_us, self._policy)
        await strangers.save(transaction, name, after, now_us)

    def _digest(self, username: str, email: str) -> bytes:
        return hmac.digest(self._name_key, f"{username}\n{email.lower()}".encode(), "sha256")


async def _find(reader: Reader, username: str, email: str) -> User | None:
    if username:
        return await store.user_by_username(reader, username)
    return await store.user_by_email(reader, email.lower())


async def note_failure(
    transaction: Transaction, caller: Principal, user: User, policy: LockPolicy, now_us: int
) -> None:
    """Count a wrong password; the account may be locked by it."""
    after = user.attempts.after_failure(now_us, policy)
    await store.save(transaction, replace(user, attempts=after))
    if after.is_locked(now_us):
        body = {"failures": policy.failures, "locked_until_us": after.locked_until_us}
        await append(transaction, now_us, NewEntry("user.locked", body, subject=user.user_id))
        await record(transaction, now_us, caller, Change("user.locked", user.user_id, after=body))


def check_lock(attempts: Attempts, now_us: int) -> None:
    """Refuse while the account is locked.

    Raises:
        ResourceExhausted: it is.
    """
    if attempts.is_locked(now_us):
        raise ResourceExhausted(
            "too many wrong passwords; the account is locked until "
            f"{clock.text(attempts.locked_until_us)}",
            reason="ACCOUNT_LOCKED",
            retry_after_s=(attempts.locked_until_us - now_us) / 1e6,
        )


def _refused() -> Unauthenticated:
    return Unauthenticated("no user has this name and this password", reason="INVALID_CREDENTIALS")
