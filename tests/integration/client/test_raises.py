"""A runtime whose money ends goes on after a raise, without a restart."""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from steward.budget.v1 import budget_pb2 as pb
from steward_client.async_runtime import AsyncRuntime
from steward_client.client.values import BudgetRequest
from steward_client.errors import BudgetExceeded, Conflict, InvalidRequest
from steward_client.runtime import Runtime
from tests.integration.client.conftest import Answer, StallOf, _post, until
from tests.integration.client.service import Books
from tests.integration.client.test_runtimes import World, open_world
from tests.integration.client.test_sessions import open_desk
from tests.spending import borrow

TOKEN = "sk-of-a-run"
ASK: dict[str, Any] = {
    "model": "gpt-4o-mini",
    "max_tokens": 1_000,
    "messages": [{"role": "user", "content": "What is money?"}],
}
WHY = "The crawl has grown to twice its size."


async def call(runtime: AsyncRuntime) -> Answer:
    """A call as an agent makes it."""
    assert runtime._proxy is not None
    runtime._proxy.admit(TOKEN)
    return await _post(f"http://127.0.0.1:{runtime.port}/v1/chat/completions", ASK, TOKEN, {})


def message(answer: Answer) -> str:
    return str(orjson.loads(answer.body)["error"]["message"])


async def approve(world: World, request_id: str) -> None:
    path = f"/api/v1/budget/requests/{request_id}/approve"
    answer = await world.live.admin.call("PATCH", path, {})
    assert answer.status == 200, answer


async def test_an_agent_that_was_refused_is_served_again_after_a_raise(tmp_path: Path) -> None:
    async with open_world(tmp_path, budget_usd=0.00001) as world, world.runtime("1") as runtime:
        refused = await call(runtime)
        assert (refused.status, refused.headers["x-should-retry"]) == (402, "false")
        assert "is left of the agent's budget" in message(refused)
        asked = await runtime.request_budget("0.5", WHY)
        assert (asked.status, asked.requester_kind) == ("pending", "agent")
        assert (asked.current_budget_usd, asked.requested_budget_usd) == (
            Decimal("0.00001"),
            Decimal("0.5"),
        )
        await approve(world, asked.id)
        # Nobody calls: the runtime asks for the money by itself once it hears of it.
        await until(lambda: runtime._purse.granted_nanousd > 10_000)
        assert (await call(runtime)).status == 200


async def test_a_call_waits_for_the_raise_if_it_is_to(tmp_path: Path) -> None:
    async with (
        open_world(tmp_path, budget_usd=0.00001) as world,
        world.runtime("1", wait_for_budget_s=30) as runtime,
    ):
        calls = [asyncio.create_task(call(runtime)) for _ in range(3)]
        asked = await runtime.request_budget("0.5", WHY)
        await asyncio.sleep(0.1)
        assert not any(each.done() for each in calls)
        await approve(world, asked.id)
        answers = await asyncio.wait_for(asyncio.gather(*calls), 10)
        assert [answer.status for answer in answers] == [200, 200, 200]


async def test_a_runtime_that_finds_no_money_at_its_start_waits_if_it_is_to(
    tmp_path: Path,
) -> None:
    async with open_world(tmp_path, budget_usd=1) as world:
        # All of it is lent to another runtime of the same agent.
        await borrow(world.live, world.agent, 1)
        with pytest.raises(BudgetExceeded):
            await world.runtime("1").open()
        began_s = time.monotonic()
        with pytest.raises(BudgetExceeded):
            await world.runtime("1", wait_for_budget_s=0.3).open()
        assert 0.3 <= time.monotonic() - began_s < 30

        runtime = world.runtime("1", wait_for_budget_s=30)
        opening = asyncio.create_task(runtime.open())
        asked = await runtime.request_budget(2, WHY, expires_in_s=3_600)
        await asyncio.sleep(0.1)
        assert not opening.done()
        await approve(world, asked.id)
        await asyncio.wait_for(opening, 10)
        assert (await call(runtime)).status == 200
        await runtime.close()


