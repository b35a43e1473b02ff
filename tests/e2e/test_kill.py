"""The server is killed without warning, again and again, while runtimes borrow and spend, and an
administrator raises their budgets.

Whatever was acknowledged is there afterwards, once; whoever asks again is told the same.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
import grpc
import pytest
from google.protobuf.message import Message

from steward.budget.v1 import budget_pb2 as pb
from steward.budget.v1.budget_pb2_grpc import BudgetServiceStub
from steward.requests.v1 import requests_pb2
from steward.requests.v1.requests_pb2_grpc import BudgetRequestServiceStub
from tests.books import Books, read_books, wrong_in
from tests.integration.conftest import refusal_of
from tests.live import Agent, Api, ServerProcess, create_agent, create_provider

RUNTIMES = 6
CALLS_AT_ONCE = 4
STREAMS = 2
ASKED_AGAIN = 20
"""Of what each runtime was told before, so much is asked again after each restart."""
BUDGET_USD = 900_000

USD = 1_000_000_000
GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
NOT_REPEATED: dict[type[Message], set[str]] = {
    pb.HandshakeResponse: {
        "ip_token",
        "seal_salt",
        "seal_info",
        "expires_at",
        "lease_duration_ms",
        "desired_state",
    },
    pb.RefreshResponse: {"lease_duration_ms"},
}
"""Sealed anew each time, counted from now, or how the lease stands by now."""


@dataclass
class Asked:
    """One call; `answer` is None while nobody knows what became of it."""

    method: str
    request: Any
    answer: Any = None
    is_refused: bool = False


@dataclass
class Runtime:
    """Borrows, reports, grows and returns, several calls at a time, and remembers every answer."""

    agent: Agent
    draw: random.Random
    asked: list[Asked] = field(default_factory=list)
    leases: set[str] = field(default_factory=set)
    answered: int = 0
    _numbers: Any = field(default_factory=count)

    async def work(self, channel: grpc.aio.Channel) -> None:
        """Until the server is gone."""
        stub = BudgetServiceStub(channel)
        await asyncio.gather(*(self._work(stub) for _ in range(CALLS_AT_ONCE)))

    async def _work(self, stub: Any) -> None:
        while True:
            asked = Asked(*self._draw_call())
            self.asked.append(asked)
            if not await self._ask(stub, asked):
                return

    async def ask_again(self, channel: grpc.aio.Channel) -> None:
        """Ask everything that is in doubt, and some of what is not."""
        stub: Any = BudgetServiceStub(channel)
        for asked in self.asked:
            if asked.answer is None and not asked.is_refused:
                assert await self._ask(stub, asked), asked
        known = [each for each in self.asked if each.answer is not None and self._is_known(each)]
        for asked in self.draw.sample(known, min(ASKED_AGAIN, len(known))):
            call = getattr(stub, asked.method)(asked.request, metadata=self.agent.metadata)
            assert lasting(await call) == lasting(asked.answer)

    def _is_known(self, asked: Asked) -> bool:
        """Whether a repetition is told the same: a lease that ended is not handed over again."""
        if asked.method == "Handshake":
            return asked.answer.lease_id in self.leases
        return asked.method != "Return"

    async def _ask(self, stub: Any, asked: Asked) -> bool:
        """Whether the server was there."""
        call = getattr(stub, asked.method)(asked.request, metadata=self.agent.metadata)
        try:
            asked.answer = await call
        except grpc.aio.AioRpcError as error:
            if error.code() in GONE:
                return False
            if refusal_of(error).reason != "LEASE_CLOSED":  # by another call of our own
                raise
            asked.is_refused = True
            self.leases.discard(asked.request.lease_id)
            return True
        self.answered += 1
        if asked.method == "Handshake":
            self.leases.add(asked.answer.lease_id)
        if asked.method == "Return":
            self.leases.discard(asked.request.lease_id)
        return True

    def _draw_call(self) -> tuple[str, Message]:
        request_id = f"request-{next(self._numbers)}"
        if len(self.leases) < 2 or self.draw.random() < 0.05:
            wanted = self.draw.randrange(1, USD)
            return "Handshake", pb.HandshakeRequest(
                requested_budget_nanousd=wanted, request_id=request_id
            )
        lease = self.draw.choice(sorted(self.leases))
        draw = self.draw.random()
        if draw < 0.8:
            return "Report", pb.ReportRequest(
                lease_id=lease,
                request_id=request_id,
                model="gpt-4o",
                cost_nanousd=self.draw.randrange(1_000),
            )
        if draw < 0.92:
            wanted = self.draw.randrange(1, 1_000_000)
            return "Refresh", pb.RefreshRequest(
                lease_id=lease, requested_budget_nanousd=wanted, request_id=request_id
            )
        return "Return", pb.ReturnRequest(lease_id=lease)


STREAMED_PER_CYCLE = 30
"""Reports each stream has acknowledged before the server is killed."""
APPROVED_PER_CYCLE = 3


@dataclass
class Streaming:
    """Reports in batches over a session, far ahead of what is acknowledged."""

    SIZE: ClassVar[int] = 10

    agent: Agent
    lease: str = ""
    acknowledged: int = 0
    resumed_with: list[tuple[int, int]] = field(default_factory=list)
    """After each cut: what had been acknowledged, and what turned out to be durable."""

    async def work(self, channel: grpc.aio.Channel) -> None:
        """Until the server is gone; takes the lease up again first."""
        call: Any = BudgetServiceStub(channel).Session(metadata=self.agent.metadata)
        try:
            await self._work(call)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, EOFError):
            return  # the server is gone
        finally:
            call.cancel()

    async def _work(self, call: Any) -> None:
        if not self.lease:
            wanted = pb.HandshakeRequest(requested_budget_nanousd=USD)
            await call.write(pb.SessionRequest(message_id=1, handshake=wanted))
            self.lease = (await _answer(call)).handshake.lease_id
        resume = pb.ResumeLease(lease_id=self.lease)
        await call.write(pb.SessionRequest(message_id=2, resume_lease=resume))
        state = (await _answer(call)).lease_resumed
        self.resumed_with.append((self.acknowledged, state.sequence))
        sending = asyncio.create_task(self._send(call, state.sequence))
        try:
            while True:
                response = await _answer(call)
                assert response.WhichOneof("message") == "report_ack", response
                assert not response.report_ack.refused, response
                self.acknowledged = response.report_ack.sequence
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _send(self, call: Any, after: int) -> None:
        for first in count(after + 1, self.SIZE):
            usages = [
                pb.Usage(request_id=f"call-{n}", sequence=n, model="gpt-4o", cost_nanousd=n % 97)
                for n in range(first, first + self.SIZE)
            ]
            batch = pb.ReportBatch(lease_id=self.lease, usages=usages)
            await call.write(pb.SessionRequest(message_id=first + 2, report_batch=batch))


@dataclass
class Administrator:
    """Has agents ask for more, approves it, often for a moment, and remembers what was said."""

    agents: Sequence[Agent]
    key: str
    draw: random.Random
    waiting: list[str] = field(default_factory=list)
    """Requests whose decision nobody knows, or that were not decided about."""
    approved: dict[str, int] = field(default_factory=dict)
    """What budgets are to be by the approvals that were answered, by request."""
    _dollars: Any = field(default_factory=lambda: count(BUDGET_USD + 1))
    """What is asked for next: more than any agent has."""

    async def work(self, channel: grpc.aio.Channel) -> None:
        """Until the server is gone."""
        stub: Any = BudgetRequestServiceStub(channel)
        try:
            while True:
                await self.decide(stub)
                await self._ask(stub)
                await asyncio.sleep(0.01)
        except grpc.aio.AioRpcError as error:
            if error.code() not in GONE:
                raise

    async def decide(self, stub: Any) -> None:
        """Approve what waits, whether it was approved before the server was killed or not."""
        for request_id in list(self.waiting):
            request = requests_pb2.ApproveBudgetRequestRequest(budget_request_id=request_id)
            try:
                answer = await stub.ApproveBudgetRequest(request, metadata=self.metadata)
                self.approved[request_id] = answer.budget_request.approved_budget_nanousd
            except grpc.aio.AioRpcError as error:
                if error.code() in GONE:
                    raise
                if refusal_of(error).reason != "REQUEST_ALREADY_REVIEWED":  # before the kill
                    raise
            self.waiting.remove(request_id)

    async def _ask(self, stub: Any) -> None:
        agent = self.draw.choice(self.agents)
        request = requests_pb2.CreateBudgetRequestRequest(
            requested_budget_nanousd=next(self._dollars) * USD,
            justification="There is so much more to do.",
            expires_in_s=self.draw.choice((None, 1, 1, 2)),
        )
        try:
            made = await stub.CreateBudgetRequest(request, metadata=agent.metadata)
        except grpc.aio.AioRpcError as error:
            if error.code() in GONE or refusal_of(error).reason != "TOO_MANY_PENDING_REQUESTS":
                raise
            return  # it asked so often while the server was killed
        self.waiting.append(made.budget_request.id)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.key}"),)

    def check(self, books: Books) -> None:
        """What was approved is in the history, once, and nothing else is."""
        raised = Counter(row.request_id for row in books.changes if row.cause == "raised")
        assert set(raised.values()) <= {1}
        told = {row.request_id: row.new_nanousd for row in books.changes if row.cause == "raised"}
        assert self.approved.items() <= told.items()


async def _answer(call: Any) -> pb.SessionResponse:
    """The next answer; what is pushed meanwhile, say that another lease of the agent ended, is not.

    Raises:
        EOFError: the stream has ended.
    """
    while (response := await call.read()) is not grpc.aio.EOF:
        if response.in_reply_to:
            answer: pb.SessionResponse = response
            return answer
    raise EOFError


def lasting(answer: Any) -> Any:
    """The part of an answer that every repetition must have, too."""
    kept = type(answer)()
    kept.CopyFrom(answer)
    for name in NOT_REPEATED.get(type(answer), ()):
        kept.ClearField(name)
    return kept


@asynccontextmanager
async def channels(server: ServerProcess, number: int) -> AsyncIterator[list[grpc.aio.Channel]]:
    """Connections of their own, as different machines have them."""
    opened = [
        grpc.aio.insecure_channel(
            server.grpc_address, options=[("grpc.use_local_subchannel_pool", 1)]
        )
        for _ in range(number)
    ]
    try:
        yield opened
    finally:
        await asyncio.gather(*(channel.close() for channel in opened))


async def share_projects(admin: Api, agents: Sequence[Agent]) -> None:
    """Two of three agents share a project's money: of one that blocks, or of one that counts."""
    projects = [
        {"name": "blocks", "budget_usd": 500_000, "period": "day"},
        {"name": "counts", "budget_usd": 1, "mode": "informative", "period": "month"},
    ]
    made = [await admin.call("POST", "/api/v1/projects", each) for each in projects]
    for number, agent in enumerate(agents):
        if number % 3 < len(made):
            body = {"project_id": made[number % 3].body["id"]}
            if number >= len(agents) // 2:
                body["budget_period"] = "week"
            moved = await admin.call("PATCH", f"/api/v1/agents/{agent.agent_id}", body)
            assert moved.status == 200, moved


