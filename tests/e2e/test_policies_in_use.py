"""Policies that are replaced while agents step, and a server that dies with all it kept of them."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import numpy as np
import pytest

from steward.inference.v1 import inference_pb2 as pb
from steward.inference.v1.inference_pb2_grpc import InferenceServiceStub
from steward.open_inference import open_inference_pb2
from steward.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.e2e.scene import STATIC_TOKEN
from tests.live import Api, ServerProcess
from tests.unit.inference.models import adding

METADATA = (("authorization", f"Bearer {STATIC_TOKEN}"),)
SEEN = [1.0, 0.0, 0.0]
STEP = {"observation": SEEN, "deterministic": True}
EACH = 10
"""Agents that step at the same time by each of five doors."""
PATIENCE_S = 30

Door = Callable[[], Awaitable[list[float]]]
"""Lets some agents make a step each; gives their values."""


@dataclass
class Site:
    """A server that serves `adding`, which keeps half of what it has added up from step to step."""

    server: ServerProcess
    folder: Path
    session: aiohttp.ClientSession
    channel: grpc.aio.Channel

    @property
    def client(self) -> Api:
        headers = {"authorization": f"Bearer {STATIC_TOKEN}"}
        return Api(f"http://{self.server.http_address}", self.session, headers)

    @property
    def stub(self) -> Any:
        return InferenceServiceStub(self.channel)

    async def policy(self) -> Any:
        answer = await self.client.call("GET", "/api/v1/policies/adding")
        assert answer.status == 200, answer
        return answer.body

    async def version(self, version: int) -> Any:
        """None while it is not seen."""
        told = (await self.policy())["versions"]
        return next((each for each in told if each["version"] == version), None)

    async def reset(self, agent_id: str) -> str:
        answer = await self.client.call("POST", "/reset", {"agent_id": agent_id})
        assert answer.status == 200, answer
        policy: str = answer.body["policy"]
        return policy

    async def step(self, agent_id: str) -> list[float]:
        answer = await self.client.call("POST", "/step", STEP | {"agent_id": agent_id})
        assert answer.status == 200, answer
        return [answer.body["value"]]

    async def batch(self, agent_ids: list[str]) -> list[float]:
        rows = {"observations": [SEEN] * len(agent_ids), "agent_ids": agent_ids}
        answer = await self.client.call("POST", "/step_batch", rows)
        assert answer.status == 200, answer
        values: list[float] = answer.body["values"]
        return values

    async def socket(self, stack: AsyncExitStack) -> aiohttp.ClientWebSocketResponse:
        url = f"{self.client.base_url}/stream"
        return await stack.enter_async_context(self.session.ws_connect(url))

    async def opened(self, *agents: pb.StreamAgent) -> tuple[Any, Any]:
        """A stream with these agents, and what is told of them."""
        call = self.stub.Stream(metadata=METADATA)
        await call.write(pb.StreamRequest(open=pb.StreamOpen(agents=agents)))
        return call, (await call.read()).opened

    async def sequence_step(self, *, start: bool) -> float:
        """By the Open Inference Protocol."""
        request = open_inference_pb2.ModelInferRequest(
            model_name="adding", raw_input_contents=[np.array(SEEN, "<f4").tobytes()]
        )
        request.inputs.add(name="obs", datatype="FP32", shape=[1, 3])
        request.parameters["sequence_id"].int64_param = 7
        request.parameters["sequence_start"].bool_param = start
        answer = await GRPCInferenceServiceStub(self.channel).ModelInfer(request, metadata=METADATA)
        at = [each.name for each in answer.outputs].index("value")
        return float(np.frombuffer(answer.raw_output_contents[at], "<f4")[0])


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    folder = tmp_path / "policies" / "adding"
    adding(folder / "1", keeps=0.5)
    server = ServerProcess(
        tmp_path / "data",
        STEWARD_STATIC_TOKEN=STATIC_TOKEN,
        STEWARD_INFERENCE_FOLDER=str(folder.parent),
        STEWARD_INFERENCE_DEFAULT_POLICY="adding",
        STEWARD_INFERENCE_RELOAD_INTERVAL_S="0.05",
    )
    await server.start()
    try:
        async with (
            aiohttp.ClientSession() as session,
            grpc.aio.insecure_channel(server.grpc_address) as channel,
        ):
            yield Site(server, folder, session, channel)
    finally:
        server.stop()


async def said(socket: aiohttp.ClientWebSocketResponse) -> list[float]:
    await socket.send_json(STEP | {"token": STATIC_TOKEN})
    answer = await socket.receive_json(timeout=PATIENCE_S)
    assert answer["error"] is None, answer
    return [answer["value"]]


async def streamed(call: Any) -> list[float]:
    await call.write(pb.StreamRequest(step=pb.StreamStep(observation=SEEN)))
    answer = await call.read()
    assert answer.HasField("step"), answer
    return [answer.step.value]


async def packed(call: Any, count: int) -> list[float]:
    rows = np.array([SEEN] * count, "<f4").tobytes()
    await call.write(pb.StreamRequest(packed=pb.PackedSteps(observations=rows)))
    answer = await call.read()
    assert answer.HasField("packed"), answer
    values: list[float] = np.frombuffer(answer.packed.values, "<f4").tolist()
    return values


async def doors(site: Site, stack: AsyncExitStack, each: int, name: str) -> list[Door]:
    """Agents that begin now, by every door there is."""
    made: list[Door] = []
    names = [f"{name}_{number}" for number in range(2 * each)]
    for agent_id in names:
        await site.reset(agent_id)
    made += [partial(site.step, agent_id) for agent_id in names[:each]]
    made.append(partial(site.batch, names[each:]))
    made += [partial(said, await site.socket(stack)) for _ in range(each)]
    for count in (*[1] * each, each):
        call, _ = await site.opened(*[pb.StreamAgent()] * count)
        stack.callback(call.cancel)
        made.append(partial(streamed, call) if count == 1 else partial(packed, call, count))
    return made


class Walk:
    """Steps by a door, again and again; each must go on from the one before."""

    def __init__(self, door: Door, *, keeps: float) -> None:
        self._door = door
        self._keeps = keeps
        self._value = 0.0
        self.steps = 0

    async def step(self) -> None:
        self._value = self._keeps * self._value + 1.0
        values = await self._door()
        assert values == pytest.approx([self._value] * len(values), abs=1e-5)
        self.steps += len(values)

    async def until(self, enough: asyncio.Event) -> None:
        while not enough.is_set():
            await self.step()


async def test_a_policy_is_replaced_while_fifty_agents_step_and_none_of_them_is_disturbed(
    site: Site,
) -> None:
    enough = asyncio.Event()
    async with AsyncExitStack() as stack:
        walks = [Walk(door, keeps=0.5) for door in await doors(site, stack, EACH, "old")]
        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
            for walk in walks:
                tasks.create_task(walk.until(enough))
            await becomes(site, 2, keeps=0.25)
            new = [Walk(door, keeps=0.25) for door in await doors(site, stack, 1, "new")]
            for walk in new:
                tasks.create_task(walk.until(enough))
            await break_version(site, 3, "digest")
            await break_version(site, 4, "Got: 4 Expected: 3")
            assert await site.reset("newest") == "adding@2"
            while min(each.steps for each in walks) < 20 or min(each.steps for each in new) < 5:
                await asyncio.sleep(0.01)
            enough.set()
        old, newer = [await site.version(each) for each in (1, 2)]
    assert old["agent_count"] == 5 * EACH
    assert newer["agent_count"] == 5 + 1
    assert old["step_count"] == sum(each.steps for each in walks)


async def becomes(site: Site, version: int, *, keeps: float) -> None:
    """Put a version into the folder, and wait until it is the newest that is served."""
    adding(site.folder / str(version), keeps=keeps)
    while (await site.policy())["latest"] != version:
        await asyncio.sleep(0.01)


async def break_version(site: Site, version: int, wrong: str) -> None:
    """Put a version there that is not what its manifest says, and wait until that is seen."""
    folder = site.folder / str(version)
    made = adding(site.server.data_dir / f"made_{version}")
    text = (made / "policy.yaml").read_text()
    folder.mkdir()
    shutil.copy(made / "model.onnx", folder)
    if wrong == "digest":
        with (folder / "model.onnx").open("ab") as model:
            model.write(b"\0")
    else:
        text = text.replace("obs_dim: 3", "obs_dim: 4")
    (folder / "policy.yaml").write_text(text)
    while (told := await site.version(version)) is None or not told["fault"]:
        await asyncio.sleep(0.01)
    assert wrong in told["fault"]


async def test_a_server_that_is_killed_loses_states_and_says_so(site: Site) -> None:
    async with AsyncExitStack() as stack:
        await site.reset("arm")
        await site.step("arm")
        await site.step("default")
        socket = await site.socket(stack)
        await said(socket)
        call, opened = await site.opened(pb.StreamAgent(), pb.StreamAgent(agent_id="leg"))
        assert list(opened.begun) == [True, True]
        await streamed(call)
        assert [await site.sequence_step(start=each) for each in (True, False)] == [1.0, 1.5]

        site.server.kill()

        lost = await socket.receive(timeout=PATIENCE_S)
        assert lost.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await call.read()
        assert failed.value.code() is grpc.StatusCode.UNAVAILABLE

    await site.server.start()

    for body in (
        ("/step", STEP | {"agent_id": "arm"}),
        ("/step_batch", {"observations": [SEEN], "agent_ids": ["arm"]}),
    ):
        answer = await site.client.call("POST", *body)
        assert (answer.status, answer.body) == (
            400,
            {"detail": "Agent 'arm' not initialized. Call /reset first."},
        )
    with pytest.raises(grpc.aio.AioRpcError, match="sequence 7 was not begun"):
        await asyncio.wait_for(site.sequence_step(start=False), PATIENCE_S)
    call, opened = await site.opened(pb.StreamAgent(agent_id="leg"))
    assert list(opened.begun) == [True]
    call.cancel()
    default = await site.client.call("POST", "/step", STEP)
    assert (default.body["value"], default.headers["x-agent-begun"]) == (1.0, "default")
