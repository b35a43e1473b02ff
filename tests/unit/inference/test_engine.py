"""Agents that come and go while their steps wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from steward.inference.v1 import inference_pb2 as pb
from steward_server.calls import Call
from steward_server.inference import Engine, InferenceConfig
from steward_server.inference.service import InferenceService
from steward_server.principals import Kind, Principal
from tests.unit.inference.models import adding


@dataclass(frozen=True)
class Caller:
    """Somebody with one agent."""

    name: str
    service: InferenceService

    @property
    def _context(self) -> Any:
        call = Call((), peer="ipv4:127.0.0.1:1")
        call.principal = Principal(Kind.CLIENT, self.name, credential=self.name)
        return call

    async def reset(self, seed: int = 0) -> None:
        await self.service.Reset(pb.ResetRequest(agent_id="arm", seed=seed), self._context)

    async def end(self) -> None:
        await self.service.EndAgent(pb.EndAgentRequest(agent_id="arm"), self._context)

    async def step(self, agent_id: str = "arm", *, deterministic: bool = True) -> pb.StepResponse:
        request = pb.StepRequest(
            agent_id=agent_id, observation=[1, 1, 1], deterministic=deterministic
        )
        return await self.service.Step(request, self._context)

    def asks(self, *, deterministic: bool = True) -> asyncio.Task[pb.StepResponse]:
        return asyncio.create_task(self.step(deterministic=deterministic))


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    adding(tmp_path / "policies" / "adding" / "1")
    config = InferenceConfig(default_policy="adding", load="demand", max_agents=2)
    with closing(Engine(config, tmp_path, lambda: 0)) as opened:
        await opened.start()
        yield opened


@pytest.fixture
def callers(engine: Engine) -> tuple[Caller, Caller]:
    async def nobody(*_: object) -> Principal:
        raise AssertionError

    service = InferenceService(engine, nobody, max_batch=16)
    return Caller("me", service), Caller("other", service)


def places(engine: Engine) -> int:
    (known,) = (each for each in engine.known() if each.name == "adding")
    return known.served[1].arena.used


async def test_a_step_that_waits_while_its_agent_is_reset_belongs_to_the_sequence_before(
    callers: tuple[Caller, Caller],
) -> None:
    me, _ = callers
    await me.reset()
    assert (await me.step()).value == 3.0
    waiting = me.asks()
    await asyncio.sleep(0)
    await me.reset()
    assert (await waiting).value == 4.5
    assert (await me.step()).value == 3.0


async def test_a_step_that_waits_has_nothing_of_whoever_gets_the_place_of_its_agent(
    callers: tuple[Caller, Caller],
) -> None:
    me, other = callers

    async def drawn() -> list[int]:
        return [(await other.step(deterministic=False)).action.choice for _ in range(20)]

    await other.reset(seed=7)
    alone = await drawn()
    await other.end()
    await me.reset()
    await me.step()
    waiting = me.asks(deterministic=False)
    await asyncio.sleep(0)
    await me.end()
    await other.reset(seed=7)
    assert (await waiting).value == 4.5
    assert await drawn() == alone


async def test_a_place_is_free_once_the_last_step_that_waited_is_made(
    engine: Engine, callers: tuple[Caller, Caller]
) -> None:
    me, _ = callers
    await me.reset()
    waiting = [me.asks() for _ in range(3)]
    await asyncio.sleep(0)
    await me.end()
    assert places(engine) == 1
    assert [(await each).value for each in waiting] == [3.0, 4.5, 5.25]
    assert places(engine) == 0


async def test_the_default_agent_begins_once_while_its_policy_is_being_loaded(
    callers: tuple[Caller, Caller],
) -> None:
    me, _ = callers
    steps = await asyncio.gather(me.step("default"), me.step("default"))
    assert [each.value for each in steps] == [3.0, 4.5]
