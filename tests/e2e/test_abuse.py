"""A whole server, abused through both doors: it refuses exactly, and goes on serving."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest

from steward.budget.v1 import budget_pb2
from steward.budget.v1.budget_pb2_grpc import BudgetServiceStub
from tests.live import Api, ServerProcess, create_agent
from tests.raw_http import RawAnswer, bomb, exchange, get, post, resident_bytes

MIB = 1024 * 1024


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    server = await ServerProcess(tmp_path / "data").start()
    yield server
    assert server.stop() == 0


@pytest.fixture
async def admin(server: ServerProcess) -> AsyncIterator[Api]:
    async with aiohttp.ClientSession() as session:
        yield await Api(f"http://{server.http_address}", session).sign_in()


def port_of(server: ServerProcess) -> int:
    return int(server.http_address.rpartition(":")[2])


async def send(server: ServerProcess, admin: Api, path: str, body: bytes, *lines: str) -> RawAnswer:
    credential = f"Authorization: {admin.headers['authorization']}"
    return await exchange(port_of(server), post(path, body, credential, *lines))


async def test_an_abused_server_refuses_exactly_and_goes_on(
    server: ServerProcess, admin: Api
) -> None:
    agent = await create_agent(admin)
    path = "/api/v1/agents"
    refusals: dict[bytes, dict[str, Any]] = {
        b'{"name":"a\\u0000b","budget_usd":1}': {"name": "holds the control character U+0000"},
        b'{"name":"a\\r\\nX: y","budget_usd":1}': {"name": "holds the control character U+000D"},
        b'{"name":"a","budget_usd":1,"colour":"red"}': {"colour": "unknown field"},
        b'{"name":"a","budget_usd":1e30}': {"budget_usd": ...},
    }
    for body, fields in refusals.items():
        answer = await send(server, admin, path, body)
        assert (answer.status, list(answer.fields)) == (400, list(fields)), body
        for field, text in fields.items():
            assert text is ... or answer.fields[field] == text

    twice = await send(server, admin, path, b'{"name":"a","budget_usd":1,"budget_usd":1000}')
    assert twice.status == 400
    assert "'budget_usd' twice" in twice.json["error"]["message"]

    for body, status in (
        (b"[" * 100_000, 400),
        (b'{"name":1e400}', 400),
        (b'{"name":"\xc0\xaf"}', 400),
        (json.dumps({"name": "x" * (4 * MIB)}).encode(), 413),
    ):
        assert (await send(server, admin, path, body)).status == status
    assert (await send(server, admin, path, bomb("gzip"), "Content-Encoding: gzip")).status == 413

    for target, status in (
        (f"/api/v1/agents/../agents/{agent.agent_id}", 404),
        (f"/api/v1/agents/%2e%2e%2f{agent.agent_id}", 404),
        (f"/api/v1//agents/{agent.agent_id}", 404),
        ("/api/v1/agents/%00", 400),
        ("/api/v1/agents/%c0%af", 400),
        ("/api/v1/agents?page_size=99999999999999999999999", 400),
        ("/api/v1/agents?page_token=%00", 400),
        ("/api/v1/agents?nothing=1", 400),
    ):
        line = f"Authorization: {admin.headers['authorization']}"
        answer = await exchange(port_of(server), get(target, line))
        assert answer.status == status, target
    listed = await admin.call("GET", "/api/v1/agents")
    assert [each["id"] for each in listed.body["agents"]] == [agent.agent_id]


async def test_memory_is_flat_after_bombs_and_floods(server: ServerProcess, admin: Api) -> None:
    many = json.dumps({f"field{number}": 1 for number in range(100_000)}).encode()

    async def abuse() -> None:
        for body in (b"[" * MIB, many, b'{"a":1,' * MIB):
            await send(server, admin, "/api/v1/agents", body)
        await send(server, admin, "/api/v1/agents", bomb("gzip"), "Content-Encoding: gzip")

    await abuse()
    before = resident_bytes(server.pid)
    for _ in range(3):
        await abuse()
    assert resident_bytes(server.pid) - before < 24 * MIB
    assert (await admin.call("GET", "/health")).status == 200


async def test_the_grpc_door_refuses_what_is_too_large_or_no_message(
    server: ServerProcess, admin: Api
) -> None:
    agent = await create_agent(admin)
    wide = [("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(server.grpc_address, options=wide) as channel:
        budget = BudgetServiceStub(channel)
        large = budget_pb2.ReturnRequest(lease_id="x" * (4 * MIB))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await budget.Return(large, metadata=agent.metadata)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

        broken: Any = channel.unary_unary("/steward.budget.v1.BudgetService/Return")
        with pytest.raises(grpc.aio.AioRpcError) as unread:
            await broken(b"\xff\xff\xff\xff", metadata=agent.metadata)
        assert unread.value.code() is grpc.StatusCode.INVALID_ARGUMENT

        with pytest.raises(grpc.aio.AioRpcError) as answered:
            await budget.Return(budget_pb2.ReturnRequest(lease_id="x"), metadata=agent.metadata)
        assert answered.value.code() is grpc.StatusCode.NOT_FOUND
