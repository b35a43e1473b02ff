"""The transport over a grpc.aio channel: for a gateway in a process of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2

from steward_gateway.contracts import Contracts, full_method, message_class
from steward_gateway.exchange import PEER_KEY
from steward_gateway.forwarding import FORWARDED_KEY
from steward_gateway.transport import Metadata, Reply, RpcFailure, Stream

STATUS_DETAILS = "grpc-status-details-bin"
MAX_MESSAGE_BYTES = 16 * 1024 * 1024  # an answer may be larger than the 4 MiB a caller may send

REFUSAL_GRACE_S = 0.05
"""How long to wait for a refusal after initial metadata without content.

gRPC reports a refused stream as empty metadata first and its status a moment later.
"""

# The core of gRPC owns `user-agent` on the wire and would replace it.
_RENAMED = {"user-agent": "x-user-agent"}


def open_channel(
    target: str, credentials: grpc.ChannelCredentials | None = None
) -> grpc.aio.Channel:
    """Open a channel to a core at "host:port"; without credentials it is not encrypted."""
    options = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ]
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=options)
    return grpc.aio.secure_channel(target, credentials, options=options)


class ChannelTransport:
    """Calls a core through a channel, which the caller opens and closes."""

    def __init__(self, channel: grpc.aio.Channel, contracts: Contracts) -> None:
        self._unary: dict[str, Any] = {}
        self._stream: dict[str, Any] = {}
        for method in contracts.methods():
            name = full_method(method)
            coding: dict[str, Any] = {
                "request_serializer": message_class(method.input_type).SerializeToString,
                "response_deserializer": message_class(method.output_type).FromString,
            }
            if method.client_streaming:
                # One response is a stream of one: the wire is the same.
                self._stream[name] = channel.stream_stream(name, **coding)
            elif method.server_streaming:
                self._stream[name] = channel.unary_stream(name, **coding)
            else:
                self._unary[name] = channel.unary_unary(name, **coding)

    async def unary(
        self, method: str, request: Message, *, metadata: Metadata, timeout_s: float | None
    ) -> Reply:
        call = self._unary[method](request, metadata=_sent(metadata), timeout=timeout_s)
        try:
            message = await call
        except grpc.aio.AioRpcError as error:
            raise _failure(error) from None
        except asyncio.CancelledError:
            _raise_if_own_cancellation()
            raise RpcFailure(grpc.StatusCode.UNAVAILABLE, "the channel was closed") from None
        return Reply(
            message,
            _received(await call.initial_metadata()),
            _received(await call.trailing_metadata()),
        )

    def stream(
        self,
        method: str,
        requests: Message | AsyncIterator[Message],
        *,
        metadata: Metadata,
        timeout_s: float | None,
    ) -> Stream:
        return _ChannelStream(
            self._stream[method](requests, metadata=_sent(metadata), timeout=timeout_s)
        )


class _ChannelStream:
    def __init__(self, call: Any) -> None:
        self._call = call
        self._responses: AsyncIterator[Message] = aiter(call)
        self._trailing: Metadata = ()

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    async def __anext__(self) -> Message:
        try:
            return await anext(self._responses)
        except StopAsyncIteration:
            self._trailing = _received(await self._call.trailing_metadata())
            raise
        except grpc.aio.AioRpcError as error:
            failure = _failure(error)
            self._trailing = failure.trailing_metadata
            raise failure from None
        except asyncio.CancelledError:
            _raise_if_own_cancellation()
            raise RpcFailure(grpc.StatusCode.CANCELLED, "the call was cancelled") from None

    async def initial_metadata(self) -> Metadata:
        metadata = _received(await self._call.initial_metadata())
        if not metadata and not self._call.done():
            status = asyncio.ensure_future(self._call.code())
            await asyncio.wait({status}, timeout=REFUSAL_GRACE_S)
            status.cancel()
        if self._call.done() and (code := await self._call.code()) is not grpc.StatusCode.OK:
            trailing = await self._call.trailing_metadata()
            raise _named(code, await self._call.details(), trailing, metadata)
        return metadata

    def trailing_metadata(self) -> Metadata:
        return self._trailing

    async def aclose(self) -> None:
        if self._call.done():
            return
        self._call.cancel()
        await self._call.code()


def _raise_if_own_cancellation() -> None:
    """Let a cancellation of this task through; gRPC raises the same when only the call is cut."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _failure(error: grpc.aio.AioRpcError) -> RpcFailure:
    return _named(
        error.code(),
        error.details(),
        error.trailing_metadata(),
        _received(error.initial_metadata()),
    )


def _named(
    code: grpc.StatusCode,
    message: str | None,
    trailing: Iterable[tuple[str, str | bytes]] | None,
    initial: Metadata,
) -> RpcFailure:
    details = None
    for key, value in trailing or ():
        if key == STATUS_DETAILS and isinstance(value, bytes):
            try:
                details = status_pb2.Status.FromString(value)
            except DecodeError:  # the code and the message still stand
                details = None
    return RpcFailure(code, message or "", details, _received(trailing), initial)


def _sent(metadata: Metadata) -> Metadata:
    """The metadata as it goes over the wire: to the core this gateway is one more proxy."""
    sent: dict[str, Any] = {_RENAMED.get(key, key): value for key, value in metadata}
    if peer := sent.pop(PEER_KEY, ""):
        forwarded = sent.get(FORWARDED_KEY, "")
        sent[FORWARDED_KEY] = f"{forwarded}, {peer}" if forwarded else peer
    return tuple(sent.items())


def _received(metadata: Iterable[tuple[str, str | bytes]] | None) -> Metadata:
    return tuple((key, value) for key, value in metadata or () if key != STATUS_DETAILS)
