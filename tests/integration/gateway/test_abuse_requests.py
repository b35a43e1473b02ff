"""Requests that are whole and mean harm: paths, texts, numbers, depths and sizes."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from typing import Any

import pytest

from steward_gateway.app import RunningGateway
from steward_gateway.binding import _paths
from steward_gateway.codec import Style
from tests.raw_http import RawAnswer, RawHttp, bomb, exchange, get, post

pytestmark = pytest.mark.parametrize("transport", ["in_process"], indirect=True)

MIB = 1024 * 1024
PACKED = gzip.compress(b"{}", mtime=0)


@pytest.fixture(autouse=True)
async def answers_afterwards(gateway: RunningGateway) -> Any:
    yield
    assert (await exchange(gateway.port, get("/v1/tools/t1"))).json["id"] == "t1"


async def create(gateway: RunningGateway, body: bytes | str, *lines: str) -> RawAnswer:
    data = body if isinstance(body, bytes) else body.encode()
    return await exchange(gateway.port, post("/v1/tools", data, *lines))


async def echo(gateway: RunningGateway, body: bytes | str) -> RawAnswer:
    data = body if isinstance(body, bytes) else body.encode()
    return await exchange(gateway.port, post("/v1/echo", data))


PATHS = [
    "/v1/../v1/inspect",
    "/v1/./inspect",
    "/v1/%2e%2e/v1/inspect",
    "//v1/inspect",
    "/v1//inspect",
    "/v1%2Finspect",
    "/v1/inspect/",
    "/v1/inspect/..",
    "/v1/inspect;a=b",
    "/..%2f..%2fetc/passwd",
    "/../../etc/passwd",
    "\\v1\\inspect",
]


async def test_no_path_is_ever_resolved_to_another(gateway: RunningGateway) -> None:
    for path in PATHS:
        assert (await exchange(gateway.port, get(path))).status in (400, 404), path


NO_TEXTS = [
    b'{"tool":{"id":"\xff"}}',
    b'{"tool":{"id":"\xc0\xaf"}}',
    b'{"tool":{"id":"\xed\xa0\x80"}}',
    b'{"\xff":1}',
    b"\xff\xfe{\x00}\x00",
    b"\xef\xbb\xbf{}",
    b"{}\x00",
    b'{"tool":{"id":"\x00"}}',
    b'{"tool":{"id":"\\udc00"}}',
]


async def test_text_that_is_no_text_is_refused(gateway: RunningGateway) -> None:
    for body in NO_TEXTS:
        answer = await create(gateway, body)
        assert (answer.status, answer.code) == (400, "VALIDATION_ERROR"), body
        assert "the body is not JSON" in answer.json["error"]["message"]


@pytest.mark.parametrize(
    ("body", "key"),
    [
        ('{"request_id":"a","request_id":"b"}', "request_id"),
        ('{"tool":{"id":"a","kind":"hammer","id":"b"}}', "id"),
        ('{"tool":{"id":"a"},"tool":{"id":"b"}}', "tool"),
        ('{"tool":{"spent_usd":{"oil":1,"oil":2}}}', "oil"),
        ('{"request_id":"a","request\\u005fid":"b"}', "request_id"),
        ('{"request_id":"\\u003a","request_id":"b"}', "request_id"),
        ('{"request_id":":","request_id":"::"}', "request_id"),
        ('{"tool":{"id":"a:b:c"},"request_id":"a","request_id":"\\u003A"}', "request_id"),
    ],
)
async def test_a_key_twice_in_one_object_is_refused_by_name(
    gateway: RunningGateway, core: Any, body: str, key: str
) -> None:
    answer = await create(gateway, body)
    assert answer.status == 400
    assert answer.json["error"]["message"] == f"the body has the key {key!r} twice in one object"
    assert core.requests == []


async def test_a_key_in_two_objects_and_colons_anywhere_are_no_harm(
    gateway: RunningGateway, core: Any
) -> None:
    body = '{"tool":{"id":"a:b\\u003a","tags":["x:y","\\u003A"],"maker":{"name":"id:"}}}'
    assert (await create(gateway, body)).status == 201
    assert core.requests[0].tool.id == "a:b:"


@pytest.mark.parametrize(
    "body",
    [
        "[" * 100_000,
        "[" * 100_000 + "]" * 100_000,
        '{"tool":' * 100_000,
        '{"tool":' * 100_000 + "1" + "}" * 100_000,
        '{"tool":{"tags":' + "[" * 500 + "]" * 500 + "}}",
    ],
)
async def test_depths_are_refused(gateway: RunningGateway, body: str) -> None:
    answer = await create(gateway, body)
    assert (answer.status, answer.code) == (400, "VALIDATION_ERROR")
    assert len(answer.body) < 1_000


@pytest.mark.parametrize("levels", [31, 200, 300, 1_000, 1_500])
async def test_a_message_inside_itself_ends_somewhere(gateway: RunningGateway, levels: int) -> None:
    answer = await echo(gateway, '{"inner":' * levels + "{}" + "}" * levels)
    assert answer.status == 400
    assert "nested" in answer.body.decode() or "not JSON" in answer.body.decode()
    answer = await echo(gateway, '{"struct":' + '{"a":' * levels + "{}" + "}" * levels + "}")
    assert answer.status == 400


NUMBERS = [
    ('{"number":1e400}', ""),
    ('{"real":1e400}', ""),
    ('{"price_usd":1e400}', ""),
    ('{"price_usd":1e-400}', "price_usd"),
    ('{"price_usd":9300000000}', "price_usd"),
    ('{"price_usd":0.0000000001}', "price_usd"),
    ('{"big":9223372036854775808}', "big"),
    ('{"big":-9223372036854775809}', "big"),
    ('{"huge":18446744073709551616}', "huge"),
    ('{"big":1e30}', "big"),
    ('{"big":"1e3"}', "big"),
    ('{"big":"' + "9" * 5_000 + '"}', "big"),
    ('{"number":-0.5}', "number"),
    ('{"real":' + "9" * 5_000 + "}", ""),
    ('{"price_usd":' + "9" * 5_000 + "}", ""),
    ('{"price_usd":0.' + "9" * 5_000 + "}", ""),
    ('{"number":NaN}', ""),
    ('{"number":Infinity}', ""),
    ('{"number":-Infinity}', ""),
]


async def test_numbers_that_fit_nowhere_are_refused(gateway: RunningGateway) -> None:
    for body, field in NUMBERS:
        answer = await echo(gateway, body)
        assert (answer.status, answer.code) == (400, "VALIDATION_ERROR"), body
        assert len(answer.body) < 1_000
        if field:
            assert list(answer.fields) == [field]


async def test_of_100_000_unknown_fields_a_few_are_told(gateway: RunningGateway) -> None:
    answer = await create(gateway, json.dumps({f"field{number}": 1 for number in range(100_000)}))
    assert answer.status == 400
    assert len(answer.fields) == 20
    assert answer.fields["field0"] == "unknown field"
    assert answer.json["error"]["message"].endswith("; and 99980 more")
    assert len(answer.body) < 3_000


async def test_of_wrong_items_deep_in_a_body_a_few_are_told(gateway: RunningGateway) -> None:
    body = json.dumps({"tags": [1] * 100_000, "maker": {"x": 1}})
    answer = await exchange(gateway.port, post("/old/tools/top", body.encode()))
    assert answer.status == 400
    assert answer.fields["tags[0]"] == "must be text"
    assert answer.json["error"]["message"].endswith("; and 99981 more")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ('{"tools":[' + "{}," * 20_000 + "{}]}", "more than 20000 objects and lists"),
        ('{"tools":[' + "[]," * 20_000 + "[]]}", "more than 20000 objects and lists"),
        ('{"tags":[' + "0," * 500_000 + "0]}", "more than 500000 values"),
        ("[" * 20_001 + '"' + '\\"' * MIB, "more than 20000 objects and lists"),
    ],
    ids=["objects", "lists", "values", "a text that does not end"],
)
async def test_more_than_others_can_bear_is_refused_quickly(
    gateway: RunningGateway, body: str, told: str
) -> None:
    begun_s = time.process_time()  # whoever else uses the processor does not count
    answer = await create(gateway, body)
    assert time.process_time() - begun_s < 1
    assert answer.status == 400
    assert told in answer.json["error"]["message"]


async def test_what_stands_in_a_text_counts_for_nothing(gateway: RunningGateway, core: Any) -> None:
    text = '{[,"' * 500_000
    assert (await create(gateway, json.dumps({"request_id": text}))).status == 201
    assert core.requests[0].request_id == text


async def test_a_very_long_key_is_told_in_short(gateway: RunningGateway) -> None:
    answer = await create(gateway, json.dumps({"k" * MIB: 1}))
    assert answer.status == 400
    assert len(answer.body) < 1_000
    twice = await create(gateway, '{"' + "k" * MIB + '":1,"' + "k" * MIB + '":2}')
    assert len(twice.body) < 1_000


async def test_a_very_long_text_is_taken_up_to_the_limit_of_bodies(
    gateway: RunningGateway, core: Any
) -> None:
    assert (await create(gateway, json.dumps({"request_id": "x" * (4 * MIB - 100)}))).status == 201
    assert len(core.requests[0].request_id) == 4 * MIB - 100
    answer = await create(gateway, json.dumps({"request_id": "x" * (4 * MIB)}))
    assert (answer.status, answer.code) == (413, "PAYLOAD_TOO_LARGE")


@pytest.mark.parametrize("size", ["4194305", "9223372036854775807"])
async def test_a_body_said_to_be_too_large_is_refused_before_it_comes(
    gateway: RunningGateway, size: str
) -> None:
    async with RawHttp(gateway.port) as http:
        head = "POST /v1/tools HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        await http.send(f"{head}Content-Length: {size}\r\nExpect: 100-continue\r\n\r\n")
        assert (await http.answer()).status == 413


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_small_body_that_unpacks_to_a_gigabyte_is_413(
    gateway: RunningGateway, coding: str
) -> None:
    answer = await create(gateway, bomb(coding), f"Content-Encoding: {coding}")
    assert (answer.status, answer.code) == (413, "PAYLOAD_TOO_LARGE")


CODED = [
    (b"{}", "gzip", 400),
    (b"{}", "deflate", 400),
    (PACKED[:-4], "gzip", 400),
    (PACKED + b"more", "gzip", 400),
    (PACKED * 2, "gzip", 400),
    (gzip.compress(PACKED, mtime=0), "gzip, gzip", 415),
    (b"{}", "br", 415),
    (b"{}", "zstd", 415),
    (b"{}", "nonsense", 415),
    (b"{}", "g\xe9zip", 415),
    (PACKED, "GZIP", 201),
    (zlib.compress(b"{}"), "deflate", 201),
    (b"{}", "identity", 201),
]


async def test_a_coding_is_undone_or_told_to_be_unknown(gateway: RunningGateway) -> None:
    for body, coding, status in CODED:
        answer = await create(gateway, body, f"Content-Encoding: {coding}")
        assert answer.status == status, (body, coding)
        if status == 415:
            assert answer.headers["accept-encoding"] == "gzip, deflate, identity"


NO_TEXT_HEADERS = [
    "Authorization: Bearer \xff\xfe",
    "X-IC-Key: \xc3\xa9",
    "X-Request-Id: a\tb",
    "User-Agent: \xff",
    "Accept: \xff",
    "Accept-Encoding: \xff",
    "If-None-Match: \xff",
    "Origin: \xff",
    "Cookie: \xff",
]


async def test_headers_that_are_no_text_harm_nobody(gateway: RunningGateway) -> None:
    for line in NO_TEXT_HEADERS:
        answer = await exchange(gateway.port, get("/v1/inspect", line))
        assert answer.status == (406 if line.startswith("Accept:") else 200), line
        metadata = answer.json.get("metadata", {})
        assert not {"authorization", "x-ic-key"} & set(metadata)


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("Content-Type: application/json; charset=latin-1", 415),
        ("Content-Type: \xff", 415),
        ("Idempotency-Key: a\tb", 400),
        ("Idempotency-Key: \xe9", 400),
        ("Idempotency-Key: " + "k" * 256, 400),
        ("X-Request-Timeout: -1", 400),
        ("X-Request-Timeout: 1e9", 400),
        ("X-Request-Timeout: \u0663".encode().decode("latin-1"), 400),
    ],
)
async def test_headers_that_say_something_wrong_are_refused(
    gateway: RunningGateway, core: Any, line: str, status: int
) -> None:
    body = b"{}"
    head = f"POST /v1/tools HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{line}\r\n"
    if "Content-Type" not in line:
        head += "Content-Type: application/json\r\n"
    answer = await exchange(gateway.port, head.encode("latin-1") + b"\r\n" + body)
    assert answer.status == status
    assert core.requests == []


async def test_a_raw_body_of_an_unreadable_type_is_415(gateway: RunningGateway) -> None:
    sent = post("/v1/upload/x", b"ab", content_type="a/\xff").replace(b"POST", b"PUT", 1)
    assert (await exchange(gateway.port, sent)).status == 415


@pytest.mark.parametrize("evil", ["x\r\nSet-Cookie: a=b", "x\nSet-Cookie: a=b", "x\0", "\xe9"])
async def test_nothing_a_core_says_becomes_a_header_of_its_own(
    gateway: RunningGateway, core: Any, evil: str
) -> None:
    core.content_type = evil
    answer = await exchange(gateway.port, get("/v1/download"))
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/octet-stream"
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "target",
    ["/v1/tools/%0d%0aSet-Cookie:%20a=b", "/v1/tools/x%0d%0a%0d%0aHTTP%2F1.1%20200%20OK"],
)
async def test_nothing_in_a_path_becomes_a_header(gateway: RunningGateway, target: str) -> None:
    answer = await exchange(gateway.port, get(target))
    assert answer.status == 200
    assert "set-cookie" not in answer.headers
    assert "\r\n" in answer.json["id"]


def test_the_mask_of_a_body_without_end_has_an_end(workshop: Any, transport: str) -> None:
    body: dict[str, Any] = {"text": "x"}
    for _ in range(2_000):
        body = {"inner": body}
    assert _paths(body, workshop.pb.EchoRequest.DESCRIPTOR, Style.HOUSE) == []
