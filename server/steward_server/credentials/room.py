"""What is done with credentials: saved, listed, opened for runs, deleted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from steward_server.audit import Change, record
from steward_server.belongings import Handover
from steward_server.credential import Credential
from steward_server.credentials import store
from steward_server.credentials.credential import StoredCredential
from steward_server.db import Database, Reader, Transaction
from steward_server.errors import NotFound, PermissionDenied, Unavailable
from steward_server.ids import new_id
from steward_server.principals import Principal
from steward_server.resealing import Sealed
from steward_server.vault import Vault, VaultError


class CredentialRoom:
    """Keeps people's credentials, each person's names apart."""

    def __init__(self, database: Database, vault: Vault, clock: Callable[[], int]) -> None:
        self._database = database
        self._vault = vault
        self._clock = clock

    async def save(self, caller: Principal, credential: Credential) -> None:
        """Keep a credential of the caller's, in place of the one that has its name."""
        now_us = self._clock()

        async def work(transaction: Transaction) -> None:
            before = await store.by_name(transaction, caller.subject, credential.name)
            credential_id = before.credential_id if before else new_id("cred")
            sealed = self._vault.seal(credential.password.encode(), _context(credential_id))
            saved = StoredCredential(
                credential_id,
                caller.subject,
                credential.name,
                credential.username,
                credential.gateway_url,
                credential.description,
                sealed,
                before.created_at_us if before else now_us,
                now_us,
            )
            await store.save(transaction, saved)
            change = Change(
                "credential.updated" if before else "credential.created",
                credential_id,
                before=_shown(before) if before else None,
                after=_shown(saved),
            )
            await record(transaction, now_us, caller, change)

        await self._database.run(work)

    async def page(
        self, caller: Principal, *, user_id: str, before: tuple[int, str] | None, limit: int
    ) -> list[StoredCredential]:
        """Credentials, the newest first: the caller's, or those an administrator asks for.

        Raises:
            PermissionDenied: somebody else's are asked for by who may not see them.
        """
        owner_id = _owner(caller, user_id)
        return await store.page(self._database, owner_id, before=before, limit=limit)

    async def delete(self, caller: Principal, name: str, *, user_id: str) -> None:
        """Delete a credential and its password.

        Raises:
            NotFound: there is none of this name.
            PermissionDenied: somebody else's is meant by who may not touch it.
        """
        now_us = self._clock()
        owner_id = _owner(caller, user_id)

        async def work(transaction: Transaction) -> None:
            found = await _get(transaction, owner_id, name)
            await store.delete(transaction, found.credential_id)
            change = Change("credential.deleted", found.credential_id, before=_shown(found))
            await record(transaction, now_us, caller, change)

        await self._database.run(work)

    async def opened(self, reader: Reader, owner_id: str, name: str) -> Credential:
        """Somebody's credential in clear, for a run of theirs.

        Raises:
            NotFound: there is none of this name.
            Unavailable: its password cannot be decrypted.
        """
        found = await _get(reader, owner_id, name)
        try:
            password = self._vault.open_sealed(found.sealed_password, _context(found.credential_id))
        except VaultError as error:
            raise Unavailable(
                f"the password of credential {name!r} cannot be decrypted; an administrator must "
                "restore the master key, or save the credential again",
                reason="CREDENTIAL_UNUSABLE",
                facts={"name": name},
            ) from error
        return Credential(
            found.name, found.username, password.decode(), found.gateway_url, found.description
        )

    async def on_user_deleted(
        self, transaction: Transaction, user_id: str, heir_id: str, now_us: int
    ) -> Handover:
        """Delete a deleted person's credentials: nobody else was to have their passwords."""
        del heir_id, now_us
        changes = []
        for each in await store.all_of(transaction, user_id):
            await store.delete(transaction, each.credential_id)
            reason = "the owner was deleted"
            changes.append(
                Change("credential.deleted", each.credential_id, _shown(each), reason=reason)
            )
        return Handover(changes)


async def _get(reader: Reader, owner_id: str, name: str) -> StoredCredential:
    found = await store.by_name(reader, owner_id, name)
    if found is None:
        raise NotFound(
            f"Credential {name!r} not found", reason="CREDENTIAL_NOT_FOUND", facts={"name": name}
        )
    return found


def _owner(caller: Principal, user_id: str) -> str:
    """Whose credentials are meant."""
    if user_id not in ("", caller.subject) and not caller.is_admin:
        raise PermissionDenied(
            "only administrators may see and delete the credentials of others; leave out `user_id`",
            reason="ROLE_NOT_ALLOWED",
        )
    return user_id or caller.subject


def _shown(credential: StoredCredential) -> dict[str, Any]:
    """What the audit log says of a credential."""
    return {
        "owner_id": credential.owner_id,
        "name": credential.name,
        "username": credential.username,
        "gateway_url": credential.gateway_url,
        "description": credential.description,
    }


def _context(credential_id: str) -> str:
    return f"credential/{credential_id}/password"


SEALED = Sealed("credential", "credential_id", "sealed_password", _context)
