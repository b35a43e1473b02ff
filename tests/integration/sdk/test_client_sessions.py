"""How long a sign-in lasts, and what happens to calls while the server is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from steward_client import AsyncClient, Client
from steward_client.client.credentials import Memory
from steward_client.errors import Conflict, Unauthorized, Unavailable
from steward_server.auth.config import AuthConfig
from steward_server.settings import Settings
from tests.live import ADMIN_PASSWORD, Live, ServerProcess, live_server, live_settings


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    process = await ServerProcess(tmp_path / "data").start()
    yield process
    process.stop()


async def test_a_sign_in_near_its_end_is_renewed_before_the_call(live: Live) -> None:
    store = Memory()
    async with AsyncClient(live.running.grpc_address, store=store) as client:
        signed_in = await client.login("admin", ADMIN_PASSWORD)
        later = AsyncClient(
            live.running.grpc_address, store=store, clock=lambda: signed_in.expires_at_s - 1
        )
        async with later:
            await later.agents.list()
        renewed = store.load()
        await client.agents.list()

    assert renewed is not None
    assert renewed.refresh_token != signed_in.refresh_token
    assert store.load() == renewed


async def test_a_sign_in_the_server_no_longer_takes_is_renewed_and_the_call_made(
    tmp_path: Path,
) -> None:
    settings = replace(live_settings(tmp_path / "data"), auth=AuthConfig(access_token_ttl_s=1))
    store = Memory()
    async with (
        live_server(settings) as live,
        AsyncClient(live.running.grpc_address, store=store, clock=lambda: 0.0) as client,
    ):
        # By this client's clock it is 1970: the token never seems to end.
        first = await client.login("admin", ADMIN_PASSWORD)
        store.save(replace(first, expires_at_s=float("inf")))
        ends_s = time.monotonic() + 10
        while (now := store.load()) and now.access_token == first.access_token:
            await client.agents.list()
            await asyncio.sleep(0.1)
            assert time.monotonic() < ends_s


async def test_a_sign_in_ended_elsewhere_is_not_renewed(live: Live) -> None:
    store = Memory()
    async with (
        AsyncClient(live.running.grpc_address, store=store) as client,
        AsyncClient(live.running.grpc_address) as other,
    ):
        await other.login("admin", ADMIN_PASSWORD)
        signed_in = await client.login("admin", ADMIN_PASSWORD)
        thief = AsyncClient(live.running.grpc_address, token=signed_in.access_token)
        async with thief:
            await thief.logout()
        with pytest.raises(Unauthorized):
            await client.agents.list()
        assert await other.agents.list() == ()
    assert store.load() is None


async def test_a_token_given_is_shown_as_it_is(live: Live) -> None:
    async with AsyncClient(live.running.grpc_address, token="nonsense") as client:
        with pytest.raises(Unauthorized):
            await client.agents.list()


async def test_a_read_waits_for_a_server_that_comes_back(process: ServerProcess) -> None:
    async with AsyncClient(process.grpc_address, patience_s=30) as client:
        await client.login("admin", ADMIN_PASSWORD)
        made = await client.agents.create("scout", budget_usd=1, request_id="once")
        process.kill()
        listing = asyncio.create_task(client.agents.list())
        again = asyncio.create_task(client.agents.create("scout", budget_usd=1, request_id="once"))
        await process.start()

        assert await listing == (made,)
        assert (await again).id == made.id


async def test_a_change_that_might_be_made_twice_is_not_tried_again(
    process: ServerProcess,
) -> None:
    with Client(process.grpc_address, patience_s=30) as client:
        await asyncio.to_thread(client.login, "admin", ADMIN_PASSWORD)
        process.kill()
        with pytest.raises(Unavailable):
            await asyncio.to_thread(client.providers.create, "openai", api_key="sk-1")


async def test_one_client_serves_many_threads_and_tasks(live: Live) -> None:
    address = live.running.grpc_address
    with Client(address) as blocking:
        await asyncio.to_thread(blocking.login, "admin", ADMIN_PASSWORD)
        async with AsyncClient(address) as waiting:
            await waiting.login("admin", ADMIN_PASSWORD)
            made = await asyncio.gather(
                *(
                    asyncio.to_thread(blocking.agents.create, f"b{n}", budget_usd=1)
                    for n in range(8)
                ),
                *(waiting.agents.create(f"a{n}", budget_usd=1) for n in range(8)),
            )
            listed = await waiting.agents.list()

    assert {each.id for each in made} == {each.id for each in listed}
    assert len(listed) == 16


async def test_a_conflict_names_what_stands_in_the_way(live: Live) -> None:
    async with AsyncClient(live.running.grpc_address) as client:
        await client.login("admin", ADMIN_PASSWORD)
        agent = await client.agents.create("scout", budget_usd=1)
        token = await client.tokens.create(agent.id)
        with pytest.raises(Conflict) as taken:
            await client.tokens.create(agent.id)

    assert taken.value.reason == "TOKEN_EXISTS"
    assert token.id in taken.value.facts.values()


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="ftp"):
        Client("ftp://somewhere")
    assert Settings().server.grpc_port == 50051
