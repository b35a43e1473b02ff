"""The gRPC port, called as no generated client would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from steward.events.v1 import events_pb2
from steward.tokens.v1 import tokens_pb2
from steward_client import channels
from steward_server.doors import GRPC_OPTIONS
from tests.integration.conftest import refusal, refusal_of
from tests.live import Live, create_agent

LIST = "/steward.tokens.v1.TokenService/ListTokens"
CREATE = "/steward.tokens.v1.TokenService/CreateToken"
EXCHANGE = "/steward.events.v1.EventService/Exchange"
SESSION = "/steward.budget.v1.BudgetService/Session"


def admin_of(live: Live) -> tuple[tuple[str, str], ...]:
    return (("authorization", live.admin.headers["authorization"]),)


@pytest.mark.parametrize(
    "data",
    [
        tokens_pb2.CreateTokenRequest(agent_id="a" * 50).SerializeToString()[:-1],
        b"\x0a\x02\xff\xfe",
        b"\xff\xff\xff\xff",
        b"\x0b" * 1_000,
    ],
    ids=["cut short", "no UTF-8", "noise", "groups in groups"],
)
async def test_bytes_that_are_no_message_are_an_invalid_argument(live: Live, data: bytes) -> None:
    call: Any = live.channel.unary_unary(CREATE)
    refused = await refusal(call(data, metadata=admin_of(live)))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.reason == "MALFORMED_MESSAGE"


@pytest.mark.parametrize("method", [EXCHANGE, SESSION])
async def test_a_stream_ends_at_bytes_that_are_no_message(live: Live, method: str) -> None:
    agent = await create_agent(live.admin)
    open_call: Any = live.channel.stream_stream(method)
    call = open_call(iter([b"\xff\xff\xff\xff"]), metadata=agent.metadata)
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await call.read()
    assert refusal_of(ended.value).reason == "MALFORMED_MESSAGE"
    assert ended.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_message_of_more_than_4_mib_is_refused(live: Live) -> None:
    call: Any = live.channel.unary_unary(LIST)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(b"\x00" * (4 * 1024 * 1024 + 1), metadata=admin_of(live))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    "method", ["/steward.tokens.v1.TokenService/Nothing", "/nothing.v1.Service/List"]
)
async def test_an_unknown_method_is_unimplemented(live: Live, method: str) -> None:
    call: Any = live.channel.unary_unary(method)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(b"")
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("authorization", ""),),
        (("authorization", "Bearer"),),
        (("authorization", "Bearer a.b.c"),),
        (("x-ic-key", "ic_nonsense"),),
        (("x-ic-key-bin", b"\x00\xff"),),
    ],
)
async def test_a_missing_or_garbled_credential_is_unauthenticated(
    live: Live, metadata: tuple[tuple[str, Any], ...]
) -> None:
    call: Any = live.channel.unary_unary(LIST)
    refused = await refusal(call(b"", metadata=metadata))
    assert refused.code is grpc.StatusCode.UNAUTHENTICATED
    assert refused.reason in {"CREDENTIAL_MISSING", "INVALID_TOKEN"}


async def test_a_request_id_comes_back_however_a_call_ends(live: Live) -> None:
    credential = (*admin_of(live), ("x-request-id", "mine/1=a"))
    listing: Any = live.channel.unary_unary(LIST)
    answered = listing(b"", metadata=credential)
    await answered
    refused = listing(b"\xff", metadata=credential)
    with pytest.raises(grpc.aio.AioRpcError):
        await refused
    exchange: Any = live.channel.stream_stream(EXCHANGE)
    streamed = exchange(iter(()), metadata=credential)
    assert await streamed.read() is grpc.aio.EOF
    for call in (answered, refused, streamed):
        assert ("x-request-id", "mine/1=a") in tuple(await call.trailing_metadata())


async def test_an_exchange_that_says_nothing_ends_well(live: Live) -> None:
    exchange: Any = live.channel.stream_stream(
        EXCHANGE, response_deserializer=events_pb2.ExchangeResponse.FromString
    )
    call = exchange(iter(()), metadata=admin_of(live))
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


def test_every_option_is_one_that_grpc_knows() -> None:
    """It ignores others without a word: only its library tells how an option is called."""
    library = Path(cygrpc.__file__).read_bytes()
    named = [*GRPC_OPTIONS, *channels._options()]
    assert [name for name, _ in named if name.encode() not in library] == []
