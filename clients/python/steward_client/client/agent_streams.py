"""One stream to the server for the steps of many agents, several messages under way.

`AsyncAgentStream` lives on an event loop; `AgentStream` is the same for code that has none. A
stream that breaks is never mended in silence: what the policies kept of its agents may be lost, and
only the caller knows what that means.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc
import grpc.aio

from steward.inference.v1 import inference_pb2 as pb
from steward.inference.v1.inference_pb2_grpc import InferenceServiceStub
from steward_client.client.aside import Aside
from steward_client.client.calls import Call, nothing
from steward_client.client.policies import PolicyVersion
from steward_client.client.steps import Step, Steps, packed, step_of, steps_of, without_rows
from steward_client.errors import (
    DeadlineExceeded,
    InvalidRequest,
    StewardError,
    StreamBroken,
    Unavailable,
    error_of,
    error_of_status,
)

if TYPE_CHECKING:
    from steward_client.client.awaiting import AsyncClient

LASTING_S = 3_000.0
"""A stream is begun with a sign-in that is good for nearly the hour it can be."""
HANG_UP_S = 1.0
"""How long the server may take to let go of a stream's agents; it takes milliseconds."""


@dataclass(frozen=True, slots=True)
class StreamAgent:
    """An agent that a stream brings."""

    agent_id: str = ""
    """Empty: an agent of the stream alone, which ends with it."""
    policy: str = ""
    seed: int | None = None
    reset: bool = False
    """Begin it anew. Without that, a policy or a seed, one that is there already goes on."""


