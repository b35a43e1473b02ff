"""WebSockets in front of streams of the core: framings, credentials, refusals, ends."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType

from steward_gateway.app import RunningGateway
from steward_gateway.config import GatewayConfig

Http = aiohttp.ClientSession


async def receive(socket: aiohttp.ClientWebSocketResponse) -> Any:
    return await socket.receive_json(timeout=30)


async def closed(socket: aiohttp.ClientWebSocketResponse) -> tuple[int | None, str | None]:
    message = await socket.receive(timeout=30)
    assert message.type is WSMsgType.CLOSE, message
    return socket.close_code, message.extra


async def test_the_opening_is_filled_from_path_and_query(http: Http) -> None:
    async with http.ws_connect("/ws/chat/lobby?since=5&type=Said&type=Joined") as socket:
        assert await receive(socket) == {
            "type": "Joined",
            "sequence": 1,
            "data": {
                "room": "lobby",
                "since": 5,
                "types": ["Said", "Joined"],
                "authorization": "",
            },
        }


async def test_tagged_frames_go_both_ways(http: Http) -> None:
    async with http.ws_connect("/ws/chat/lobby") as socket:
        await receive(socket)
        await socket.send_str(
            '{"type":"Say","message_id":"m1","data":{"text":"hi","tip_usd":0.000000001}}'
        )
        message = await socket.receive(timeout=30)
        assert '"tip_usd":0.000000001' in message.data
        assert json.loads(message.data) == {
            "type": "Said",
            "sequence": 2,
            "data": {"message_id": "m1", "text": "hi", "tip_usd": 1e-9},
        }


async def test_a_flat_member_of_a_tagged_frame_is_flat(http: Http) -> None:
    async with http.ws_connect("/ws/chat/lobby") as socket:
        await receive(socket)
        await socket.send_json({"type": "ping", "timestamp": 1707000000000})
        assert await receive(socket) == {"type": "pong", "sequence": 2, "timestamp": 1707000000000}


async def test_flat_frames_go_both_ways(http: Http) -> None:
    async with http.ws_connect("/ws/terminal") as socket:
        await socket.send_json({"type": "stdin", "data": "ls\n"})
        assert await receive(socket) == {"type": "stdout", "data": "LS\n"}
        await socket.send_json({"type": "resize", "rows": 24, "columns": 80})
        assert await receive(socket) == {"type": "stdout", "data": "[24, 80]"}


async def test_plain_frames_go_both_ways(http: Http) -> None:
    async with http.ws_connect("/ws/infer") as socket:
        await socket.send_json({"observation": [0.1, 2], "deterministic": True})
        assert await receive(socket) == {"action": 2, "value": 0.5}


async def test_a_server_stream_may_be_a_socket(http: Http) -> None:
    async with http.ws_connect("/ws/count/2") as socket:
        assert (await receive(socket))["number"] == 1
        assert (await receive(socket))["number"] == 2
        assert await closed(socket) == (1000, "")


@pytest.mark.parametrize(
    ("frame", "fields"),
    [
        ('{"type":"Shout"}', {"type": "must be one of: Join, Say, ping, FailRequest"}),
        ('{"data":{}}', {"type": "must be one of: Join, Say, ping, FailRequest"}),
        ('{"type":"Say","data":{"text":1}}', {"data.text": "must be text"}),
        ('{"type":"Say","data":{"x":2}}', {"data.x": "unknown field"}),
        ('{"type":"Say","data":[]}', {"data": "must be an object"}),
        ('{"type":"ping","time":1}', {"time": "unknown field"}),
        ('{"type":"Say","message_id":1,"data":{}}', {"message_id": "must be text"}),
    ],
)  # fmt: skip
async def test_a_wrong_frame_is_answered_and_the_socket_goes_on(
    http: Http, frame: str, fields: dict[str, str]
) -> None:
    async with http.ws_connect("/ws/chat/lobby") as socket:
        await receive(socket)
        await socket.send_str(frame)
        answer = await receive(socket)
        assert answer["type"] == "Error"
        assert answer["error"]["code"] == "VALIDATION_ERROR"
        assert answer["error"]["fields"] == fields
        await socket.send_json({"type": "Say", "data": {"text": "still here"}})
        assert (await receive(socket))["data"]["text"] == "still here"


async def test_broken_json_and_binary_frames_are_answered(http: Http) -> None:
    async with http.ws_connect("/ws/chat/lobby") as socket:
        await receive(socket)
        await socket.send_str("{oops")
        assert "line 1, column 2" in (await receive(socket))["error"]["message"]
        await socket.send_bytes(b"{}")
        assert "must be text" in (await receive(socket))["error"]["message"]


async def test_an_error_frame_speaks_the_dialect_of_the_socket(http: Http) -> None:
    async with http.ws_connect("/ws/infer") as socket:
        await socket.send_json({"observation": "x"})
        assert await receive(socket) == {"error": "observation must be a list"}
    async with http.ws_connect("/ws/terminal") as socket:
        await socket.send_json({"type": "stdin", "data": 1})
        assert await receive(socket) == {
            "type": "error",
            "error": "Bad Request",
            "message": "data must be text",
            "code": 400,
        }


async def test_a_socket_that_takes_no_frames_says_so(http: Http) -> None:
    async with http.ws_connect("/ws/count/1?hold=true") as socket:
        await receive(socket)
        await socket.send_str("{}")
        assert "takes no frames" in (await receive(socket))["error"]["message"]


async def test_a_refused_stream_is_a_refused_handshake(http: Http) -> None:
    headers = {"Authorization": "Bearer wrong"}
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await http.ws_connect("/ws/chat/lobby", headers=headers)
    assert refused.value.status == 403


async def test_a_wrong_query_is_a_refused_handshake(http: Http) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await http.ws_connect("/ws/chat/lobby?colour=red")
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("query", "headers", "protocols"),
    [
        ("", {"Authorization": "Bearer good"}, []),
        ("?token=good", {}, []),
        ("", {}, ["Authorization", "good"]),
        ("", {"Sec-WebSocket-Protocol": "Authorization, Bearer good"}, []),
        ("?token=bad", {"Authorization": "Bearer good"}, ["Authorization", "bad"]),
    ],
)
async def test_a_credential_may_come_in_four_ways(
    http: Http, query: str, headers: dict[str, str], protocols: list[str]
) -> None:
    async with http.ws_connect(
        f"/ws/chat/lobby{query}", headers=headers, protocols=protocols
    ) as socket:
        assert (await receive(socket))["data"]["authorization"] == "Bearer good"


async def test_the_subprotocol_agreed_to_is_never_the_token(http: Http) -> None:
    async with http.ws_connect("/ws/chat/x", protocols=["Authorization", "good"]) as socket:
        assert socket.protocol == "Authorization"


@pytest.mark.parametrize(
    ("failure", "code", "reason"),
    [
        ({"code": 5, "message": "gone"}, 4005, "gone"),
        ({"code": 7, "message": "no", "reason": "TOKEN_REVOKED"}, 4007, "TOKEN_REVOKED"),
        ({"code": 3, "message": "é" * 100}, 4003, "é" * 61),
    ],
)
async def test_a_failure_closes_with_its_status(
    http: Http, failure: dict[str, Any], code: int, reason: str
) -> None:
    async with http.ws_connect("/ws/chat/lobby") as socket:
        await receive(socket)
        await socket.send_json({"type": "FailRequest", "data": failure})
        assert await closed(socket) == (code, reason)


async def test_internal_words_do_not_leave_by_the_close_reason(http: Http) -> None:
    headers = {"X-Request-Id": "r-1"}
    async with http.ws_connect("/ws/chat/lobby", headers=headers) as socket:
        await receive(socket)
        await socket.send_json({"type": "FailRequest", "data": {"code": 13, "message": "SELECT"}})
        assert await closed(socket) == (4013, "internal error; quote request id r-1")


async def test_what_was_sent_before_closing_is_carried_out(http: Http, core: Any) -> None:
    async with http.ws_connect("/ws/chat/lobby") as socket:
        await receive(socket)
        for number in range(50):
            await socket.send_json({"type": "Say", "data": {"text": str(number)}})
        await socket.close()
    said = [await asyncio.wait_for(core.said.get(), 30) for _ in range(51)]
    assert said == [*map(str, range(50)), "<end>"]


async def test_a_lost_connection_cancels_the_stream(http: Http, core: Any) -> None:
    socket = await http.ws_connect("/ws/count/1?hold=true")
    await receive(socket)
    assert await asyncio.wait_for(core.started.get(), 30) == "holding"
    connection = socket._response.connection
    assert connection is not None
    assert connection.transport is not None
    connection.transport.abort()
    assert await asyncio.wait_for(core.cancelled.get(), 30) == "count"
    await socket.close()


async def test_the_gateway_stops_with_1001(http: Http, gateway: RunningGateway, core: Any) -> None:
    async with http.ws_connect("/ws/count/1?hold=true") as socket:
        await receive(socket)
        assert await asyncio.wait_for(core.started.get(), 30) == "holding"
        stopping = asyncio.create_task(gateway.stop())
        assert await closed(socket) == (1001, "the gateway is stopping")
        await stopping
    assert await asyncio.wait_for(core.cancelled.get(), 30) == "count"


async def test_a_frame_over_the_limit_closes_with_1009(http: Http) -> None:
    async with http.ws_connect("/ws/chat/lobby") as socket:
        await receive(socket)
        await socket.send_str("x" * (1024 * 1024 + 1))
        assert (await closed(socket))[0] == 1009


async def test_a_slow_reader_holds_the_core_back(
    gateway: RunningGateway, core: Any, seen_requests: list[tuple[str, int]]
) -> None:
    count = 20_000
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=1024)
    writer.write(
        f"GET /ws/count/{count}?padding_bytes=10000 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    assert await reader.readline() == b"HTTP/1.1 101 Switching Protocols\r\n"
    before = -1
    while core.counted != before:  # until the core no longer gets anywhere
        before = core.counted
        await asyncio.sleep(0.2)
    assert core.counted < count / 2
    writer.transport.abort()
    async with asyncio.timeout(30):
        while not seen_requests:
            await asyncio.sleep(0.01)
    assert seen_requests == [("/ws/count/{count}", 499)]


async def test_a_plain_request_to_a_socket_is_426(http: Http) -> None:
    async with http.get("/ws/terminal") as response:
        assert response.status == 426
        assert response.headers["Upgrade"] == "websocket"
        assert (await response.json())["error"] == "Upgrade Required"


async def test_an_upgrade_where_no_socket_is_gets_the_answer_of_the_path(http: Http) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await http.ws_connect("/v1/nothing")
    assert refused.value.status == 404


class TestHeartbeat:
    @pytest.fixture
    def config(self) -> GatewayConfig:
        return GatewayConfig(heartbeat_s=0.5, accept_timeout_s=1, drain_grace_s=2)

    async def test_a_socket_that_answers_no_ping_is_dropped(self, http: Http, core: Any) -> None:
        socket = await http.ws_connect("/ws/count/1?hold=true", autoping=False)
        await receive(socket)
        assert await asyncio.wait_for(core.cancelled.get(), 30) == "count"
        await socket.close()


class TestUnhurriedHeartbeat:
    @pytest.fixture
    def config(self) -> GatewayConfig:
        return GatewayConfig(heartbeat_s=2, accept_timeout_s=1, drain_grace_s=2)

    async def test_a_quiet_socket_that_answers_stays(self, http: Http, core: Any) -> None:
        async with http.ws_connect("/ws/count/1?hold=true") as socket:
            await receive(socket)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(socket.receive(), 5)
        assert core.cancelled.qsize() <= 1
