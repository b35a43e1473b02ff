"""What is done with webhooks: created, changed, rotated, tried, deleted; one transaction each."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from steward_server.alerts import store
from steward_server.alerts.addresses import BadAddress, check_name, check_url
from steward_server.alerts.alarm import Alarm
from steward_server.alerts.alert import TEST, payload
from steward_server.alerts.courier import Courier, secret_context
from steward_server.alerts.queue import queued
from steward_server.alerts.signing import secret_key, secret_text
from steward_server.alerts.tail import Tail
from steward_server.alerts.webhook import Delivery, Webhook
from steward_server.audit import Change, record
from steward_server.db import Database, T, Transaction
from steward_server.errors import FailedPrecondition, InvalidArgument
from steward_server.events.store import head
from steward_server.ids import new_id
from steward_server.principals import Principal
from steward_server.vault import Vault

SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Shown:
    """A webhook as it is shown."""

    webhook: Webhook
    pending_count: int
    secret: str = field(default="", repr=False)
    """Only where it was just made or given."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What an update gives; None leaves it."""

    url: str | None
    events: tuple[str, ...] | None
    description: str | None
    enabled: bool | None


@dataclass(frozen=True, slots=True)
class AlertRoom:
    """Webhooks, as administrators see them."""

    database: Database
    vault: Vault
    tail: Tail
    courier: Courier
    alarm: Alarm
    allow_private: bool
    max_webhooks: int
    clock: Callable[[], int]

    async def create(
        self, caller: Principal, *, url: str, events: tuple[str, ...], description: str, secret: str
    ) -> Shown:
        """Create a webhook; an empty `secret` has one made.

        Raises:
            InvalidArgument: the address leads into a private network.
            FailedPrecondition: there are too many.
        """
        await self._check_url(url)
        now_us = self.clock()
        webhook_id = new_id("wh")
        key = _key(secret)
        sealed = self.vault.seal(key, secret_context(webhook_id))

        async def work(transaction: Transaction) -> Webhook:
            if await store.count(transaction) >= self.max_webhooks:
                raise FailedPrecondition(
                    f"there are {self.max_webhooks} webhooks, and no more are allowed "
                    "(STEWARD_ALERTS_MAX_WEBHOOKS); delete one first",
                    reason="TOO_MANY_WEBHOOKS",
                )
            newest_lsn, _ = await head(transaction)
            webhook = Webhook(
                webhook_id,
                url,
                events,
                description,
                enabled=True,
                disabled_reason="",
                sealed_secret=sealed,
                previous_secret=None,
                previous_until_us=None,
                since_lsn=newest_lsn,
                created_at_us=now_us,
                updated_at_us=now_us,
            )
            await self._skip_to(transaction, newest_lsn)
            await store.save(transaction, webhook)
            change = Change("webhook.created", webhook_id, after=_seen(webhook))
            await record(transaction, now_us, caller, change)
            return webhook

        webhook = await self._run(work)
        return Shown(webhook, 0, secret_text(key))

    async def page(self, *, before: tuple[int, str] | None, limit: int) -> list[Shown]:
        """Webhooks, the newest first."""
        waiting = await store.pending_counts(self.database)
        webhooks = await store.page(self.database, before=before, limit=limit)
        return [Shown(each, waiting.get(each.webhook_id, 0)) for each in webhooks]

    async def get(self, webhook_id: str) -> Shown:
        """One webhook.

        Raises:
            NotFound: there is none with this id.
        """
        webhook = await store.get(self.database, webhook_id)
        waiting = await store.pending_counts(self.database)
        return Shown(webhook, waiting.get(webhook_id, 0))

    async def update(self, caller: Principal, webhook_id: str, changes: Changes) -> Shown:
        """Change what is given.

        Raises:
            NotFound: there is none with this id.
            InvalidArgument: the address leads into a private network.
        """
        if changes.url is not None:
            await self._check_url(changes.url)
        now_us = self.clock()

        async def work(transaction: Transaction) -> None:
            before = await store.get(transaction, webhook_id)
            after = replace(
                before,
                url=before.url if changes.url is None else changes.url,
                events=before.events if changes.events is None else changes.events,
                description=(
                    before.description if changes.description is None else changes.description
                ),
                updated_at_us=now_us,
            )
            if changes.enabled is not None and changes.enabled != before.enabled:
                newest_lsn, _ = await head(transaction)
                after = replace(
                    after, enabled=changes.enabled, disabled_reason="", since_lsn=newest_lsn
                )
                await self._skip_to(transaction, newest_lsn)
            await store.save(transaction, after)
            if not after.enabled:
                await store.bury(transaction, webhook_id, "the webhook was disabled")
            old, new = _seen(before), _seen(after)
            changed = [name for name in new if new[name] != old[name]]
            change = Change(
                "webhook.updated",
                webhook_id,
                before={name: old[name] for name in changed},
                after={name: new[name] for name in changed},
            )
            await record(transaction, now_us, caller, change)

        await self._run(work)
        return await self.get(webhook_id)

    async def delete(self, caller: Principal, webhook_id: str) -> None:
        """Delete a webhook and what waits for it.

        Raises:
            NotFound: there is none with this id.
        """
        now_us = self.clock()

        async def work(transaction: Transaction) -> None:
            webhook = await store.get(transaction, webhook_id)
            await store.delete(transaction, webhook_id)
            change = Change("webhook.deleted", webhook_id, before=_seen(webhook))
            await record(transaction, now_us, caller, change)

        await self._run(work)

    async def rotate(self, caller: Principal, webhook_id: str, secret: str) -> Shown:
        """Give a webhook another secret; an empty one is made.

        Raises:
            NotFound: there is none with this id.
        """
        now_us = self.clock()
        key = _key(secret)
        sealed = self.vault.seal(key, secret_context(webhook_id))

        async def work(transaction: Transaction) -> None:
            webhook = await store.get(transaction, webhook_id)
            await store.save(transaction, webhook.rotated(sealed, now_us))
            await record(transaction, now_us, caller, Change("webhook.rotated", webhook_id))

        await self._run(work)
        return replace(await self.get(webhook_id), secret=secret_text(key))

    async def test(self, caller: Principal, webhook_id: str) -> Delivery:
        """Queue a delivery that tells of nothing.

        Raises:
            NotFound: there is none with this id.
            FailedPrecondition: it is disabled.
        """
        now_us = self.clock()

        async def work(transaction: Transaction) -> Delivery:
            webhook = await store.get(transaction, webhook_id)
            if not webhook.enabled:
                raise FailedPrecondition(
                    f"webhook {webhook_id!r} is disabled; enable it with "
                    f"PATCH /api/v1/webhooks/{webhook_id}",
                    reason="WEBHOOK_DISABLED",
                    facts={"webhook_id": webhook_id},
                )
            body = payload(TEST, now_us, {"webhook_id": webhook_id})
            delivery = queued(webhook, TEST, f"{TEST} {now_us}", body, now_us, lsn=0)
            await store.insert_deliveries(transaction, [delivery])
            change = Change("webhook.tested", webhook_id)
            await record(transaction, now_us, caller, change)
            return delivery

        return await self._run(work)

    async def deliveries(
        self, webhook_id: str, *, before: tuple[int, str] | None, limit: int
    ) -> list[Delivery]:
        """What was sent to a webhook, or is to be; the newest first.

        Raises:
            NotFound: there is none with this id.
        """
        await store.get(self.database, webhook_id)
        return await store.deliveries(self.database, webhook_id, before=before, limit=limit)

    async def _skip_to(self, transaction: Transaction, newest_lsn: int) -> None:
        """Nobody wanted what was written while there was no webhook."""
        if not await store.enabled(transaction):
            await store.move_cursor(transaction, await store.cursor(transaction), newest_lsn)

    async def _check_url(self, url: str) -> None:
        try:
            check_url(url, allow_private=self.allow_private)
            if not self.allow_private:
                await check_name(url)
        except BadAddress as error:
            raise InvalidArgument.of({"url": str(error)}) from error

    async def _run(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        try:
            return await self.database.run(work)
        finally:
            self.tail.look()
            self.courier.wake()


def _key(secret: str) -> bytes:
    return secret_key(secret) or secrets.token_bytes(SECRET_BYTES)


def _seen(webhook: Webhook) -> dict[str, Any]:
    return {
        "url": webhook.url,
        "events": list(webhook.events),
        "description": webhook.description,
        "enabled": webhook.enabled,
    }