class AsyncAgentStream:
    """Agents of one stream, by number, from 0 on; an asynchronous context manager.

    Many tasks may share it. Steps are made in the order in which they are asked for. It ends with
    the sign-in it was opened with, in an hour: what takes longer shows an API key or a token that
    is good for longer.
    """

    def __init__(
        self,
        client: AsyncClient,
        agents: Sequence[StreamAgent],
        *,
        timeout_s: float | None,
        in_flight: int,
    ) -> None:
        if in_flight < 1:
            raise ValueError(f"in_flight is {in_flight}; at least 1 message must be under way")
        self.in_flight = in_flight
        self.policies: tuple[str, ...] = ()
        """Of each agent, with its version."""
        self.begun: tuple[bool, ...] = ()
        """Of each agent, whether its sequence began when the stream brought it; else it went on."""
        self._client = client
        self._agents = list(agents)
        self._timeout_s = timeout_s
        self._room = asyncio.Semaphore(in_flight)
        self._line: _Line | None = None
        self._numbers: list[int] = []
        """How the server calls each agent."""
        self._is_in_order = True
        """Whether these grow, so that "all" means the same to the server."""
        self._taken_out: set[int] = set()
        """Agents that a reset took out and did not bring back: the server knows them no more."""
        self._versions: dict[str, PolicyVersion] = {}
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __len__(self) -> int:
        return len(self._agents)

    async def step(
        self,
        observations: Any,
        *,
        agents: Sequence[int] | None = None,
        deterministic: bool = False,
        timeout_s: float | None = None,
    ) -> Steps:
        """Let agents of one policy make a step each: all of them, or those that are named, once.

        Observations are rows of numbers, best an array of float32.

        Raises:
            InvalidRequest: the observations have another shape, or a number that is not finite.
            DeadlineExceeded: it took too long; the step may have been made.
            RateLimited: reason QUEUE_FULL, too many steps wait.
            StreamBroken: the stream is cut; see `resume` and `reset`.
            Unavailable: reason AGENT_ENDED, somebody else ended or reset one of the agents.
        """
        numbers = self._stepping(agents)
        count = len(self) if agents is None else len(agents)
        message = pb.PackedSteps(
            observations=packed(observations, count), agents=numbers, deterministic=deterministic
        )
        policy = self.policies[0 if agents is None else agents[0]]
        answer = await self._ask(timeout_s, packed=message)
        return steps_of(answer.packed, self._versions[policy], count)

    async def step_one(
        self,
        agent: int,
        observation: Iterable[float],
        *,
        deterministic: bool = False,
        timeout_s: float | None = None,
    ) -> Step:
        """Let one agent make a step.

        Raises:
            Conflict: reason NOT_FINITE, the policy gave no finite numbers; the agent begins anew.
            StewardError: as `step`.
        """
        [number] = self._stepping([agent])
        message = pb.StreamStep(agent=number, observation=observation, deterministic=deterministic)
        return step_of((await self._ask(timeout_s, step=message)).step)

    async def reset(self, agents: Sequence[int] | None = None, *, seed: int | None = None) -> None:
        """Begin the sequences of some agents anew, or of all.

        All of them begin on a new stream, which is also a way on from one that broke: nothing is
        left of what was before. Without a seed nobody can repeat the draws that come.

        One that was refused can be asked for again; until then the agents make no steps.

        Raises:
            InvalidRequest: it has no such agents, or one is named twice.
            RateLimited: reason AGENTS_FULL, there is no room.
            StreamBroken: the stream is cut, and only some were named.
        """
        chosen = range(len(self)) if agents is None else agents
        self._check(chosen)
        if len(set(chosen)) < len(chosen):
            raise InvalidRequest(f"agents are {list(chosen)!r:.80}; name each of them once")
        for count, number in enumerate(chosen):
            self._agents[number] = replace(
                self._agents[number], reset=True, seed=None if seed is None else seed + count
            )
        if agents is None:
            await self._hang_up()
            await self.open()
            return
        self._is_in_order = False
        there = [self._numbers[each] for each in agents if each not in self._taken_out]
        if there:
            await self._ask(None, close=pb.StreamClose(agents=there))
            self._taken_out.update(agents)
        fresh = pb.StreamOpen(agents=[_asked(self._agents[each]) for each in agents])
        opened = _whole((await self._ask(None, open=fresh)).opened, len(agents))
        self._taken_out.difference_update(agents)
        policies, begun = list(self.policies), list(self.begun)
        for at, number in enumerate(agents):
            self._numbers[number] = opened.first + at
            policies[number], begun[number] = opened.policies[at], opened.begun[at]
        await self._learn(policies, begun)

    async def resume(self) -> tuple[int, ...]:
        """Open the stream again after a cut, and give the numbers of agents whose state is lost.

        Agents with an id go on where the server still has them; steps that were under way may have
        been made. All others begin anew.

        Raises:
            RateLimited: reason AGENTS_FULL, there is no room.
        """
        await self._hang_up()
        await self._begin(
            [
                StreamAgent(each.agent_id) if each.agent_id and at not in self._taken_out else each
                for at, each in enumerate(self._agents)
            ]
        )
        lost = tuple(number for number, begun in enumerate(self.begun) if begun)
        if named := [number for number in lost if self._agents[number].agent_id]:
            await self.reset(
                named
            )  # with the policy they are to have, and not the server's default
        return lost

    async def open(self) -> None:
        """Open the stream, and bring the agents into it."""
        await self._begin(self._agents)

    async def wait(self) -> None:
        """Wait until it is closed."""
        await asyncio.shield(self._ended)

    async def close(self) -> None:
        """Close it; agents without an id end. May be called twice."""
        await self._hang_up()
        if not self._ended.done():
            self._ended.set_result(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _begin(self, agents: Sequence[StreamAgent]) -> None:
        if self._ended.done():
            raise Unavailable("the stream is closed; open another")
        first = pb.StreamRequest(
            sequence=1, open=pb.StreamOpen(agents=[_asked(each) for each in agents])
        )
        call = Call(
            InferenceServiceStub,
            "Stream",
            first,
            read=nothing,
            repeatable=True,
            streams=True,
            talks=True,
            lasts_s=LASTING_S,
        )
        line = _Line(await self._client.hold(self._client.manners.ask(call)))
        self._line = line
        try:
            opened = _whole((await line.answer(first)).opened, len(agents))
            await self._learn(opened.policies, opened.begun)
        except BaseException:
            await line.hang_up()
            raise
        self._numbers = list(range(len(agents)))
        self._is_in_order = True
        self._taken_out.clear()

    async def _ask(self, timeout_s: float | None, **message: Any) -> pb.StreamResponse:
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        timeout_ms = 0 if timeout_s is None else max(1, math.ceil(timeout_s * 1_000))
        try:
            async with asyncio.timeout(timeout_s), self._room:
                if self._line is None:
                    raise Unavailable("the stream is not open")
                return await self._line.ask(timeout_ms=timeout_ms, **message)
        except TimeoutError:
            raise DeadlineExceeded(
                f"there was no answer in {timeout_s:g} s; the step may have been made"
            ) from None

    def _stepping(self, agents: Sequence[int] | None) -> Sequence[int]:
        """How the server calls agents that are to make a step; nothing means all."""
        if agents is not None:
            self._check(agents)
        chosen = range(len(self)) if agents is None else agents
        if self._taken_out and (out := self._taken_out.intersection(chosen)):
            raise InvalidRequest(
                f"agents {sorted(out)!r:.80} were to begin anew, which was refused; "
                "reset them again"
            )
        if agents is None:
            return () if self._is_in_order else self._numbers
        return [self._numbers[each] for each in agents]

    def _check(self, agents: Sequence[int]) -> None:
        """Refuse what names none, or agents that the stream does not have."""
        if not len(agents) or min(agents) < 0 or max(agents) >= len(self):
            raise InvalidRequest(
                f"agents are {list(agents)!r:.80}; the stream has {len(self)}, from 0 on"
            )

    async def _learn(self, policies: Sequence[str], begun: Sequence[bool]) -> None:
        """Note what agents have, and see how the results of that are to be read."""
        if not self._versions.keys() >= set(policies):
            self._versions = {
                f"{policy.name}@{version.version}": version
                for policy in await self._client.policies.list()
                for version in policy.versions
            }
        self.policies, self.begun = tuple(policies), tuple(begun)

    async def _hang_up(self) -> None:
        if self._line is not None:
            await self._line.hang_up()


class _Line:
    """A stream while it stands: messages, and their answers by sequence."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._sequence = 1
        """Of the last message; the first was said with the call."""
        self._waiting: dict[int, asyncio.Future[pb.StreamResponse]] = {}
        self._outbox: asyncio.Queue[pb.StreamRequest | None] = asyncio.Queue()
        """Ends with None."""
        self._cut: StewardError | None = None
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._write())]

    async def ask(self, **message: Any) -> pb.StreamResponse:
        """Send a message, and wait for its answer.

        Raises:
            StewardError: it was refused, or the stream is cut.
        """
        self._sequence += 1
        request = pb.StreamRequest(sequence=self._sequence, **message)
        self._outbox.put_nowait(request)
        return await self.answer(request)

    async def answer(self, request: pb.StreamRequest) -> pb.StreamResponse:
        """Wait for the answer to a message."""
        if self._cut is not None:
            raise _broken(self._cut)
        answer = asyncio.get_running_loop().create_future()
        self._waiting[request.sequence] = answer
        try:
            response: pb.StreamResponse = await answer
        finally:
            self._waiting.pop(request.sequence, None)
        if response.WhichOneof("message") == "refusal":
            raise error_of_status(response.refusal)
        return response

    async def hang_up(self) -> None:
        """End it, and return when the server has let go of what it had of it."""
        reading, writing = self._tasks
        self._outbox.put_nowait(None)
        with suppress(
            TimeoutError, grpc.aio.AioRpcError, grpc.aio.InternalError, asyncio.InvalidStateError
        ):
            async with asyncio.timeout(HANG_UP_S):
                await writing
                if self._cut is None:
                    await self._call.done_writing()
                    await reading
        self._call.cancel()
        writing.cancel()
        reading.cancel()
        await asyncio.gather(reading, writing, return_exceptions=True)

    async def _read(self) -> None:
        cut: StewardError = Unavailable("the server ended it")
        try:
            while (response := await self._call.read()) is not grpc.aio.EOF:
                answer = self._waiting.get(response.sequence)
                if answer is not None and not answer.done():
                    answer.set_result(response)
        except grpc.aio.AioRpcError as error:
            cut = error_of(error)
        except asyncio.CancelledError:
            cut = Unavailable("it was closed")  # grpc says so of a call that was cancelled, too
        finally:
            self._cut = cut
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(_broken(cut))

    async def _write(self) -> None:
        # What one task sends is not lost because another is cancelled: grpc ends a call amid whose
        # message somebody was.
        with suppress(grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
            while (request := await self._outbox.get()) is not None:
                if request.sequence in self._waiting:  # else it came too late
                    await self._call.write(request)


class AgentStream(Aside[AsyncAgentStream]):
    """`AsyncAgentStream` for code without an event loop; a context manager.

    Many threads may share it.
    """

    def __init__(
        self,
        open_client: Callable[[], AsyncClient],
        build: Callable[[AsyncClient], AsyncAgentStream],
    ) -> None:
        super().__init__(open_client, build)
        self._room = threading.BoundedSemaphore(self._lasting.in_flight)

    def __len__(self) -> int:
        return len(self._lasting)

    @property
    def policies(self) -> tuple[str, ...]:
        """Of each agent, with its version."""
        return self._lasting.policies

    @property
    def begun(self) -> tuple[bool, ...]:
        """Of each agent, whether its sequence began when the stream brought it."""
        return self._lasting.begun

    def step(
        self,
        observations: Any,
        *,
        agents: Sequence[int] | None = None,
        deterministic: bool = False,
        timeout_s: float | None = None,
    ) -> Steps:
        """Let agents make a step each, as `AsyncAgentStream.step`."""
        return self.submit(
            observations, agents=agents, deterministic=deterministic, timeout_s=timeout_s
        ).result()

    def submit(
        self,
        observations: Any,
        *,
        agents: Sequence[int] | None = None,
        deterministic: bool = False,
        timeout_s: float | None = None,
    ) -> Future[Steps]:
        """Ask for a step, and do something else until its result is needed.

        Returns at once, or waits while as many as `in_flight` are under way.
        """
        self._room.acquire()
        try:
            coming = self._do(
                self._lasting.step(
                    observations, agents=agents, deterministic=deterministic, timeout_s=timeout_s
                )
            )
        except BaseException:
            self._room.release()
            raise
        coming.add_done_callback(lambda _: self._room.release())
        return coming

    def step_one(
        self,
        agent: int,
        observation: Iterable[float],
        *,
        deterministic: bool = False,
        timeout_s: float | None = None,
    ) -> Step:
        """Let one agent make a step, as `AsyncAgentStream.step_one`."""
        step = self._lasting.step_one(
            agent, observation, deterministic=deterministic, timeout_s=timeout_s
        )
        return self._do(step).result()

    def reset(self, agents: Sequence[int] | None = None, *, seed: int | None = None) -> None:
        """Begin sequences anew, as `AsyncAgentStream.reset`."""
        self._do(self._lasting.reset(agents, seed=seed)).result()

    def resume(self) -> tuple[int, ...]:
        """Open the stream again after a cut, as `AsyncAgentStream.resume`."""
        return self._do(self._lasting.resume()).result()


def _asked(agent: StreamAgent) -> pb.StreamAgent:
    return pb.StreamAgent(
        agent_id=agent.agent_id, policy=agent.policy, seed=agent.seed, reset=agent.reset
    )


def _whole(opened: pb.StreamOpened, count: int) -> pb.StreamOpened:
    """What was opened, if all is told of so many agents."""
    if not len(opened.policies) == len(opened.begun) == count:
        raise without_rows(count)
    return opened


def _broken(cut: StewardError) -> StreamBroken:
    error = StreamBroken(
        f"the stream is cut ({cut.message}): steps under way may have been made, and what the "
        "policy kept of the agents may be lost; go on with resume(), or begin anew with reset()",
        facts=cut.facts,
    )
    error.__cause__ = cut
    return error
