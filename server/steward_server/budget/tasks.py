"""What the budget room does by itself: ends overdue leases, proves that the books balance."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from prometheus_client import CollectorRegistry, Gauge

from steward_server.budget.chart import next_end_us
from steward_server.budget.desk import SWEEP_AT_ONCE, Desk
from steward_server.budget.store import IS_OPEN
from steward_server.db import Database

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Audit:
    """One proof, or disproof, of the books."""

    balanced: bool
    checked_at_us: int
    lsn: int
    account_count: int
    open_lease_count: int
    overrun_nanousd: int


async def sweep_forever(
    database: Database, desk: Desk, clock: Callable[[], int], interval_s: float
) -> None:
    """Let leases end when their time is over, and periods begin: those to the moment."""
    while True:
        wait_s = interval_s
        try:
            while await database.run(lambda transaction: desk.sweep(transaction, clock())) >= (
                SWEEP_AT_ONCE
            ):
                pass
            if (ends_at_us := await next_end_us(database)) is not None:
                wait_s = min(wait_s, max(0.001, (ends_at_us - clock()) / 1e6))
        except Exception:
            log.exception("budget.sweep_failed")
        await asyncio.sleep(wait_s)


class Auditor:
    """Checks invariant I1 on the live books and keeps the newest finding."""

    def __init__(
        self, database: Database, clock: Callable[[], int], registry: CollectorRegistry
    ) -> None:
        self._database = database
        self._clock = clock
        self.newest: Audit | None = None
        self._balanced = Gauge(
            "ledger_balanced", "1 while the books balance, 0 if they do not.", registry=registry
        )
        self._overrun = Gauge(
            "ledger_overrun_usd", "Spent beyond what was lent, in dollars.", registry=registry
        )
        self._leases = Gauge("ledger_open_leases", "Leases that hold money.", registry=registry)

    async def run(self, interval_s: float) -> None:
        """Audit until cancelled."""
        while True:
            try:
                await self.audit()
            except Exception:
                log.exception("budget.audit_failed")
            await asyncio.sleep(interval_s)

    async def audit(self) -> Audit:
        """Prove that every account's leased money is what the leases that draw on it have left."""
        audit = await self._read()
        self.newest = audit
        self._balanced.set(audit.balanced)
        self._overrun.set(audit.overrun_nanousd / 1e9)
        self._leases.set(audit.open_lease_count)
        if not audit.balanced:
            log.critical("budget.books_do_not_balance", lsn=audit.lsn)
        return audit

    async def _read(self) -> Audit:
        left = "granted_nanousd - spent_nanousd AS lent_nanousd"
        # One statement, so that accounts, leases and journal are of one moment.
        row = await self._database.fetch_one(
            "SELECT count(*) AS accounts,"
            " COALESCE(sum(CASE WHEN scope_id LIKE 'agent:%' THEN overrun_nanousd END), 0)"
            " AS overrun,"
            " COALESCE(sum(CASE WHEN leased_nanousd <> COALESCE(held.lent_nanousd, 0)"
            " OR (mode = 'restrictive' AND spent_nanousd + leased_nanousd > allocated_nanousd)"
            " THEN 1 END), 0) AS wrong,"
            f" (SELECT count(*) FROM lease WHERE {IS_OPEN}) AS leases,"
            " (SELECT COALESCE(max(lsn), 0) FROM journal) AS lsn"
            " FROM account LEFT JOIN ("
            "SELECT account_id, sum(lent_nanousd) AS lent_nanousd FROM ("
            f"SELECT account_id, {left} FROM lease WHERE {IS_OPEN}"
            f" UNION ALL SELECT project_account_id, {left} FROM lease WHERE {IS_OPEN}"
            f" UNION ALL SELECT organisation_account_id, {left} FROM lease WHERE {IS_OPEN}"
            ") AS draws GROUP BY account_id) AS held ON held.account_id = account.account_id"
        )
        assert row is not None  # noqa: S101 - an aggregate gives a row
        return Audit(
            balanced=row["wrong"] == 0,
            checked_at_us=self._clock(),
            lsn=row["lsn"],
            account_count=row["accounts"],
            open_lease_count=row["leases"],
            overrun_nanousd=row["overrun"],
        )