@dataclass
class House:
    """A server that dies a lot, and those who use it."""

    folder: Path
    draw: random.Random
    server: ServerProcess
    runtimes: list[Runtime] = field(default_factory=list)
    streams: list[Streaming] = field(default_factory=list)
    administrators: list[Administrator] = field(default_factory=list)

    async def open(self) -> None:
        await self.server.start()
        async with aiohttp.ClientSession() as session:
            admin = await Api(f"http://{self.server.http_address}", session).sign_in()
            await create_provider(admin)
            agents = [await create_agent(admin, budget_usd=BUDGET_USD) for _ in range(RUNTIMES)]
            await share_projects(admin, agents)
            key = await admin.call("POST", "/api/v1/api-keys", {"role": "admin"})
            assert key.status == 201, key
        self.runtimes = [Runtime(agent, random.Random(self.draw.random())) for agent in agents]
        self.streams = [Streaming(agent) for agent in agents[:STREAMS]]
        draw = random.Random(self.draw.random())
        self.administrators = [Administrator(agents, key.body["key"], draw)]

    async def work_until_killed(self) -> None:
        """Put the server under load and kill it at some moment."""
        answered_before = self._answered
        approved_before = self._approved
        streamed_before = [stream.acknowledged for stream in self.streams]
        users: list[Runtime | Streaming | Administrator]
        users = [*self.runtimes, *self.streams, *self.administrators]
        async with channels(self.server, len(users)) as opened:
            working = [
                asyncio.create_task(user.work(channel))
                for user, channel in zip(users, opened, strict=True)
            ]
            # Mostly in the middle of everybody's work, sometimes before it has begun.
            while self.draw.random() < 0.9995 and (
                self._answered == answered_before
                or self._approved < approved_before + APPROVED_PER_CYCLE
                or any(
                    stream.acknowledged < before + STREAMED_PER_CYCLE
                    for stream, before in zip(self.streams, streamed_before, strict=True)
                )
            ):
                await asyncio.sleep(0.001)
            await asyncio.sleep(self.draw.uniform(0.0, 0.25))
            self.server.kill()
            await asyncio.wait_for(asyncio.gather(*working), 10)

    @property
    def _answered(self) -> int:
        return sum(runtime.answered for runtime in self.runtimes)

    @property
    def _approved(self) -> int:
        return sum(len(administrator.approved) for administrator in self.administrators)

    async def rise_again(self) -> Books:
        """Start the server, prove its books, and have everybody ask again."""
        await self.server.start()
        books = read_books(self.folder)
        assert wrong_in(books) == []
        self._check_acknowledged(books)
        async with channels(self.server, len(self.runtimes)) as opened:
            await asyncio.gather(
                *(
                    runtime.ask_again(channel)
                    for runtime, channel in zip(self.runtimes, opened, strict=True)
                )
            )
        return books

    def _check_acknowledged(self, books: Books) -> None:
        rows = {row.lsn: row for row in books.entries}
        used = Counter((row.subject, row.key) for row in books.of_kind("usage"))
        assert set(used.values()) <= {1}
        kinds = {
            "Handshake": {"lease.opened"},
            "Report": {"usage"},
            "Refresh": {"lease.grown", "lease.denied"},
            "Return": {"lease.ended"},
        }
        for runtime in self.runtimes:
            for asked in runtime.asked:
                if asked.answer is None:
                    continue
                row = rows[asked.answer.commit_number]
                assert row.agent_id == runtime.agent.agent_id
                assert row.kind in kinds[asked.method]
                if asked.method == "Report":
                    assert (row.subject, row.key) == (
                        asked.request.lease_id,
                        asked.request.request_id,
                    )
                    assert row.body["cost"] == asked.request.cost_nanousd
        for administrator in self.administrators:
            administrator.check(books)
        for stream in self.streams:
            if stream.lease:
                assert books.lease(stream.lease).sequence >= stream.acknowledged


