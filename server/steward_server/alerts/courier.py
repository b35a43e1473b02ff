"""Sends what is queued: to each webhook one delivery at a time, the oldest first.

A delivery is marked as delivered after it was answered: a crash in between sends it again, under
the same id.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NoReturn

import aiohttp
import structlog
from prometheus_client import Counter

from steward_server.alerts import store
from steward_server.alerts.addresses import (
    BadAddress,
    PrivateAddress,
    PublicResolver,
    check_url,
)
from steward_server.alerts.config import AlertsConfig
from steward_server.alerts.signing import headers
from steward_server.alerts.webhook import (
    DEAD,
    DELIVERED,
    GONE,
    PENDING,
    Delivery,
    Patience,
    Webhook,
    answered,
)
from steward_server.audit import Change, record
from steward_server.db import Database, Transaction
from steward_server.resealing import Sealed
from steward_server.vault import Vault, VaultError

log = structlog.get_logger(__name__)

POLL_S = 0.2
"""While something waits for its time, the clock is looked at this often."""

FORGET_INTERVAL_US = 3_600_000_000


class Courier:
    """Delivers while `run` runs."""

    def __init__(
        self,
        database: Database,
        vault: Vault,
        outcomes: Counter,
        *,
        config: AlertsConfig,
        clock: Callable[[], int],
    ) -> None:
        self._database = database
        self._vault = vault
        self._outcomes = outcomes
        self._config = config
        self._patience = Patience(
            config.max_attempts, round(config.backoff_s * 1e6), round(config.backoff_limit_s * 1e6)
        )
        self._clock = clock
        self._wake = asyncio.Event()
        self._wake.set()
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._forgot_at_us = 0

    def wake(self) -> None:
        """Something was queued, or a webhook changed."""
        self._wake.set()

    async def run(self) -> NoReturn:
        """Deliver until cancelled; what is under way then is sent again after the next start."""
        resolver = None if self._config.allow_private else PublicResolver()
        connector = aiohttp.TCPConnector(
            resolver=resolver, use_dns_cache=False, force_close=True, limit=0
        )
        async with aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=self._config.timeout_s),
            trust_env=False,
            auto_decompress=False,
        ) as http:
            try:
                while True:
                    self._wake.clear()
                    waits = False
                    try:
                        waits = await self._start_due(http)
                    except Exception:
                        log.exception("alerts.courier_failed")
                        waits = True
                    with suppress(TimeoutError):
                        async with asyncio.timeout(POLL_S if waits else None):
                            await self._wake.wait()
            finally:
                for task in self._under_way.values():
                    task.cancel()
                await asyncio.gather(*self._under_way.values(), return_exceptions=True)

    async def _start_due(self, http: aiohttp.ClientSession) -> bool:
        """Start what is due; True if something waits for its time."""
        now_us = self._clock()
        if now_us - self._forgot_at_us > FORGET_INTERVAL_US:
            self._forgot_at_us = now_us
            before_us = now_us - round(self._config.kept_s * 1e6)
            await self._database.run(lambda transaction: store.forget(transaction, before_us))
        waits = False
        for webhook in await store.enabled(self._database):
            if webhook.webhook_id in self._under_way:
                continue
            delivery = await store.next_delivery(self._database, webhook.webhook_id)
            if delivery is None:
                continue
            if delivery.next_attempt_at_us > now_us:
                waits = True
                continue
            task = asyncio.create_task(self._deliver(http, webhook, delivery))
            self._under_way[webhook.webhook_id] = task
            task.add_done_callback(partial(self._done, webhook.webhook_id))
        return waits

    def _done(self, webhook_id: str, task: asyncio.Task[None]) -> None:
        del self._under_way[webhook_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("alerts.delivery_failed", webhook_id=webhook_id, exc_info=error)
        self._wake.set()

    async def _deliver(
        self, http: aiohttp.ClientSession, webhook: Webhook, delivery: Delivery
    ) -> None:
        status_code, error = await self._post(http, webhook, delivery)
        now_us = self._clock()
        after = answered(
            delivery,
            status_code=status_code,
            error=error,
            patience=self._patience,
            jitter=random.random(),  # noqa: S311 - spreads load
            now_us=now_us,
        )

        async def note(transaction: Transaction) -> bool:
            if not await store.save_delivery(transaction, after):
                return False
            if status_code == GONE:
                await _disable(transaction, webhook.webhook_id, now_us)
            return True

        try:
            noted = await self._database.run(note)
        except Exception:
            # It is sent again; not at once, or a full disk would have it sent without end.
            await asyncio.sleep(self._config.backoff_s)
            raise
        if noted:
            names = {DELIVERED: "delivered", DEAD: "dead", PENDING: "retried"}
            self._outcomes.labels(names[after.status]).inc()
        if after.status == DEAD:
            log.warning(
                "alerts.delivery_dead",
                webhook_id=webhook.webhook_id,
                delivery_id=delivery.delivery_id,
                why=after.last_error,
            )

    async def _post(
        self, http: aiohttp.ClientSession, webhook: Webhook, delivery: Delivery
    ) -> tuple[int, str]:
        """The status of the answer, or 0 and why there is none."""
        now_us = self._clock()
        try:
            check_url(webhook.url, allow_private=self._config.allow_private)
            context = secret_context(webhook.webhook_id)
            keys = [
                self._vault.open_sealed(sealed, context) for sealed in webhook.secrets_at(now_us)
            ]
            sent = headers(
                keys,
                delivery_id=delivery.delivery_id,
                timestamp_s=now_us // 1_000_000,
                body=delivery.body,
            )
            sent |= {"content-type": "application/json", "user-agent": "Steward-Webhooks/1"}
            async with http.post(
                webhook.url, data=delivery.body, headers=sent, allow_redirects=False
            ) as answer:
                # The status says it all: a body is not read, however long it is or takes.
                return answer.status, ""
        except BadAddress as error:
            return 0, f"the address {error}"
        except VaultError:
            return 0, "the secret cannot be decrypted; rotate it"
        except aiohttp.ClientConnectorError as error:
            inside = isinstance(error.os_error, PrivateAddress)
            return 0, str(error.os_error) if inside else "the receiver cannot be reached"
        except TimeoutError:
            return 0, f"no answer within {self._config.timeout_s:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return 0, f"the call failed: {type(error).__name__}"


def secret_context(webhook_id: str) -> str:
    """What a webhook's sealed secret is bound to."""
    return f"webhook/{webhook_id}/secret"


SEALED = [
    Sealed("webhook", "webhook_id", column, secret_context)
    for column in ("sealed_secret", "previous_secret")
]


async def _disable(transaction: Transaction, webhook_id: str, now_us: int) -> None:
    await store.disable(transaction, webhook_id, "gone", now_us)
    await store.bury(transaction, webhook_id, "the webhook was disabled: its receiver is gone")
    change = Change(
        "webhook.disabled",
        webhook_id,
        before={"enabled": True},
        after={"enabled": False},
        reason="the receiver answered 410",
    )
    await record(transaction, now_us, None, change)
