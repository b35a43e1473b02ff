"""Bodies as large as they may be, whole and in parts, in every protocol."""

from __future__ import annotations

import asyncio
import base64
import gzip
import re
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import aiohttp
import pytest

from steward_gateway.config import GatewayConfig
from steward_gateway.rpc import envelope

Http = aiohttp.ClientSession
SERVICE = "/workshop.v1.WorkshopService"
LIMIT = 64 * 1024
PART = 40_000


@pytest.fixture
def config() -> GatewayConfig:
    return GatewayConfig(max_body_bytes=LIMIT)


class Sent(NamedTuple):
    """A request whose messages have a given number of bytes together."""

    path: str
    content_type: str
    body: bytes
    coding: tuple[tuple[str, str], ...] = ()


Make = Callable[[Any, int], Sent]


def name_of(pb: Any, size: int) -> bytes:
    """A `WeighRequest` of so many bytes; four of them are its tag and length."""
    message: bytes = pb.WeighRequest(name="x" * (size - 4)).SerializeToString()
    assert len(message) == size
    return message


def numbers(size: int, count: int) -> list[bytes]:
    """So many messages of `Sum`, spaced out to a size."""
    one = b'{"number":1}'
    return [*[one] * (count - 1), one + b" " * (size - count * len(one))]


def rest(_pb: Any, size: int) -> Sent:
    return Sent("/v1/tools", "application/json", b"{}" + b" " * (size - 2))


def rest_raw(_pb: Any, size: int) -> Sent:
    return Sent("/v1/upload/a", "text/plain", b"x" * size)


def rest_packed(pb: Any, size: int) -> Sent:
    body = gzip.compress(rest(pb, size).body)
    return Sent("/v1/tools", "application/json", body, (("Content-Encoding", "gzip"),))


def connect_json(_pb: Any, size: int) -> Sent:
    return Sent(f"{SERVICE}/Weigh", "application/json", b"{}" + b" " * (size - 2))


def connect_proto(pb: Any, size: int) -> Sent:
    return Sent(f"{SERVICE}/Weigh", "application/proto", name_of(pb, size))


def connect_stream(_pb: Any, size: int) -> Sent:
    body = b"".join(map(envelope.pack, numbers(size, 3)))
    return Sent(f"{SERVICE}/Sum", "application/connect+json", body)


def connect_stream_of_many(_pb: Any, size: int) -> Sent:
    body = b"".join(map(envelope.pack, numbers(size, 5_000)))
    return Sent(f"{SERVICE}/Sum", "application/connect+json", body)


def connect_stream_of_many_packed(_pb: Any, size: int) -> Sent:
    packed = [envelope.deflate(each) for each in numbers(size, 5_000)]
    body = b"".join(envelope.pack(each, envelope.COMPRESSED) for each in packed)
    coding = (("Connect-Content-Encoding", "gzip"),)
    return Sent(f"{SERVICE}/Sum", "application/connect+json", body, coding)


def grpc_web(pb: Any, size: int) -> Sent:
    body = envelope.pack(name_of(pb, size))
    return Sent(f"{SERVICE}/Weigh", "application/grpc-web+proto", body)


def grpc_web_text(pb: Any, size: int) -> Sent:
    text = base64.b64encode(grpc_web(pb, size).body)
    return Sent(f"{SERVICE}/Weigh", "application/grpc-web-text+proto", text)


def grpc_web_text_in_segments(pb: Any, size: int) -> Sent:
    body = grpc_web(pb, size).body
    text = b"".join(base64.b64encode(body[at : at + 100]) for at in range(0, len(body), 100))
    return Sent(f"{SERVICE}/Weigh", "application/grpc-web-text+proto", text)


MAKES = [
    rest,
    rest_raw,
    rest_packed,
    connect_json,
    connect_proto,
    connect_stream,
    connect_stream_of_many,
    connect_stream_of_many_packed,
    grpc_web,
    grpc_web_text,
    grpc_web_text_in_segments,
]


async def refusal(http: Http, sent: Sent, how: str) -> str:
    """What is said of the size; "" if the request was taken."""
    headers = {"Content-Type": sent.content_type, **dict(sent.coding)}
    if how != "chunked":
        headers["Content-Length"] = str(len(sent.body))

    async def parts() -> AsyncIterator[bytes]:
        yield sent.body[:PART]
        await asyncio.sleep(0.02)  # so that they do not come in one go
        yield sent.body[PART:]

    data = sent.body if how == "whole" else parts()
    method = "PUT" if "upload" in sent.path else "POST"
    async with http.request(method, sent.path, data=data, headers=headers) as response:
        body = await response.read()
        if "text+" in response.headers["Content-Type"]:
            body = b"".join(base64.b64decode(body[at : at + 4]) for at in range(0, len(body), 4))
        if found := re.search(rb"is larger than \d+ bytes", body):
            return found[0].decode()
        assert response.status < 300, body
        assert b'"error"' not in body
        assert b"grpc-status" not in body or b"grpc-status: 0" in body
        return ""


@pytest.mark.parametrize("how", ["whole", "sized", "chunked"])
@pytest.mark.parametrize("make", MAKES)
async def test_a_body_is_taken_up_to_its_limit_however_it_arrives(
    http: Http, workshop: Any, make: Make, how: str
) -> None:
    assert await refusal(http, make(workshop.pb, LIMIT), how) == ""
    refused = await refusal(http, make(workshop.pb, LIMIT + 1), how)
    assert refused == f"is larger than {LIMIT} bytes"
