"""Leases without a runtime: money lent straight from the desk."""

from __future__ import annotations

from steward_server.budget.store import Terms
from tests.integration.conftest import Server


async def lend(server: Server, agent_id: str, lease_id: str, amount_nanousd: int) -> None:
    """Lend money to an agent as a handshake does."""
    terms = Terms(
        provider="openai",
        provider_kind="openai",
        token_id="token_1",
        runtime_id="runtime_1",
        request_id=None,
        request_digest=b"",
        requested_nanousd=amount_nanousd,
    )
    await server.database.run(
        lambda transaction: server.desk.open_lease(
            transaction,
            lease_id=lease_id,
            agent_id=agent_id,
            requested_nanousd=amount_nanousd,
            minimum_nanousd=0,
            terms=terms,
            now_us=server.clock(),
        )
    )


async def give_back(server: Server, agent_id: str, lease_id: str) -> None:
    """Return a lease unspent."""
    await server.database.run(
        lambda transaction: server.desk.close_lease(
            transaction,
            lease_id=lease_id,
            agent_id=agent_id,
            believed_spent_nanousd=None,
            now_us=server.clock(),
        )
    )