async def survive(folder: Path, *, kills: int, seed: int) -> House:
    """Kill a server so many times; every time all that was acknowledged must be there again."""
    house = House(folder, random.Random(seed), ServerProcess(folder))
    try:
        await house.open()
        for _ in range(kills):
            await house.work_until_killed()
            await house.rise_again()
    finally:
        house.server.kill()
    return house


def acknowledged(house: House) -> Counter[str]:
    """How many calls of each method were answered."""
    return Counter(
        asked.method
        for runtime in house.runtimes
        for asked in runtime.asked
        if asked.answer is not None
    )


async def test_what_was_acknowledged_outlives_kill_9(tmp_path: Path) -> None:
    house = await survive(tmp_path, kills=3, seed=1)
    answered = acknowledged(house)
    assert answered["Report"] > 100
    assert min(answered[method] for method in ("Handshake", "Refresh", "Return")) > 5
    assert all(stream.acknowledged > 100 for stream in house.streams)
    for stream in house.streams:
        assert all(durable >= told for told, durable in stream.resumed_with)
    assert all(len(administrator.approved) > 5 for administrator in house.administrators)


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(10))
async def test_what_was_acknowledged_outlives_two_hundred_kills(tmp_path: Path, seed: int) -> None:
    house = await survive(tmp_path, kills=20, seed=100 + seed)
    assert acknowledged(house)["Report"] > 500
