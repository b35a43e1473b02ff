"""Logs followed by programs that read much: lines that are there together come together."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from steward.environments.v1 import environments_pb2 as pb
from steward_server.environments import logbook
from tests.integration.conftest import refusal_of
from tests.integration.environments.conftest import Site, until
from tests.integration.environments.test_logs import follow

SHARES = "/api/v1/environments/{}/shares/{}"


async def read(call: Any, count: int) -> list[pb.FollowLogLinesResponse.Line]:
    found: list[pb.FollowLogLinesResponse.Line] = []
    async with asyncio.timeout(10):
        while len(found) < count:
            found += (await call.read()).lines
    return found


async def test_many_lines_come_in_few_messages_and_each_once(site: Site) -> None:
    environment_id = await site.running(command=["sh", "-c", "seq 3000; sleep 600"])
    request = pb.FollowLogLinesRequest(environment_id=environment_id)
    messages, lines = 0, []
    async with asyncio.timeout(10):
        async for answer in site.stub.FollowLogLines(request, metadata=site.metadata):
            messages += 1
            assert 1 <= len(answer.lines) <= 500
            lines += answer.lines
            if len(lines) == 3000:
                break
    assert [int(each.log.message) for each in lines] == list(range(1, 3001))
    assert [each.sequence for each in lines] == list(range(1, 3001))
    assert messages < 300


async def test_a_line_is_told_at_once_and_after_it_the_end(site: Site) -> None:
    environment_id = await site.running(command=["sh", "-c", "echo one; read x; exit 3"])
    request = pb.FollowLogLinesRequest(environment_id=environment_id, timestamps=False)
    call = site.stub.FollowLogLines(request, metadata=site.metadata)
    (first,) = await read(call, 1)
    await site.admin.call("DELETE", f"/api/v1/environments/{environment_id}?force=true")
    end = await call.read()

    assert (first.log.message, first.sequence) == ("one", 1)
    assert not first.log.HasField("timestamp")
    assert end.end.reason == "it was deleted"
    assert await call.read() is grpc.aio.EOF


async def test_a_reader_who_comes_back_goes_on_after_its_last_line(site: Site) -> None:
    environment_id = await site.running(command=["sh", "-c", "seq 20; sleep 600"])
    request = pb.FollowLogLinesRequest(environment_id=environment_id, after=15)
    lines = await read(site.stub.FollowLogLines(request, metadata=site.metadata), 5)
    assert [each.log.message for each in lines] == ["16", "17", "18", "19", "20"]


async def test_it_ends_with_the_right_to_read(site: Site) -> None:
    friend = await site.person("friend")
    environment_id = await site.running(command=["sh", "-c", "seq 20; sleep 600"])
    path = SHARES.format(environment_id, "friend")
    assert (await site.admin.call("PUT", path, {"permission": "read"})).status == 200
    request = pb.FollowLogLinesRequest(environment_id=environment_id)
    call = site.stub.FollowLogLines(request, metadata=tuple(friend.headers.items()))
    await read(call, 20)
    assert (await site.admin.call("DELETE", path)).status == 204
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        async with asyncio.timeout(10):
            await call.read()
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_wrong_request_is_refused(site: Site) -> None:
    request = pb.FollowLogLinesRequest(environment_id="env-none", tail=-1, after=-1)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await site.stub.FollowLogLines(request, metadata=site.metadata).read()
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_one_caller_follows_so_many_logs(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logbook, "MAX_FOLLOWED", 1)
    environment_id = await site.running(command=["sh", "-c", "echo one; sleep 600"])
    request = pb.FollowLogLinesRequest(environment_id=environment_id)
    first = site.stub.FollowLogLines(request, metadata=site.metadata)
    await read(first, 1)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await site.stub.FollowLogLines(request, metadata=site.metadata).read()
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refusal_of(refused.value).reason == "TOO_MANY_LOGS"
    async with follow(site.admin, environment_id) as answer:
        assert answer.status == 429

    first.cancel()

    async def is_let_in() -> bool:
        async with follow(site.admin, environment_id) as answer:
            return bool(answer.status == 200)

    await until(is_let_in, "the place of the first is free")
