"""People and the audit log through both clients."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from steward_client.client import AsyncClient, Client
from steward_client.errors import Conflict, Forbidden, InvalidRequest, Unauthorized
from tests.live import ADMIN_PASSWORD, Live

PASSWORD = "a boat on the lake"
OTHER = "a house on the hill"


async def test_a_person_is_let_in_and_kept_out(live: Live) -> None:
    async with AsyncClient(live.running.grpc_address) as admin:
        await admin.login("admin", ADMIN_PASSWORD)
        made = await admin.users.create("ann", password=PASSWORD, role="user", email="a@b")
        with pytest.raises(Conflict):
            await admin.users.create("ann", password=PASSWORD, role="user")
        assert await admin.users.get(made.id) == made
        assert await admin.users.list(role="user", state="active", search="A@") == (made,)
        promoted = await admin.users.set_role(made.id, "viewer")
        suspended = await admin.users.suspend(made.id, reason="left")
        active = await admin.users.activate(made.id)
        await admin.users.reset_password(made.id, OTHER)
        assert (promoted.role, suspended.suspend_reason, active.state) == (
            "viewer",
            "left",
            "active",
        )

        async with AsyncClient(live.running.grpc_address) as ann:
            entered = await ann.login("a@b", OTHER)
            assert entered.must_change_password
            with pytest.raises(Forbidden) as refused:
                await ann.agents.list()
            assert refused.value.reason == "PASSWORD_CHANGE_REQUIRED"
            with pytest.raises(InvalidRequest):
                await ann.change_password(PASSWORD, PASSWORD)
            await ann.change_password(OTHER, PASSWORD)
            assert await ann.agents.list() == ()
            me = await ann.me()
            assert (me.id, me.role, me.must_change_password) == (made.id, "viewer", False)
            await admin.users.delete(made.id)
            with pytest.raises(Unauthorized):
                await ann.me()


async def test_what_was_done_is_read_and_verified(live: Live) -> None:
    def work() -> None:
        with Client(live.running.grpc_address) as admin:
            admin.login("admin", ADMIN_PASSWORD)
            first = admin.audit.verify()
            agent = admin.agents.create("scout", budget_usd="2.5")
            (entry,) = admin.audit.list(resource_id=agent.id)
            assert (entry.action, entry.actor_kind, entry.before) == (
                "agent.created",
                "person",
                None,
            )
            assert entry.after is not None
            assert entry.after["budget_nanousd"] == 2_500_000_000
            now = datetime.now(UTC)
            assert admin.audit.list(since=now + timedelta(hours=1)) == ()
            assert len(admin.audit.list(until=now + timedelta(hours=1), most=3)) == 3
            verdict = admin.audit.verify(known_number=first.head_number, known_hash=first.head_hash)
            assert (verdict.verified, verdict.head_hash) == (True, entry.hash)

    await asyncio.to_thread(work)
