"""A gateway in a process of its own, abused for a while: it answers, and its memory stays flat."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import resource
from collections.abc import Awaitable, Callable

import pytest

from steward_gateway.rpc import envelope
from tests.raw_http import RawHttp, bomb, exchange, get, peak_bytes, post, resident_bytes

MIB = 1024 * 1024
MAX_GROWTH_BYTES = 24 * MIB
"""What a few requests under way need at their largest, and what the allocator keeps of it."""
MAX_PEAK_BYTES = 96 * MIB
"""What one request needs while it is answered."""

Process = tuple[asyncio.subprocess.Process, int]
Abuse = Callable[[int], Awaitable[None]]


async def bombs(port: int) -> None:
    for coding in ("gzip", "deflate"):
        answer = await exchange(
            port, post("/v1/tools", bomb(coding), f"Content-Encoding: {coding}")
        )
        assert answer.status == 413


async def many_bombs_in_one_body(port: int) -> None:
    message = envelope.pack(gzip.compress(bytes(4 * MIB)), envelope.COMPRESSED)
    path, kind = "/workshop.v1.WorkshopService/Weigh", "application/grpc-web+proto"
    sent = post(path, message * 200, "Grpc-Encoding: gzip", content_type=kind)
    assert b"grpc-status: 8" in (await exchange(port, sent)).body


async def many_messages(port: int) -> None:
    body = b'{"tools":[' + b"{}," * 1_300_000 + b"{}]}"
    assert (await exchange(port, post("/v1/tools", body))).status == 400


async def depths(port: int) -> None:
    for text in ("[" * 1_000_000, '{"tool":' * 500_000, '{"a":' * 1_000 + "1" + "}" * 1_000):
        assert (await exchange(port, post("/v1/tools", text.encode()))).status == 400


async def unknown_fields(port: int) -> None:
    body = json.dumps({f"field{number}": 1 for number in range(100_000)}).encode()
    assert (await exchange(port, post("/v1/tools", body))).status == 400


async def keys_twice(port: int) -> None:
    body = b'{"request_id":"\\u003a","tool":{' + b'"id":"x",' * 100_000 + b'"id":"y"}}'
    assert (await exchange(port, post("/v1/tools", body))).status == 400


async def endless_bodies(port: int) -> None:
    head = "POST /v1/tools HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    async with RawHttp(port) as http:
        await http.send(f"{head}Transfer-Encoding: chunked\r\n\r\n")
        answer = asyncio.create_task(http.answer())  # read meanwhile: a reset throws it away
        with contextlib.suppress(ConnectionError):
            for _ in range(64):
                await http.send(b"100000\r\n" + bytes(MIB) + b"\r\n")
        assert (await answer).status == 413


async def endless_heads(port: int) -> None:
    for beginning in ("GET /", "GET / HTTP/1.1\r\nX-A: ", "GET / HTTP/1.1\r\n" + "X: y\r\n" * 200):
        async with RawHttp(port) as http:
            with contextlib.suppress(ConnectionError):
                await http.send(beginning)
                for _ in range(64):
                    await http.send("a" * MIB)
                assert (await http.answer()).status in (414, 431)


async def pipelines_nobody_reads(port: int) -> None:
    async with RawHttp(port) as http:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                while True:
                    await http.send(get("/v1/tools/" + "a" * 4_000) * 100)


async def chunk_extensions(port: int) -> None:
    head = "POST /v1/tools HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    async with RawHttp(port) as http:
        await http.send(f"{head}Transfer-Encoding: chunked\r\n\r\n2;")
        for _ in range(64):
            await http.send("a" * MIB)


ABUSES: list[Abuse] = [
    bombs,
    many_bombs_in_one_body,
    many_messages,
    depths,
    unknown_fields,
    keys_twice,
    endless_bodies,
    endless_heads,
    pipelines_nobody_reads,
    chunk_extensions,
]


@pytest.mark.parametrize("abuse", ABUSES)
async def test_memory_is_flat_and_others_are_answered(process: Process, abuse: Abuse) -> None:
    running, port = process
    await abuse(port)  # what is made once is made now
    before = resident_bytes(running.pid)
    for _ in range(3):
        await abuse(port)
    assert (await exchange(port, get("/v1/tools/t1"))).status == 200
    assert resident_bytes(running.pid) - before < MAX_GROWTH_BYTES
    assert peak_bytes(running.pid) - before < MAX_PEAK_BYTES


async def sit_idle(process: Process, count: int) -> None:
    running, port = process
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY:
        count = min(count, hard - 500)  # as many as this machine lets one process have
    crowd: list[RawHttp] = []
    try:
        before = resident_bytes(running.pid)
        for number in range(count):
            http = await RawHttp(port).__aenter__()
            crowd.append(http)
            if number % 2:  # half of them have said something, half nothing at all
                await http.send(get("/v1/tools/t1"))
                assert (await http.answer()).status == 200
        async with asyncio.timeout(30):
            assert (await exchange(port, get("/v1/tools/t1"))).status == 200
        grown = resident_bytes(running.pid) - before
        assert grown < MAX_GROWTH_BYTES + count * 32 * 1024
    finally:
        for http in crowd:
            http.writer.transport.abort()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    async with asyncio.timeout(30):
        assert (await exchange(port, get("/v1/tools/t1"))).status == 200


async def test_a_thousand_idle_connections_are_borne(process: Process) -> None:
    await sit_idle(process, 1_000)


@pytest.mark.proof
async def test_ten_thousand_idle_connections_are_borne(process: Process) -> None:
    await sit_idle(process, 9_990)
