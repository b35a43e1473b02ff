"""Thousands of concurrent calls of the real server, judged as if one had come after the other."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from steward.agents.v1 import agents_pb2
from steward.agents.v1.agents_pb2_grpc import AgentServiceStub
from steward.budget.v1 import budget_pb2 as pb
from steward.budget.v1.budget_pb2_grpc import BudgetServiceStub
from steward_gateway.transport import RpcFailure
from steward_server.in_process import InProcess
from tests.books import Books
from tests.integration.budget import observations
from tests.integration.budget.conftest import USD, Bank, open_bank
from tests.integration.budget.observations import Observation
from tests.live import Agent
from tests.property.budget import history
from tests.property.budget.history import Call
from tests.property.budget.model import Model

AGENTS = 6
BUDGET = 400 * USD
STATES = {
    pb.LEASE_STATE_ACTIVE: "active",
    pb.LEASE_STATE_DRAINING: "draining",
    pb.LEASE_STATE_CLOSED: "closed",
    pb.LEASE_STATE_EXPIRED: "expired",
    pb.LEASE_STATE_REVOKED: "revoked",
}
SERVICES = {"BudgetService": "steward.budget.v1", "AgentService": "steward.agents.v1"}

Metadata = tuple[tuple[str, str], ...]
Door = Callable[[str, str, Any, Metadata], Awaitable[Any]]


class Refused(Exception):
    """A call was refused, with these facts."""

    def __init__(self, status: status_pb2.Status | None) -> None:
        info = error_details_pb2.ErrorInfo()
        assert status is not None
        assert any(detail.Unpack(info) for detail in status.details), status
        super().__init__(info.reason)
        self.reason, self.facts = info.reason, dict(info.metadata)


def over_grpc(channel: grpc.aio.Channel) -> Door:
    stubs: dict[str, Any] = {
        "BudgetService": BudgetServiceStub(channel),
        "AgentService": AgentServiceStub(channel),
    }

    async def ask(service: str, method: str, request: Any, metadata: Metadata) -> Any:
        try:
            return await getattr(stubs[service], method)(request, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise Refused(rpc_status.from_call(error)) from None  # type: ignore[arg-type]

    return ask


def in_process(door: InProcess) -> Door:
    async def ask(service: str, method: str, request: Any, metadata: Metadata) -> Any:
        name = f"/{SERVICES[service]}.{service}/{method}"
        try:
            reply = await door.unary(name, request, metadata=metadata)
        except RpcFailure as failure:
            raise Refused(failure.details) from None
        return reply.message

    return ask


@dataclass
class Recorder:
    """Everything that the callers asked and were told."""

    admin: Metadata
    calls: list[Call] = field(default_factory=list)
    observed: list[Observation] = field(default_factory=list)
    stops: list[tuple[str, int, int]] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    reallocations: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        asked = len(self.calls) + len(self.observed) + len(self.stops) + len(self.reallocations)
        return asked + self.refusals.total()


@dataclass
class Caller:
    """One runtime, or administrator, among many."""

    name: str
    door: Door
    recorder: Recorder
    draw: random.Random

    async def ask(
        self, service: str, method: str, request: Any, metadata: Metadata
    ) -> tuple[Any, int, int]:
        """The answer, and when it was asked for and given."""
        invoked = time.monotonic_ns()
        answer = await self.door(service, method, request, metadata)
        return answer, invoked, time.monotonic_ns()

    def note(
        self, when: tuple[int, int], operation: str, arguments: Any, answer: Any, lsn: int
    ) -> None:
        call = Call(self.name, *when, operation, arguments, answer, lsn)
        self.recorder.calls.append(call)

    async def borrow(self, agent: Agent) -> str | None:
        wanted = self.draw.choice((None, USD // 10, self.draw.randrange(1, 20 * USD)))
        request = pb.HandshakeRequest(requested_budget_nanousd=wanted)
        invoked = time.monotonic_ns()
        try:
            granted, *when = await self.ask("BudgetService", "Handshake", request, agent.metadata)
        except Refused as refused:
            if refused.reason != "BUDGET_EXCEEDED":
                self.recorder.refusals[refused.reason] += 1
                return None
            left = int(refused.facts["available_nanousd"])
            self.recorder.observed.append(
                Observation(
                    f"{self.name}'s refusal of {wanted} with {left} left",
                    agent.agent_id,
                    invoked,
                    time.monotonic_ns(),
                    lambda account: account.available_nanousd == left,
                )
            )
            return None
        arguments = {
            "lease": granted.lease_id,
            "agent": agent.agent_id,
            "requested": wanted,
            "minimum": 0,
        }
        answer = {
            "outcome": "granted",
            "granted": granted.budget_granted_nanousd,
            "partial": granted.partial,
            "available": granted.budget_remaining_nanousd,
        }
        self.note((when[0], when[1]), "handshake", arguments, answer, granted.commit_number)
        return str(granted.lease_id)

    async def report(self, agent: Agent, lease: str, request_id: str, cost: int) -> None:
        request = pb.ReportRequest(
            lease_id=lease, request_id=request_id, model="gpt-4o", cost_nanousd=cost
        )
        try:
            booked, *when = await self.ask("BudgetService", "Report", request, agent.metadata)
        except Refused as refused:
            self.recorder.refusals[refused.reason] += 1
            return
        arguments = {"lease": lease, "request": request_id, "sequence": 0, "cost": cost}
        answer = {
            "outcome": "booked",
            "sequence": booked.sequence,
            "cost": booked.cost_nanousd,
            "overrun": booked.overrun_nanousd,
            "lease_spent": booked.lease_spent_nanousd,
            "lease_remaining": booked.lease_remaining_nanousd,
            "state": STATES[booked.lease_status],
            "available": booked.budget_remaining_nanousd,
        }
        self.note((when[0], when[1]), "report", arguments, answer, booked.commit_number)

    async def grow(self, agent: Agent, lease: str, amount: int) -> None:
        request = pb.RefreshRequest(lease_id=lease, requested_budget_nanousd=amount)
        grown, *when = await self.ask("BudgetService", "Refresh", request, agent.metadata)
        if grown.status == "denied":
            # Of a stopped agent's lease the model, which knows no agents, says what it is.
            reason = grown.reason if grown.reason != "agent_stopped" else "lease_draining"
            answer = {"outcome": "denied", "reason": reason}
        else:
            answer = {
                "outcome": "grown",
                "added": grown.budget_granted_nanousd,
                "partial": grown.partial,
                "lease_granted": grown.lease_granted_nanousd,
                "available": grown.budget_remaining_nanousd,
            }
        arguments = {"lease": lease, "requested": amount}
        self.note((when[0], when[1]), "refresh", arguments, answer, grown.commit_number)

    async def give_back(self, agent: Agent, lease: str) -> None:
        request = pb.ReturnRequest(lease_id=lease)
        try:
            returned, *when = await self.ask("BudgetService", "Return", request, agent.metadata)
        except Refused as refused:
            self.recorder.refusals[refused.reason] += 1
            return
        answer = {
            "outcome": "ended",
            "returned": returned.returned_nanousd,
            "state": STATES[returned.lease_status],
            "available": returned.budget_remaining_nanousd,
        }
        when_ = (when[0], when[1])
        self.note(when_, "give_back", {"lease": lease}, answer, returned.commit_number)

    async def look(self, agent: Agent) -> None:
        request = agents_pb2.GetAgentStatusRequest(agent_id=agent.agent_id)
        status, invoked, returned = await self.ask(
            "AgentService", "GetAgentStatus", request, self.recorder.admin
        )
        told = status.budget
        seen = (told.limit_nanousd, told.spent_nanousd, told.reserved_nanousd, told.overrun_nanousd)
        self.recorder.observed.append(
            Observation(
                f"{self.name}'s reading {seen}",
                agent.agent_id,
                invoked,
                returned,
                lambda account: (
                    seen
                    == (
                        account.allocated_nanousd,
                        account.spent_nanousd,
                        account.leased_nanousd,
                        account.overrun_nanousd,
                    )
                ),
                status.commit_number,
            )
        )

    async def use(self, agents: list[Agent], rounds: int) -> None:
        """Borrow, spend, repeat, look and return, over and over."""
        draw = self.draw
        for turn in range(rounds):
            agent = draw.choice(agents)
            lease = await self.borrow(agent)
            if lease is not None:
                for number in range(draw.randrange(8)):
                    request_id, cost = f"{self.name}-{turn}-{number}", draw.randrange(USD // 50)
                    times = 2 if draw.random() < 0.2 else 1
                    report = (self.report(agent, lease, request_id, cost) for _ in range(times))
                    await asyncio.gather(*report)
                if draw.random() < 0.3:
                    await self.grow(agent, lease, draw.randrange(1, 5 * USD))
                returns = [self.give_back(agent, lease)]
                if draw.random() < 0.2:
                    returns.append(self.report(agent, lease, f"{self.name}-{turn}-late", 5))
                await asyncio.gather(*returns)
            if draw.random() < 0.3:
                await self.look(agent)

    async def administer(self, agents: list[Agent], until: asyncio.Event) -> None:
        """Stop and start agents, and change their budgets, while the others work."""
        recorder = self.recorder
        while not until.is_set():
            agent = self.draw.choice(agents)
            stop = agents_pb2.StopAgentRequest(agent_id=agent.agent_id)
            _, invoked, returned = await self.ask("AgentService", "StopAgent", stop, recorder.admin)
            recorder.stops.append((agent.agent_id, invoked, returned))
            await asyncio.sleep(0.01)
            start = agents_pb2.StartAgentRequest(agent_id=agent.agent_id)
            await self.ask("AgentService", "StartAgent", start, recorder.admin)
            amount = BUDGET + self.draw.randrange(-BUDGET, BUDGET) // 2
            update = agents_pb2.UpdateAgentRequest(agent_id=agent.agent_id, budget_nanousd=amount)
            try:
                _, *when = await self.ask("AgentService", "UpdateAgent", update, recorder.admin)
            except Refused as refused:
                recorder.refusals[refused.reason] += 1
            else:
                recorder.reallocations[agent.agent_id, amount] = (when[0], when[1])
            await asyncio.sleep(0.05)


def by_the_administrator(books: Books, recorder: Recorder) -> list[Call]:
    """What the administrator's calls did: their answers name no commit, but the journal does."""
    calls = []
    for row in books.of_kind("account.reallocated"):
        key = (row.subject, row.body["allocated"])
        arguments = {"account": row.subject, "allocated": row.body["allocated"]}
        calls.append(
            Call(
                "administrator",
                *recorder.reallocations[key],
                "reallocate",
                arguments,
                {"outcome": "reallocated"},
                row.lsn,
            )
        )
    stops = books.of_kind("agent.stopping")
    assert len(stops) == len(recorder.stops)
    times = {row.lsn: when for row, (_, *when) in zip(stops, recorder.stops, strict=True)}
    newest_stop: dict[str, int] = {}
    for row in books.entries:
        if row.kind == "agent.stopping":
            newest_stop[row.agent_id] = row.lsn
        if row.kind == "lease.draining" and row.body["why"] == "agent_stopped":
            invoked, returned = times[newest_stop[row.agent_id]]
            calls.append(
                Call(
                    "administrator",
                    invoked,
                    returned,
                    "revoke",
                    {"lease": row.subject},
                    {"outcome": "draining"},
                    row.lsn,
                )
            )
    return calls


