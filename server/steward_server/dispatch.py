"""The table of methods, each with its interceptors compiled into one chain that both doors run.

Rooms register their servicers here as they would with a grpc server. The grpc door is `bind`; the
gateway's, which skips the socket and nothing else, is in `in_process.py`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import grpc
import structlog
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import DecodeError
from grpc_interceptor.server import AsyncServerInterceptor
from grpc_status import rpc_status

from steward.gateway.v1 import options_pb2 as options
from steward_gateway.forwarding import Proxies
from steward_server.calls import Call, Refused
from steward_server.codes import CODES
from steward_server.errors import InvalidArgument
from steward_server.peers import address_of

log = structlog.get_logger(__name__)

Open = Callable[[Any, Call], Awaitable[Any]]
"""What a link calls next: gives the response, or an iterator of the responses."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What is known of an rpc before it is called."""

    name: str
    """As on the wire: ``/package.Service/Method``."""

    rule: options.MethodRule
    streams_requests: bool
    streams_responses: bool
    request_fields: frozenset[str]
    """The fields of its request; of a stream of them, none."""


Interceptors = Callable[[Signature], Sequence[AsyncServerInterceptor]]
"""Gives a method's links, outermost first."""


@dataclass(frozen=True, slots=True)
class Method:
    """One rpc, ready to be called."""

    signature: Signature
    open: Open


class Dispatcher:
    """Takes servicers, gives methods. Stands in for a grpc server where rooms register."""

    def __init__(self, interceptors: Interceptors, proxies: Proxies | None = None) -> None:
        """Compile methods with these links; `proxies` are believed where a call came from."""
        self._interceptors = interceptors
        self.proxies = proxies or Proxies()
        self.methods: dict[str, Method] = {}
        self._handlers: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """Called by the generated `add_…Servicer_to_server`."""
        bound: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        for short_name, handler in handlers.items():
            descriptor = Default().FindMethodByName(f"{service}.{short_name}")
            method = self._compile(_signature(f"/{service}/{short_name}", descriptor), handler)
            self.methods[method.signature.name] = method
            bound[short_name] = _grpc_handler(method, handler, self.proxies)
        self._handlers[service] = bound

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """The generated code says everything twice; once is enough."""

    @property
    def services(self) -> list[str]:
        """Full names of the services that are served."""
        return list(self._handlers)

    def bind(self, server: grpc.aio.Server) -> None:
        """Serve every method on a grpc server."""
        for service, handlers in self._handlers.items():
            generic = grpc.method_handlers_generic_handler(service, handlers)
            server.add_generic_rpc_handlers((generic,))

    def _compile(self, signature: Signature, handler: Any) -> Method:
        chain = _innermost(handler)
        for interceptor in reversed(self._interceptors(signature)):
            chain = _link(interceptor, chain, signature.name)
        return Method(signature, chain)


@cache
def _signature(name: str, descriptor: MethodDescriptor) -> Signature:
    streams_requests = descriptor.client_streaming
    fields = () if streams_requests else descriptor.input_type.fields_by_name
    return Signature(
        name, rule_of(descriptor), streams_requests, descriptor.server_streaming, frozenset(fields)
    )


def rule_of(descriptor: MethodDescriptor) -> options.MethodRule:
    """The method's rule, completed from its service's."""
    rule = options.MethodRule()
    rule.CopyFrom(descriptor.GetOptions().Extensions[options.method])
    if rule.dialect == options.DIALECT_UNSPECIFIED:
        service = descriptor.containing_service.GetOptions().Extensions[options.service]
        rule.dialect = service.dialect or options.DIALECT_IRON
    return rule


def _innermost(handler: Any) -> Open:
    behaviour = (
        handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    )

    def open_unary(request: Any, call: Call) -> Any:
        _refuse_malformed(request)
        return behaviour(request, call)

    async def open_stream(request: Any, call: Call) -> Any:
        _refuse_malformed(request)
        return behaviour(request, call)

    return open_stream if handler.response_streaming else open_unary


