"""Providers as rows. No rule lives here."""

from __future__ import annotations

from collections.abc import Mapping

from steward_server.db import Reader, Row, Transaction
from steward_server.errors import NotFound
from steward_server.providers.provider import Provider, ProviderKind

_SELECT = (
    "SELECT provider_id, name, kind, base_url, sealed_key, masked_key, created_at_us,"
    " last_used_at_us, allow_plaintext_key, version FROM provider"
)


async def get(reader: Reader, provider_id: str) -> Provider:
    """The provider.

    Raises:
        NotFound: there is none with this id.
    """
    row = await reader.fetch_one(f"{_SELECT} WHERE provider_id = ?", provider_id)
    if row is None:
        raise NotFound.of("provider", provider_id)
    return _provider(row)


async def by_name(reader: Reader, name: str) -> Provider | None:
    row = await reader.fetch_one(f"{_SELECT} WHERE name = ?", name)
    return _provider(row) if row else None


async def names(reader: Reader) -> dict[str, str]:
    """The name of each provider, by its id."""
    rows = await reader.fetch_all("SELECT provider_id, name FROM provider")
    return {row["provider_id"]: row["name"] for row in rows}


async def first(reader: Reader, limit: int) -> list[Provider]:
    """The oldest providers."""
    rows = await reader.fetch_all(f"{_SELECT} ORDER BY created_at_us, provider_id LIMIT ?", limit)
    return [_provider(row) for row in rows]


async def page(reader: Reader, *, before: tuple[int, str] | None, limit: int) -> list[Provider]:
    """Providers, the newest first, after the last of the page before."""
    where = "WHERE (created_at_us, provider_id) < (?, ?)" if before is not None else ""
    rows = await reader.fetch_all(
        f"{_SELECT} {where} ORDER BY created_at_us DESC, provider_id DESC LIMIT ?",
        *(before or ()),
        limit,
    )
    return [_provider(row) for row in rows]


async def insert(transaction: Transaction, provider: Provider) -> None:
    await transaction.execute(
        "INSERT INTO provider (provider_id, name, kind, base_url, sealed_key, masked_key,"
        " created_at_us, allow_plaintext_key) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        provider.provider_id,
        provider.name,
        provider.kind.value,
        provider.base_url,
        provider.sealed_key,
        provider.masked_key,
        provider.created_at_us,
        int(provider.allow_plaintext_key),
    )


async def save_plaintext(transaction: Transaction, provider_id: str, *, allow: bool) -> None:
    await transaction.execute(
        "UPDATE provider SET allow_plaintext_key = ? WHERE provider_id = ?",
        int(allow),
        provider_id,
    )


async def delete(transaction: Transaction, provider_id: str) -> None:
    await transaction.execute("DELETE FROM provider WHERE provider_id = ?", provider_id)


async def save_last_use(transaction: Transaction, used_at_us: Mapping[str, int]) -> None:
    await transaction.execute_many(
        "UPDATE provider SET last_used_at_us = ? WHERE provider_id = ?",
        [(at_us, provider_id) for provider_id, at_us in used_at_us.items()],
    )


def _provider(row: Row) -> Provider:
    return Provider(
        row["provider_id"],
        row["name"],
        ProviderKind(row["kind"]),
        row["base_url"],
        row["sealed_key"],
        row["masked_key"],
        row["created_at_us"],
        row["last_used_at_us"],
        bool(row["allow_plaintext_key"]),
        row["version"],
    )
