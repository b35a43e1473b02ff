"""How people change their own password."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from steward_server.audit import Change, record
from steward_server.auth import user_store as store
from steward_server.auth.accounts import LockPolicy
from steward_server.auth.passwords import Passwords
from steward_server.auth.sessions import Sessions
from steward_server.auth.sign_in import check_lock, note_failure
from steward_server.auth.users import check_password
from steward_server.completion import complete
from steward_server.db import Database, Transaction
from steward_server.errors import InvalidArgument, NotFound
from steward_server.events.store import NewEntry, append
from steward_server.principals import Principal
from steward_server.versions import USERS


@dataclass(frozen=True, slots=True)
class OwnPassword:
    """Changes the caller's password."""

    database: Database
    passwords: Passwords
    sessions: Sessions
    policy: LockPolicy
    clock: Callable[[], int]

    async def change(self, caller: Principal, *, current: str, new: str) -> None:
        """Replace the password, if `current` is it; other sign-ins of the caller end.

        Raises:
            InvalidArgument: it is not, or the new one is the same, or weak.
            ResourceExhausted: too many wrong passwords were given.
        """
        now_us = self.clock()
        user = await store.user_by_id(self.database, caller.subject)
        if user is None:
            raise NotFound.of("user", caller.subject)
        check_lock(user.attempts, now_us)
        check_password(user.username, new, field="new_password")
        if not await self.passwords.matches(user.password_hash, current):
            await self.database.run(lambda transaction: self._failed(transaction, caller, now_us))
            raise _wrong("current_password", "is not your password", "WRONG_PASSWORD")
        if new == current:
            raise _wrong("new_password", "is your password already", "VALIDATION_ERROR")
        known_hash, new_hash = user.password_hash, await self.passwords.hash(new)

        async def work(transaction: Transaction) -> tuple[list[str], list[str]]:
            fresh = await store.user_by_id(transaction, caller.subject)
            if fresh is None or fresh.password_hash != known_hash:
                raise _wrong("current_password", "is not your password", "WRONG_PASSWORD")
            check_lock(fresh.attempts, now_us)
            await USERS.advance(transaction, fresh.user_id)
            await store.save(transaction, fresh.with_password(new_hash, must_change=False))
            ended = await self.sessions.end_all(
                transaction,
                caller.subject,
                but=caller.credential,
                why="user.password_changed",
                now_us=now_us,
            )
            change = Change("user.password_changed", caller.subject)
            await record(transaction, now_us, caller, change)
            entry = NewEntry("user.password_changed", {}, subject=caller.subject)
            await append(transaction, now_us, entry)
            return ended, await self.sessions.family_of(transaction, caller.credential)

        async def change_and_drop() -> None:
            ended, kept = await self.database.run(work)
            self.sessions.drop(ended)
            self.sessions.forget(kept)  # they may do everything now

        await complete(change_and_drop())

    async def _failed(self, transaction: Transaction, caller: Principal, now_us: int) -> None:
        fresh = await store.user_by_id(transaction, caller.subject)
        if fresh is not None:
            check_lock(fresh.attempts, now_us)
            await note_failure(transaction, caller, fresh, self.policy, now_us)


def _wrong(field: str, text: str, reason: str) -> InvalidArgument:
    return InvalidArgument(f"invalid request: {field}: {text}", reason=reason, fields={field: text})
