"""What administrators do with people: one transaction each, then what must follow its commit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from steward_server.audit import Change, record
from steward_server.auth import user_store as store
from steward_server.auth.accounts import (
    Attempts,
    Role,
    User,
    UserState,
    WeakPassword,
    check_strength,
)
from steward_server.auth.governance import Authority, Forbidden, SelfModification
from steward_server.auth.passwords import Passwords
from steward_server.auth.sessions import Sessions
from steward_server.belongings import Belongings
from steward_server.completion import complete
from steward_server.db import Database, Transaction
from steward_server.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    StewardError,
)
from steward_server.events.store import NewEntry, append
from steward_server.ids import new_id
from steward_server.principals import Principal
from steward_server.versions import USERS

Alter = Callable[[Authority, User], User]


@dataclass(frozen=True, slots=True)
class Users:
    """Keeps people."""

    database: Database
    passwords: Passwords
    sessions: Sessions
    belongings: Sequence[Belongings]
    """Rooms that keep things of people."""
    on_rights_changed: Sequence[Callable[[str], None]]
    """Told a person's id once it is durable that what they may do has changed."""
    clock: Callable[[], int]

    async def create(
        self,
        caller: Principal,
        *,
        username: str,
        password: str,
        email: str,
        role: Role,
        must_change_password: bool,
    ) -> User:
        """Let somebody in.

        Raises:
            InvalidArgument: the password is easy to guess.
            AlreadyExists: the name or the address is taken.
        """
        check_password(username, password, field="password")
        now_us = self.clock()
        user = User(
            new_id("user"),
            username,
            email.lower() or None,
            await self.passwords.hash(password),
            role,
            UserState.ACTIVE,
            Attempts(),
            now_us,
            must_change_password,
        )

        async def work(transaction: Transaction) -> User:
            await self._authority(transaction, caller)
            if await store.is_username_taken(transaction, username):
                raise AlreadyExists(
                    f"the name {username!r} is or was somebody's; choose another",
                    reason="DUPLICATE_USERNAME",
                    facts={"username": username},
                )
            if user.email and await store.user_by_email(transaction, user.email) is not None:
                raise AlreadyExists(
                    f"somebody has the address {user.email!r}; choose another",
                    reason="DUPLICATE_EMAIL",
                    facts={"email": user.email},
                )
            await store.insert_user(transaction, user)
            await _write_down(transaction, now_us, caller, "user.created", None, user)
            return user

        return await self.database.run(work)

    async def page(
        self,
        *,
        role: Role | None,
        state: UserState | None,
        search: str,
        before: tuple[int, str] | None,
        limit: int,
    ) -> list[User]:
        """People, the newest first."""
        return await store.page(
            self.database, role=role, state=state, search=search, before=before, limit=limit
        )

    async def get(self, user_id: str) -> User:
        """One person.

        Raises:
            NotFound: there is none with this id.
        """
        user = await store.user_by_id(self.database, user_id)
        if user is None:
            raise NotFound.of("user", user_id)
        return user

    async def suspend(
        self, caller: Principal, user_id: str, reason: str, *, expected_version: int | None = None
    ) -> User:
        """Keep a person out, from now on and everywhere.

        Raises:
            NotFound, PermissionDenied, FailedPrecondition: see governance.py.
            Aborted: they have another version than expected.
        """
        now_us = self.clock()
        alter: Alter = lambda authority, user: authority.suspend(user, reason, now_us)  # noqa: E731
        return await self._change(
            caller, user_id, "user.suspended", alter, now_us, expected_version, reason=reason
        )

    async def activate(
        self, caller: Principal, user_id: str, *, expected_version: int | None = None
    ) -> User:
        """Let a suspended person in again.

        Raises:
            NotFound, PermissionDenied, FailedPrecondition: see governance.py.
            Aborted: they have another version than expected.
        """
        return await self._change(
            caller, user_id, "user.activated", Authority.activate, self.clock(), expected_version
        )

    async def give_role(
        self, caller: Principal, user_id: str, role: Role, *, expected_version: int | None = None
    ) -> User:
        """Let a person do more, or less; they sign in again.

        Raises:
            NotFound, PermissionDenied, FailedPrecondition: see governance.py.
            Aborted: they have another version than expected.
        """
        alter: Alter = lambda authority, user: authority.give_role(user, role)  # noqa: E731
        return await self._change(
            caller, user_id, "user.role_changed", alter, self.clock(), expected_version
        )

    async def reset_password(
        self,
        caller: Principal,
        user_id: str,
        password: str,
        *,
        must_change: bool,
        expected_version: int | None = None,
    ) -> User:
        """Give a person another password; they sign in again.

        Raises:
            InvalidArgument: the password is easy to guess.
            NotFound, PermissionDenied, FailedPrecondition: see governance.py.
            Aborted: they have another version than expected.
        """
        user = await self.get(user_id)  # nothing is hashed for nobody
        check_password(user.username, password, field="new_password")
        password_hash = await self.passwords.hash(password)
        alter: Alter = lambda authority, person: authority.reset_password(  # noqa: E731
            person, password_hash, must_change=must_change
        )
        return await self._change(
            caller, user_id, "user.password_reset", alter, self.clock(), expected_version
        )

    async def delete(
        self, caller: Principal, user_id: str, *, expected_version: int | None = None
    ) -> None:
        """Delete a person for good; what they had goes to the caller, or ends.

        Raises:
            NotFound, PermissionDenied, FailedPrecondition: see governance.py.
            Aborted: they have another version than expected.
        """
        now_us = self.clock()

        async def work(transaction: Transaction) -> tuple[list[str], list[Callable[[], None]]]:
            authority = await self._authority(transaction, caller)
            user = await _found(transaction, user_id)
            await USERS.advance(transaction, user_id, expected_version)
            with _Refusals():
                authority.check_delete(user)
            ended = await self.sessions.end_all(
                transaction, user_id, why="user.deleted", now_us=now_us
            )
            await store.delete(transaction, user_id, now_us)
            await _write_down(transaction, now_us, caller, "user.deleted", user, None)
            after_commit = []
            for room in self.belongings:
                handover = await room.on_user_deleted(transaction, user_id, caller.subject, now_us)
                await record(transaction, now_us, caller, *handover.changes)
                after_commit.append(handover.after_commit)
            return ended, after_commit

        async def delete_and_drop() -> None:
            ended, after_commit = await self.database.run(work)
            for follow in after_commit:
                follow()
            self._take_away(user_id, ended)

        await complete(delete_and_drop())

    async def _change(
        self,
        caller: Principal,
        user_id: str,
        action: str,
        alter: Alter,
        now_us: int,
        expected_version: int | None,
        *,
        reason: str = "",
    ) -> User:
        """Alter a person and end their sign-ins, whatever was altered."""

        async def work(transaction: Transaction) -> tuple[User, list[str]]:
            authority = await self._authority(transaction, caller)
            before = await _found(transaction, user_id)
            version = await USERS.advance(transaction, user_id, expected_version)
            with _Refusals():
                after = replace(alter(authority, before), version=version)
            await store.save(transaction, after)
            ended = await self.sessions.end_all(transaction, user_id, why=action, now_us=now_us)
            await _write_down(transaction, now_us, caller, action, before, after, reason)
            return after, ended

        async def change_and_drop() -> User:
            after, ended = await self.database.run(work)
            self._take_away(user_id, ended)
            return after

        return await complete(change_and_drop())

    async def _authority(self, transaction: Transaction, caller: Principal) -> Authority:
        """What the caller may do now: another administrator may have been faster.

        Raises:
            PermissionDenied: they are no active administrator any more.
        """
        actor = await store.user_by_id(transaction, caller.subject)
        if actor is None or not actor.is_active_admin:
            raise PermissionDenied(
                "you are not an administrator any more", reason="ROLE_NOT_ALLOWED"
            )
        return Authority(actor.user_id, await store.count_active_administrators(transaction))

    def _take_away(self, user_id: str, session_ids: Sequence[str]) -> None:
        self.sessions.drop(session_ids)
        for tell in self.on_rights_changed:
            tell(user_id)


