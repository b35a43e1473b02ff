"""Streams of callers that step at high frequency."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2

from steward.inference.v1 import inference_pb2 as pb
from tests.integration.inference.conftest import Site, open_site


class Talk:
    """One stream: messages with their answers."""

    def __init__(self, site: Site) -> None:
        self.call = site.stub.Stream(metadata=site.metadata)
        self._sequence = 0

    async def send(self, **message: Any) -> None:
        self._sequence += 1
        await self.call.write(pb.StreamRequest(sequence=self._sequence, **message))

    async def hear(self) -> Any:
        return await asyncio.wait_for(self.call.read(), 30)

    async def ask(self, **message: Any) -> Any:
        await self.send(**message)
        answer = await self.hear()
        assert answer.sequence == self._sequence
        return answer


def packed(rows: Sequence[Sequence[float]], **more: Any) -> pb.PackedSteps:
    return pb.PackedSteps(observations=np.array(rows, "<f4").tobytes(), deterministic=True, **more)


def floats(data: bytes) -> list[float]:
    read: list[float] = np.frombuffer(data, "<f4").tolist()
    return read


def reason(answer: Any) -> str:
    for detail in answer.refusal.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            return str(error_details_pb2.ErrorInfo.FromString(detail.value).reason)
    return ""


async def agents_of(site: Site) -> int:
    listed = await site.client.call("GET", "/api/v1/policies/adding")
    count: int = listed.body["versions"][0]["agent_count"]
    return count


async def test_many_agents_step_in_one_message(site: Site) -> None:
    talk = Talk(site)
    opened = await talk.ask(open=pb.StreamOpen(agents=[pb.StreamAgent()] * 3))
    assert (opened.opened.first, list(opened.opened.policies)) == (0, ["adding@1"] * 3)
    rows = [[1, 0, 0], [0, 2, 0], [0, 0, 3]]
    first = await talk.ask(packed=packed(rows))
    assert floats(first.packed.values) == [1.0, 2.0, 3.0]
    assert np.frombuffer(first.packed.actions, "<i4").tolist() == [0, 1, 2]
    some = await talk.ask(packed=packed(rows[:2], agents=[2, 0]))
    assert floats(some.packed.values) == [1.5 + 1, 0.5 + 2]
    one = await talk.ask(step=pb.StreamStep(agent=1, observation=[0, 1, 0]))
    assert one.step.value == 2.0
    await talk.call.done_writing()
    assert await talk.hear() is grpc.aio.EOF
    assert await agents_of(site) == 0


async def test_messages_under_way_are_answered_in_their_order(site: Site) -> None:
    talk = Talk(site)
    await talk.ask(open=pb.StreamOpen(agents=[pb.StreamAgent()]))
    for _ in range(50):
        await talk.send(step=pb.StreamStep(agent=0, observation=[1, 0, 0], deterministic=True))
    value = 0.0
    for number in range(2, 52):
        answer = await talk.hear()
        value = 0.5 * value + 1
        assert (answer.sequence, answer.step.value) == (number, pytest.approx(value))
    talk.call.cancel()


async def test_whether_an_agent_goes_on_is_told(site: Site) -> None:
    named = pb.StreamAgent(agent_id="arm")
    anew = pb.StreamAgent(agent_id="arm", reset=True)
    nameless = pb.StreamAgent()
    default = pb.StreamAgent(agent_id="default")
    for agents, begun in (
        ([named, nameless, default], [True, True, True]),
        ([named, nameless, default], [False, True, False]),
        ([anew], [True]),
    ):
        talk = Talk(site)
        opened = await talk.ask(open=pb.StreamOpen(agents=agents))
        assert list(opened.opened.begun) == begun
        await talk.call.done_writing()
        await talk.hear()


async def test_an_agent_that_was_ended_meanwhile_is_refused(site: Site) -> None:
    talk = Talk(site)
    await talk.ask(open=pb.StreamOpen(agents=[pb.StreamAgent(agent_id="arm")]))
    await site.client.call("DELETE", "/api/v1/inference/agents/arm")
    for message in (
        {"packed": packed([[1, 0, 0]])},
        {"step": pb.StreamStep(observation=[1, 0, 0])},
    ):
        assert reason(await talk.ask(**message)) == "AGENT_ENDED"
    talk.call.cancel()


async def test_an_agent_with_a_name_outlives_its_stream(site: Site) -> None:
    named = pb.StreamOpen(agents=[pb.StreamAgent(agent_id="arm")])
    for expected in (1.0, 1.5):
        talk = Talk(site)
        await talk.ask(open=named)
        answer = await talk.ask(packed=packed([[1, 0, 0]]))
        assert floats(answer.packed.values) == [expected]
        await talk.call.done_writing()
        await talk.hear()
    ended = await site.client.call("DELETE", "/api/v1/inference/agents/arm")
    assert ended.status == 204
    assert await agents_of(site) == 0


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({}, "message: is missing"),
        ({"packed": packed([[1, 2, 3]], agents=[7])}, "no agent of this number"),
        ({"packed": packed([[1, 2, 3]] * 2, agents=[0, 0])}, "has a number twice"),
        ({"packed": packed([[1, 2]])}, "Expected observation of length 3, got 2"),
        ({"packed": packed([[1, 2, float("nan")]])}, "not finite"),
        ({"step": pb.StreamStep(observation=[1])}, "Expected observation of length 3, got 1"),
        ({"open": pb.StreamOpen()}, "agents: has 0"),
        ({"open": pb.StreamOpen(agents=[pb.StreamAgent(policy="none")])}, "no policy 'none'"),
    ],
)
async def test_what_is_wrong_is_refused_and_the_stream_goes_on(
    site: Site, message: dict[str, Any], text: str
) -> None:
    talk = Talk(site)
    await talk.ask(open=pb.StreamOpen(agents=[pb.StreamAgent()]))
    refused = await talk.ask(**message)
    assert text in refused.refusal.message
    answer = await talk.ask(packed=packed([[1, 0, 0]]))
    assert floats(answer.packed.values) == [1.0]
    talk.call.cancel()


async def test_a_message_that_takes_too_long_is_told_so(site: Site) -> None:
    talk = Talk(site)
    await talk.ask(open=pb.StreamOpen(agents=[pb.StreamAgent()]))
    engine = "steward_server.inference.runner.Runner._go"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, lambda _: None)
        late = await talk.ask(packed=packed([[1, 0, 0]]), timeout_ms=20)
    assert (late.refusal.code, reason(late)) == (4, "DEADLINE_EXCEEDED")
    talk.call.cancel()


async def test_a_stream_that_is_cut_leaves_no_agents(site: Site) -> None:
    talks = [Talk(site) for _ in range(5)]
    for talk in talks:
        await talk.ask(open=pb.StreamOpen(agents=[pb.StreamAgent()] * 10))
    assert await agents_of(site) == 50
    for talk in talks:
        await talk.send(packed=packed([[1, 0, 0]] * 10))
        talk.call.cancel()
    for _ in range(100):
        if not await agents_of(site):
            return
        await asyncio.sleep(0.01)
    pytest.fail("agents of cut streams are kept")


async def test_a_stream_that_lasts_begins_as_many_agents_as_it_ends(tmp_path: Path) -> None:
    async with open_site(tmp_path, max_batch=2) as site:
        talk = Talk(site)
        await talk.ask(open=pb.StreamOpen(agents=[pb.StreamAgent()] * 2))
        full = await talk.ask(open=pb.StreamOpen(agents=[pb.StreamAgent()]))
        assert "has 1, beside 2; a stream has 1 to 2" in full.refusal.message
        for number in range(2, 6):
            await talk.ask(close=pb.StreamClose(agents=[number - 1]))
            opened = await talk.ask(open=pb.StreamOpen(agents=[pb.StreamAgent()]))
            assert opened.opened.first == number
            both = await talk.ask(packed=packed([[1, 0, 0]] * 2))
            assert floats(both.packed.values)[1] == 1.0
        gone = await talk.ask(step=pb.StreamStep(agent=1, observation=[1, 0, 0]))
        assert "no agent of this number" in gone.refusal.message
        await talk.call.done_writing()
