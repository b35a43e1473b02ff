"""What is done with API keys: made, checked, revoked, with effect from the answer on."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from steward.gateway.v1 import options_pb2 as options
from steward_server import clock
from steward_server.api_keys import store
from steward_server.api_keys.key import Key, KeyKind, KeyRole, KeyText
from steward_server.api_keys.needs import Owners
from steward_server.audit import Change, record
from steward_server.belongings import Handover
from steward_server.completion import complete
from steward_server.db import Database, Transaction
from steward_server.errors import (
    FailedPrecondition,
    NotFound,
    PermissionDenied,
    Unauthenticated,
)
from steward_server.ids import new_id
from steward_server.interceptors.authentication import LiveStreams
from steward_server.last_use import LastUse
from steward_server.permissions import Permissions
from steward_server.principals import Kind, Principal
from steward_server.verified import Verified

ROLES = {
    KeyRole.ADMIN: options.ROLE_ADMIN,
    KeyRole.USER: options.ROLE_USER,
    KeyRole.EXECUTOR: options.ROLE_EXECUTOR,
    KeyRole.READONLY: options.ROLE_VIEWER,
}
FROM_ROLE = {number: role for role, number in ROLES.items()}


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants of a new key."""

    description: str = ""
    kind: KeyKind = KeyKind.AGENTBOX
    role: KeyRole | None = None
    """None: user, or readonly for somebody who may only look."""
    permissions: Permissions = field(default_factory=dict)
    expires_in_us: int | None = None


