"""A runtime's end of a session, as plain as can be: what is sent and what comes back."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc

from steward.budget.v1 import budget_pb2 as pb
from steward.budget.v1.budget_pb2_grpc import BudgetServiceStub
from tests.integration.budget.conftest import USD, WAIT_S, usage_fields
from tests.live import Agent


def usages(count: int, *, first: int = 1, **fields: Any) -> list[pb.Usage]:
    """Numbered usages, each costing as many nano-dollars as its number."""
    return [
        pb.Usage(**usage_fields(**{"sequence": number, "cost_nanousd": number} | fields))
        for number in range(first, first + count)
    ]


def batch(lease_id: str, reported: list[pb.Usage]) -> pb.ReportBatch:
    return pb.ReportBatch(lease_id=lease_id, usages=reported)


class Runtime:
    """One open stream. What the server says by itself is kept apart, in `controls`."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.controls: deque[pb.Control] = deque()
        self._last_id = 0

    async def send(self, **message: Any) -> int:
        """Send one message and return its id."""
        self._last_id += 1
        await self.call.write(pb.SessionRequest(message_id=self._last_id, **message))
        return self._last_id

    async def read(self) -> pb.SessionResponse:
        """The next answer to something that was sent."""
        while (response := await self._read()).in_reply_to == 0:
            self.controls.append(response.control)
        return response

    async def ask(self, **message: Any) -> Any:
        """Send one message and return the member of the answer that is set."""
        message_id = await self.send(**message)
        response = await self.read()
        assert response.in_reply_to == message_id
        return getattr(response, str(response.WhichOneof("message")))

    async def handshake(self, amount_nanousd: int = USD, **fields: Any) -> str:
        """Take a lease and return its id."""
        wanted = pb.HandshakeRequest(requested_budget_nanousd=amount_nanousd, **fields)
        granted = await self.ask(handshake=wanted)
        assert isinstance(granted, pb.HandshakeResponse), granted
        return granted.lease_id

    async def control(self, wanted: Callable[[pb.Control], object]) -> pb.Control:
        """The next thing the server says by itself that is wanted; drops those before it."""
        while True:
            while self.controls:
                if wanted(control := self.controls.popleft()):
                    return control
            response = await self._read()
            assert response.in_reply_to == 0, response
            self.controls.append(response.control)

    async def end(self) -> list[pb.SessionResponse]:
        """Say that nothing more comes, and return what was still to be answered."""
        await self.call.done_writing()
        rest = []
        while (response := await asyncio.wait_for(self.call.read(), WAIT_S)) is not grpc.aio.EOF:
            rest.append(response)
        return [response for response in rest if response.in_reply_to]

    async def _read(self) -> pb.SessionResponse:
        response = await asyncio.wait_for(self.call.read(), WAIT_S)
        assert response is not grpc.aio.EOF, "the server ended the stream"
        return response  # type: ignore[no-any-return]


@asynccontextmanager
async def session(channel: grpc.aio.Channel, agent: Agent) -> AsyncIterator[Runtime]:
    """Open a stream; it is cut at the end of the block."""
    call: Any = BudgetServiceStub(channel).Session(metadata=agent.metadata)
    try:
        yield Runtime(call)
    finally:
        call.cancel()
