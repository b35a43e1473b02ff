"""BudgetService on the wire: unary calls here, the bidirectional stream in `session.py`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from steward.budget.v1 import budget_pb2 as pb
from steward.budget.v1.budget_pb2_grpc import BudgetServiceServicer
from steward_server.budget.room import BudgetRoom
from steward_server.budget.session import answer
from steward_server.calls import Context, call_of


class BudgetService(BudgetServiceServicer):
    """Translates calls."""

    def __init__(self, room: BudgetRoom) -> None:
        self._room = room

    async def Handshake(
        self, request: pb.HandshakeRequest, context: Context
    ) -> pb.HandshakeResponse:
        return await self._room.handshake(call_of(context), request)

    async def Report(self, request: pb.ReportRequest, context: Context) -> pb.ReportResponse:
        return await self._room.report(call_of(context), request)

    async def Refresh(self, request: pb.RefreshRequest, context: Context) -> pb.RefreshResponse:
        return await self._room.refresh(call_of(context), request)

    async def Return(self, request: pb.ReturnRequest, context: Context) -> pb.ReturnResponse:
        return await self._room.give_back(call_of(context), request)

    async def Session(
        self, request_iterator: AsyncIterator[pb.SessionRequest], context: Context
    ) -> AsyncIterator[pb.SessionResponse]:
        # It may stay silent for long: this is how its opener learns that it stands.
        await context.send_initial_metadata(())
        async with aclosing(answer(self._room, call_of(context), request_iterator)) as responses:
            async for response in responses:
                yield response