def _link(interceptor: AsyncServerInterceptor, following: Open, name: str) -> Open:
    # Called as `intercept(following, request, call, method_name=name)`, without a frame of its own.
    return partial(interceptor.intercept, following, method_name=name)


# The grpc door.


def _grpc_handler(
    method: Method, handler: Any, proxies: Proxies
) -> grpc.RpcMethodHandler[Any, Any]:
    async def unary(request: Any, context: Any) -> Any:
        call, begun_s = _call_from(context, proxies), time.perf_counter()
        code = grpc.StatusCode.CANCELLED  # unless it ends before its caller leaves
        try:
            response = await method.open(request, call)
            code = grpc.StatusCode.OK
            context.set_trailing_metadata(tuple(call.trailing))
            return response
        except Refused as refused:
            code = CODES[refused.status.code]
            await _abort(context, call, refused)
        finally:
            _note(method, call, code, begun_s)

    async def stream(request: Any, context: Any) -> None:
        if method.signature.streams_requests:
            request = _requests(context)
        call, begun_s = _call_from(context, proxies), time.perf_counter()
        code = grpc.StatusCode.CANCELLED
        try:
            async with aclosing(await method.open(request, call)) as responses:
                async for response in responses:
                    await context.write(response)
            code = grpc.StatusCode.OK
            context.set_trailing_metadata(tuple(call.trailing))
        except Refused as refused:
            code = CODES[refused.status.code]
            await _abort(context, call, refused)
        except grpc.aio.InternalError:  # the caller has gone, and cannot be written to
            raise asyncio.CancelledError from None
        finally:
            _note(method, call, code, begun_s)

    kinds = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    streams_responses = method.signature.streams_responses
    make: Any = kinds[method.signature.streams_requests, streams_responses]
    return make(  # type: ignore[no-any-return]
        stream if streams_responses else unary,
        request_deserializer=_deserializer(handler.request_deserializer),
        response_serializer=handler.response_serializer,
    )


class _Malformed:
    """Stands for bytes that are no message: grpc would answer UNKNOWN and log a stack trace."""

    def __getattr__(self, name: str) -> str:
        """The text of a field, for links that look at one: empty."""
        if name.startswith("__"):
            raise AttributeError(name)
        return ""


_MALFORMED = _Malformed()


def _deserializer(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return _MALFORMED

    return read


async def _requests(context: Any) -> AsyncIterator[Any]:
    while (request := await context.read()) is not grpc.aio.EOF:
        _refuse_malformed(request)
        yield request


def _refuse_malformed(request: Any) -> None:
    if request is _MALFORMED:
        raise InvalidArgument(
            "the bytes sent are not the message this method takes", reason="MALFORMED_MESSAGE"
        )


def _note(method: Method, call: Call, code: grpc.StatusCode, begun_s: float) -> None:
    """Write the call's line in the log; the gateway writes those of its own callers."""
    log.info(
        "grpc.request",
        endpoint=method.signature.name,
        status="success" if code is grpc.StatusCode.OK else "error",
        code=code.name,
        latency_ms=round((time.perf_counter() - begun_s) * 1000, 3),
        peer=call.peer(),
        request_id=call.request_id,
    )


def _call_from(context: Any, proxies: Proxies) -> Call:
    remaining_s = context.time_remaining()
    call = Call(
        context.invocation_metadata() or (),
        peer=context.peer(),
        deadline_s=None if remaining_s is None else time.monotonic() + remaining_s,
        send_initial=context.send_initial_metadata,
    )
    if proxies.networks and (forwarded := call.forwarded):
        caller = proxies.caller_of(address_of(call.peer()), forwarded)
        if caller is not None:
            call.came_from(str(caller))
    return call


async def _abort(context: Any, call: Call, refused: Refused) -> None:
    status = rpc_status.to_status(refused.status)
    context.set_trailing_metadata((*call.trailing, *status.trailing_metadata))
    await context.abort(status.code, status.details)
