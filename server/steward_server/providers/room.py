"""What is done with providers: stored, listed, lent to handshakes, deleted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import structlog

from steward_server.audit import Change, record
from steward_server.db import Database, Reader, Transaction
from steward_server.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from steward_server.events.store import NewEntry, append
from steward_server.ids import new_id
from steward_server.last_use import LastUse
from steward_server.principals import Principal
from steward_server.providers import store
from steward_server.providers.provider import Provider, ProviderKey, ProviderKind, masked
from steward_server.resealing import Sealed
from steward_server.vault import Vault, VaultError
from steward_server.versions import PROVIDERS

log = structlog.get_logger(__name__)

NAMES_SHOWN = 10


class Assignments(Protocol):
    """The part of the agents room that providers need."""

    async def count_using(self, reader: Reader, provider: str) -> int:
        """How many agents are assigned to a provider, by its name."""
        ...


@dataclass(frozen=True, slots=True)
class Shown:
    """A provider as it is shown."""

    provider: Provider
    is_usable: bool
    """Whether its key can be decrypted."""


class Providers:
    """Keeps providers and their keys."""

    def __init__(
        self,
        database: Database,
        vault: Vault,
        assignments: Assignments,
        clock: Callable[[], int],
    ) -> None:
        self._database = database
        self._vault = vault
        self._assignments = assignments
        self._clock = clock
        self.last_use = LastUse(database, store.save_last_use)

    async def create(
        self,
        caller: Principal,
        *,
        name: str,
        kind: ProviderKind,
        base_url: str,
        api_key: str,
        allow_plaintext_key: bool = False,
    ) -> Shown:
        """Store a provider, its key encrypted.

        Raises:
            AlreadyExists: the name is taken.
        """
        now_us = self._clock()
        provider_id = new_id("ip")
        sealed_key = self._vault.seal(api_key.encode(), _context(provider_id))
        provider = Provider(
            provider_id,
            name,
            kind,
            base_url,
            sealed_key,
            masked(api_key),
            now_us,
            allow_plaintext_key=allow_plaintext_key,
        )

        async def work(transaction: Transaction) -> None:
            if await store.by_name(transaction, name) is not None:
                raise AlreadyExists(
                    f"there is a provider {name!r}; delete it first, or choose another name",
                    reason="PROVIDER_EXISTS",
                    facts={"provider": name},
                )
            await store.insert(transaction, provider)
            body = _shown(provider)
            entry = NewEntry("provider.created", body, subject=provider_id)
            await append(transaction, now_us, entry)
            change = Change("provider.created", provider_id, after=body)
            await record(transaction, now_us, caller, change)

        await self._database.run(work)
        return Shown(provider, is_usable=True)

    async def page(self, *, before: tuple[int, str] | None, limit: int) -> list[Shown]:
        """Providers, the newest first."""
        providers = await store.page(self._database, before=before, limit=limit)
        return [self._seen(provider) for provider in providers]

    async def get(self, provider_id: str) -> Shown:
        """One provider.

        Raises:
            NotFound: there is none with this id.
        """
        return self._seen(await store.get(self._database, provider_id))

    async def allow_plaintext(
        self,
        caller: Principal,
        provider_id: str,
        *,
        allow: bool,
        expected_version: int | None = None,
    ) -> Shown:
        """Say whether runtimes may have the key without a seal.

        Raises:
            NotFound: there is none with this id.
            Aborted: it has another version than expected.
        """
        now_us = self._clock()

        async def work(transaction: Transaction) -> Provider:
            before = await store.get(transaction, provider_id)
            version = await PROVIDERS.advance(transaction, provider_id, expected_version)
            await store.save_plaintext(transaction, provider_id, allow=allow)
            change = Change(
                "provider.updated",
                provider_id,
                before={"allow_plaintext_key": before.allow_plaintext_key},
                after={"allow_plaintext_key": allow},
            )
            await record(transaction, now_us, caller, change)
            body = {"allow_plaintext_key": allow, "by": caller.subject}
            await append(
                transaction, now_us, NewEntry("provider.updated", body, subject=provider_id)
            )
            return replace(before, allow_plaintext_key=allow, version=version)

        return self._seen(await self._database.run(work))

    async def delete(
        self, caller: Principal, provider_id: str, *, expected_version: int | None = None
    ) -> None:
        """Delete a provider and its key.

        Raises:
            NotFound: there is none with this id.
            Aborted: it has another version than expected.
            FailedPrecondition: an agent is assigned to it.
        """
        now_us = self._clock()

        async def work(transaction: Transaction) -> None:
            provider = await store.get(transaction, provider_id)
            await PROVIDERS.advance(transaction, provider_id, expected_version)
            agent_count = await self._assignments.count_using(transaction, provider.name)
            if agent_count:
                raise FailedPrecondition(
                    f"{agent_count} agents are assigned to provider {provider.name!r}; "
                    "assign them to another first",
                    reason="PROVIDER_IN_USE",
                    facts={"provider": provider.name, "agent_count": str(agent_count)},
                )
            await store.delete(transaction, provider_id)
            entry = NewEntry("provider.deleted", {"name": provider.name}, subject=provider_id)
            await append(transaction, now_us, entry)
            change = Change("provider.deleted", provider_id, before=_shown(provider))
            await record(transaction, now_us, caller, change)

        await self._database.run(work)

    async def exists(self, reader: Reader, name: str) -> bool:
        """Whether there is a provider of this name."""
        return await store.by_name(reader, name) is not None

    async def names(self, reader: Reader) -> dict[str, str]:
        """The name of each provider, by its id."""
        return await store.names(reader)

    async def find(self, reader: Reader, wanted: str) -> Provider:
        """The provider of this name; of an empty name, the only one there is.

        Raises:
            NotFound: there is none.
            InvalidArgument: none was named, and there are several.
        """
        if wanted:
            provider = await store.by_name(reader, wanted)
            if provider is None:
                raise NotFound.of("provider", wanted)
            return provider
        providers = await store.first(reader, NAMES_SHOWN + 1)
        if not providers:
            raise NotFound(
                "there is no provider yet; create one with POST /api/v1/providers",
                reason="PROVIDER_NOT_FOUND",
            )
        if len(providers) > 1:
            names = ", ".join(provider.name for provider in providers[:NAMES_SHOWN])
            more = " and more" if len(providers) > NAMES_SHOWN else ""
            raise InvalidArgument(
                f"there are several providers; name one of {names}{more}",
                reason="PROVIDER_AMBIGUOUS",
                fields={"provider": f"is missing; it may be {names}{more}"},
            )
        return providers[0]

    async def key_for(self, reader: Reader, wanted: str) -> ProviderKey:
        """The provider `find` gives, with its key in clear; counts as a use.

        Raises:
            NotFound: there is none.
            InvalidArgument: none was named, and there are several.
            Unavailable: its key cannot be decrypted.
        """
        provider = await self.find(reader, wanted)
        try:
            api_key = self._open(provider)
        except VaultError as error:
            log.warning("provider.key_unusable", provider=provider.name, why=str(error))
            raise Unavailable(
                f"the key of provider {provider.name!r} cannot be decrypted; an administrator "
                "must restore the master key, or delete the provider and create it again",
                reason="PROVIDER_UNUSABLE",
                facts={"provider": provider.name},
            ) from error
        self.last_use.note(provider.provider_id, self._clock())
        return ProviderKey(
            provider.name,
            provider.kind.value,
            provider.base_url,
            api_key,
            provider.allow_plaintext_key,
        )

    async def unusable_names(self) -> list[str]:
        """Providers whose keys cannot be decrypted: for a notice at the start and in the health."""
        names: list[str] = []
        before: tuple[int, str] | None = None
        while providers := await store.page(self._database, before=before, limit=100):
            names.extend(each.name for each in providers if not self._is_usable(each))
            before = (providers[-1].created_at_us, providers[-1].provider_id)
        return sorted(names)

    def _open(self, provider: Provider) -> str:
        return self._vault.open_sealed(provider.sealed_key, _context(provider.provider_id)).decode()

    def _is_usable(self, provider: Provider) -> bool:
        try:
            self._open(provider)
        except VaultError:
            return False
        return True

    def _seen(self, provider: Provider) -> Shown:
        newest_us = self.last_use.newest_us(provider.provider_id, provider.last_used_at_us)
        return Shown(replace(provider, last_used_at_us=newest_us), self._is_usable(provider))


def _shown(provider: Provider) -> dict[str, Any]:
    return {
        "name": provider.name,
        "kind": provider.kind.value,
        "base_url": provider.base_url,
        "allow_plaintext_key": provider.allow_plaintext_key,
    }


def _context(provider_id: str) -> str:
    return f"provider/{provider_id}/api_key"


SEALED = Sealed("provider", "provider_id", "sealed_key", _context)
