"""Whoever steps at the same time, each agent is served as if it were alone.

Callers step at random, one agent or many at a time, by calls and by streams with messages under
way. Afterwards each agent's steps are made again, by a run of its model for each.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steward.inference.v1 import inference_pb2 as pb
from steward_server.calls import Call
from steward_server.db import now_us
from steward_server.inference import Engine, InferenceConfig
from steward_server.inference.repository import BUILT_IN
from steward_server.inference.service import InferenceService
from steward_server.principals import Kind, Principal
from tests.property.inference.lone import Lone, Policy, Step
from tests.unit.inference.models import adding

POLICIES = ("cartpole-memory", "adding", "pendulum")
UNDER_WAY = 8
"""Messages of a stream that nobody has answered yet."""


@dataclass
class Agent:
    """What was asked for an agent since it was begun last, and what was told."""

    agent_id: str
    policy: Policy
    lone: Lone

    def told(self, observation: list[float], step: Step, *, deterministic: bool) -> None:
        self.lone.check(observation, deterministic=deterministic, told=step)


@dataclass
class Caller:
    """Somebody with agents of their own."""

    name: str
    chance: random.Random
    folders: dict[str, Path]
    service: InferenceService
    agents: list[Agent] = field(default_factory=list)
    made: int = 0

    @property
    def context(self) -> Any:
        call = Call((), peer="ipv4:127.0.0.1:1")
        call.principal = Principal(Kind.CLIENT, self.name, credential=self.name)
        return call

    def begun(self, agent_id: str, name: str) -> tuple[Agent, int]:
        seed = self.chance.getrandbits(32)
        policy = Policy.of(self.folders[name])
        return Agent(agent_id, policy, Lone(policy, seed)), seed

    def seen_by(self, agent: Agent) -> list[float]:
        draws = [self.chance.gauss(0, 0.1) for _ in range(agent.policy.manifest.obs_dim)]
        return [float(np.float32(each)) for each in draws]

    async def call(self, count: int, turns: int) -> None:
        """Reset, step, and step in batches that name some agents more than once."""
        for number in range(count):
            self.agents.append(await self._reset(f"agent_{number}"))
        for _ in range(turns):
            kind = self.chance.random()
            if kind < 0.05:
                at = self.chance.randrange(count)
                self.agents[at] = await self._reset(self.agents[at].agent_id)
            elif kind < 0.5:
                await self._step(self.chance.choice(self.agents))
            else:
                await self._batch(self.chance.choices(self.agents, k=self.chance.randint(1, 8)))

    async def _reset(self, agent_id: str) -> Agent:
        name = self.chance.choice(POLICIES)
        agent, seed = self.begun(agent_id, name)
        request = pb.ResetRequest(agent_id=agent_id, policy=name, seed=seed)
        await self.service.Reset(request, self.context)
        return agent

    async def _step(self, agent: Agent) -> None:
        seen, deterministic = self.seen_by(agent), self.chance.random() < 0.5
        request = pb.StepRequest(
            agent_id=agent.agent_id, observation=seen, deterministic=deterministic
        )
        answer = await self.service.Step(request, self.context)
        agent.told(seen, told_by(answer), deterministic=deterministic)
        self.made += 1

    async def _batch(self, agents: Sequence[Agent]) -> None:
        rows, deterministic = [self.seen_by(each) for each in agents], self.chance.random() < 0.5
        request = pb.StepBatchRequest(
            observations=[pb.Vector(values=row) for row in rows],
            agent_ids=[each.agent_id for each in agents],
            deterministic=deterministic,
        )
        answer = await self.service.StepBatch(request, self.context)
        columns = (answer.actions, answer.values, answer.log_probs, answer.pressures)
        for agent, seen, (action, *rest) in zip(
            agents, rows, zip(*columns, strict=True), strict=True
        ):
            agent.told(seen, Step(action_of(action), *rest), deterministic=deterministic)
        self.made += len(agents)

    async def stream(self, count: int, turns: int) -> None:
        """Send messages before the last are answered: a step, or a packed one of some agents."""
        name = self.chance.choice(POLICIES)
        pairs = [self.begun(f"agent_{number}", name) for number in range(count)]
        self.agents = [agent for agent, _ in pairs]
        waiting: asyncio.Queue[Any] = asyncio.Queue()
        room = asyncio.Semaphore(UNDER_WAY)

        async def requests() -> AsyncIterator[pb.StreamRequest]:
            opened = [pb.StreamAgent(policy=name, seed=seed) for _, seed in pairs]
            yield pb.StreamRequest(open=pb.StreamOpen(agents=opened))
            for sequence in range(1, turns + 1):
                await room.acquire()
                chosen = self.chance.sample(range(count), self.chance.randint(1, min(count, 8)))
                rows = [self.seen_by(self.agents[each]) for each in chosen]
                deterministic = self.chance.random() < 0.5
                waiting.put_nowait((sequence, chosen, rows, deterministic))
                yield message(sequence, chosen, rows, deterministic=deterministic)

        answers = self.service.Stream(requests(), self.context)
        assert len((await anext(answers)).opened.policies) == count
        async for answer in answers:
            sequence, chosen, rows, deterministic = waiting.get_nowait()
            assert answer.sequence == sequence
            discrete = self.agents[0].policy.manifest.action.type == "discrete"
            steps = unpacked(answer, len(chosen), discrete=discrete)
            for number, row, step in zip(chosen, rows, steps, strict=True):
                self.agents[number].told(row, step, deterministic=deterministic)
            self.made += len(chosen)
            room.release()
        assert waiting.empty()


def message(
    sequence: int, agents: list[int], rows: list[list[float]], *, deterministic: bool
) -> pb.StreamRequest:
    """Of one agent it is written out, of several packed."""
    if len(agents) == 1:
        step = pb.StreamStep(agent=agents[0], observation=rows[0], deterministic=deterministic)
        return pb.StreamRequest(sequence=sequence, step=step)
    packed = pb.PackedSteps(
        observations=np.array(rows, "<f4").tobytes(), agents=agents, deterministic=deterministic
    )
    return pb.StreamRequest(sequence=sequence, packed=packed)


def action_of(action: pb.Action) -> int | list[float]:
    return action.choice if action.HasField("choice") else list(action.numbers.values)


def told_by(answer: Any) -> Step:
    return Step(action_of(answer.action), answer.value, answer.log_prob, answer.pressure)


def unpacked(answer: Any, count: int, *, discrete: bool) -> list[Step]:
    if answer.HasField("step"):
        return [told_by(answer.step)]
    packed = answer.packed
    actions: Any = np.frombuffer(packed.actions, "<i4" if discrete else "<f4")
    if not discrete:
        actions = actions.reshape(count, -1)
    columns = (
        np.frombuffer(each, "<f4") for each in (packed.values, packed.log_probs, packed.pressures)
    )
    return [
        Step(action, *rest)
        for action, *rest in zip(
            actions.tolist(), *(each.tolist() for each in columns), strict=True
        )
    ]


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Engine]:
    adding(folder / "policies" / "adding" / "1")
    # Runs are small, so that most of what waits has to wait for a later one.
    config = InferenceConfig(max_agents=20_000, max_rows=16)
    with closing(Engine(config, folder, now_us)) as engine:
        await engine.start()
        yield engine


@pytest.mark.parametrize(
    ("callers", "agents", "turns"),
    [
        pytest.param(24, 12, 30, id="hundreds"),
        pytest.param(400, 25, 100, id="ten thousand", marks=pytest.mark.proof),
    ],
)
async def test_each_agent_is_served_as_if_it_were_alone(
    tmp_path: Path, callers: int, agents: int, turns: int
) -> None:
    async with serving(tmp_path) as engine:

        async def nobody(*_: object) -> Principal:
            raise AssertionError

        service = InferenceService(engine, nobody, max_batch=4_096)
        folders = {name: BUILT_IN / name / "1" for name in POLICIES}
        folders["adding"] = tmp_path / "policies" / "adding" / "1"
        everybody = [
            Caller(f"caller_{number}", random.Random(number), folders, service)
            for number in range(callers)
        ]
        async with asyncio.TaskGroup() as tasks:
            for number, caller in enumerate(everybody):
                work = caller.stream if number % 2 else caller.call
                tasks.create_task(work(agents, turns))
        counts = [
            served.runner.counts for known in engine.known() for served in known.served.values()
        ]
        made = sum(each.made for each in everybody)
        assert sum(each.rows for each in counts) == made > callers * turns
        assert sum(each.runs for each in counts) < made / 4  # most were made together
