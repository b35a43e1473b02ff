"""One stream of a caller that steps at high frequency: agents by number, messages under way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steward.inference.v1 import inference_pb2 as pb
from steward_server.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    StewardError,
)
from steward_server.inference.arena import Lease
from steward_server.inference.engine import Engine
from steward_server.inference.manifest import ActionType
from steward_server.inference.metering import Owner
from steward_server.inference.model import Floats
from steward_server.inference.reading import fill_step, not_finite, observation_of, wrong_length
from steward_server.inference.runner import Results, Step
from steward_server.inference.served import Agent, Served

UNDER_WAY = 64
"""Messages that are taken before the first of them is answered."""


class _Answer:
    """What a message is answered with, once that is there."""

    __slots__ = ("_agents", "_sequence", "_told", "waited")

    def __init__(
        self,
        sequence: int,
        waited: asyncio.Future[Any],
        told: Callable[[Any], pb.StreamResponse] | None = None,
        agents: Sequence[Agent] = (),
    ) -> None:
        """`told` makes the answer of what is waited for; `agents` step meanwhile."""
        self._sequence = sequence
        self.waited = waited
        self._told = told
        self._agents = agents

    async def response(self) -> pb.StreamResponse:
        """It, or why it is refused."""
        try:
            made = await self.waited
            response: pb.StreamResponse = self._told(made) if self._told is not None else made
        except StewardError as error:
            response = pb.StreamResponse(refusal=error.to_status())
        finally:
            self.drop()
        response.sequence = self._sequence
        return response

    def drop(self) -> None:
        """Nobody waits for it any more."""
        if not self.waited.cancel() and not self.waited.cancelled():
            self.waited.exception()  # seen
        for agent in self._agents:
            agent.made_step()
        self._agents = ()


class Conversation:
    """What one stream has begun, and its answers."""

    def __init__(self, engine: Engine, owner: Owner, *, max_batch: int) -> None:
        self._engine = engine
        self._owner = owner
        self._max_batch = max_batch
        self._loop = asyncio.get_running_loop()  # asking for it is a system call, in Python 3.11
        self._agents: dict[int, Agent] = {}
        """By the numbers they were given; none is given twice."""
        self._next = 0
        self._own: list[Agent] = []
        """Those that end with the stream."""
        self._all: tuple[Served, list[Agent], Lease] | None = None

    async def answers(
        self, requests: AsyncIterator[pb.StreamRequest]
    ) -> AsyncIterator[pb.StreamResponse]:
        """An answer to each message, in their order."""
        queue: asyncio.Queue[_Answer | None] = asyncio.Queue(UNDER_WAY)
        reader = asyncio.create_task(self._read(requests, queue))
        try:
            while (answer := await queue.get()) is not None:
                yield await answer.response()
            await reader
        finally:
            reader.cancel()
            while not queue.empty():  # which makes room: the reader may wait to put something in
                if (answer := queue.get_nowait()) is not None:
                    answer.drop()
            with suppress(asyncio.CancelledError, Exception):
                await reader
            for agent in self._own:
                self._engine.end(agent)

    async def _read(
        self, requests: AsyncIterator[pb.StreamRequest], queue: asyncio.Queue[_Answer | None]
    ) -> None:
        before: _Answer | None = None
        try:
            async for request in requests:
                changes = request.WhichOneof("message") in ("open", "close")
                if changes and before is not None:
                    await asyncio.wait({before.waited})
                before = self._begun(request)
                try:
                    await queue.put(before)
                except asyncio.CancelledError:
                    before.drop()
                    raise
                if changes:
                    await asyncio.wait({before.waited})  # the next may name what this brings
        finally:
            await queue.put(None)

    def _begun(self, request: pb.StreamRequest) -> _Answer:
        """Begin with a message: in a task of its own only if it takes more than the step."""
        try:
            if (
                request.WhichOneof("message") in ("step", "packed")
                and not request.timeout_ms
                and not self._engine.charges(self._owner)
            ):
                return self._stepping(request)
            work = self._answered(request)
            waited = _timed(work, request.timeout_ms) if request.timeout_ms else work
            return _Answer(request.sequence, self._loop.create_task(waited))
        except StewardError as error:
            refused = self._loop.create_future()
            refused.set_exception(error)
            return _Answer(request.sequence, refused)

    async def _answered(self, request: pb.StreamRequest) -> pb.StreamResponse:
        match request.WhichOneof("message"):
            case "step":
                agent = self._agent(request.step.agent)
                await self._engine.charge(self._owner, agent.served, 1)
                return await self._stepping(request).response()
            case "packed":
                served, agents, _ = self._rows_of(request.packed.agents)
                await self._engine.charge(self._owner, served, len(agents))
                return await self._stepping(request).response()
            case "open":
                return pb.StreamResponse(opened=await self._open(request.open))
            case "close":
                self._close(request.close)
                return pb.StreamResponse(closed=pb.StreamClosed())
        raise InvalidArgument.of({"message": "is missing; send open, step, packed or close"})

    def _stepping(self, request: pb.StreamRequest) -> _Answer:
        """Let agents step."""
        if request.HasField("packed"):
            packed = request.packed
            served, agents, lease = self._rows_of(packed.agents)
            results = self._engine.begin(
                agents,
                lease,
                _unpacked(packed.observations, len(agents), served),
                deterministic=packed.deterministic,
            )
            return _Answer(request.sequence, results, partial(_packed, served), agents)
        agent = self._agent(request.step.agent)
        step = self._engine.begin_one(
            agent,
            observation_of(request.step.observation, agent.served),
            deterministic=request.step.deterministic,
        )
        return _Answer(request.sequence, step, partial(_stepped, agent.agent_id), (agent,))

    async def _open(self, request: pb.StreamOpen) -> pb.StreamOpened:
        before = len(self._agents)
        if not request.agents or before + len(request.agents) > self._max_batch:
            raise InvalidArgument.of(
                {
                    "agents": f"has {len(request.agents)}, beside {before}; a stream has 1 to "
                    f"{self._max_batch}"
                }
            )
        kept = len(self._own)
        try:
            brought = [await self._brought(each) for each in request.agents]
        except BaseException:
            for agent in self._own[kept:]:
                self._engine.end(agent)
            del self._own[kept:]
            raise
        first = self._next
        self._next += len(brought)
        self._agents |= {first + at: agent for at, (agent, _) in enumerate(brought)}
        self._all = None
        return pb.StreamOpened(
            first=first,
            policies=[str(agent.served.reference) for agent, _ in brought],
            begun=[begun for _, begun in brought],
        )

    async def _brought(self, wanted: pb.StreamAgent) -> tuple[Agent, bool]:
        """The agent, and whether its sequence begins now."""
        engine, owner = self._engine, self._owner
        seed = wanted.seed if wanted.HasField("seed") else None
        if not wanted.agent_id:
            agent = await engine.begin_nameless(owner, wanted.policy, seed)
            self._own.append(agent)
            return agent, True
        if not (wanted.reset or wanted.policy or seed is not None):
            with suppress(FailedPrecondition):
                return engine.agent(owner, wanted.agent_id), False
        return await engine.reset(owner, wanted.agent_id, wanted.policy, seed), True

    def _close(self, request: pb.StreamClose) -> None:
        for agent in [self._agent(number) for number in request.agents]:
            if agent in self._own:
                self._own.remove(agent)
                self._engine.end(agent)
        for number in request.agents:
            self._agents.pop(number, None)
        self._all = None

    def _agent(self, number: int) -> Agent:
        agent = self._agents.get(number)
        if agent is None:
            raise InvalidArgument.of(
                {"agent": f"is {number}, and the stream has no agent of this number"}
            )
        return agent

    def _rows_of(self, numbers: Sequence[int]) -> tuple[Served, list[Agent], Lease]:
        if not numbers:
            if self._all is None:
                self._all = _together(list(self._agents.values()))
            return self._all
        if len(set(numbers)) != len(numbers):
            raise InvalidArgument.of({"agents": "has a number twice; send two messages"})
        return _together([self._agent(each) for each in numbers])


def _together(agents: list[Agent]) -> tuple[Served, list[Agent], Lease]:
    if not agents:
        raise InvalidArgument.of({"agents": "is empty, and the stream has no agents; open some"})
    served = agents[0].served
    if any(each.served is not served for each in agents):
        raise InvalidArgument.of(
            {"agents": "have several policies, or versions of one; send a message for each"}
        )
    return served, agents, Lease.of_all([each.lease for each in agents])


def _unpacked(packed: bytes, count: int, served: Served) -> Floats:
    wanted = served.manifest.obs_dim
    if len(packed) != 4 * wanted * count:
        raise wrong_length(wanted * count, len(packed) // 4, "observations")
    rows: NDArray[np.float32] = np.frombuffer(packed, "<f4").reshape(count, wanted)
    if not np.isfinite(rows).all():
        raise not_finite("observations")
    return rows


def _packed(served: Served, results: Results) -> pb.StreamResponse:
    discrete = served.manifest.action.type is ActionType.DISCRETE
    failed = np.flatnonzero(results.failed).tolist() if results.failed.any() else ()
    response = pb.StreamResponse()
    packed = response.packed
    packed.actions = results.actions.astype("<i4" if discrete else "<f4").tobytes()
    packed.values = results.values.astype("<f4").tobytes()
    packed.log_probs = results.log_probs.astype("<f4").tobytes()
    packed.pressures = results.pressures.astype("<f4").tobytes()
    packed.failed.extend(failed)
    return response


def _stepped(agent_id: str, step: Step) -> pb.StreamResponse:
    response = pb.StreamResponse()
    fill_step(response.step, step, agent_id)
    return response


async def _timed(work: Awaitable[pb.StreamResponse], timeout_ms: int) -> pb.StreamResponse:
    try:
        async with asyncio.timeout(timeout_ms / 1000):
            return await work
    except TimeoutError:
        raise DeadlineExceeded(
            f"it took longer than {timeout_ms} ms; the step may have been made"
        ) from None