def check_password(username: str, password: str, *, field: str) -> None:
    """Refuse a password that is easy to guess.

    Raises:
        InvalidArgument: it is weak.
    """
    try:
        check_strength(password, username)
    except WeakPassword as error:
        raise InvalidArgument.of({field: str(error)}) from None


class _Refusals:
    """Turns what the rules refuse into what callers are told."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Forbidden):
            refusal: type[StewardError] = (
                PermissionDenied if isinstance(error, SelfModification) else FailedPrecondition
            )
            raise refusal(str(error), reason=error.reason) from None


async def _found(transaction: Transaction, user_id: str) -> User:
    user = await store.user_by_id(transaction, user_id)
    if user is None:
        raise NotFound.of("user", user_id)
    return user


async def _write_down(
    transaction: Transaction,
    now_us: int,
    caller: Principal,
    action: str,
    before: User | None,
    after: User | None,
    reason: str = "",
) -> None:
    """Journal and audit what became of a person."""
    old, new = _shown(before), _shown(after)
    if old and new:  # only what differs
        differing = [name for name in new if old[name] != new[name]]
        old = {name: old[name] for name in differing}
        new = {name: new[name] for name in differing}
    person = after or before
    assert person is not None  # noqa: S101 - somebody is created, changed or deleted
    change = Change(action, person.user_id, old, new, reason)
    await record(transaction, now_us, caller, change)
    await append(transaction, now_us, NewEntry(action, new or {}, subject=person.user_id))


def _shown(user: User | None) -> dict[str, Any] | None:
    if user is None:
        return None
    return {
        "username": user.username,
        "email": user.email,
        "role": user.role.value,
        "state": user.state.value,
        "must_change_password": user.must_change_password,
    }