async def test_what_is_wrong_with_a_request_is_told(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.runtime() as runtime:
        with pytest.raises(InvalidRequest) as refused:
            await runtime.request_budget(1, WHY)
        assert refused.value.reason == "BUDGET_UNCHANGED"
        for _ in range(10):
            await runtime.request_budget(2, WHY)
        with pytest.raises(Conflict) as full:
            await runtime.request_budget(2, WHY)
        assert full.value.reason == "TOO_MANY_PENDING_REQUESTS"


async def test_code_without_an_event_loop_asks_too(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:

        def ask() -> BudgetRequest:
            server = world.live.running.grpc_address
            state_dir = tmp_path / "state"
            with Runtime(1, server=server, token=world.agent.ic_token, state_dir=state_dir) as own:
                return own.request_budget("2.5", WHY, expires_in_s=60)

        asked = await asyncio.to_thread(ask)
    assert (asked.agent_id, asked.expires_in_s) == (world.agent.agent_id, 60)
    assert asked.requested_budget_usd == Decimal("2.5")


@pytest.mark.parametrize("wait_s", [-1, float("nan"), float("inf")])
def test_a_wait_has_an_end(wait_s: float) -> None:
    with pytest.raises(ValueError, match="wait_for_budget_s"):
        AsyncRuntime(1, token="ic_none", wait_for_budget_s=wait_s)


async def test_the_runtimes_own_budget_is_not_waited_for(stall_of: StallOf) -> None:
    settings = {"wait_for_budget_s": 30}
    async with stall_of(granted_nanousd=10_000, budget_nanousd=15_000, purse=settings) as stall:
        answer = await asyncio.wait_for(stall.post("/v1/chat/completions", ASK), 10)
        assert answer.status == 402
        assert "the runtime's own budget" in message(answer)


async def test_a_wait_in_vain_ends_with_402(stall_of: StallOf) -> None:
    settings = {"wait_for_budget_s": 0.2}
    async with stall_of(granted_nanousd=10_000, purse=settings) as stall:
        began_s = time.monotonic()
        answer = await stall.post("/v1/chat/completions", ASK)
        assert answer.status == 402
        assert 0.2 <= time.monotonic() - began_s < 30
        assert stall.standin.bodies == []


async def test_a_raise_that_is_too_small_is_waited_beyond(stall_of: StallOf) -> None:
    settings = {"wait_for_budget_s": 30}
    async with stall_of(granted_nanousd=10_000, purse=settings) as stall:
        calling = asyncio.create_task(stall.post("/v1/chat/completions", ASK))
        for drawer_nanousd in (0, 10, 50_000_000):
            await asyncio.sleep(0.05)
            assert not calling.done()
            stall.till.drawer_nanousd = drawer_nanousd
            stall.purse.allocation_changed()
        assert (await asyncio.wait_for(calling, 10)).status == 200


async def test_a_stop_ends_the_wait(stall_of: StallOf) -> None:
    async with stall_of(granted_nanousd=10_000, purse={"wait_for_budget_s": 30}) as stall:
        calling = asyncio.create_task(stall.post("/v1/chat/completions", ASK))
        await asyncio.sleep(0.05)
        stall.purse.stop("enough")
        assert (await asyncio.wait_for(calling, 10)).status == 403


async def test_a_call_whose_caller_has_gone_is_not_made_after_the_raise(
    stall_of: StallOf,
) -> None:
    async with stall_of(granted_nanousd=10_000, purse={"wait_for_budget_s": 30}) as stall:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stall.post("/v1/chat/completions", ASK), 0.2)
        stall.till.drawer_nanousd = 50_000_000
        stall.purse.allocation_changed()
        await until(lambda: stall.tally.refused == 1)
        assert stall.standin.bodies == []
        assert stall.purse.wallet.held_nanousd == 0


async def test_a_lease_that_could_not_be_replaced_is_once_there_is_money(tmp_path: Path) -> None:
    """Without a call that asks, and after a cut that hid the change as well."""
    books = Books(free_nanousd=1_000_000)
    async with open_desk(tmp_path, books) as desk:
        for number, hidden in enumerate((False, True), start=1):
            lease_id = f"lease_{number}"
            ended = pb.Control(lease_id=lease_id, lease_status=pb.LEASE_STATE_DRAINING)
            await books.pushes.put(ended)
            await until(lambda: desk.session.has_nothing_left)
            await until(lambda lease_id=lease_id: lease_id in books.closed)  # type: ignore[misc]
            books.free_nanousd = 1_000_000
            if hidden:
                books.swallowed = lambda request: request.HasField("heartbeat")
            else:
                await books.pushes.put(pb.Control(budget_remaining_nanousd=1_000_000))
            following = f"lease_{number + 1}"
            await until(lambda name=following: name in books.granted)  # type: ignore[misc]
            await until(lambda: not desk.session.has_nothing_left)
        await desk.spend(5)
        books.free_nanousd = 0
        await books.pushes.put(pb.Control(lease_id="lease_3", lease_status=pb.LEASE_STATE_DRAINING))
        await until(lambda: desk.session.has_nothing_left)
        books.free_nanousd = 1_000_000
        await books.pushes.put(pb.Control(budget_remaining_nanousd=1_000_000))
        closing = asyncio.create_task(desk.session.close(timeout_s=5))
        await closing
    # What is told to a session that gives everything back makes it take nothing.
    assert books.closed.keys() == books.granted.keys()
    assert books.closed["lease_3"] == 5
