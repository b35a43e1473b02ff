"""Tells others which calls are booked."""

from __future__ import annotations

from collections.abc import Sequence

from steward_server.db import Reader

SLACK_US = 3_600 * 1_000_000
"""How far before its opening and past its end a lease may have paid for a call: runtimes' clocks
differ from the server's, and a runtime that is cut off goes on until its lease runs out."""


class Receipts:
    """Finds usages by the id that a runtime gave the call."""

    async def booked(
        self, reader: Reader, agent_id: str, calls: Sequence[tuple[str, int]]
    ) -> set[str]:
        """Those of an agent's calls, by their id and when they ended, whose usage is booked.

        Looked for in the leases that the agent held at the time, an hour more or less: an index
        of all usages by agent and id would cost each booking half as much again.
        """
        if not calls:
            return set()
        times_us = [at_us for _, at_us in calls]
        rows = await reader.fetch_all(
            f"WITH asked (key, at_us) AS (VALUES {', '.join(['(?, ?)'] * len(calls))}),"
            " held AS (SELECT lease_id, opened_at_us, expires_at_us, settle_until_us FROM lease"
            " WHERE agent_id = ? AND opened_at_us <= ?"
            " AND (expires_at_us >= ? OR settle_until_us >= ?))"
            " SELECT DISTINCT asked.key FROM held JOIN asked ON opened_at_us <= asked.at_us + ?"
            " AND (expires_at_us >= asked.at_us - ? OR settle_until_us >= asked.at_us - ?)"
            " JOIN journal ON journal.subject = held.lease_id AND journal.key = asked.key"
            " AND journal.kind = 'usage'",
            *[part for call in calls for part in call],
            agent_id,
            max(times_us) + SLACK_US,
            min(times_us) - SLACK_US,
            min(times_us) - SLACK_US,
            SLACK_US,
            SLACK_US,
            SLACK_US,
        )
        return {row["key"] for row in rows}
