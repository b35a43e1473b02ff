"""The price table of the server: seeded from the prices that ship, overruled by administrators."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

from steward_client.prices import ADMINISTRATOR, Price, PriceTable, Rates, TokenUsage
from steward_server.audit import Change, record
from steward_server.db import Database, Row, Transaction
from steward_server.errors import InvalidArgument
from steward_server.events.store import NewEntry, append
from steward_server.principals import Principal

_SHIPPED = f"genai-prices {version('genai-prices')}"
"""The source of the prices that ship."""

COLUMNS = (
    "provider, model, effective_from_us, input_picousd, output_picousd, cache_read_picousd,"
    " cache_write_picousd, source"
)


@dataclass(frozen=True, slots=True)
class Listed:
    """A price and since when it counts."""

    price: Price
    effective_from_us: int


class PriceBook:
    """The prices that count now, in memory; rows of the past stay in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._loading = asyncio.Lock()
        self.listed: tuple[Listed, ...] = ()
        self.table = PriceTable("empty")

    async def start(self, now_us: int) -> None:
        """Add the prices that ship, if they are not there yet, and load what counts."""

        async def seed(transaction: Transaction) -> None:
            [known] = await transaction.fetch_all(
                "SELECT count(*) AS count FROM price WHERE source = ?",
                _SHIPPED,
            )
            if known["count"] == 0:
                # Loading them takes a quarter of a second, and most starts need not.
                from steward_client.price_snapshot import shipped_prices

                shipped = shipped_prices(datetime.fromtimestamp(now_us / 1e6, UTC))
                await transaction.execute_many(_INSERT, [_row(price, now_us) for price in shipped])

        await self._database.run(seed)
        await self._load()

    async def set(self, caller: Principal, price: Price, now_us: int) -> Listed:
        """Overrule a price from now on."""

        async def write(transaction: Transaction) -> int:
            newest = await transaction.fetch_one(
                f"SELECT {COLUMNS} FROM price WHERE provider = ? AND model = ?"
                " ORDER BY effective_from_us DESC LIMIT 1",
                price.provider,
                price.model,
            )
            before = _listed(newest) if newest else None
            # The price set last counts, although the clock may stand still or go back.
            from_us = max(now_us, before.effective_from_us + 1 if before else 0)
            await transaction.execute(_INSERT, *_row(price, from_us))
            rates = _rates(price.rates)
            body = {"provider": price.provider, "model": price.model, **rates}
            await append(transaction, now_us, NewEntry("price.set", body, subject=price.model))
            old = _rates(before.price.rates) if before else None
            change = Change("price.set", f"{price.provider}/{price.model}", old, rates)
            await record(transaction, now_us, caller, change)
            return from_us

        from_us = await self._database.run(write)
        await self._load()
        return Listed(price, from_us)

    def priced(self, provider_kind: str, model: str, usage: TokenUsage) -> tuple[int, str]:
        """What a usage costs now, in nano-dollars, and the version of the table that says so.

        Raises:
            InvalidArgument: the model has no price.
        """
        table = self.table  # once: it may be replaced meanwhile
        tariff = table.find(provider_kind, model)
        if tariff is None:
            raise InvalidArgument(
                f"model {model!r} of {provider_kind} has no price; send cost_usd, or have an "
                f"administrator set one with PUT /api/v1/prices/{provider_kind}/{model}",
                reason="PRICE_UNKNOWN",
                fields={"model": "has no price"},
            )
        return tariff.cost_nanousd(usage), table.version

    async def _load(self) -> None:
        async with self._loading:  # else a slower load could put back what a later one replaced
            await self._read()

    async def _read(self) -> None:
        # An administrator's price outlives a newer snapshot: it comes last and counts.
        rows = await self._database.fetch_all(
            f"SELECT {COLUMNS} FROM price ORDER BY source = ?, effective_from_us", ADMINISTRATOR
        )
        current = {(row["provider"], row["model"]): _listed(row) for row in rows}
        self.listed = tuple(current[key] for key in sorted(current))
        self.table = PriceTable.from_rows(
            _version(self.listed), (listed.price for listed in self.listed)
        )


_INSERT = f"INSERT INTO price ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"


def _version(listed: Iterable[Listed]) -> str:
    digest = hashlib.sha256()
    for each in listed:
        digest.update(repr((each.price, each.effective_from_us)).encode())
    return f"prices-{digest.hexdigest()[:16]}"


def _row(price: Price, now_us: int) -> tuple[object, ...]:
    rates = _rates(price.rates)
    return (price.provider, price.model, now_us, *rates.values(), price.source)


def _rates(rates: Rates) -> dict[str, int]:
    return {
        "input_picousd": rates.input_picousd,
        "output_picousd": rates.output_picousd,
        "cache_read_picousd": rates.cache_read_picousd,
        "cache_write_picousd": rates.cache_write_picousd,
    }


def _listed(row: Row) -> Listed:
    rates = Rates(
        row["input_picousd"],
        row["output_picousd"],
        row["cache_read_picousd"],
        row["cache_write_picousd"],
    )
    return Listed(
        Price(row["provider"], row["model"], rates, row["source"]), row["effective_from_us"]
    )
