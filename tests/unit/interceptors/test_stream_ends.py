"""A stream ends with its credential, whenever that ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from steward.gateway.v1 import options_pb2 as options
from steward_server.calls import Call
from steward_server.db import now_us
from steward_server.dispatch import Signature
from steward_server.errors import Unauthenticated
from steward_server.interceptors.authentication import Authentication, LiveStreams
from steward_server.interceptors.rate_limit import RateLimit
from steward_server.principals import Kind, Principal
from steward_server.rates import Windows

PRINCIPAL = Principal(Kind.PERSON, "user_1", credential="session_1")


class Door:
    """Lets one credential in until it is revoked."""

    def __init__(self, streams: LiveStreams) -> None:
        self._streams = streams
        self._is_live = True

    async def authenticate(self, call: Call, ic_token: str) -> Principal:
        if not self._is_live:
            raise Unauthenticated("revoked", reason="TOKEN_REVOKED")
        return PRINCIPAL

    def revoke(self) -> None:
        self._is_live = False
        self._streams.end("session_1")


async def silence() -> AsyncIterator[Any]:
    await asyncio.Event().wait()
    yield None


@pytest.fixture
def streams() -> LiveStreams:
    return LiveStreams()


@pytest.fixture
def door(streams: LiveStreams) -> Door:
    return Door(streams)


async def open_stream(door: Door, streams: LiveStreams, method: Any) -> Any:
    rule = options.MethodRule(access=options.ACCESS_PEOPLE)
    return await called(door, streams, method, rule, streams_responses=True)


async def called(
    door: Door,
    streams: LiveStreams,
    method: Any,
    rule: options.MethodRule,
    *,
    streams_responses: bool = False,
) -> Any:
    signature = Signature(
        "/a/B",
        rule,
        streams_requests=False,
        streams_responses=streams_responses,
        request_fields=frozenset(),
    )
    unlimited = RateLimit(Windows(None, None, None), now_us)
    link = Authentication(signature, door, streams, unlimited)
    return await link.intercept(method, None, Call((), peer="ipv4:127.0.0.1:1"), "/a/B")


async def test_a_credential_revoked_while_the_stream_opens_does_not_keep_it(
    door: Door, streams: LiveStreams
) -> None:
    async def method(_: Any, __: Any) -> Any:
        door.revoke()
        return silence()

    responses = await open_stream(door, streams, method)
    with pytest.raises(Unauthenticated):
        await asyncio.wait_for(anext(responses), 30)
    assert streams._open == {}


async def test_a_credential_revoked_before_the_first_response_is_asked_for_does_not_keep_it(
    door: Door, streams: LiveStreams
) -> None:
    async def method(_: Any, __: Any) -> Any:
        return silence()

    responses = await open_stream(door, streams, method)
    door.revoke()
    with pytest.raises(Unauthenticated):
        await asyncio.wait_for(anext(responses), 30)


async def test_a_credential_revoked_later_ends_the_stream(door: Door, streams: LiveStreams) -> None:
    async def method(_: Any, __: Any) -> Any:
        return silence()

    responses = await open_stream(door, streams, method)
    reading = asyncio.ensure_future(anext(responses))
    async with asyncio.timeout(30):
        while not streams._open:
            await asyncio.sleep(0)
    door.revoke()
    with pytest.raises(Unauthenticated):
        await asyncio.wait_for(reading, 30)
    assert streams._open == {}


async def test_a_long_call_ends_with_its_credential_and_not_with_the_server(
    door: Door, streams: LiveStreams
) -> None:
    answer, was_cancelled = asyncio.Event(), asyncio.Event()

    async def method(_: Any, __: Any) -> str:
        try:
            await answer.wait()
        except asyncio.CancelledError:
            was_cancelled.set()
            raise
        return "done"

    rule = options.MethodRule(access=options.ACCESS_PEOPLE, deadline_s=3600)
    let = asyncio.ensure_future(called(door, streams, method, rule))
    await asyncio.sleep(0)
    streams.end_all()
    await asyncio.sleep(0)
    answer.set()
    assert await asyncio.wait_for(let, 30) == "done"
    assert not was_cancelled.is_set()
    answer.clear()
    revoked = asyncio.ensure_future(called(door, streams, method, rule))
    await asyncio.sleep(0)
    door.revoke()
    with pytest.raises(Unauthenticated):
        await asyncio.wait_for(revoked, 30)
    assert was_cancelled.is_set()
    assert streams._open == {}


async def test_a_stream_that_loses_two_things_it_depends_on_ends_once(
    door: Door, streams: LiveStreams
) -> None:
    async def method(_: Any, __: Any) -> Any:
        return silence()

    reading = asyncio.ensure_future(anext(await open_stream(door, streams, method)))
    async with asyncio.timeout(30):
        while not streams._open:
            await asyncio.sleep(0)
    await asyncio.sleep(0)
    door.revoke()
    streams.end("user_1")
    with pytest.raises(Unauthenticated):
        await asyncio.wait_for(reading, 30)
    assert streams._open == {}


async def test_a_stream_that_is_left_holds_nothing(door: Door, streams: LiveStreams) -> None:
    async def one() -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    async def method(_: Any, __: Any) -> Any:
        return one()

    responses = await open_stream(door, streams, method)
    assert await anext(responses) == 1
    assert streams._open.keys() == {"session_1", "user_1"}
    await responses.aclose()
    assert streams._open == {}


async def test_what_is_on_its_way_to_the_caller_gets_there_before_the_stream_ends(
    door: Door, streams: LiveStreams
) -> None:
    told: list[Any] = []

    async def tell(metadata: Any) -> None:
        await asyncio.sleep(0.01)
        told.append(metadata)

    call = Call((), peer="ipv4:127.0.0.1:1", send_initial=tell)

    async def answer() -> AsyncIterator[Any]:
        await call.send_initial_metadata((("x-port", "80"),))
        yield None

    async def method(*_: Any) -> Any:
        return answer()

    responses = await open_stream(door, streams, method)
    reading = asyncio.ensure_future(anext(responses))
    await asyncio.sleep(0.001)
    door.revoke()
    with pytest.raises(Unauthenticated):
        await reading
    assert told == [(("x-port", "80"),)]
