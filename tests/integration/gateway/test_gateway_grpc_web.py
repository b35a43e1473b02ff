"""gRPC-Web through the gateway to a core: frames, trailers, and the text form."""

from __future__ import annotations

import asyncio
import base64
import gzip
from typing import Any
from urllib.parse import unquote

import aiohttp
import pytest
from google.rpc import error_details_pb2, status_pb2

from steward_gateway.cors import REQUEST_HEADERS, RESPONSE_HEADERS
from steward_gateway.rpc import envelope

Http = aiohttp.ClientSession
SERVICE = "/workshop.v1.WorkshopService"
PROTO = "application/grpc-web+proto"
TEXT = "application/grpc-web-text"


def trailers_of(payload: bytes) -> dict[str, str]:
    lines = payload.decode().removesuffix("\r\n").split("\r\n")
    return dict(line.split(": ", 1) for line in lines)


async def call(
    http: Http, method: str, message: Any, content_type: str = PROTO, **headers: str
) -> tuple[list[bytes], dict[str, str]]:
    """The messages and the trailers of an answer."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    body = envelope.pack(message.SerializeToString())
    as_text = content_type.startswith(TEXT)
    async with http.post(
        f"{SERVICE}/{method}",
        data=base64.b64encode(body) if as_text else body,
        headers={"Content-Type": content_type, "X-Grpc-Web": "1", **sent},
    ) as response:
        assert response.status == 200
        assert response.headers["X-Request-Id"]
        got = await response.read()
        assert response.content_type == (TEXT + "+proto" if as_text else PROTO)
    frames = list(envelope.unpack(decode_text(got) if as_text else got))
    assert [flags for flags, _ in frames][-1] == 0x80
    return [payload for _, payload in frames[:-1]], trailers_of(frames[-1][1])


def decode_text(text: bytes) -> bytes:
    """Base64 whose writer has padded each of its parts."""
    return b"".join(base64.b64decode(text[begin : begin + 4]) for begin in range(0, len(text), 4))


@pytest.mark.parametrize("content_type", [PROTO, TEXT])
async def test_a_call_is_answered_by_a_message_and_trailers(
    http: Http, workshop: Any, content_type: str
) -> None:
    request = workshop.pb.WeighRequest(name="anvil", weight_nanousd=5)
    (payload,), trailers = await call(http, "Weigh", request, content_type)
    assert workshop.pb.WeighResponse.FromString(payload).weight_nanousd == 5
    assert trailers == {"grpc-status": "0"}


@pytest.mark.parametrize("content_type", [PROTO, TEXT])
async def test_a_stream_ends_with_trailers(http: Http, workshop: Any, content_type: str) -> None:
    payloads, trailers = await call(http, "Count", workshop.pb.CountRequest(count=3), content_type)
    ticks = [workshop.pb.CountResponse.FromString(payload).tick.number for payload in payloads]
    assert ticks == [1, 2, 3]
    assert trailers == {"grpc-status": "0"}


async def test_a_refusal_is_told_in_trailers_with_its_details(http: Http, workshop: Any) -> None:
    request = workshop.pb.FailRequest(
        code=8, message="100% spent: für mehr, ask", reason="BUDGET_EXCEEDED", retry_after_s=3
    )
    payloads, trailers = await call(http, "Fail", request)
    assert payloads == []
    assert trailers["grpc-status"] == "8"
    assert trailers["grpc-message"].isascii()
    assert unquote(trailers["grpc-message"]) == "100% spent: für mehr, ask"
    assert trailers["retry-after"] == "3"
    packed = trailers["grpc-status-details-bin"]
    status = status_pb2.Status.FromString(base64.b64decode(packed + "=" * (-len(packed) % 4)))
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.reason == "BUDGET_EXCEEDED"


async def test_a_stream_that_fails_says_so_after_what_it_sent(http: Http, workshop: Any) -> None:
    payloads, trailers = await call(http, "Count", workshop.pb.CountRequest(count=2, fail=5))
    assert len(payloads) == 2
    assert trailers == {"grpc-status": "5", "grpc-message": "told to fail"}


async def test_metadata_travels_as_headers_and_trailers(http: Http, workshop: Any) -> None:
    request = workshop.pb.InspectRequest()
    (payload,), trailers = await call(
        http, "Inspect", request, Authorization="Bearer t", Grpc_Timeout="5S"
    )
    seen = workshop.pb.InspectResponse.FromString(payload)
    assert seen.metadata["authorization"] == "Bearer t"
    assert 3 < seen.remaining_s <= 5.1
    assert trailers == {"x-after": "yes", "retry-after": "7", "grpc-status": "0"}


async def test_a_deadline_ends_the_call(http: Http, workshop: Any, core: Any) -> None:
    request = workshop.pb.WaitRequest(name="w")
    _, trailers = await call(http, "Wait", request, Grpc_Timeout="50m")
    assert trailers["grpc-status"] == "4"
    assert await asyncio.wait_for(core.cancelled.get(), 30) == "w"
    _, trailers = await call(http, "Wait", request, Grpc_Timeout="soon")
    assert trailers["grpc-status"] == "3"


async def test_messages_may_be_compressed(http: Http, workshop: Any) -> None:
    packed = gzip.compress(workshop.pb.WeighRequest(name="x" * 4000).SerializeToString())
    sent = {"Content-Type": PROTO, "Grpc-Encoding": "gzip", "Grpc-Accept-Encoding": "gzip"}
    body = envelope.pack(packed, envelope.COMPRESSED)
    async with http.post(f"{SERVICE}/Weigh", data=body, headers=sent) as response:
        assert response.headers["Grpc-Encoding"] == "gzip"
        (flags, payload), _ = list(envelope.unpack(await response.read()))
    assert flags == envelope.COMPRESSED
    assert workshop.pb.WeighResponse.FromString(gzip.decompress(payload)).name == "x" * 4000


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        (PROTO, b"", "12"),
        (PROTO, envelope.pack(b"") * 2, "12"),
        (PROTO, b"\x00\x00", "3"),
        (PROTO, envelope.pack(b"\xff\xff"), "3"),
        (PROTO, envelope.pack(b"", 0x80), "3"),
        (TEXT, b"not base64!", "3"),
        (TEXT, b"AAAAA", "3"),
    ],
    ids=["none", "two", "cut head", "no protobuf", "odd flags", "no base64", "cut base64"],
)
async def test_what_cannot_be_read_is_refused(
    http: Http, content_type: str, body: bytes, status: str
) -> None:
    sent = {"Content-Type": content_type}
    async with http.post(f"{SERVICE}/Weigh", data=body, headers=sent) as response:
        got = await response.read()
    ((flags, payload),) = envelope.unpack(decode_text(got) if content_type == TEXT else got)
    assert (flags, trailers_of(payload)["grpc-status"]) == (0x80, status)


async def test_text_may_be_padded_wherever_its_writer_flushed(http: Http, workshop: Any) -> None:
    body = envelope.pack(workshop.pb.WeighRequest(name="anvil").SerializeToString())
    text = base64.b64encode(body[:4]) + base64.b64encode(body[4:])
    sent = {"Content-Type": TEXT}
    async with http.post(f"{SERVICE}/Weigh", data=text, headers=sent) as response:
        (_, payload), _ = list(envelope.unpack(decode_text(await response.read())))
    assert workshop.pb.WeighResponse.FromString(payload).name == "anvil"


def test_what_browsers_of_other_origins_need_is_named() -> None:
    assert {"X-Grpc-Web", "Grpc-Timeout", "Connect-Timeout-Ms"} <= set(REQUEST_HEADERS)
    assert {"Grpc-Status", "Grpc-Message", "Grpc-Status-Details-Bin"} <= set(RESPONSE_HEADERS)
