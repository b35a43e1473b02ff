"""Connect through the gateway to a core: what a caller sends and sees, byte for byte."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from google.rpc import error_details_pb2

from steward_gateway.app import RunningGateway
from steward_gateway.config import GatewayConfig
from steward_gateway.rpc import envelope

Http = aiohttp.ClientSession
SERVICE = "/workshop.v1.WorkshopService"
STREAM = {"Content-Type": "application/connect+json"}


@pytest.fixture
def config() -> GatewayConfig:
    return GatewayConfig(drain_grace_s=2, accept_timeout_s=1, max_body_bytes=64 * 1024)


async def ask(http: Http, method: str, body: Any = None, **headers: str) -> Any:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    async with http.post(f"{SERVICE}/{method}", json=body or {}, headers=sent) as response:
        return response.status, await response.json(), response.headers


def messages(body: bytes) -> list[tuple[int, Any]]:
    return [(flags, json.loads(payload)) for flags, payload in envelope.unpack(body)]


async def stream(http: Http, method: str, *bodies: Any, **headers: str) -> list[tuple[int, Any]]:
    sent = STREAM | {name.replace("_", "-"): value for name, value in headers.items()}
    body = b"".join(envelope.pack(json.dumps(each).encode()) for each in bodies)
    async with http.post(f"{SERVICE}/{method}", data=body, headers=sent) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "application/connect+json"
        return messages(await response.read())


async def test_json_is_protojson_and_not_the_style_of_rest(http: Http) -> None:
    body = {"name": "anvil", "weightNanousd": "1500000000"}
    status, answer, headers = await ask(http, "Weigh", body, X_Request_Id="r-1")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert answer == {**body, "kind": "KIND_HAND_SAW"}
    assert headers["X-Request-Id"] == "r-1"
    _, answer, _ = await ask(http, "Weigh", {"name": "anvil", "weight_nanousd": 1_500_000_000})
    assert answer["weightNanousd"] == "1500000000"


async def test_binary_bodies_are_answered_in_kind(http: Http, workshop: Any) -> None:
    request = workshop.pb.WeighRequest(name="anvil", weight_nanousd=7)
    async with http.post(
        f"{SERVICE}/Weigh",
        data=request.SerializeToString(),
        headers={"Content-Type": "application/proto"},
    ) as response:
        assert response.headers["Content-Type"] == "application/proto"
        answer = workshop.pb.WeighResponse.FromString(await response.read())
    assert (answer.name, answer.weight_nanousd) == ("anvil", 7)


async def test_bytes_that_are_no_message_are_an_invalid_argument(http: Http) -> None:
    for content_type, body in (("application/proto", b"\xff\xff"), ("application/json", b"{no")):
        async with http.post(
            f"{SERVICE}/Weigh", data=body, headers={"Content-Type": content_type}
        ) as response:
            assert response.status == 400
            assert response.headers["Content-Type"] == "application/json"
            assert (await response.json())["code"] == "invalid_argument"


async def test_every_wrong_field_is_a_violation_in_the_details(http: Http) -> None:
    status, error, _ = await ask(http, "Weigh", {"name": 7, "colour": "red"})
    assert (status, error["code"]) == (400, "invalid_argument")
    by_type = {detail["type"]: detail for detail in error["details"]}
    info = by_type["google.rpc.ErrorInfo"]["debug"]
    assert (info["reason"], info["domain"]) == ("VALIDATION_ERROR", "steward")
    bad = by_type["google.rpc.BadRequest"]
    assert {each["field"] for each in bad["debug"]["fieldViolations"]} == {"name", "colour"}
    raw = base64.b64decode(bad["value"] + "=" * (-len(bad["value"]) % 4))
    assert len(error_details_pb2.BadRequest.FromString(raw).field_violations) == 2


@pytest.mark.parametrize(
    ("number", "code", "status"),
    [
        (1, "canceled", 499),
        (2, "unknown", 500),
        (3, "invalid_argument", 400),
        (4, "deadline_exceeded", 504),
        (5, "not_found", 404),
        (6, "already_exists", 409),
        (7, "permission_denied", 403),
        (8, "resource_exhausted", 429),
        (9, "failed_precondition", 400),
        (10, "aborted", 409),
        (11, "out_of_range", 400),
        (12, "unimplemented", 501),
        (13, "internal", 500),
        (14, "unavailable", 503),
        (15, "data_loss", 500),
        (16, "unauthenticated", 401),
    ],
)
async def test_a_code_has_the_word_and_the_status_of_the_protocol(
    http: Http, number: int, code: str, status: int
) -> None:
    got, error, headers = await ask(http, "Fail", {"code": number, "message": "told to"})
    assert (got, error["code"]) == (status, code)
    assert ("WWW-Authenticate" in headers) == (status == 401)


async def test_the_core_s_details_and_words_arrive_but_not_those_of_a_fault(http: Http) -> None:
    fail = {"code": 8, "message": "all spent", "reason": "BUDGET_EXCEEDED", "retryAfterS": 2.5}
    _, error, headers = await ask(http, "Fail", {**fail, "facts": {"left": "0"}})
    assert error["message"] == "all spent"
    info, retry = (detail["debug"] for detail in error["details"])
    assert (info["reason"], info["metadata"]) == ("BUDGET_EXCEEDED", {"left": "0"})
    assert (retry["retryDelay"], headers["Retry-After"]) == ("2.500s", "3")
    sent = {"code": 13, "message": "secret words", "reason": "SECRET"}
    _, error, _ = await ask(http, "Fail", sent, X_Request_Id="r-9")
    assert error == {"code": "internal", "message": "internal error; quote request id r-9"}


async def test_credentials_and_deadline_reach_the_core_and_trailers_come_back(http: Http) -> None:
    status, answer, headers = await ask(
        http, "Inspect", Authorization="Bearer t", X_IC_Key="ic", Connect_Timeout_Ms="5000"
    )
    assert status == 200
    assert answer["metadata"]["authorization"] == "Bearer t"
    assert answer["metadata"]["x-ic-key"] == "ic"
    assert 3 < answer["remainingS"] <= 5.1
    assert headers["X-Rate-Limit-Remaining"] == "99"
    assert headers["Trailer-X-After"] == "yes"
    assert headers["Trailer-Retry-After"] == "7"
    assert "Trailer-Internal" not in headers


async def test_an_idempotency_key_fills_the_request_id(http: Http, core: Any) -> None:
    await ask(http, "CreateTool", {}, Idempotency_Key="once")
    await ask(http, "CreateTool", {"requestId": "mine"}, Idempotency_Key="once")
    assert [request.request_id for request in core.requests] == ["once", "mine"]


async def test_a_deadline_ends_the_call_and_the_core_is_told(http: Http, core: Any) -> None:
    status, error, _ = await ask(http, "Wait", {"name": "w"}, Connect_Timeout_Ms="500")
    assert (status, error["code"]) == (504, "deadline_exceeded")
    assert await asyncio.wait_for(core.cancelled.get(), 30) == "w"


async def test_a_caller_that_leaves_cancels_the_call(http: Http, core: Any) -> None:
    call = asyncio.create_task(ask(http, "Wait", {"name": "w"}))
    await asyncio.wait_for(core.started.get(), 30)
    call.cancel()
    assert await asyncio.wait_for(core.cancelled.get(), 30) == "w"


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"Connect-Timeout-Ms": "soon"}, "Connect-Timeout-Ms"),
        ({"Connect-Timeout-Ms": "12345678901"}, "Connect-Timeout-Ms"),
        ({"Connect-Protocol-Version": "2"}, "Connect-Protocol-Version"),
        ({"Idempotency-Key": "k" * 256}, "Idempotency-Key"),
    ],
)
async def test_headers_are_checked(http: Http, headers: dict[str, str], said: str) -> None:
    url = f"{SERVICE}/CreateTool"
    async with http.post(url, json={}, headers=headers) as response:
        error = await response.json()
    assert (response.status, error["code"]) == (400, "invalid_argument")
    assert said in error["message"]


async def test_gzip_is_read_and_written_where_it_pays(http: Http) -> None:
    body = json.dumps({"name": "x" * 5000}).encode()
    sent = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    packed = gzip.compress(body)
    url = f"{SERVICE}/Weigh"
    async with http.post(url, data=packed, headers=sent) as response:
        assert response.headers["Content-Encoding"] == "gzip"
        assert (await response.json())["name"] == "x" * 5000
    plain = sent | {"Accept-Encoding": "identity"}
    async with http.post(url, data=packed, headers=plain) as response:
        assert "Content-Encoding" not in response.headers
    _, _, headers = await ask(http, "Weigh", {"name": "short"}, Accept_Encoding="gzip")
    assert "Content-Encoding" not in headers


async def test_compression_that_is_unknown_broken_or_a_bomb_is_refused(http: Http) -> None:
    bomb = gzip.compress(b'{"name":"' + b"x" * 10_000_000 + b'"}')
    for encoding, body, status in (
        ("compress", b"{}", 501),
        ("gzip", b"no gzip at all", 400),
        ("gzip", bomb, 413),
    ):
        sent = {"Content-Type": "application/json", "Content-Encoding": encoding}
        async with http.post(f"{SERVICE}/Weigh", data=body, headers=sent) as response:
            assert response.status == status, encoding


async def test_a_body_over_the_limit_is_resource_exhausted(http: Http) -> None:
    status, error, _ = await ask(http, "Weigh", {"name": "x" * 70_000})
    assert (status, error["code"]) == (413, "resource_exhausted")


async def test_reading_methods_can_be_asked_by_get(http: Http, workshop: Any) -> None:
    message = quote(json.dumps({"name": "a b"}))
    url = f"{SERVICE}/Weigh?connect=v1&encoding=json&message={message}"
    async with http.get(url) as response:
        assert (response.status, response.headers["Content-Type"]) == (200, "application/json")
        assert "Authorization" in response.headers["Vary"]
        assert response.headers["Cache-Control"] == "private, no-cache"
        assert (await response.json())["name"] == "a b"
    raw = gzip.compress(workshop.pb.WeighRequest(name="c").SerializeToString())
    text = base64.urlsafe_b64encode(raw).decode().rstrip("=")
    url = f"{SERVICE}/Weigh?message={text}&base64=1&compression=gzip&encoding=proto"
    async with http.get(url) as response:
        assert workshop.pb.WeighResponse.FromString(await response.read()).name == "c"
    async with http.get(f"{SERVICE}/GetTool?encoding=json&message={{}}") as response:
        assert response.status == 200  # bound to a GET of REST


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("message={}", 415, "encoding"),
        ("encoding=xml&message={}", 415, "encoding"),
        ("connect=v2&encoding=json&message={}", 400, "connect"),
        ("encoding=json&message=***&base64=1", 400, "base64"),
        ("encoding=json&message={", 400, "JSON"),
        ("encoding=json&message=e30&base64=1&compression=br", 501, "gzip"),
        ("encoding=json&message=e30&base64=1&compression=gzip", 400, "gzip"),
        ("encoding=json&message=%ff", 400, "query"),
    ],
)
async def test_a_get_that_cannot_be_read_is_refused(
    http: Http, query: str, status: int, said: str
) -> None:
    async with http.get(f"{SERVICE}/Weigh?{query}") as response:
        error = await response.json()
    assert response.status == status
    assert said in error["message"]


@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD"])
async def test_a_method_that_may_change_something_takes_post_only(http: Http, method: str) -> None:
    async with http.request(method, f"{SERVICE}/CreateTool?encoding=json&message={{}}") as response:
        assert (response.status, response.headers["Allow"]) == (405, "POST, OPTIONS")


async def test_what_is_allowed_can_be_asked(http: Http) -> None:
    for name, allowed in (
        ("CreateTool", "POST, OPTIONS"),
        ("Weigh", "GET, POST, OPTIONS"),
        ("Count", "POST, OPTIONS"),
    ):
        async with http.options(f"{SERVICE}/{name}") as response:
            assert (response.status, response.headers["Allow"]) == (204, allowed)


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/connect+json", "application/grpc", "application/json; charset=x"],
)
async def test_a_content_type_that_does_not_fit_is_415(http: Http, content_type: str) -> None:
    sent = {"Content-Type": content_type}
    async with http.post(f"{SERVICE}/Weigh", data=b"{}", headers=sent) as response:
        assert response.status == 415
        assert "application/proto" in response.headers["Accept-Post"]
        assert (await response.json())["code"] == "unimplemented"


async def test_a_method_that_is_not_there_is_unimplemented(
    http: Http, seen_requests: list[tuple[str, int]]
) -> None:
    status, error, headers = await ask(http, "Nothing")
    assert (status, error["code"]) == (404, "unimplemented")
    assert headers["X-Request-Id"]
    assert seen_requests[-1] == (f"{SERVICE}/*", 404)


async def test_a_stream_ends_with_a_message_that_says_how(http: Http) -> None:
    got = await stream(http, "Count", {"count": 3})
    assert [body["tick"]["number"] for flags, body in got[:-1] if flags == 0] == [1, 2, 3]
    assert got[-1] == (2, {})


async def test_a_stream_tells_its_failure_at_its_end(http: Http) -> None:
    got = await stream(http, "Count", {"count": 1, "fail": 5})
    assert got[-1] == (2, {"error": {"code": "not_found", "message": "told to fail"}})
    (end,) = await stream(http, "Count", {"refuse": True})
    assert end[1]["error"]["code"] == "unauthenticated"


async def test_binary_streams_carry_protobuf(http: Http, workshop: Any) -> None:
    body = envelope.pack(workshop.pb.CountRequest(count=2).SerializeToString())
    sent = {"Content-Type": "application/connect+proto"}
    async with http.post(f"{SERVICE}/Count", data=body, headers=sent) as response:
        got = list(envelope.unpack(await response.read()))
    ticks = [workshop.pb.CountResponse.FromString(payload) for _, payload in got[:-1]]
    assert [tick.tick.number for tick in ticks] == [1, 2]
    assert got[-1] == (2, b"{}")


async def test_messages_of_a_stream_are_compressed_one_by_one(http: Http) -> None:
    sent = STREAM | {"Connect-Content-Encoding": "gzip", "Connect-Accept-Encoding": "gzip"}
    body = envelope.pack(gzip.compress(b'{"count":1,"paddingBytes":4000}'), envelope.COMPRESSED)
    async with http.post(f"{SERVICE}/Count", data=body, headers=sent) as response:
        assert response.headers["Connect-Content-Encoding"] == "gzip"
        (flags, payload), end = list(envelope.unpack(await response.read()))
    assert flags == envelope.COMPRESSED
    assert len(json.loads(gzip.decompress(payload))["tick"]["padding"]) == 4000
    assert end[0] == 2


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "unimplemented"),
        (envelope.pack(b"{}") * 2, "unimplemented"),
        (b"\x00\x00\x00", "invalid_argument"),
        (envelope.pack(b"{}")[:-1], "invalid_argument"),
        (envelope.pack(b"{}", 2), "invalid_argument"),
        (envelope.pack(gzip.compress(b"{}", mtime=0), 1), "invalid_argument"),
        (envelope.pack(b"x" * 70_000), "resource_exhausted"),
    ],
    ids=["none", "two", "cut head", "cut message", "odd flags", "compressed unsaid", "too large"],
)
async def test_a_stream_that_cannot_be_read_is_refused_at_its_end(
    http: Http, body: bytes, code: str
) -> None:
    async with http.post(f"{SERVICE}/Count", data=body, headers=STREAM) as response:
        assert response.status == 200
        ((flags, end),) = messages(await response.read())
    assert (flags, end["error"]["code"]) == (2, code)


async def test_a_compressed_message_that_grows_too_large_is_refused(http: Http) -> None:
    sent = STREAM | {"Connect-Content-Encoding": "gzip"}
    body = envelope.pack(gzip.compress(b" " * 10_000_000), envelope.COMPRESSED)
    async with http.post(f"{SERVICE}/Count", data=body, headers=sent) as response:
        ((_, end),) = messages(await response.read())
    assert end["error"]["code"] == "resource_exhausted"


async def test_messages_that_grow_too_large_together_are_refused(http: Http) -> None:
    sent = STREAM | {"Connect-Content-Encoding": "gzip"}
    number = gzip.compress(b'{"number":1' + b" " * 1_000 + b"}")
    for count, code in ((10, None), (100, "resource_exhausted")):
        body = envelope.pack(number, envelope.COMPRESSED) * count
        async with http.post(f"{SERVICE}/Sum", data=body, headers=sent) as response:
            *_, (_, end) = messages(await response.read())
        assert end.get("error", {}).get("code") == code, count
    assert end["error"]["message"] == "what is sent is larger than 65536 bytes"


async def test_more_messages_than_anybody_sends_are_refused(http: Http) -> None:
    async with http.post(f"{SERVICE}/Sum", data=bytes(5 * 10_001), headers=STREAM) as response:
        ((_, end),) = messages(await response.read())
    assert end["error"]["message"] == "a request holds at most 10000 messages"


async def test_a_stream_of_requests_is_sent_whole_and_answered_once(http: Http) -> None:
    got = await stream(http, "Sum", *({"number": number} for number in range(5)))
    assert got == [(0, {"sum": 10}), (2, {})]
    assert await stream(http, "Sum") == [(0, {}), (2, {})]


async def test_a_stream_both_ways_is_refused_with_the_way_that_works(http: Http) -> None:
    ((_, end),) = await stream(http, "Chat", {"say": {"text": "hello"}})
    assert end["error"]["code"] == "unimplemented"
    assert "WebSocket at /ws/chat/{room}" in end["error"]["message"]


async def test_a_stream_ends_at_its_deadline(http: Http, core: Any) -> None:
    got = await stream(http, "Count", {"count": 1, "hold": True}, Connect_Timeout_Ms="1000")
    assert got[-1][1]["error"]["code"] == "deadline_exceeded"
    assert await asyncio.wait_for(core.cancelled.get(), 30) == "count"


async def test_a_reader_that_leaves_cancels_the_stream(http: Http, core: Any) -> None:
    body = envelope.pack(b'{"count":1,"hold":true}')
    async with http.post(f"{SERVICE}/Count", data=body, headers=STREAM) as response:
        await response.content.readexactly(envelope.HEAD_BYTES)
        await asyncio.wait_for(core.started.get(), 30)
    assert await asyncio.wait_for(core.cancelled.get(), 30) == "count"


async def test_a_gateway_that_stops_says_so_at_the_end_of_the_stream(
    http: Http, core: Any, gateway: RunningGateway
) -> None:
    body = envelope.pack(b'{"count":1,"hold":true}')
    async with http.post(f"{SERVICE}/Count", data=body, headers=STREAM) as response:
        await asyncio.wait_for(core.started.get(), 30)
        await gateway.gateway.end_streams()
        got = messages(await response.read())
        assert got[-1][1]["error"]["code"] == "unavailable"
        assert got[-1][1]["metadata"] == {"retry-after": ["1"]}
    status, error, _ = await ask(http, "Weigh")
    assert (status, error["code"]) == (503, "unavailable")
