"""Webhooks, deliveries and the cursor as rows. No rule lives here."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from steward_server.alerts.webhook import DEAD, DELIVERED, PENDING, Delivery, Webhook
from steward_server.db import Reader, Row, Transaction
from steward_server.errors import NotFound

_WEBHOOKS = (
    "SELECT webhook_id, url, events, description, enabled, disabled_reason, sealed_secret,"
    " previous_secret, previous_until_us, since_lsn, created_at_us, updated_at_us FROM webhook"
)
_DELIVERIES = (
    "SELECT delivery_id, webhook_id, lsn, event_type, topic, body, status, attempts,"
    " created_at_us, next_attempt_at_us, delivered_at_us, last_status_code, last_error"
    " FROM webhook_delivery"
)


async def get(reader: Reader, webhook_id: str) -> Webhook:
    """The webhook.

    Raises:
        NotFound: there is none with this id.
    """
    row = await reader.fetch_one(f"{_WEBHOOKS} WHERE webhook_id = ?", webhook_id)
    if row is None:
        raise NotFound.of("webhook", webhook_id)
    return _webhook(row)


async def page(reader: Reader, *, before: tuple[int, str] | None, limit: int) -> list[Webhook]:
    """Webhooks, the newest first, after the last of the page before."""
    where = "WHERE (created_at_us, webhook_id) < (?, ?)" if before is not None else ""
    rows = await reader.fetch_all(
        f"{_WEBHOOKS} {where} ORDER BY created_at_us DESC, webhook_id DESC LIMIT ?",
        *(before or ()),
        limit,
    )
    return [_webhook(row) for row in rows]


async def enabled(reader: Reader) -> list[Webhook]:
    rows = await reader.fetch_all(f"{_WEBHOOKS} WHERE enabled = 1 ORDER BY webhook_id")
    return [_webhook(row) for row in rows]


async def count(reader: Reader) -> int:
    [row] = await reader.fetch_all("SELECT count(*) AS webhooks FROM webhook")
    return int(row["webhooks"])


async def save(transaction: Transaction, webhook: Webhook) -> None:
    """Insert a webhook, or write what may change of it."""
    await transaction.execute(
        "INSERT INTO webhook (webhook_id, url, events, description, enabled, disabled_reason,"
        " sealed_secret, previous_secret, previous_until_us, since_lsn, created_at_us,"
        " updated_at_us) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (webhook_id) DO UPDATE SET url = excluded.url, events = excluded.events,"
        " description = excluded.description, enabled = excluded.enabled,"
        " disabled_reason = excluded.disabled_reason, sealed_secret = excluded.sealed_secret,"
        " previous_secret = excluded.previous_secret,"
        " previous_until_us = excluded.previous_until_us, since_lsn = excluded.since_lsn,"
        " updated_at_us = excluded.updated_at_us",
        webhook.webhook_id,
        webhook.url,
        " ".join(webhook.events),
        webhook.description,
        int(webhook.enabled),
        webhook.disabled_reason,
        webhook.sealed_secret,
        webhook.previous_secret,
        webhook.previous_until_us,
        webhook.since_lsn,
        webhook.created_at_us,
        webhook.updated_at_us,
    )


async def disable(transaction: Transaction, webhook_id: str, why: str, now_us: int) -> None:
    await transaction.execute(
        "UPDATE webhook SET enabled = 0, disabled_reason = ?, updated_at_us = ?"
        " WHERE webhook_id = ?",
        why,
        now_us,
        webhook_id,
    )


async def delete(transaction: Transaction, webhook_id: str) -> None:
    await transaction.execute("DELETE FROM webhook_delivery WHERE webhook_id = ?", webhook_id)
    await transaction.execute("DELETE FROM webhook WHERE webhook_id = ?", webhook_id)


async def pending_counts(reader: Reader) -> dict[str, int]:
    """How many deliveries wait, by webhook."""
    rows = await reader.fetch_all(
        "SELECT webhook_id, count(*) AS waiting FROM webhook_delivery WHERE status = 'pending'"
        " GROUP BY webhook_id"
    )
    return {row["webhook_id"]: row["waiting"] for row in rows}


async def deliveries(
    reader: Reader, webhook_id: str, *, before: tuple[int, str] | None, limit: int
) -> list[Delivery]:
    """Deliveries to a webhook, the newest first, after the last of the page before."""
    after = " AND (created_at_us, delivery_id) < (?, ?)" if before is not None else ""
    rows = await reader.fetch_all(
        f"{_DELIVERIES} WHERE webhook_id = ?{after}"
        " ORDER BY created_at_us DESC, delivery_id DESC LIMIT ?",
        webhook_id,
        *(before or ()),
        limit,
    )
    return [_delivery(row) for row in rows]


async def next_delivery(reader: Reader, webhook_id: str) -> Delivery | None:
    """The oldest delivery that waits."""
    row = await reader.fetch_one(
        f"{_DELIVERIES} WHERE webhook_id = ? AND status = 'pending'"
        " ORDER BY created_at_us, lsn, delivery_id LIMIT 1",
        webhook_id,
    )
    return _delivery(row) if row else None


async def insert_deliveries(transaction: Transaction, new: Iterable[Delivery]) -> None:
    await transaction.execute_many(
        "INSERT INTO webhook_delivery (delivery_id, webhook_id, lsn, event_type, topic, body,"
        " status, attempts, created_at_us, next_attempt_at_us, delivered_at_us, last_status_code,"
        " last_error) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                each.delivery_id,
                each.webhook_id,
                each.lsn,
                each.event_type,
                each.topic,
                each.body,
                each.status,
                each.attempts,
                each.created_at_us,
                each.next_attempt_at_us,
                each.delivered_at_us,
                each.last_status_code,
                each.last_error,
            )
            for each in new
        ],
    )


async def save_delivery(transaction: Transaction, delivery: Delivery) -> bool:
    """Write how an attempt went; False if the delivery is gone, or over, by now."""
    changed = await transaction.execute(
        "UPDATE webhook_delivery SET status = ?, attempts = ?, next_attempt_at_us = ?,"
        " delivered_at_us = ?, last_status_code = ?, last_error = ?"
        " WHERE delivery_id = ? AND status = ?",
        delivery.status,
        delivery.attempts,
        delivery.next_attempt_at_us,
        delivery.delivered_at_us,
        delivery.last_status_code,
        delivery.last_error,
        delivery.delivery_id,
        PENDING,
    )
    return changed == 1


async def bury(transaction: Transaction, webhook_id: str, why: str) -> int:
    """Give up what waits for a webhook; how many."""
    return await transaction.execute(
        "UPDATE webhook_delivery SET status = ?, last_error = ?"
        " WHERE webhook_id = ? AND status = ?",
        DEAD,
        why,
        webhook_id,
        PENDING,
    )


async def sent_since(
    reader: Reader, webhook_id: str, since_us: int, topics: Collection[str]
) -> set[str]:
    """Those of these topics that were queued for a webhook since then."""
    marks = ", ".join("?" * len(topics))
    rows = await reader.fetch_all(
        "SELECT DISTINCT topic FROM webhook_delivery"
        f" WHERE webhook_id = ? AND topic IN ({marks}) AND created_at_us > ?",
        webhook_id,
        *topics,
        since_us,
    )
    return {row["topic"] for row in rows}


async def count_told(reader: Reader, webhook_id: str, since_us: int, teller: str) -> int:
    """How many topics that begin like this were queued for a webhook since then."""
    [row] = await reader.fetch_all(
        "SELECT count(*) AS told FROM webhook_delivery"
        " WHERE webhook_id = ? AND topic >= ? AND topic < ? AND created_at_us > ?",
        webhook_id,
        teller,
        f"{teller}\U0010ffff",
        since_us,
    )
    return int(row["told"])


async def waiting(reader: Reader, webhook_id: str) -> int:
    """How many deliveries wait for a webhook."""
    [row] = await reader.fetch_all(
        "SELECT count(*) AS waiting FROM webhook_delivery"
        " WHERE webhook_id = ? AND status = 'pending'",
        webhook_id,
    )
    return int(row["waiting"])


async def forget(transaction: Transaction, before_us: int) -> int:
    """Drop deliveries that were over before; how many."""
    return await transaction.execute(
        "DELETE FROM webhook_delivery WHERE created_at_us < ? AND status IN (?, ?)",
        before_us,
        DELIVERED,
        DEAD,
    )


async def cursor(reader: Reader) -> int:
    """How far the journal has been looked through."""
    row = await reader.fetch_one("SELECT lsn FROM alert_cursor")
    return int(row["lsn"]) if row else 0


async def move_cursor(transaction: Transaction, from_lsn: int, to_lsn: int) -> bool:
    """False if somebody else has moved it."""
    changed = await transaction.execute(
        "UPDATE alert_cursor SET lsn = ? WHERE lsn = ?", to_lsn, from_lsn
    )
    return changed == 1


def _webhook(row: Row) -> Webhook:
    return Webhook(
        row["webhook_id"],
        row["url"],
        tuple(row["events"].split()),
        row["description"],
        bool(row["enabled"]),
        row["disabled_reason"],
        row["sealed_secret"],
        row["previous_secret"],
        row["previous_until_us"],
        row["since_lsn"],
        row["created_at_us"],
        row["updated_at_us"],
    )


def _delivery(row: Row) -> Delivery:
    return Delivery(
        row["delivery_id"],
        row["webhook_id"],
        row["lsn"],
        row["event_type"],
        row["topic"],
        row["body"],
        row["status"],
        row["attempts"],
        row["created_at_us"],
        row["next_attempt_at_us"],
        row["delivered_at_us"],
        row["last_status_code"],
        row["last_error"],
    )