class ApiKeys:
    """Knows which API keys are good, and for what."""

    def __init__(
        self,
        database: Database,
        streams: LiveStreams,
        owners: Owners,
        max_per_user: int,
        clock: Callable[[], int],
    ) -> None:
        self._database = database
        self._streams = streams
        self._owners = owners
        self._max_per_user = max_per_user
        self._clock = clock
        self._verified = Verified()
        self.last_use = LastUse(database, store.save_last_use)

    async def verify(self, text: str) -> Principal:
        """The caller a key stands for, with the lesser of its role and its owner's present one.

        Raises:
            Unauthenticated: it is malformed, unknown, expired or revoked, or its owner may not act.
        """
        now_us = self._clock()
        principal = await self._verified.find(text, now_us, lambda: self._load(text, now_us))
        self.last_use.note(principal.credential, now_us)
        return principal

    async def create(self, caller: Principal, wish: Wish) -> tuple[Key, KeyText]:
        """Create a key of the caller's.

        Raises:
            PermissionDenied: ROLE_TOO_HIGH, the wanted role is above the caller's own.
            FailedPrecondition: TOO_MANY_KEYS, the caller has as many as a person may.
        """
        now_us = self._clock()
        text = KeyText.new(wish.kind)
        key_id = new_id("key")
        expires_at_us = None if wish.expires_in_us is None else now_us + wish.expires_in_us

        async def work(transaction: Transaction) -> Key:
            await self._check_room(transaction, caller.subject, now_us)
            key = Key(
                key_id,
                caller.subject,
                text.kind,
                text.public_part,
                text.digest,
                wish.description,
                await self._granted(transaction, caller.subject, wish.role),
                wish.permissions,
                now_us,
                expires_at_us,
            )
            await store.insert(transaction, key)
            change = Change("api_key.created", key_id, after=_shown(key))
            await record(transaction, now_us, caller, change)
            return key

        return await self._database.run(work), text

    async def page(
        self, caller: Principal, *, user_id: str, before: tuple[int, str] | None, limit: int
    ) -> list[Key]:
        """Keys that are not revoked, the newest first: the caller's, or for an administrator all.

        Raises:
            PermissionDenied: somebody else's are asked for by who may not see them.
        """
        # A key of an administrator must not show what else there is to steal.
        sees_all = caller.is_admin and caller.kind is not Kind.KEY
        if user_id not in ("", caller.subject) and not sees_all:
            raise PermissionDenied(
                "only administrators may list the keys of others, and not by a key; "
                "leave out `user_id`",
                reason="ROLE_NOT_ALLOWED",
            )
        only = (user_id or None) if sees_all else caller.subject
        keys = await store.page(self._database, user_id=only, before=before, limit=limit)
        return [self._with_last_use(key) for key in keys]

    async def revoke(self, caller: Principal, key_id: str) -> None:
        """End a key for good.

        Raises:
            NotFound: there is none with this id that the caller may revoke, or not any more.
        """
        now_us = self._clock()

        async def work(transaction: Transaction) -> None:
            key = await store.by_id(transaction, key_id)
            if key is None or key.revoked_at_us is not None:
                raise NotFound.of("api key", key_id)
            caller.must_own("api key", key_id, key.user_id)
            await store.revoke(transaction, key_id, now_us)
            change = Change("api_key.revoked", key_id, before=_shown(key))
            await record(transaction, now_us, caller, change)

        async def revoke_and_drop() -> None:
            await self._database.run(work)
            self._drop([key_id])

        await complete(revoke_and_drop())

    async def on_user_deleted(
        self, transaction: Transaction, user_id: str, heir_id: str, now_us: int
    ) -> Handover:
        """Revoke a deleted person's keys: they stood for nobody else. `drop_of` must follow."""
        del heir_id
        changes = []
        for key in await store.unrevoked_of(transaction, user_id):
            await store.revoke(transaction, key.key_id, now_us)
            reason = "the owner was deleted"
            changes.append(Change("api_key.revoked", key.key_id, _shown(key), reason=reason))
        return Handover(changes)

    def drop_of(self, user_id: str) -> None:
        """Look somebody's keys up again at their next use, and end the streams opened with them.

        To be called after a commit that changed whether the user may act, or as what.
        """
        self._drop([user_id])

    def _drop(self, names: Sequence[str]) -> None:
        self._verified.forget(names)
        for name in names:
            self._streams.end(name)

    async def _load(self, text: str, now_us: int) -> Principal:
        parsed = KeyText.parse(text)
        if parsed is None:
            raise Unauthenticated(
                "the API key is malformed; it looks like agentbox_<16 characters>_<43 characters>, "
                "or begins with itk_",
                reason="INVALID_API_KEY",
            )
        key = await store.by_public_part(self._database, parsed.public_part)
        if key is None or not hmac.compare_digest(key.digest, parsed.digest):
            raise Unauthenticated("the API key is not known", reason="INVALID_API_KEY")
        return await self._principal(key, now_us)

    async def principal_of(self, key_id: str) -> Principal:
        """Whom a key stands for that was presented earlier.

        Raises:
            Unauthenticated: it is unknown, expired or revoked, or its owner may act no more.
        """
        key = await store.by_id(self._database, key_id)
        if key is None:
            raise Unauthenticated("the API key is not known", reason="INVALID_API_KEY")
        return await self._principal(key, self._clock())

    async def _principal(self, key: Key, now_us: int) -> Principal:
        _check_live(key, now_us)
        owner_role = await self._owners.role_of(self._database, key.user_id)
        if owner_role is None:
            raise Unauthenticated(
                f"the API key {key.prefix} belongs to an account that is not active",
                reason="OWNER_NOT_ACTIVE",
            )
        return Principal(
            Kind.KEY,
            key.user_id,
            role=ROLES[key.role.at_most(FROM_ROLE[owner_role])],
            credential=key.key_id,
            permissions=key.permissions,
            expires_at_us=key.expires_at_us,
        )

    async def _check_room(self, transaction: Transaction, user_id: str, now_us: int) -> None:
        count = await store.count_live(transaction, user_id, now_us)
        if count >= self._max_per_user:
            raise FailedPrecondition(
                f"you have {count} API keys; at most {self._max_per_user} are allowed: revoke one",
                reason="TOO_MANY_KEYS",
                facts={"limit": str(self._max_per_user)},
            )

    async def _granted(
        self, transaction: Transaction, user_id: str, wanted: KeyRole | None
    ) -> KeyRole:
        role = await self._owners.role_of(transaction, user_id)
        if role is None:
            raise PermissionDenied("the account is not active", reason="OWNER_NOT_ACTIVE")
        most = FROM_ROLE[role]
        if wanted is None:
            return KeyRole.USER.at_most(most)
        if wanted.rank > most.rank:
            raise PermissionDenied(
                f"a key with the role {wanted.value} may do more than you; "
                f"the most you can give is {most.value}",
                reason="ROLE_TOO_HIGH",
                facts={"role": wanted.value, "highest_role": most.value},
            )
        return wanted

    def _with_last_use(self, key: Key) -> Key:
        newest_us = self.last_use.newest_us(key.key_id, key.last_used_at_us)
        return replace(key, last_used_at_us=newest_us)


def _check_live(key: Key, now_us: int) -> None:
    if key.revoked_at_us is not None:
        raise Unauthenticated(
            f"the API key {key.prefix} was revoked at {clock.text(key.revoked_at_us)}; "
            "create another",
            reason="API_KEY_REVOKED",
        )
    if key.is_expired(now_us):
        raise Unauthenticated(
            f"the API key {key.prefix} expired at {clock.text(key.expires_at_us or 0)}; "
            "create another",
            reason="API_KEY_EXPIRED",
        )


def _shown(key: Key) -> dict[str, Any]:
    """What the audit log says of a key."""
    return {
        "user_id": key.user_id,
        "description": key.description,
        "prefix": key.prefix,
        "role": key.role.value,
        "permissions": store.words(key.permissions),
        "expires_at": clock.text(key.expires_at_us) if key.expires_at_us else None,
    }
