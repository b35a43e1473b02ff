"""Methods at `/package.Service/Method`: each path a method, each content type a protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import cached_property
from typing import NamedTuple

import grpc
import structlog
from aiohttp import web
from google.api import annotations_pb2
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message import DecodeError, Message

from steward_gateway import errors
from steward_gateway.codec import BadJson, Codecs, FieldErrors, Style, codecs_of
from steward_gateway.config import GatewayConfig
from steward_gateway.contracts import Contracts, full_method, message_class, method_rule
from steward_gateway.cors import Cors
from steward_gateway.errors import Refusal, Refused
from steward_gateway.exchange import REQUEST_ID, fill_request_id, headers_of, metadata_of
from steward_gateway.rest import Exchange, stream_headers, wait_accepted
from steward_gateway.rpc import failure as failures
from steward_gateway.rpc.connect import (
    STREAM_TYPES,
    UNARY_TYPES,
    ConnectStream,
    ConnectUnary,
    plain_answer,
    wire_of_query,
)
from steward_gateway.rpc.failure import Failure
from steward_gateway.rpc.grpc_web import GrpcWeb
from steward_gateway.rpc.wire import StreamWire, UnaryWire, Wire
from steward_gateway.transport import RpcFailure, Stream, Transport

log = structlog.get_logger(__name__)

Code = grpc.StatusCode
Serve = Callable[[Exchange], Awaitable[web.StreamResponse]]

_GRPC_WEB_TYPES = ("application/grpc-web+proto", "application/grpc-web-text+proto")


class Door(NamedTuple):
    """How the calls of one method, or of those that are not there, are answered.

    Attributes:
        name: what it is called in metrics and the log.
        streams: whether a call may go on for as long as its caller likes.
    """

    name: str
    streams: bool
    serve: Serve


class RpcDoors:
    """Every method of the contracts under its own name."""

    def __init__(
        self,
        contracts: Contracts,
        transport: Transport,
        config: GatewayConfig,
        *,
        stopping: asyncio.Event,
    ) -> None:
        self._codecs = codecs_of(Style.PROTOJSON)
        self._doors: dict[str, Door] = {}
        self._unknown: dict[str, Door] = {}
        for method in contracts.methods():
            name = full_method(method)
            served = _Method(method, transport, self._codecs, config, stopping=stopping)
            self._doors[name] = Door(name, served.streams_responses, served.serve)
            service = f"/{method.containing_service.full_name}/"
            self._unknown[service] = Door(f"{service}*", False, self._no_such_method)

    def find(self, path: str) -> Door | None:
        """What answers at a path; None if it does not begin with the name of a service."""
        return self._doors.get(path) or self._unknown.get(path[: path.find("/", 1) + 1])

    async def _no_such_method(self, exchange: Exchange) -> web.StreamResponse:
        failure = Failure(Code.UNIMPLEMENTED, "the service has no such method", http=404)
        return _with_id(plain_answer(failure, self._codecs), exchange)


class _Method:
    """Serves one method. Codecs are compiled when its first caller needs them."""

    def __init__(
        self,
        method: MethodDescriptor,
        transport: Transport,
        codecs: Codecs,
        config: GatewayConfig,
        *,
        stopping: asyncio.Event,
    ) -> None:
        self.streams_responses = method.server_streaming
        self._method = method
        self._name = full_method(method)
        self._transport = transport
        self._codecs = codecs
        self._config = config
        self._stopping = stopping
        self._cors = Cors(config.cors_origins) if config.cors_origins else None
        self._streams = method.client_streaming or method.server_streaming

    @cached_property
    def _request_id_field(self) -> str:
        return method_rule(self._method).request_id_field

    @cached_property
    def _deadline_s(self) -> int:
        return method_rule(self._method).deadline_s

    @cached_property
    def _may_be_get(self) -> bool:
        """Whether the method changes nothing: it says so, or REST reads with it too."""
        options = self._method.GetOptions()
        if options.idempotency_level == MethodOptions.NO_SIDE_EFFECTS:
            return True
        return bool(options.Extensions[annotations_pb2.http].get)

    @cached_property
    def _allow(self) -> str:
        return "GET, POST, OPTIONS" if self._may_be_get and not self._streams else "POST, OPTIONS"

    async def serve(self, exchange: Exchange) -> web.StreamResponse:
        """Answer one call; whatever goes wrong is told in its protocol.

        Raises:
            ConnectionError: the caller has gone.
        """
        if exchange.request.method == "OPTIONS":
            return _with_id(web.Response(status=204, headers={"Allow": self._allow}), exchange)
        wire: Wire | None = None
        try:
            if not self._streams:
                wire = unary = self._unary_wire(exchange)
                self._refuse_if_stopping()
                return _with_id(await self._unary(unary, exchange), exchange)
            wire = stream = self._stream_wire(exchange)
            self._refuse_if_stopping()
            return await self._stream(stream, exchange)
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001 - what is not known is logged and hidden
            failure = self._failure_of(error, exchange.request_id)
        if wire is None:
            return _with_id(plain_answer(failure, self._codecs), exchange)
        return _with_id(wire.refuse(failure), exchange)

    def _refuse_if_stopping(self) -> None:
        if self._stopping.is_set():
            raise Refused(errors.STOPPING)

    def _unary_wire(self, exchange: Exchange) -> UnaryWire:
        request = exchange.request
        if request.method == "GET" and self._may_be_get:
            return wire_of_query(request, exchange.query, self._codecs, self._config)
        self._require_post(request)
        media_type = _media_type(request)
        if media_type in UNARY_TYPES:
            return ConnectUnary(request, UNARY_TYPES[media_type], self._codecs, self._config)
        if GrpcWeb.is_meant(media_type):
            return GrpcWeb(request, media_type, self._config)
        raise _unsupported(UNARY_TYPES)

    def _stream_wire(self, exchange: Exchange) -> StreamWire:
        request = exchange.request
        self._require_post(request)
        media_type = _media_type(request)
        if media_type in STREAM_TYPES:
            return ConnectStream(request, STREAM_TYPES[media_type], self._codecs, self._config)
        if GrpcWeb.is_meant(media_type):
            return GrpcWeb(request, media_type, self._config)
        raise _unsupported(STREAM_TYPES)

    def _require_post(self, request: web.BaseRequest) -> None:
        if request.method != "POST":
            text = f"{request.method} is not served at this path; {self._allow} are"
            headers = {"Allow": self._allow}
            raise Refused(Refusal(Code.UNIMPLEMENTED, text, http=405, headers=headers))

    async def _unary(self, wire: UnaryWire, exchange: Exchange) -> web.Response:
        timeout_s = wire.timeout_s(self._deadline_s or self._config.unary_timeout_s)
        (message,) = await self._messages(wire, exchange)
        reply = await self._transport.unary(
            self._name,
            message,
            metadata=tuple(metadata_of(exchange.request, exchange.request_id)),
            timeout_s=timeout_s,
        )
        return wire.answer(self._encode(reply.message, wire.coding), reply)

    async def _stream(self, wire: StreamWire, exchange: Exchange) -> web.StreamResponse:
        if self._method.client_streaming and self._method.server_streaming:
            raise Refused(_both_ways(self._method))
        timeout_s = wire.timeout_s(None)
        messages = await self._messages(wire, exchange)
        call = self._transport.stream(
            self._name,
            _each(messages) if self._method.client_streaming else messages[0],
            metadata=tuple(metadata_of(exchange.request, exchange.request_id)),
            timeout_s=timeout_s,
        )
        try:
            accepted = await wait_accepted(call, self._config.accept_timeout_s)
            headers = stream_headers(accepted, wire.opening(), exchange, self._cors)
            response = web.StreamResponse(status=200, headers=headers)
            await response.prepare(exchange.request)
            await self._relay(wire, call, response, exchange.request_id)
            return response
        finally:
            await call.aclose()

    async def _relay(
        self, wire: StreamWire, call: Stream, response: web.StreamResponse, request_id: str
    ) -> None:
        """Write what the call yields, and last how it ended."""
        failure: Failure | None = None
        trailers: dict[str, str] = {}
        try:
            async for message in call:
                await response.write(wire.frame(self._encode(message, wire.coding)))
            trailers = headers_of(call.trailing_metadata())
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._stopping.is_set() or task is None:
                raise
            task.uncancel()  # the gateway stops: the reader is told so before it goes
            failure = failures.of_refusal(errors.STOPPING)
        except ConnectionError:
            return  # the reader has gone
        except Exception as error:  # noqa: BLE001 - what is not known is logged and hidden
            failure = self._failure_of(error, request_id, opened=True)
        if failure is not None:
            trailers = dict(failure.metadata)
        await response.write(wire.end(failure, trailers))

    async def _messages(self, wire: Wire, exchange: Exchange) -> Sequence[Message]:
        payloads = await wire.payloads()
        if not self._method.client_streaming and len(payloads) != 1:
            text = f"the method takes one message; {len(payloads)} were sent"
            raise Refused(Refusal(Code.UNIMPLEMENTED, text))
        messages = [self._decode(payload, wire.coding) for payload in payloads]
        if not self._method.client_streaming:
            fill_request_id(messages[0], self._request_id_field, exchange.request.headers)
        return messages

    def _decode(self, payload: bytes, coding: str) -> Message:
        descriptor: Descriptor = self._method.input_type
        if coding == "json":
            return self._codecs.of(descriptor).from_json(payload or b"{}")
        try:
            return message_class(descriptor).FromString(payload)
        except DecodeError:
            raise FieldErrors({"": f"is no {descriptor.full_name}"}) from None

    def _encode(self, message: Message, coding: str) -> bytes:
        if coding == "json":
            return self._codecs.of(self._method.output_type).to_json(message)
        return message.SerializeToString()

    def _failure_of(self, error: Exception, request_id: str, *, opened: bool = False) -> Failure:
        match error:
            case RpcFailure():
                failure = failures.of_call(error, request_id, opened=opened)
                if failure.message != error.message:
                    log.warning(
                        "gateway.call_failed",
                        endpoint=self._name,
                        code=error.code.name,
                        message=error.message,
                        request_id=request_id,
                    )
                return failure
            case Refused():
                return failures.of_refusal(error.refusal)
            case BadJson() | FieldErrors():
                return failures.of_refusal(errors.refusal_of_input(error))
        log.error("gateway.failed", endpoint=self._name, request_id=request_id, exc_info=error)
        return failures.of_refusal(errors.internal(request_id))


async def _each(messages: Sequence[Message]) -> AsyncIterator[Message]:
    for message in messages:
        yield message


def _with_id(response: web.StreamResponse, exchange: Exchange) -> web.StreamResponse:
    if not response.prepared:
        response.headers[REQUEST_ID] = exchange.request_id
    return response


def _media_type(request: web.BaseRequest) -> str:
    media_type, _, parameters = request.headers.get("Content-Type", "").partition(";")
    charset = parameters.replace(" ", "").lower().replace('"', "")
    return media_type.strip().lower() if charset in ("", "charset=utf-8") else ""


def _unsupported(types: Sequence[str] | dict[str, str]) -> Refused:
    accepted = ", ".join([*types, *_GRPC_WEB_TYPES])
    return Refused(
        Refusal(
            Code.UNIMPLEMENTED,
            f"the body must be sent as one of: {accepted}",
            http=415,
            headers={"Accept-Post": accepted},
        )
    )


def _both_ways(method: MethodDescriptor) -> Refusal:
    """Over HTTP/1.1 nothing can be sent while answers come."""
    path = method_rule(method).websocket.path
    other = f"gRPC, or the WebSocket at {path}" if path else "gRPC"
    text = f"{method.name} streams both ways, which HTTP/1.1 cannot carry: use {other}"
    return Refusal(Code.UNIMPLEMENTED, text)
