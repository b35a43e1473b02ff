"""Answers as they stand on the wire, for callers of every kind."""

from __future__ import annotations

import asyncio
import json

import pytest

from steward_gateway.app import RunningGateway
from steward_server import in_process

BODY = json.dumps({"tool": {"id": "t1"}}).encode()


async def exchanged(gateway: RunningGateway, sent: bytes) -> bytes:
    """Everything the gateway writes until it closes, or has nothing more to say."""
    reader, writer = await asyncio.open_connection(gateway.host, gateway.port)
    writer.write(sent)
    received = b""
    try:
        while data := await asyncio.wait_for(reader.read(65_536), 1 if received else 30):
            received += data
    except TimeoutError:
        pass
    writer.close()
    await writer.wait_closed()
    return received


def request(version: str = "1.1", connection: str = "", body: bytes = BODY) -> bytes:
    lines = [f"POST /v1/tools HTTP/{version}", "Host: x", "Content-Type: application/json"]
    if connection:
        lines.append(f"Connection: {connection}")
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


async def test_an_answer_states_its_length_and_its_time(gateway: RunningGateway) -> None:
    head, _, body = (await exchanged(gateway, request())).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    names = [line.partition(":")[0].lower() for line in lines[1:]]
    assert lines[0] == "HTTP/1.1 201 Created"
    assert f"Content-Length: {len(body)}" in lines
    assert sorted(names) == sorted(set(names))
    assert {"date", "content-type", "x-request-id"} <= set(names)
    assert json.loads(body)["id"] == "t1"


async def test_requests_sent_in_one_go_are_answered_in_order(gateway: RunningGateway) -> None:
    received = await exchanged(gateway, request() * 49 + request(connection="close"))
    assert received.count(b"HTTP/1.1 201 Created\r\n") == 50


@pytest.mark.parametrize(
    ("version", "connection", "told"),
    [("1.1", "close", b"close"), ("1.0", "", None), ("1.0", "keep-alive", b"keep-alive")],
)
async def test_a_caller_that_does_not_go_on_as_usual_is_told_how_it_goes_on(
    gateway: RunningGateway, version: str, connection: str, told: bytes | None
) -> None:
    received = await exchanged(gateway, request(version, connection))
    assert received.startswith(f"HTTP/{version} 201 Created\r\n".encode())
    lines = received.partition(b"\r\n\r\n")[0].split(b"\r\n")
    stated = [line.partition(b": ")[2] for line in lines if line.lower().startswith(b"connection:")]
    assert stated == ([told] if told else [])


async def test_a_caller_that_does_not_read_is_not_written_to_without_end(
    gateway: RunningGateway, seen_requests: list[tuple[str, int]]
) -> None:
    large = json.dumps({"tool": {"id": "t" * 500_000}}).encode()
    _, writer = await asyncio.open_connection(gateway.host, gateway.port, limit=1)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(request(body=large) * 60)
    async with asyncio.timeout(30):
        while not seen_requests:
            await asyncio.sleep(0.01)
    answered = -1
    while answered < len(seen_requests):
        answered = len(seen_requests)
        await asyncio.sleep(0.5)
    assert 0 < answered < 40  # what the buffers of two sockets hold
    writer.transport.abort()


async def test_a_long_deadline_is_kept_as_a_short_one_is(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_process, "LONG_S", 0.0)
    monkeypatch.setattr(in_process, "LOOK_S", 0.02)
    sent = b"GET /v1/wait?name=late HTTP/1.1\r\nHost: x\r\nX-Request-Timeout: 0.1\r\n\r\n"
    received = await exchanged(gateway, sent)
    assert received.startswith(b"HTTP/1.1 504 ")
