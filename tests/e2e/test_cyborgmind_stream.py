"""CyborgMind's WebSocket, against a process of its own: each message, good and bad.

One agent lives as long as its connection, and every message has a token.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.e2e.cyborgmind.scene import TOKEN, CyborgScene, cyborg_scene, signed

SEEN = [0.1, 0.2, 0.3, 0.4]
GOOD = {"observation": SEEN, "deterministic": True, "token": TOKEN}
PAIR = [0.01, 0.02]
NEXT = {"observation": PAIR, "token": TOKEN}
REMEMBERING = NEXT | {"policy": "cartpole-memory"}
PATIENCE_S = 5


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CyborgScene]:
    with cyborg_scene(tmp_path_factory.mktemp("cyborgmind") / "data") as opened:
        yield opened


class Socket:
    """One connection."""

    def __init__(self, opened: aiohttp.ClientWebSocketResponse) -> None:
        self.opened = opened

    async def ask(self, message: dict[str, Any] | str | bytes) -> Any:
        if isinstance(message, bytes):
            await self.opened.send_bytes(message)
        else:
            await self.opened.send_str(message if isinstance(message, str) else json.dumps(message))
        return await self.opened.receive_json(timeout=PATIENCE_S)

    async def error(self, message: dict[str, Any] | str | bytes) -> str:
        answer = await self.ask(message)
        assert answer.get("action") is None
        text: str = answer["error"]
        return text

    async def end(self) -> int:
        """The code it is closed with."""
        closed = await self.opened.receive(timeout=PATIENCE_S)
        assert closed.type is aiohttp.WSMsgType.CLOSE
        code: int = closed.data
        return code


@asynccontextmanager
async def connected(scene: CyborgScene) -> AsyncIterator[Socket]:
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{scene.url()}/stream") as opened,
    ):
        yield Socket(opened)


async def agents_of(scene: CyborgScene, policy: str) -> int:
    told = await asyncio.to_thread(scene.run, f"$url/api/v1/policies/{policy} $as_client")
    count: int = told.body["versions"][0]["agent_count"]
    return count


async def test_an_observation_is_answered_with_an_action(scene: CyborgScene) -> None:
    async with connected(scene) as socket:
        answer = await socket.ask(GOOD)
    assert list(answer) == ["action", "value", "pressure", "error"]
    assert (answer["action"], answer["pressure"], answer["error"]) == (1, 0.0, None)
    assert isinstance(answer["value"], float)


async def test_a_continuous_action_is_a_list(scene: CyborgScene) -> None:
    async with connected(scene) as socket:
        answer = await socket.ask(GOOD | {"observation": [1, 0, 0], "policy": "pendulum"})
    assert [type(each) for each in answer["action"]] == [float]


async def test_actions_are_deterministic_unless_they_are_not_to_be(scene: CyborgScene) -> None:
    even = {"observation": [0, 0, 0, 0], "token": TOKEN}
    async with connected(scene) as socket:
        chosen = {(await socket.ask(even))["action"] for _ in range(40)}
        drawn = {(await socket.ask(even | {"deterministic": False}))["action"] for _ in range(40)}
    assert (len(chosen), drawn) == (1, {0, 1})


async def test_each_connection_has_a_state_of_its_own_that_ends_with_it(scene: CyborgScene) -> None:
    async with connected(scene) as first, connected(scene) as second:
        begun = await first.ask(REMEMBERING)
        later = await first.ask(REMEMBERING)
        assert later["pressure"] > begun["pressure"] > 0
        assert await second.ask(REMEMBERING) == begun
        assert await agents_of(scene, "cartpole-memory") == 2
    async with asyncio.timeout(PATIENCE_S):
        while await agents_of(scene, "cartpole-memory"):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"observation": PAIR}, "Missing 'token' field in message"),
        ({"observation": PAIR, "token": ""}, "Missing 'token' field in message"),
        ({"token": TOKEN}, "Missing 'observation' field"),
        (NEXT | {"observation": []}, "Missing 'observation' field"),
        (NEXT | {"observation": [0.1]}, "Expected observation of length 2, got 1"),
        (NEXT | {"token": "no"}, "Authentication failed: Invalid authentication token"),
        (NEXT | {"token": "a.b.c"}, "Authentication failed: Invalid authentication token"),
        (NEXT | {"token": signed(exp=1)}, "Authentication failed: Token has expired"),
        (NEXT | {"token": signed(iss="x")}, "Authentication failed: Invalid token issuer"),
        (NEXT | {"token": signed(aud="x")}, "Authentication failed: Invalid token audience"),
        (NEXT | {"observation": ["0.1", 0]}, "observation[0] must be a number"),
        (NEXT | {"observation": 4}, "observation must be a list"),
        (NEXT | {"deterministic": "yes"}, "deterministic must be true or false"),
        (NEXT | {"colour": 1}, "colour unknown field"),
        ("[0.1]", "the body must be an object"),
        ("observation", "the body is not JSON"),
        ('{"observation":[NaN,0]}', "the body is not JSON"),
        ('{"observation":[1e999,0]}', "the body is not JSON"),
        (b"\x00", "frames must be text, not binary"),
    ],
)
async def test_what_is_wrong_is_told_and_the_connection_goes_on(
    scene: CyborgScene, message: dict[str, Any] | str | bytes, text: str
) -> None:
    async with connected(scene) as socket:
        begun = await socket.ask(REMEMBERING)
        assert text in await socket.error(message)
        assert (await socket.ask(NEXT))["pressure"] > begun["pressure"]


async def test_a_policy_that_is_not_there_is_told(scene: CyborgScene) -> None:
    async with connected(scene) as socket:
        assert "no policy 'none'" in await socket.error(GOOD | {"policy": "none"})
        assert (await socket.ask(GOOD))["error"] is None


async def test_a_token_that_ends_meanwhile_is_told_and_another_one_goes_on(
    scene: CyborgScene,
) -> None:
    ends_at_s = time.time() + 2
    async with connected(scene) as socket:
        begun = await socket.ask(REMEMBERING | {"token": signed(exp=ends_at_s)})
        assert begun["error"] is None
        await asyncio.sleep(ends_at_s - time.time())
        text = await socket.error(REMEMBERING | {"token": signed(exp=ends_at_s)})
        assert text == "Authentication failed: Token has expired"
        later = await socket.ask(REMEMBERING | {"token": signed()})
        assert later["pressure"] > begun["pressure"]  # the same agent, of the same subject


async def test_the_agent_of_one_subject_is_not_handed_to_another(scene: CyborgScene) -> None:
    async with connected(scene) as socket:
        begun = await socket.ask(REMEMBERING | {"token": signed(sub="one")})
        await socket.ask(REMEMBERING | {"token": signed(sub="one")})
        assert await socket.ask(REMEMBERING | {"token": signed(sub="other")}) == begun


async def test_bad_tokens_again_and_again_end_the_connection(scene: CyborgScene) -> None:
    async with connected(scene) as socket:
        for _ in range(4):
            assert "Authentication failed" in await socket.error(GOOD | {"token": "no"})
        await socket.opened.send_json(GOOD | {"token": "no"})
        assert await socket.end() == 4016


async def test_a_caller_who_goes_without_a_word_leaves_no_state(scene: CyborgScene) -> None:
    async with aiohttp.ClientSession() as session:
        for _ in range(5):
            opened = await session.ws_connect(f"{scene.url()}/stream")
            await opened.send_json(GOOD | {"observation": [1, 0, 0], "policy": "pendulum"})
            await opened.send_str("no JSON")
    async with asyncio.timeout(PATIENCE_S):
        while await agents_of(scene, "pendulum"):
            await asyncio.sleep(0.01)


async def test_a_server_that_stops_says_so(tmp_path: Path) -> None:
    with cyborg_scene(tmp_path / "data") as stopping:
        async with connected(stopping) as socket:
            await socket.ask(GOOD)
            await asyncio.to_thread(stopping.server.terminate)
            assert await socket.end() == aiohttp.WSCloseCode.GOING_AWAY
