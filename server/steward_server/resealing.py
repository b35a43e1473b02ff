"""After a new master key was put in: what older ones sealed is sealed with the newest.

It is done at every start, before anything else reads it, so that an old key can then be taken out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from steward_server.db import Database, Transaction
from steward_server.vault import Vault, VaultError

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Sealed:
    """A column of sealed values, NULL where there is none.

    Attributes:
        key: the column that names a row.
        context: what the value of a row is bound to, by that name.
    """

    table: str
    key: str
    column: str
    context: Callable[[str], str]


async def reseal(database: Database, vault: Vault, columns: Sequence[Sealed]) -> None:
    """Seal anew what the newest master key has not sealed; what does not open stays as it is."""
    for each in columns:

        async def work(transaction: Transaction, each: Sealed = each) -> tuple[int, int]:
            rows = await transaction.fetch_all(
                f"SELECT {each.key} AS name, {each.column} AS sealed FROM {each.table}"
                f" WHERE substr({each.column}, 1, ?) <> ?",
                len(vault.seals_begin),
                vault.seals_begin,
            )
            renewed = []
            for row in rows:
                context = each.context(row["name"])
                try:
                    plain = vault.open_sealed(row["sealed"], context)
                except VaultError:
                    continue
                renewed.append((vault.seal(plain, context), row["name"]))
            await transaction.execute_many(
                f"UPDATE {each.table} SET {each.column} = ? WHERE {each.key} = ?", renewed
            )
            return len(renewed), len(rows) - len(renewed)

        renewed_count, lost_count = await database.run(work)
        if renewed_count or lost_count:
            log.info(
                "vault.resealed",
                table=each.table,
                renewed_count=renewed_count,
                not_opened_count=lost_count,
            )
