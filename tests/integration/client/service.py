"""A budget service in memory that keeps the contract, but for what a test has it do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2

from steward.budget.v1 import budget_pb2 as pb
from steward.budget.v1.budget_pb2_grpc import BudgetServiceServicer
from steward_client.seal import seal_aes256, seal_hpke, seal_info

TOKEN = "ic_test"
KEY = "sk-lent"


def refusal(code: grpc.StatusCode, reason: str, **facts: str) -> status_pb2.Status:
    detail = AnyMessage()
    detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="steward", metadata=facts))
    return status_pb2.Status(code=code.value[0], message=reason, details=[detail])


@dataclass
class Books(BudgetServiceServicer):
    """The ledger, and what is to go wrong."""

    free_nanousd: int = 10_000_000
    duration_ms: int = 60_000
    textual_seal: bool = False
    wrong_seal: bool = False
    refused: dict[str, status_pb2.Status] = field(default_factory=dict)
    """Reports never booked, by request id."""
    swallowed: Callable[[pb.SessionRequest], bool] = lambda request: False
    """Messages that are done and not answered, after which the stream ends."""
    silent: Callable[[pb.SessionRequest], bool] = lambda request: False
    """Messages that are neither done nor answered."""
    booked: dict[str, list[pb.Usage]] = field(default_factory=dict)
    granted: dict[str, int] = field(default_factory=dict)
    grown: dict[str, pb.SessionResponse] = field(default_factory=dict)
    closed: dict[str, int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    streams: int = 0
    pushes: asyncio.Queue[pb.Control] = field(default_factory=asyncio.Queue)

    async def Handshake(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

    Report = Refresh = Return = Handshake

    async def Session(self, requests: Any, context: Any) -> AsyncIterator[pb.SessionResponse]:
        await context.send_initial_metadata(())  # as the server does, to say that it stands
        self.streams += 1
        answers: asyncio.Queue[pb.SessionResponse | None] = asyncio.Queue()

        async def read() -> None:
            async for request in requests:
                self.asked.append(request.WhichOneof("message"))
                if self.silent(request):
                    continue
                response = self.answer(request)
                if self.swallowed(request):
                    self.swallowed = lambda request: False
                    await answers.put(None)
                    return
                response.in_reply_to = request.message_id
                await answers.put(response)
            await answers.put(None)

        async def push() -> None:
            while True:
                await answers.put(pb.SessionResponse(control=await self.pushes.get()))

        tasks = [asyncio.create_task(read()), asyncio.create_task(push())]
        try:
            while (response := await answers.get()) is not None:
                yield response
            await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
        finally:
            for task in tasks:
                task.cancel()

    def answer(self, request: pb.SessionRequest) -> pb.SessionResponse:
        kind = request.WhichOneof("message")
        if kind == "handshake":
            return self.lend(request.handshake)
        if kind == "report_batch":
            return self.book(request.report_batch)
        if kind == "refresh":
            return self.grow(request.refresh)
        if kind == "resume_lease":
            lease_id = request.resume_lease.lease_id
            return pb.SessionResponse(
                lease_resumed=pb.LeaseResumed(
                    lease_id=lease_id,
                    lease_status=pb.LEASE_STATE_ACTIVE,
                    sequence=len(self.booked[lease_id]),
                    lease_granted_nanousd=self.granted[lease_id],
                    lease_duration_ms=self.duration_ms,
                    desired_state=pb.DESIRED_STATE_RUNNING,
                )
            )
        if kind == "return_lease":
            lease_id = request.return_lease.lease_id
            self.closed[lease_id] = sum(usage.cost_nanousd for usage in self.booked[lease_id])
            return pb.SessionResponse(return_lease=pb.ReturnResponse(success=True))
        return pb.SessionResponse(heartbeat=pb.SessionHeartbeat())

    def lend(self, request: pb.HandshakeRequest) -> pb.SessionResponse:
        amount = min(request.requested_budget_nanousd, self.free_nanousd)
        if amount == 0:
            status = refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "BUDGET_EXCEEDED")
            return pb.SessionResponse(refusal=status)
        self.free_nanousd -= amount
        lease_id = f"lease_{len(self.granted) + 1}"
        self.granted[lease_id] = amount
        self.booked[lease_id] = []
        info = seal_info(lease_id=lease_id, agent_id="agent_1", expires_at_ms=1)
        lent = pb.HandshakeResponse(
            lease_id=lease_id,
            budget_granted_nanousd=amount,
            lease_duration_ms=self.duration_ms,
            provider="openai",
            provider_kind="openai",
            base_url="http://127.0.0.1:9",
            agent_id="agent_1",
            seal_info=b"other" if self.wrong_seal else info,
            seal_format=pb.SEAL_FORMAT_HPKE,
            desired_state=pb.DESIRED_STATE_RUNNING,
        )
        if self.textual_seal:
            lent.seal_format = pb.SEAL_FORMAT_AES256
            lent.seal_salt = b"salt"
            lent.ip_token = seal_aes256(KEY, ic_token=TOKEN, salt=b"salt", info=info)
        else:
            lent.ip_token = seal_hpke(KEY, public_key=request.public_key, info=info)
        return pb.SessionResponse(handshake=lent)

    def grow(self, request: pb.RefreshRequest) -> pb.SessionResponse:
        if request.request_id in self.grown:
            return self.grown[request.request_id]
        amount = min(request.requested_budget_nanousd, self.free_nanousd)
        self.free_nanousd -= amount
        self.granted[request.lease_id] += amount
        self.grown[request.request_id] = pb.SessionResponse(
            refresh=pb.RefreshResponse(
                status="approved" if amount else "denied",
                reason="" if amount else "insufficient_budget",
                lease_id=request.lease_id,
                budget_granted_nanousd=amount,
                lease_granted_nanousd=self.granted[request.lease_id],
                lease_duration_ms=self.duration_ms,
            )
        )
        return self.grown[request.request_id]

    def book(self, batch: pb.ReportBatch) -> pb.SessionResponse:
        ack = pb.ReportAck(lease_id=batch.lease_id, lease_status=pb.LEASE_STATE_ACTIVE)
        books = self.booked[batch.lease_id]
        self.batches.append(len(batch.usages))
        for index, usage in enumerate(batch.usages):
            status = self.refused.get(usage.request_id)
            known = any(usage.request_id == each.request_id for each in books)
            if status is None and not known and usage.sequence != len(books) + 1:
                status = refusal(
                    grpc.StatusCode.OUT_OF_RANGE, "SEQUENCE_GAP", expected=str(len(books) + 1)
                )
            if status is not None:
                ack.refused.add(index=index, request_id=usage.request_id, status=status)
                continue
            if not known:
                books.append(usage)
            ack.sequence = max(ack.sequence, usage.sequence)
        return pb.SessionResponse(report_ack=ack)