async def record(bank: Bank, *, callers: int, rounds: int) -> tuple[Recorder, list[Agent]]:
    """The history of many callers at once, an eighth of them over sockets."""
    agents = [await bank.agent(budget_usd=BUDGET // USD) for _ in range(AGENTS)]
    recorder = Recorder(bank.admin)
    doors = [over_grpc(bank.live.channel), in_process(InProcess(bank.live.running.dispatcher))]
    done = asyncio.Event()

    def caller(number: int) -> Caller:
        draw = random.Random(number)
        return Caller(f"caller_{number}", doors[number % 8 > 0], recorder, draw)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(caller(callers).administer(agents, done))
        async with asyncio.TaskGroup() as runtimes:
            for number in range(callers):
                runtimes.create_task(caller(number).use(agents, rounds))
        done.set()
    return recorder, agents


async def judge(folder: Path, *, callers: int, rounds: int) -> Recorder:
    """Record a history and hold it against the model; it is given back if nothing is wrong."""
    async with open_bank(folder) as bank:
        recorder, agents = await record(bank, callers=callers, rounds=rounds)
        books = bank.sound_books()
    calls = recorder.calls + by_the_administrator(books, recorder)
    model = Model()
    for agent in agents:
        model.open_account(account=agent.agent_id, parent=None, allocated=BUDGET, at_us=0)
    assert history.check(calls, model=model) == []
    assert observations.check(recorder.observed, calls, books.entries) == []
    return recorder


def outcomes(recorder: Recorder) -> Counter[str]:
    return Counter(call.answer["outcome"] for call in recorder.calls)


@pytest.mark.parametrize(
    ("rounds", "count"),
    [
        pytest.param(15, 6_000, id="six thousand"),
        pytest.param(50, 20_000, id="twenty thousand", marks=pytest.mark.proof),
    ],
)
async def test_thousands_of_concurrent_calls_have_one_order(
    tmp_path: Path, rounds: int, count: int
) -> None:
    recorder = await judge(tmp_path, callers=64, rounds=rounds)
    assert recorder.count > count
    seen = outcomes(recorder)
    assert min(seen[each] for each in ("granted", "booked", "grown", "denied", "ended")) > 0
    assert recorder.refusals.keys() <= {"AGENT_STOPPED", "LEASE_CLOSED", "BUDGET_BELOW_COMMITTED"}


@pytest.mark.proof
async def test_a_hundred_thousand_concurrent_calls_have_one_order(tmp_path: Path) -> None:
    recorder = await judge(tmp_path, callers=128, rounds=130)
    assert recorder.count > 100_000
