"""The agent of the overspending benchmark: many callers at once, some of whom leave or fail."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections import Counter

import orjson

from tests.benchmarks.wire import Connection

PATH = "/v1/chat/completions"
ABORTED_SHARE, FAILED_SHARE = 0.10, 0.05


async def main(callers: int, calls: int) -> None:
    address = os.environ["OPENAI_BASE_URL"].removeprefix("http://").removesuffix("/v1").rstrip("/")
    headers = {"Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"}
    seeds = random.Random(20261121)
    outcomes: Counter[str] = Counter()
    left = iter(range(calls))

    async def one(choices: random.Random) -> None:
        connection = await Connection.open(address)
        for _ in left:
            draw = choices.random()
            body = {
                "model": "gpt-4o-mini",
                "messages": [{"role": "user", "content": "word " * choices.randint(1, 60)}],
                "max_tokens": choices.randint(1, 64),
                "stream": draw < ABORTED_SHARE or choices.random() < 0.3,
            }
            if draw < ABORTED_SHARE:
                await _abort(address, connection.request("POST", PATH, headers, body), choices)
                outcomes["aborted"] += 1
                continue
            faulty = draw < ABORTED_SHARE + FAILED_SHARE
            sent = headers | ({"x-standin-fault": "500"} if faulty else {})
            if body["stream"]:
                status = await _stream(address, connection.request("POST", PATH, sent, body))
            else:
                request = connection.request("POST", PATH, sent, body)
                try:
                    status, _ = await connection.send(request)
                except ConnectionError:  # a refusal may end its connection
                    connection = await Connection.open(address)
                    status, _ = await connection.send(request)
            outcomes[str(status)] += 1
        connection.close()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(callers):
            tasks.create_task(one(random.Random(seeds.random())))
    sys.stdout.write(orjson.dumps(outcomes).decode() + "\n")


async def _stream(address: str, request: bytes) -> int:
    """Read a streamed answer, or a refusal, to its end."""
    reader, writer = await asyncio.open_connection(*address.split(":"))
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    if b"chunked" in head.lower():
        await reader.readuntil(b"\r\n0\r\n\r\n")
    writer.close()
    return int(head[9:12])


async def _abort(address: str, request: bytes, choices: random.Random) -> None:
    """Leave somewhere between the request and the middle of the answer."""
    reader, writer = await asyncio.open_connection(*address.split(":"))
    writer.write(request)
    await writer.drain()
    for _ in range(choices.randint(0, 4)):
        if not await reader.read(choices.randint(1, 200)):
            break
    writer.transport.abort()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
