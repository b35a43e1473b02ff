"""HTTP requests through the gateway to a core, and what comes back."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import aiohttp
import pytest

from steward_gateway.app import RunningGateway
from steward_gateway.config import GatewayConfig

Http = aiohttp.ClientSession
JSON = {"Content-Type": "application/json"}


async def test_a_body_becomes_the_request_and_the_answer_is_complete(http: Http, core: Any) -> None:
    tool = {
        "id": "t1",
        "kind": "hand_saw",
        "price_usd": 19.99,
        "bought_at": "2026-11-21T10:30:00.250+01:00",
        "tags": ["sharp"],
        "spent_usd": {"oil": 0.000000001},
    }
    async with http.post("/v1/tools", json={"tool": tool}) as response:
        assert response.status == 201
        assert response.headers["Content-Type"] == "application/json"
        assert await response.json() == {
            **tool,
            "bought_at": "2026-11-21T09:30:00.250Z",
            "rating": None,
            "shelf": "",
        }
    assert core.requests[0].tool.price_nanousd == 19_990_000_000


async def test_a_body_field_and_a_path_variable_meet_in_one_message(http: Http) -> None:
    async with http.post("/old/tools/top%20shelf", json={"id": "t2"}) as response:
        assert response.status == 201
        assert (await response.json())["shelf"] == "top shelf"


async def test_an_empty_body_is_an_empty_object(http: Http, core: Any) -> None:
    async with http.post("/v1/tools") as response:
        assert response.status == 201
    assert not core.requests[0].HasField("tool")


async def test_query_parameters_reach_fields_of_every_kind(http: Http) -> None:
    query = (
        "kind=hammer&tags=a&tags=b%20c&limit=5&like.id=x&like.rating=3&sharp=true"
        "&since=2026-01-01T00:00:00Z&max_price_usd=0.1"
    )
    async with http.get(f"/v1/tools?{query}") as response:
        asked = (await response.json())["asked"]
    assert asked["kind"] == "hammer"
    assert asked["tags"] == ["a", "b c"]
    assert asked["limit"] == 5
    assert (asked["like"]["id"], asked["like"]["rating"]) == ("x", 3)
    assert asked["sharp"] is True
    assert asked["since"] == "2026-01-01T00:00:00Z"
    assert asked["max_price_usd"] == 0.1


@pytest.mark.parametrize(
    ("path", "tool_id"),
    [
        ("/v1/tools/plain", "plain"),
        ("/v1/tools/with%2Fslash", "with/slash"),
        ("/v1/tools/caf%C3%A9", "café"),
        ("/v1/tools/a:b", "a:b"),
        ("/v1/paths/a/b/c", "a/b/c"),
        ("/v1/paths/a%2Fb/c%20d", "a%2Fb/c d"),
    ],
)
async def test_a_path_variable_is_decoded_as_its_template_says(
    gateway: RunningGateway, path: str, tool_id: str
) -> None:
    # Written by hand: a client library would put the path into a form of its own.
    head, body = await raw(gateway, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert json.loads(body)["id"] == tool_id


async def test_a_custom_verb_is_a_route_of_its_own(http: Http) -> None:
    async with http.post("/v1/tools/saw:sharpen", json={}) as response:
        assert (await response.json())["id"] == "saw"


async def test_a_custom_http_method_is_served(http: Http) -> None:
    async with http.request("LOCK", "/v1/tools/saw") as response:
        assert (await response.json())["tool"]["id"] == "saw"


async def test_204_carries_no_body(http: Http, core: Any) -> None:
    async with http.delete("/v1/tools/t1") as response:
        assert response.status == 204
        assert await response.read() == b""
    assert core.requests[0].tool_id == "t1"


async def test_a_raw_body_is_answered_as_it_is(http: Http) -> None:
    async with http.get("/v1/download") as response:
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4"
        assert await response.text() == "up 1\n"


async def test_a_raw_body_is_taken_as_it_is(http: Http) -> None:
    headers = {"Content-Type": "image/png"}
    async with http.put("/v1/upload/cat", data=b"\x89PNG\r\n", headers=headers) as response:
        assert await response.json() == {
            "name": "cat",
            "content_type": "image/png",
            "size_bytes": 6,
        }


async def test_the_idempotency_key_fills_the_request_id(http: Http, core: Any) -> None:
    headers = {"Idempotency-Key": "once-1"}
    await http.post("/v1/tools", json={}, headers=headers)
    await http.post("/v1/tools", json={"request_id": "own"}, headers=headers)
    assert [request.request_id for request in core.requests] == ["once-1", "own"]


async def test_only_named_headers_reach_the_core(http: Http) -> None:
    headers = {
        "Authorization": "Bearer abc",
        "X-IC-Key": "ic_1",
        "X-API-Key": "itk_1",
        "X-Request-Id": "req-1",
        "X-Steward-Peer": "6.6.6.6",
        "X-Forwarded-For": "10.0.0.7",
        "X-Other": "no",
        "Cookie": "a=b",
    }
    async with http.get("/v1/inspect", headers=headers) as response:
        metadata = (await response.json())["metadata"]
    assert metadata["authorization"] == "Bearer abc"
    assert metadata["x-ic-key"] == "ic_1"
    assert metadata["x-api-key"] == "itk_1"
    assert metadata["x-request-id"] == "req-1"
    # In one process the core is told of the peer; over a channel the gateway is one more proxy.
    own = (metadata.get("x-steward-peer"), metadata["x-forwarded-for"])
    assert own in {("127.0.0.1", "10.0.0.7"), (None, "10.0.0.7, 127.0.0.1")}
    assert "x-other" not in metadata
    assert "cookie" not in metadata


async def test_metadata_of_the_answer_becomes_headers(http: Http) -> None:
    async with http.get("/v1/inspect", headers={"X-Request-Id": "req-2"}) as response:
        assert response.headers["x-rate-limit-remaining"] == "99"
        assert response.headers["x-after"] == "yes"
        assert response.headers["Retry-After"] == "7"
        assert response.headers["X-Request-Id"] == "req-2"
        assert "internal" not in response.headers


@pytest.mark.parametrize("given", ["", "has space", "x" * 200, "b\xe9d"])
async def test_a_request_id_unfit_for_logs_is_replaced(gateway: RunningGateway, given: str) -> None:
    request = (
        f"GET /v1/tools HTTP/1.1\r\nHost: x\r\nX-Request-Id: {given}\r\nConnection: close\r\n\r\n"
    )
    head, _ = await raw(gateway, request)
    answered = next(
        line.partition(b": ")[2]
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"x-request-id")
    )
    process, _, count = answered.partition(b"-")
    assert len(process) == 16
    assert int(process, 16) >= 0
    assert int(count, 16) > 0


@pytest.mark.parametrize(
    ("headers", "low_s", "high_s"),
    [
        ({"X-Request-Timeout": "5"}, 4, 5),
        ({"grpc-timeout": "2500m"}, 1.5, 2.5),
        ({"X-Request-Timeout": "999999"}, 3590, 3600),
        ({}, 55, 60),
    ],
)
async def test_the_deadline_reaches_the_core(
    http: Http, headers: dict[str, str], low_s: float, high_s: float
) -> None:
    async with http.get("/v1/inspect", headers=headers) as response:
        # gRPC rounds a deadline up by about a hundredth.
        assert low_s < (await response.json())["remaining_s"] <= high_s * 1.02


@pytest.mark.parametrize("headers", [{"X-Request-Timeout": "soon"}, {"grpc-timeout": "5"}])
async def test_a_deadline_that_is_none_is_refused(http: Http, headers: dict[str, str]) -> None:
    async with http.get("/v1/inspect", headers=headers) as response:
        assert response.status == 400
        assert list((await response.json())["error"]["fields"]) == list(headers)


async def test_a_call_past_its_deadline_is_504(http: Http, core: Any) -> None:
    async with http.get("/v1/wait?name=late", headers={"X-Request-Timeout": "1"}) as response:
        assert response.status == 504
        assert (await response.json())["error"]["code"] == "DEADLINE_EXCEEDED"
    assert await asyncio.wait_for(core.cancelled.get(), 30) == "late"


async def test_a_caller_who_leaves_cancels_the_call(
    http: Http, core: Any, seen_requests: list[tuple[str, int]]
) -> None:
    request = asyncio.create_task(http.get("/v1/wait?name=gone"))
    assert await asyncio.wait_for(core.started.get(), 30) == "gone"
    request.cancel()
    assert await asyncio.wait_for(core.cancelled.get(), 30) == "gone"
    assert seen_requests == [("/v1/wait", 499)]


async def test_head_is_get_without_a_body(http: Http) -> None:
    async with http.head("/v1/tools/t1") as response:
        assert response.status == 200
        assert int(response.headers["Content-Length"]) > 0
        assert await response.read() == b""


async def test_options_lists_what_is_allowed(http: Http) -> None:
    async with http.options("/v1/tools/t1") as response:
        assert response.status == 204
        assert response.headers["Allow"] == "DELETE, GET, LOCK, PATCH, HEAD, OPTIONS"


async def test_a_known_path_with_another_method_is_405(http: Http) -> None:
    async with http.patch("/v1/tools", json={}) as response:
        assert response.status == 405
        assert response.headers["Allow"] == "GET, POST, HEAD, OPTIONS"
        assert (await response.json())["error"]["code"] == "METHOD_NOT_ALLOWED"


@pytest.mark.parametrize(
    "path", ["/dashboard/nothing.js", "/v1", "/v1/tools/", "/v1/tools//", "/v1/tools/a/b", "/x"]
)
async def test_a_path_nobody_serves_is_404(
    http: Http, path: str, seen_requests: list[tuple[str, int]]
) -> None:
    async with http.get(path) as response:
        assert response.status == 404
        assert (await response.json())["error"]["code"] == "NOT_FOUND"
    assert seen_requests == [("unmatched", 404)]


async def test_a_404_speaks_the_dialect_of_the_paths_around_it(http: Http) -> None:
    async with http.get("/cyborg/nothing") as response:
        assert await response.json() == {"detail": "nothing is served at this path"}


async def test_a_body_over_the_limit_is_413(http: Http) -> None:
    async with http.post("/v1/tools", data=io.BytesIO(b"x" * (4 * 1024 * 1024 + 1))) as response:
        assert response.status == 413
        assert (await response.json())["error"]["code"] == "PAYLOAD_TOO_LARGE"


async def test_a_chunked_body_over_the_limit_is_413(http: Http) -> None:
    async def chunks() -> Any:
        for _ in range(5):
            yield b" " * (1024 * 1024)

    async with http.post("/v1/tools", data=chunks()) as response:
        assert response.status == 413


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_a_body_of_another_type_is_415(http: Http, content_type: str) -> None:
    headers = {"Content-Type": content_type}
    async with http.post("/v1/tools", data=b"{}", headers=headers) as response:
        assert response.status == 415
        assert "application/json" in (await response.json())["error"]["message"]


async def test_json_with_a_charset_is_json(http: Http) -> None:
    headers = {"Content-Type": "application/json; charset=UTF-8"}
    async with http.post("/v1/tools", data=b"{}", headers=headers) as response:
        assert response.status == 201


async def test_broken_json_is_refused_with_its_position(http: Http) -> None:
    headers = {"Content-Type": "application/json"}
    async with http.post("/v1/tools", data=b'{"tool":\n oops}', headers=headers) as response:
        assert response.status == 400
        error = (await response.json())["error"]
    assert error["code"] == "VALIDATION_ERROR"
    assert "line 2, column 2" in error["message"]


async def test_everything_wrong_with_a_body_is_told_at_once(http: Http) -> None:
    tool = {"id": 7, "kind": "spoon", "price_usd": 0.0000000001, "tags": [1], "colour": "red"}
    async with http.post("/v1/tools", json={"tool": tool, "more": 1}) as response:
        assert response.status == 400
        assert (await response.json())["error"]["fields"] == {
            "tool.id": "must be text",
            "tool.kind": "must be one of: hammer, hand_saw",
            "tool.price_usd": "must have at most 9 decimals",
            "tool.tags[0]": "must be text",
            "tool.colour": "unknown field",
            "more": "unknown field",
        }


async def test_an_unknown_parameter_is_refused_by_name(http: Http) -> None:
    async with http.get("/v1/tools?limit=many&colour=red&limit=3") as response:
        assert response.status == 400
        assert (await response.json())["error"]["fields"] == {
            "limit": "is given twice",
            "colour": "unknown parameter",
        }


@pytest.mark.parametrize("path", ["/v1/tools/%zz", "/v1/tools/%ff", "/v1/tools/%"])
async def test_a_path_that_cannot_be_decoded_is_400(gateway: RunningGateway, path: str) -> None:
    head, _ = await raw(gateway, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")


async def test_a_core_that_is_away_is_503_without_its_address(
    http: Http, gateway: RunningGateway
) -> None:
    body = {"code": 14, "message": "failed to connect to 127.0.0.1:50051"}
    async with http.post("/v1/fail", json=body) as response:
        assert response.status == 503
        assert "127.0.0.1" not in await response.text()


async def test_calls_under_way_end_before_the_gateway_does(
    http: Http, gateway: RunningGateway, core: Any
) -> None:
    request = asyncio.create_task(http.get("/v1/wait?name=last"))
    await asyncio.wait_for(core.started.get(), 30)
    stopping = asyncio.create_task(gateway.stop())
    await asyncio.sleep(0)
    core.release.set()
    async with await request as response:
        assert response.status == 200
    await stopping


async def test_metrics_are_told_the_template_and_not_the_path(
    http: Http, seen_requests: list[tuple[str, int]]
) -> None:
    await http.get("/v1/tools/one")
    await http.get("/v1/tools/two")
    assert seen_requests == [("/v1/tools/{tool_id}", 200)] * 2


async def test_a_client_that_waits_to_be_told_to_send_is_told(gateway: RunningGateway) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(
        b"POST /v1/tools HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 2\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    )
    assert await reader.readline() == b"HTTP/1.1 100 Continue\r\n"
    writer.write(b"{}")
    assert (await reader.read()).startswith(b"\r\nHTTP/1.1 201")
    writer.close()
    await writer.wait_closed()


async def test_the_form_of_request_that_proxies_are_sent_is_understood(
    gateway: RunningGateway,
) -> None:
    request = "GET http://any.host/v1/tools/t1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    head, body = await raw(gateway, request)
    assert head.startswith(b"HTTP/1.1 200")
    assert json.loads(body)["id"] == "t1"


INSPECT = "GET /v1/inspect HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("value", ["a\rX-Evil: 1", "a\x00b", "a\x7f"])
async def test_a_header_with_control_characters_is_no_request(
    gateway: RunningGateway, seen_requests: list[tuple[str, int]], value: str
) -> None:
    head, _ = await raw(gateway, INSPECT.format(value))
    assert head.split()[1] == b"400"
    assert seen_requests == []


async def test_a_header_that_metadata_cannot_carry_is_left_out(gateway: RunningGateway) -> None:
    _, body = await raw(gateway, INSPECT.format("Bearer \xfc"))
    assert "authorization" not in json.loads(body)["metadata"]


async def test_the_core_is_told_which_page_calls_and_whom_it_means(http: Http) -> None:
    async with http.get("/v1/inspect", headers={"Origin": "http://evil.example"}) as response:
        metadata = (await response.json())["metadata"]
    assert metadata["x-steward-origin"] == "http://evil.example"
    assert metadata["x-steward-host"].startswith("127.0.0.1:")


class TestSlowBody:
    @pytest.fixture
    def config(self) -> GatewayConfig:
        return GatewayConfig(body_timeout_s=0.2, drain_grace_s=2)

    async def test_a_body_that_never_comes_is_408(self, gateway: RunningGateway) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(
            b"POST /v1/tools HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 10\r\n\r\n{"
        )
        async with asyncio.timeout(30):
            assert (await reader.readline()).startswith(b"HTTP/1.1 408")
            assert b"REQUEST_TIMEOUT" in await reader.readuntil(b"}}")
        writer.close()
        await writer.wait_closed()


async def raw(gateway: RunningGateway, request: str) -> tuple[bytes, bytes]:
    """Send bytes as they are; give the head and the body of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(request.encode("latin-1"))
    answer = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body


async def test_what_the_path_says_cannot_be_said_otherwise_in_the_body(http: Http) -> None:
    others: list[Any] = ["low shelf", 7, {}]
    for shelf in others:
        async with http.post("/old/tools/top%20shelf", json={"shelf": shelf}) as response:
            assert response.status == 400
            assert list((await response.json())["error"]["fields"]) == ["shelf"]
    async with http.post("/old/tools/top%20shelf", json={"shelf": "top shelf"}) as response:
        assert response.status == 201


async def test_a_body_that_is_a_field_is_not_null(http: Http) -> None:
    async with http.post("/old/tools/top", data=b"null", headers=JSON) as response:
        assert response.status == 400


async def test_a_body_that_is_not_compressed_as_it_says_is_400(http: Http) -> None:
    sent = JSON | {"Content-Encoding": "gzip"}
    async with http.post("/v1/tools", data=b"no gzip at all", headers=sent) as response:
        assert response.status == 400
