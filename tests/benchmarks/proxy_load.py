"""The agent of the proxy's benchmark: calls the provider through the proxy and past it, in turns.

Takes the provider's own address and "plain" or "stream" as its arguments and prints one JSON line
with times in seconds.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

import orjson

from tests.benchmarks.harness import LOAD_CORE
from tests.benchmarks.wire import Connection

CALLS, STREAMS, ROUNDS, CHUNKS = 200, 40, 5, 64
PATH = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "Tell me about the weather in the mountains. " * 5}]


class Target:
    """The proxy, or the provider itself."""

    def __init__(self, base_url: str, key: str) -> None:
        self._address = base_url.removeprefix("http://").removesuffix("/v1").rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"}
        self.plain_s: list[float] = []
        self.stream_s: list[float] = []
        self.first_s: list[float] = []

    async def calls(self) -> None:
        connection = await Connection.open(self._address)
        body = {"model": "gpt-4o-mini", "messages": MESSAGES, "max_tokens": 64}
        request = connection.request("POST", PATH, self._headers, body)
        for _ in range(CALLS):
            begun_s = time.perf_counter()
            status, answer = await connection.send(request)
            self.plain_s.append(time.perf_counter() - begun_s)
            assert status == 200, answer
        connection.close()

    async def streams(self) -> None:
        reader, writer = await asyncio.open_connection(*self._address.split(":"))
        body = {"model": "gpt-4o-mini", "messages": MESSAGES, "max_tokens": CHUNKS, "stream": True}
        request = Connection(self._address).request("POST", PATH, self._headers, body)
        for _ in range(STREAMS):
            begun_s = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert b" 200 " in head, head
            first = await reader.read(1)
            self.first_s.append(time.perf_counter() - begun_s)
            assert first
            await reader.readuntil(b"\r\n0\r\n\r\n")
            self.stream_s.append(time.perf_counter() - begun_s)
        writer.close()


async def main(provider_url: str, kind: str) -> None:
    os.sched_setaffinity(0, {LOAD_CORE})
    proxy = Target(os.environ["OPENAI_BASE_URL"], os.environ["OPENAI_API_KEY"])
    provider = Target(provider_url, "sk-standin")
    for _ in range(ROUNDS):
        for target in (provider, proxy):
            await (target.calls() if kind == "plain" else target.streams())
    report = {
        name: {"plain": each.plain_s, "stream": each.stream_s, "first": each.first_s}
        for name, each in (("proxy", proxy), ("provider", provider))
    }
    sys.stdout.write(orjson.dumps(report).decode() + "\n")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
