"""Versions of what several people change: a number in its row that each change of theirs raises.

Whoever changes a thing may say which version they have read. If another change came between, theirs
is refused instead of undoing it unseen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from steward_server.db import Transaction
from steward_server.errors import Aborted


@dataclass(frozen=True, slots=True)
class Versions:
    """The versions in one table, whose rows begin with version 1.

    Attributes:
        kind: what its rows are, as people call it.
        key: the column that names a row.
    """

    kind: str
    table: str
    key: str

    async def advance(
        self, transaction: Transaction, name: str, expected: int | None = None
    ) -> int:
        """Give a row its next version, which is told; once for each change, in its transaction.

        A row that is yet to be inserted had version 0.

        Raises:
            Aborted: `expected` is given, and is not the version it had.
        """
        row = await transaction.fetch_one(
            f"UPDATE {self.table} SET version = version + 1 WHERE {self.key} = ? RETURNING version",
            name,
        )
        version = int(row["version"]) if row else 1
        if expected not in (None, version - 1):
            raise Aborted(
                f"{self.kind} {name!r} has version {version - 1}, not {expected}: it was changed "
                "meanwhile; read it again and decide anew",
                reason="VERSION_PASSED",
                facts={self.kind: name, "version": str(version - 1)},
            )
        return version


AGENTS = Versions("agent", "agent", "agent_id")
PROJECTS = Versions("project", "project", "project_id")
ORGANISATIONS = Versions("organisation", "organisation", "organisation_id")
PROVIDERS = Versions("provider", "provider", "provider_id")
USERS = Versions("user", "app_user", "user_id")
LIMITS = Versions("limit", "scope_limit", "scope")


def expected_version(request: Any) -> int | None:
    """The version that the caller of a change has read; None if they do not say."""
    return request.expected_version if request.HasField("expected_version") else None
