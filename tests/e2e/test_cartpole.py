"""A pole that stays up only if what comes back through each door is right, and the state is kept.

The carts are gymnasium's. An episode of CartPole-v1 brings 1 for each step, and ends after 500.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeAlias

import aiohttp
import grpc
import gymnasium
import pytest

from steward.inference.v1 import inference_pb2 as pb
from steward.inference.v1.inference_pb2_grpc import InferenceServiceStub
from tests.e2e.cyborgmind.scene import TOKEN, CyborgScene, cyborg_scene

Act: TypeAlias = Callable[[list[float]], Awaitable[int]]
Door: TypeAlias = Callable[[CyborgScene, AsyncExitStack, str], Awaitable[Act]]

SEEN = {"cartpole": (0, 1, 2, 3), "cartpole-memory": (0, 2)}
"""What a policy is shown of the cart."""
LONGEST = 500
FALLEN = 40
"""Steps that a pole may take to fall which nobody balances."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CyborgScene]:
    with cyborg_scene(tmp_path_factory.mktemp("cartpole") / "data") as opened:
        yield opened


async def by_step(scene: CyborgScene, stack: AsyncExitStack, policy: str) -> Act:
    """`POST /step`."""
    post = await posting(scene, stack)
    agent_id = scene.new_name()
    await post("/reset", {"agent_id": agent_id, "policy": policy})

    async def act(seen: list[float]) -> int:
        step = {"observation": seen, "agent_id": agent_id, "deterministic": True}
        action: int = (await post("/step", step))["action"]
        return action

    return act


async def by_stream(scene: CyborgScene, stack: AsyncExitStack, policy: str) -> Act:
    """`WS /stream`."""
    session = await stack.enter_async_context(aiohttp.ClientSession())
    socket = await stack.enter_async_context(session.ws_connect(f"{scene.url()}/stream"))

    async def act(seen: list[float]) -> int:
        await socket.send_json({"observation": seen, "token": TOKEN, "policy": policy})
        answer = await socket.receive_json(timeout=30)
        assert answer["error"] is None
        action: int = answer["action"]
        return action

    return act


async def by_grpc(scene: CyborgScene, stack: AsyncExitStack, policy: str) -> Act:
    """`InferenceService.Stream`."""
    channel = grpc.aio.insecure_channel(scene.server.grpc_address)
    stub: Any = InferenceServiceStub(await stack.enter_async_context(channel))
    call = stub.Stream(metadata=(("authorization", f"Bearer {TOKEN}"),))
    stack.callback(call.cancel)
    await call.write(pb.StreamRequest(open=pb.StreamOpen(agents=[pb.StreamAgent(policy=policy)])))
    assert (await call.read()).opened.begun == [True]

    async def act(seen: list[float]) -> int:
        step = pb.StreamStep(agent=0, observation=seen, deterministic=True)
        await call.write(pb.StreamRequest(step=step))
        answer = await call.read()
        assert answer.WhichOneof("message") == "step", answer
        action: int = answer.step.action.choice
        return action

    return act


async def posting(
    scene: CyborgScene, stack: AsyncExitStack
) -> Callable[[str, dict[str, Any]], Awaitable[Any]]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    session = await stack.enter_async_context(aiohttp.ClientSession(headers=headers))

    async def post(path: str, body: dict[str, Any]) -> Any:
        async with session.post(scene.url() + path, json=body) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    return post


@asynccontextmanager
async def acting(door: Door, scene: CyborgScene, policy: str) -> AsyncIterator[Act]:
    """An agent that begins now."""
    async with AsyncExitStack() as stack:
        yield await door(scene, stack, policy)


async def balanced(act: Act, policy: str, seed: int) -> int:
    """For how many steps the pole stays up."""
    cart = gymnasium.make("CartPole-v1")
    seen, _ = cart.reset(seed=seed)
    steps, is_over = 0, False
    while not is_over:
        shown = [float(seen[at]) for at in SEEN[policy]]
        seen, _, fell, is_cut, _ = cart.step(await act(shown))
        steps, is_over = steps + 1, fell or is_cut
    cart.close()
    return steps


@pytest.mark.parametrize("door", [by_step, by_stream, by_grpc])
@pytest.mark.parametrize("policy", SEEN)
async def test_the_pole_stays_up_to_the_end(scene: CyborgScene, policy: str, door: Door) -> None:
    async with acting(door, scene, policy) as act:
        assert await balanced(act, policy, seed=3) == LONGEST


async def test_the_pole_falls_where_the_memory_is_cut_off(scene: CyborgScene) -> None:
    policy = "cartpole-memory"
    async with AsyncExitStack() as stack:
        post = await posting(scene, stack)
        agent = {"agent_id": "forgetful"}

        async def act(seen: list[float]) -> int:
            await post("/reset", agent | {"policy": policy})
            step = await post("/step", agent | {"observation": seen, "deterministic": True})
            action: int = step["action"]
            return action

        lengths = [await balanced(act, policy, seed) for seed in range(5)]
    assert max(lengths) < FALLEN


async def test_a_pole_falls_where_two_share_a_memory(scene: CyborgScene) -> None:
    async with acting(by_step, scene, "cartpole-memory") as act:
        playing = (balanced(act, "cartpole-memory", seed) for seed in (3, 4))
        # The other may find its balance again once it has the memory to itself.
        assert min(await asyncio.gather(*playing)) < LONGEST
