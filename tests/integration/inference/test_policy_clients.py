"""Both clients step policies: calls of the blocking one are made on a thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steward_client import AsyncClient, Client
from steward_client.client import agent_streams
from steward_client.client.agent_streams import AsyncAgentStream, StreamAgent
from steward_client.errors import (
    Conflict,
    DeadlineExceeded,
    Forbidden,
    InvalidRequest,
    NotFound,
    RateLimited,
    ServerFault,
    StreamBroken,
    Unauthorized,
    Unavailable,
)
from steward_server.errors import ResourceExhausted
from steward_server.inference import streaming
from steward_server.inference.streaming import Conversation, _Answer
from tests.integration.inference.conftest import STATIC_TOKEN, Site, open_site
from tests.live import ADMIN_PASSWORD, ServerProcess
from tests.unit.inference.models import adding


class Use:
    """Calls methods by name, of either client, and of what it has opened."""

    def __init__(self, client: Client | AsyncClient) -> None:
        self.client = client

    async def __call__(self, name: str, /, *args: Any, **named: Any) -> Any:
        return await self.of(self.client, name, *args, **named)

    async def of(self, thing: Any, name: str, /, *args: Any, **named: Any) -> Any:
        for part in name.split("."):
            thing = getattr(thing, part)
        if isinstance(self.client, Client):
            return await asyncio.to_thread(thing, *args, **named)
        return await thing(*args, **named)


@pytest.fixture(params=["blocking", "awaited"])
async def use(site: Site, request: pytest.FixtureRequest) -> AsyncIterator[Use]:
    """A client by the static token."""
    address = site.live.running.grpc_address
    if request.param == "blocking":
        with Client(address, token=STATIC_TOKEN) as client:
            yield Use(client)
        return
    async with AsyncClient(address, token=STATIC_TOKEN) as waiting:
        yield Use(waiting)


@pytest.fixture
async def client(site: Site) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(site.live.running.grpc_address, token=STATIC_TOKEN) as opened:
        yield opened


async def agents_of(site: Site) -> int:
    listed = await site.client.call("GET", "/api/v1/policies/adding")
    count: int = listed.body["versions"][0]["agent_count"]
    return count


async def until_no_agents(site: Site) -> None:
    for _ in range(100):
        if not await agents_of(site):
            return
        await asyncio.sleep(0.01)
    pytest.fail("agents are kept")


def nothing(_: Conversation, request: Any) -> _Answer:
    """A message is taken, and never answered."""
    return _Answer(request.sequence, asyncio.get_running_loop().create_future())


async def test_an_agent_is_begun_steps_and_is_ended(use: Use) -> None:
    assert await use("inference.reset", "arm", policy="adding", seed=1) == "adding@1"
    first = await use("inference.step", [0, 3, 0], "arm", deterministic=True)
    second = await use("inference.step", np.array([0, 1, 0]), "arm", deterministic=True)
    assert (first.action, first.value, first.agent_id) == (1, 3.0, "arm")
    assert second.value == 2.5
    assert second.pressure == pytest.approx(0.9 * 3 + 1)
    assert -2.0 < second.log_prob < 0
    await use("inference.end", "arm")
    with pytest.raises(Conflict) as refused:
        await use("inference.step", [0, 0, 0], "arm")
    assert refused.value.reason == "AGENT_NOT_INITIALIZED"
    with pytest.raises(NotFound):
        await use("inference.end", "arm")


async def test_several_agents_step_in_one_call(use: Use) -> None:
    await use("inference.reset", "a")
    await use("inference.reset", "wheel", policy="steering")
    rows = [[1, 0, 0], [0.5, -0.25], [0, 0, 2]]
    steps = await use("inference.step_batch", rows, ["a", "wheel", "a"], deterministic=True)
    assert [each.value for each in steps] == [1.0, 0.25, 2.5]
    assert [each.action for each in steps] == [0, (0.5, -0.25), 2]
    assert [each.agent_id for each in steps] == ["a", "wheel", "a"]
    nameless = await use("inference.step_batch", np.eye(3), deterministic=True)
    assert [each.action for each in nameless] == [0, 1, 2]
    with pytest.raises(InvalidRequest) as refused:
        await use("inference.step_batch", [[1, 0]], ["a"])
    assert "observations[0]" in refused.value.fields


async def test_policies_are_listed_loaded_and_unloaded(site: Site, use: Use) -> None:
    listed = {each.name: each for each in await use("policies.list")}
    one = await use("policies.get", "adding")
    assert listed["adding"] == one
    assert (one.latest, one.is_default, listed["steering"].is_default) == (1, True, False)
    [version] = one.versions
    assert (version.obs_dim, version.action_type, version.action_size) == (3, "discrete", 3)
    assert [(each.name, each.shape) for each in version.state] == [("total", (3,))]
    assert version.memory is not None
    assert (version.memory.shape, version.pressure) == ((4, 2), "the mean of the memory")
    assert listed["steering"].versions[0].memory is None
    with pytest.raises(NotFound):
        await use("policies.get", "none")
    with pytest.raises(Forbidden):
        await use("policies.load", "adding")

    use.client._credentials.forget()
    await use("login", "admin", ADMIN_PASSWORD)
    adding(site.folder / "adding" / "2", gain=2.0)
    loaded = await use("policies.load", "adding")
    assert (loaded.latest, [each.version for each in loaded.versions]) == (2, [2, 1])
    await use("inference.reset", "arm", policy="adding@2")
    with pytest.raises(Conflict) as refused:
        await use("policies.unload", "adding@2")
    assert refused.value.reason == "POLICY_IN_USE"
    unloaded = await use("policies.unload", "adding@2", force=True)
    assert not unloaded.versions[0].is_loaded


async def test_many_agents_step_in_one_message(site: Site, use: Use) -> None:
    stream = await use("inference.stream", 3, policy="adding")
    assert (len(stream), stream.policies) == (3, ("adding@1",) * 3)
    steps = await use.of(stream, "step", np.diag([1, 2, 3]), deterministic=True)
    assert (steps.values.tolist(), steps.actions.tolist()) == ([1, 2, 3], [0, 1, 2])
    assert (len(steps), steps.failed, steps.actions.dtype) == (3, (), np.int32)
    some = await use.of(stream, "step", [[1, 0, 0], [0, 1, 0]], agents=[2, 0])
    assert some.values.tolist() == [1.5 + 1, 0.5 + 1]
    one = await use.of(stream, "step_one", 1, [0, 1, 0], deterministic=True)
    assert (one.action, one.value) == (1, 2.0)
    assert await agents_of(site) == 3
    await use.of(stream, "close")
    assert await agents_of(site) == 0
    with pytest.raises(Unavailable):
        await use.of(stream, "step", np.eye(3))
    with pytest.raises(Unavailable):
        await use.of(stream, "reset")
    await use.of(stream, "close")


async def test_a_stream_of_a_continuous_policy_gives_numbers(use: Use) -> None:
    stream = await use("inference.stream", 2, policy="steering")
    steps = await use.of(stream, "step", [[0.5, -0.25], [2, 0]], deterministic=True)
    assert steps.actions.tolist() == [[0.5, -0.25], [1.0, 0.0]]
    await use.of(stream, "close")


async def test_some_agents_begin_anew_and_the_others_go_on(use: Use) -> None:
    stream = await use("inference.stream", 3)
    rows = np.ones((3, 3))
    for _ in range(2):
        steps = await use.of(stream, "step", rows)
    assert steps.values.tolist() == [4.5] * 3
    await use.of(stream, "reset", [0])
    steps = await use.of(stream, "step", np.diag([1, 2, 3]))
    assert steps.values.tolist() == [1, 2.25 + 2, 2.25 + 3]
    one = await use.of(stream, "step_one", 0, [1, 0, 0])
    assert one.value == 1.5
    await use.of(stream, "reset")
    steps = await use.of(stream, "step", rows)
    assert steps.values.tolist() == [3, 3, 3]
    await use.of(stream, "close")


async def test_draws_repeat_with_the_seed(use: Use) -> None:
    async def drawn(stream: Any) -> list[int]:
        rows = np.zeros((8, 3))
        return [(await use.of(stream, "step", rows)).actions.tolist() for _ in range(3)]

    stream = await use("inference.stream", 8, seed=7)
    first = await drawn(stream)
    await use.of(stream, "reset", seed=7)
    again = await drawn(stream)
    await use.of(stream, "reset", range(8), seed=7)
    third = await drawn(stream)
    await use.of(stream, "reset", seed=8)
    other = await drawn(stream)
    assert first == again == third != other
    assert len({tuple(row) for row in np.array(first).T.tolist()}) > 1  # agents draw apart
    await use.of(stream, "close")


def refusing(*messages: int) -> Any:
    """Agents are brought, but there is no room when these are asked for, counted from 1."""
    bring, count = Conversation._open, 0

    async def brought(self: Conversation, request: Any) -> Any:
        nonlocal count
        count += 1
        if count in messages:
            raise ResourceExhausted("no room", reason="AGENTS_FULL")
        return await bring(self, request)

    return brought


@pytest.mark.parametrize("agents", [[0], [0, 2], None])
async def test_a_reset_that_is_refused_half_way_can_be_asked_for_again(
    site: Site, use: Use, monkeypatch: pytest.MonkeyPatch, agents: list[int] | None
) -> None:
    stream = await use("inference.stream", 3)
    rows = np.ones((3, 3))
    await use.of(stream, "step", rows)
    with monkeypatch.context() as patch:
        patch.setattr(Conversation, "_open", refusing(1, 2))
        for _ in range(2):
            with pytest.raises(RateLimited):
                await use.of(stream, "reset", agents)
        await use.of(stream, "reset", agents)
    fresh = range(3) if agents is None else agents
    steps = await use.of(stream, "step", rows)
    assert steps.values.tolist() == [3.0 if each in fresh else 4.5 for each in range(3)]
    assert await agents_of(site) == 3
    await use.of(stream, "close")


async def test_an_agent_whose_reset_was_refused_makes_no_step_and_the_others_do(
    use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = await use("inference.stream", 3)
    with monkeypatch.context() as patch:
        patch.setattr(Conversation, "_open", refusing(1))
        with pytest.raises(RateLimited):
            await use.of(stream, "reset", [1])
    for agents in (None, [0, 1]):
        with pytest.raises(InvalidRequest, match=r"agents \[1\] .* reset them again"):
            await use.of(stream, "step", np.ones((3, 3)), agents=agents)
    with pytest.raises(InvalidRequest, match=r"agents \[1\] .* reset them again"):
        await use.of(stream, "step_one", 1, [1, 0, 0])
    assert (await use.of(stream, "step", np.eye(3)[:2], agents=[0, 2])).values.tolist() == [1, 1]
    await use.of(stream, "reset", [0, 1])
    assert (await use.of(stream, "step", np.eye(3))).values.tolist() == [1, 1, 1.5]
    await use.of(stream, "close")


async def test_what_is_wrong_is_refused_and_the_stream_goes_on(use: Use) -> None:
    stream = await use("inference.stream", 2)
    for rows, shape in (
        (np.ones((3, 2)), r"\(3, 2\)"),  # as many numbers as two rows of three
        (np.ones((1, 3)), r"\(1, 3\)"),
        (np.ones(6), r"\(6,\)"),
        (np.ones((3, 2, 1)), r"\(3, 2, 1\)"),
        ([], r"\(0,\)"),
    ):
        with pytest.raises(InvalidRequest, match=f"shape {shape} are given for 2 agents"):
            await use.of(stream, "step", rows)
    for unfit in ([[1, 0, 0], [1, 0]], [[1, 0, 0], ["left", 0, 0]]):
        with pytest.raises(InvalidRequest, match="no rows of numbers"):
            await use.of(stream, "step", unfit)
    for wrong, agents in (
        ([[1, 2]] * 2, None),
        ([[1, 2, float("nan")]], [0]),
        (np.eye(3), [0] * 3),
    ):
        with pytest.raises(InvalidRequest):
            await use.of(stream, "step", wrong, agents=agents)
    for agents in ([2], [-1], []):
        with pytest.raises(InvalidRequest, match="the stream has 2"):
            await use.of(stream, "step", [[1, 0, 0]], agents=agents)
        with pytest.raises(InvalidRequest, match="the stream has 2"):
            await use.of(stream, "reset", agents)
    with pytest.raises(InvalidRequest, match=r"agents are \[1, 1\]; name each of them once"):
        await use.of(stream, "reset", [1, 1])
    assert (await use.of(stream, "step", [[1, 0, 0]] * 2)).values.tolist() == [1, 1]
    await use.of(stream, "close")


async def test_a_stream_that_is_refused_says_why(site: Site, use: Use) -> None:
    with pytest.raises(NotFound) as refused:
        await use("inference.stream", 1, policy="none")
    assert refused.value.reason == "POLICY_NOT_FOUND"
    with pytest.raises(InvalidRequest):
        await use("inference.stream", 0)
    with pytest.raises(ValueError, match="in_flight"):
        await use("inference.stream", 1, in_flight=0)
    await until_no_agents(site)


@pytest.mark.parametrize("field", ["actions", "values", "log_probs", "pressures"])
async def test_an_answer_without_a_row_for_each_is_a_fault_of_the_servers(
    use: Use, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    whole = streaming._packed

    def short(*arguments: Any) -> Any:
        response = whole(*arguments)
        setattr(response.packed, field, getattr(response.packed, field)[4:])
        return response

    stream = await use("inference.stream", 2)
    with monkeypatch.context() as patch:
        patch.setattr(streaming, "_packed", short)
        for agents in (None, [1, 0]):
            with pytest.raises(ServerFault, match="not a row for each of 2 agents"):
                await use.of(stream, "step", np.eye(3)[:2], agents=agents)
    await use.of(stream, "step", np.eye(3)[:2])
    await use.of(stream, "close")


async def test_agents_of_which_the_server_tells_too_little_are_a_fault_of_its_own(
    use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    bring = Conversation._open

    async def short(self: Conversation, request: Any) -> Any:
        opened = await bring(self, request)
        del opened.policies[0]
        return opened

    stream = await use("inference.stream", 2)
    monkeypatch.setattr(Conversation, "_open", short)
    with pytest.raises(ServerFault, match="not a row for each of 2 agents"):
        await use.of(stream, "reset", [0, 1])
    with pytest.raises(ServerFault, match="not a row for each of 3 agents"):
        await use("inference.stream", 3)
    await use.of(stream, "close")


async def test_an_agent_with_a_name_outlives_its_stream(use: Use) -> None:
    for expected in (1.0, 1.5):
        stream = await use("inference.stream", [StreamAgent("arm")])
        assert (await use.of(stream, "step", [[1, 0, 0]])).values.tolist() == [expected]
        await use.of(stream, "close")
    stream = await use("inference.stream", [StreamAgent("arm", reset=True)])
    assert (await use.of(stream, "step", [[1, 0, 0]])).values.tolist() == [1.0]
    await use("inference.end", "arm")
    with pytest.raises(Unavailable) as ended:
        await use.of(stream, "step", [[1, 0, 0]])
    assert ended.value.reason == "AGENT_ENDED"
    await use.of(stream, "close")


async def test_a_step_that_takes_too_long_ends_by_its_deadline(
    use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = await use("inference.stream", 1, timeout_s=5.0)
    asked = asyncio.Event()

    async def silence(*_: Any) -> Any:
        asked.set()
        await asyncio.sleep(60)

    with monkeypatch.context() as patch:
        patch.setattr(Conversation, "_answered", silence)
        with pytest.raises(DeadlineExceeded):
            await use.of(stream, "step", [[1, 0, 0]], timeout_s=0.02)
        async with asyncio.timeout(10):
            await asked.wait()  # the caller's own deadline may come before the server has it
    assert (await use.of(stream, "step", [[0, 1, 0]])).values.tolist() == [1.0]
    await use.of(stream, "close")


async def test_a_deadline_holds_though_the_server_says_nothing(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_streams, "HANG_UP_S", 0.05)
    stream = await client.inference.stream(1)
    with monkeypatch.context() as patch:
        patch.setattr(Conversation, "_begun", nothing)
        with pytest.raises(DeadlineExceeded, match=r"0\.05 s"):
            await stream.step([[1, 0, 0]], timeout_s=0.05)
    await stream.close()


async def test_many_tasks_share_a_stream_and_each_hears_its_own(client: AsyncClient) -> None:
    async with await client.inference.stream(50, in_flight=8) as stream:

        async def live(agent: int) -> list[float]:
            row = [agent, 0, 0]
            return [(await stream.step_one(agent, row)).value for _ in range(4)]

        lives = await asyncio.gather(*map(live, range(50)))
    assert lives == [[agent * gain for gain in (1, 1.5, 1.75, 1.875)] for agent in range(50)]


async def test_no_more_messages_are_under_way_than_allowed(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way, most = 0, 0
    begin = Conversation._begun

    def counted(self: Conversation, request: Any) -> _Answer:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        answer = begin(self, request)

        async def later() -> Any:
            nonlocal under_way
            await asyncio.sleep(0.002)
            under_way -= 1
            return await answer.response()

        return _Answer(request.sequence, asyncio.ensure_future(later()))

    async with await client.inference.stream(1, in_flight=3) as stream:
        monkeypatch.setattr(Conversation, "_begun", counted)
        await asyncio.gather(*(stream.step([[0, 0, 0]]) for _ in range(20)))
    assert most == 3


async def test_steps_of_a_thread_are_under_way_while_it_does_something_else(site: Site) -> None:
    def work(client: Client) -> list[float]:
        with client.inference.stream(1, in_flight=4) as stream:
            coming = [stream.submit([[1, 0, 0]]) for _ in range(10)]
            return [each.result(10).values.tolist()[0] for each in coming]

    with Client(site.live.running.grpc_address, token=STATIC_TOKEN) as client:
        values = await asyncio.to_thread(work, client)
    assert values == pytest.approx([2 - 0.5**count for count in range(10)])


async def test_one_task_that_is_cancelled_harms_no_other(client: AsyncClient) -> None:
    async with await client.inference.stream(2) as stream:
        tasks = [asyncio.create_task(stream.step_one(0, [1, 0, 0])) for _ in range(20)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert not any(isinstance(each, Exception) for each in ended[1::2])
        assert (await stream.step_one(1, [1, 0, 0])).value == 1.0


async def test_a_cut_stream_tells_everyone_and_begins_anew_only_when_told_to(
    site: Site, use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = await use("inference.stream", 2)
    await use.of(stream, "step", np.ones((2, 3)))
    with monkeypatch.context() as patch:
        patch.setattr(Conversation, "_begun", nothing)
        pending = [asyncio.create_task(use.of(stream, "step", np.ones((2, 3)))) for _ in range(3)]
        await asyncio.sleep(0.05)
        await cut(stream)
        for broken in await asyncio.gather(*pending, return_exceptions=True):
            assert isinstance(broken, StreamBroken)
            assert "may be lost" in broken.message
    for _ in range(2):
        with pytest.raises(StreamBroken):
            await use.of(stream, "step", np.ones((2, 3)))
    with pytest.raises(StreamBroken):
        await use.of(stream, "reset", [0])
    await use.of(stream, "reset")
    assert (await use.of(stream, "step", np.ones((2, 3)))).values.tolist() == [3, 3]
    assert await agents_of(site) == 2
    await use.of(stream, "close")


async def cut(stream: Any) -> None:
    """Have the stream break, as if the connection were lost."""
    lasting = stream if isinstance(stream, AsyncAgentStream) else stream._lasting
    assert lasting._line is not None
    lasting._line._call.cancel()
    await asyncio.sleep(0.02)


async def test_agents_with_a_name_go_on_after_a_cut_and_others_are_told_lost(use: Use) -> None:
    wanted = [StreamAgent("arm", policy="adding"), StreamAgent(policy="adding")]
    stream = await use("inference.stream", wanted)
    await use.of(stream, "step", np.ones((2, 3)))
    await cut(stream)
    assert await use.of(stream, "resume") == (1,)
    assert stream.begun == (False, True)
    assert (await use.of(stream, "step", np.ones((2, 3)))).values.tolist() == [4.5, 3]

    await use("inference.end", "arm")
    await cut(stream)
    assert await use.of(stream, "resume") == (0, 1)
    assert (await use.of(stream, "step", np.ones((2, 3)))).values.tolist() == [3, 3]
    await use.of(stream, "close")


async def test_an_agent_that_was_lost_begins_with_the_policy_it_had(client: AsyncClient) -> None:
    async with await client.inference.stream([StreamAgent("wheel", policy="steering")]) as stream:
        await client.inference.end("wheel")
        await cut(stream)
        assert await stream.resume() == (0,)
        assert (stream.policies, stream.begun) == (("steering@1",), (True,))
        assert (await stream.step([[0.5, 0.25]])).values.tolist() == [0.75]


async def test_a_way_on_that_is_refused_half_way_can_be_asked_for_again(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await client.inference.stream([StreamAgent("wheel", policy="steering")]) as stream:
        await client.inference.end("wheel")
        await cut(stream)
        with monkeypatch.context() as patch:
            patch.setattr(Conversation, "_open", refusing(2))
            with pytest.raises(RateLimited):
                await stream.resume()
        assert await stream.resume() == (0,)
        assert (stream.policies, stream.begun) == (("steering@1",), (True,))


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    adding(tmp_path / "policies" / "adding" / "1")
    served = ServerProcess(
        tmp_path, STEWARD_STATIC_TOKEN=STATIC_TOKEN, STEWARD_INFERENCE_DEFAULT_POLICY="adding"
    )
    await served.start()
    yield served
    with suppress(AssertionError, ProcessLookupError):
        served.stop()


async def test_a_server_that_is_killed_and_started_again_loses_no_state_in_silence(
    process: ServerProcess,
) -> None:
    async with AsyncClient(process.grpc_address, token=STATIC_TOKEN) as client:
        wanted = [StreamAgent("arm", policy="adding"), StreamAgent()]
        stream = await client.inference.stream(wanted)
        await stream.step(np.ones((2, 3)))
        process.kill()
        await process.start()
        with pytest.raises(StreamBroken) as broken:
            await stream.step(np.ones((2, 3)))
        assert isinstance(broken.value.__cause__, Unavailable)
        assert await stream.resume() == (0, 1)
        assert (await stream.step(np.ones((2, 3)))).values.tolist() == [3, 3]
        await stream.close()


async def test_a_fleet_that_fills_the_server_can_begin_anew(tmp_path: Path) -> None:
    async with (
        open_site(tmp_path, max_agents=4) as site,
        AsyncClient(site.live.running.grpc_address, token=STATIC_TOKEN) as client,
        await client.inference.stream(4) as stream,
    ):
        for _ in range(5):
            await stream.reset()
            await stream.step(np.zeros((4, 3)))
        with pytest.raises(RateLimited) as full:
            await client.inference.stream(1)
        assert full.value.reason == "AGENTS_FULL"
        await stream.reset([1])


async def test_a_sign_in_that_was_ended_cuts_its_streams(site: Site) -> None:
    async with AsyncClient(site.live.running.grpc_address) as client:
        await client.login("admin", ADMIN_PASSWORD)
        stream = await client.inference.stream(1)
        await client.logout()
        assert stream._line is not None
        async with asyncio.timeout(30):
            await asyncio.wait({stream._line._tasks[0]})
        with pytest.raises(StreamBroken) as broken:
            await stream.step([[0, 0, 0]])
        assert isinstance(broken.value.__cause__, Unauthorized)
        await stream.close()
