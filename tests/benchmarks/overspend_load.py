"""The agent of the overspending benchmark: many callers at once, some of whom leave or fail."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass
from typing import Self

import orjson

from tests.benchmarks.wire import Connection

PATH = "/v1/chat/completions"
ABORTED_SHARE, FAILED_SHARE = 0.10, 0.05
CALL_LIMIT_S = 30.0
"""A call that has not ended by then never will: the load fails instead of waiting."""


async def main(callers: int, calls: int) -> None:
    address = os.environ["OPENAI_BASE_URL"].removeprefix("http://").removesuffix("/v1").rstrip("/")
    headers = {"Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"}
    seeds = random.Random(20261121)
    outcomes: Counter[str] = Counter()
    refused: list[tuple[int, float]] = []
    left = iter(range(calls))

    async def one(choices: random.Random) -> None:
        caller = await Caller.open(address, headers, choices)
        for number in left:
            begun_s = time.perf_counter()
            async with asyncio.timeout(CALL_LIMIT_S):
                outcome = await caller.call()
            outcomes[outcome] += 1
            if outcome == "402":
                refused.append((number, time.perf_counter() - begun_s))
        caller.close()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(callers):
            tasks.create_task(one(random.Random(seeds.random())))
    told = {"outcomes": outcomes, "refused": refused}
    sys.stdout.write(orjson.dumps(told).decode() + "\n")


@dataclass(slots=True)
class Caller:
    """Calls on one connection of its own, and on new ones where it will not stay to the end."""

    address: str
    headers: dict[str, str]
    choices: random.Random
    connection: Connection

    @classmethod
    async def open(cls, address: str, headers: dict[str, str], choices: random.Random) -> Self:
        return cls(address, headers, choices, await Connection.open(address))

    def close(self) -> None:
        self.connection.close()

    async def call(self) -> str:
        """Make a call of any kind; gives the status it was answered with, or "aborted"."""
        choices = self.choices
        draw = choices.random()
        body = {
            "model": "gpt-4o-mini",
            "messages": [{"role": "user", "content": "word " * choices.randint(1, 60)}],
            "max_tokens": choices.randint(1, 64),
            "stream": draw < ABORTED_SHARE or choices.random() < 0.3,
        }
        if draw < ABORTED_SHARE:
            # Closed after the answer, since one who leaves may have read a short answer whole.
            await self._abort(self._request(body, Connection="close"))
            return "aborted"
        faulty = draw < ABORTED_SHARE + FAILED_SHARE
        request = self._request(body, **({"x-standin-fault": "500"} if faulty else {}))
        return str(await (self._stream(request) if body["stream"] else self._plain(request)))

    def _request(self, body: object, **headers: str) -> bytes:
        return self.connection.request("POST", PATH, self.headers | headers, body)

    async def _plain(self, request: bytes) -> int:
        try:
            status, _ = await self.connection.send(request)
        except ConnectionError:  # a refusal may end its connection
            self.connection = await Connection.open(self.address)
            status, _ = await self.connection.send(request)
        return status

    async def _stream(self, request: bytes) -> int:
        """Read a streamed answer, or a refusal, to its end."""
        reader, writer = await asyncio.open_connection(*self.address.split(":"))
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if b"chunked" in head.lower():
            await reader.readuntil(b"\r\n0\r\n\r\n")
        writer.close()
        return int(head[9:12])

    async def _abort(self, request: bytes) -> None:
        """Leave somewhere between the request and the middle of the answer."""
        reader, writer = await asyncio.open_connection(*self.address.split(":"))
        writer.write(request)
        await writer.drain()
        for _ in range(self.choices.randint(0, 4)):
            if not await reader.read(self.choices.randint(1, 200)):
                break
        writer.transport.abort()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
