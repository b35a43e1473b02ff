"""The table of methods, each with its interceptors compiled into one chain that both doors run.

Rooms register their servicers here as they would with a grpc server. The grpc door is `bind`; the
gateway's door is `InProcess`, which skips the socket and nothing else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import Message
from google.rpc import code_pb2, status_pb2
from grpc_interceptor.server import AsyncServerInterceptor
from grpc_status import rpc_status

from steward.gateway.v1 import options_pb2 as options
from steward_gateway.transport import Metadata, Reply, RpcFailure
from steward_server.calls import Call, Refused
from steward_server.codes import CODES

Open = Callable[[Any, Call], Awaitable[Any]]
"""What a link calls next: gives the response, or an iterator of the responses."""

Interceptors = Callable[[str, options.MethodRule, bool], Sequence[AsyncServerInterceptor]]
"""Gives a method's links, outermost first, from its name, rule and whether it streams responses."""

DEADLINE = status_pb2.Status(code=code_pb2.DEADLINE_EXCEEDED, message="the deadline has passed")


@dataclass(frozen=True, slots=True)
class Method:
    """One rpc, ready to be called."""

    name: str
    """As on the wire: ``/package.Service/Method``."""

    rule: options.MethodRule
    streams_requests: bool
    streams_responses: bool
    open: Open


class Dispatcher:
    """Takes servicers, gives methods. Stands in for a grpc server where rooms register."""

    def __init__(self, interceptors: Interceptors) -> None:
        self._interceptors = interceptors
        self.methods: dict[str, Method] = {}
        self._handlers: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """Called by the generated `add_…Servicer_to_server`."""
        bound: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        for short_name, handler in handlers.items():
            descriptor = Default().FindMethodByName(f"{service}.{short_name}")
            method = self._compile(f"/{service}/{short_name}", handler, rule_of(descriptor))
            self.methods[method.name] = method
            bound[short_name] = _grpc_handler(method, handler)
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

    def _compile(self, name: str, handler: Any, rule: options.MethodRule) -> Method:
        chain = _innermost(handler)
        for interceptor in reversed(self._interceptors(name, rule, handler.response_streaming)):
            chain = _link(interceptor, chain, name)
        return Method(name, rule, handler.request_streaming, handler.response_streaming, chain)


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
    if not handler.response_streaming:
        return behaviour  # type: ignore[no-any-return]

    async def open_stream(request: Any, call: Call) -> Any:
        return behaviour(request, call)

    return open_stream


def _link(interceptor: AsyncServerInterceptor, following: Open, name: str) -> Open:
    intercept = interceptor.intercept

    async def link(request: Any, call: Call) -> Any:
        return await intercept(following, request, call, name)

    return link


# The grpc door.


def _grpc_handler(method: Method, handler: Any) -> grpc.RpcMethodHandler[Any, Any]:
    async def unary(request: Any, context: Any) -> Any:
        call = _call_from(context)
        try:
            return await method.open(request, call)
        except Refused as refused:
            await _abort(context, call, refused)
        finally:
            if call.trailing:
                context.set_trailing_metadata(tuple(call.trailing))

    async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
        call = _call_from(context)
        try:
            async with aclosing(await method.open(request, call)) as responses:
                async for response in responses:
                    yield response
        except Refused as refused:
            await _abort(context, call, refused)

    kinds = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    make: Any = kinds[method.streams_requests, method.streams_responses]
    return make(  # type: ignore[no-any-return]
        stream if method.streams_responses else unary,
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )


def _call_from(context: Any) -> Call:
    remaining_s = context.time_remaining()
    return Call(
        context.invocation_metadata() or (),
        peer=context.peer(),
        deadline_s=None if remaining_s is None else time.monotonic() + remaining_s,
        send_initial=context.send_initial_metadata,
    )


async def _abort(context: Any, call: Call, refused: Refused) -> None:
    status = rpc_status.to_status(refused.status)
    context.set_trailing_metadata((*call.trailing, *status.trailing_metadata))
    await context.abort(status.code, status.details)


# The gateway's door.


class InProcess:
    """The gateway's transport when it lives in the server's process."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._methods = dispatcher.methods

    async def unary(
        self, method: str, request: Any, *, metadata: Metadata, timeout_s: float | None = None
    ) -> Reply:
        found = self._find(method)
        call = _call_with(metadata, timeout_s, None)
        try:
            async with asyncio.timeout(timeout_s):
                response = await found.open(request, call)
        except TimeoutError:
            raise _failure(Refused(DEADLINE), call) from None
        except Refused as refused:
            raise _failure(refused, call) from None
        return Reply(response, (), tuple(call.trailing))

    def stream(
        self,
        method: str,
        requests: Any,
        *,
        metadata: Metadata,
        timeout_s: float | None = None,
    ) -> InProcessStream:
        return InProcessStream(self._find(method), requests, metadata, timeout_s)

    def _find(self, method: str) -> Method:
        found = self._methods.get(method)
        if found is None:
            raise RpcFailure(grpc.StatusCode.UNIMPLEMENTED, f"{method} is not served here")
        return found


def _call_with(metadata: Metadata, timeout_s: float | None, send_initial: Any) -> Call:
    peer = next((str(value) for key, value in metadata if key == "x-steward-peer"), "in-process")
    deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
    return Call(metadata, peer=peer, deadline_s=deadline_s, send_initial=send_initial)


def _failure(refused: Refused, call: Call) -> RpcFailure:
    code = CODES.get(refused.status.code, grpc.StatusCode.UNKNOWN)
    return RpcFailure(code, refused.status.message, refused.status, tuple(call.trailing))


class InProcessStream:
    """A streaming call without a socket: the caller's task runs the servicer."""

    def __init__(
        self, method: Method, requests: Any, metadata: Metadata, timeout_s: float | None
    ) -> None:
        loop = asyncio.get_running_loop()
        self._method = method
        self._requests = requests
        self._ends_at_s = None if timeout_s is None else loop.time() + timeout_s
        self._accepted: asyncio.Future[None] = loop.create_future()
        self._call = _call_with(metadata, timeout_s, self._accept)
        self._responses: Any = None
        self._first: asyncio.Future[Message] | None = None

    async def _accept(self, metadata: Any) -> None:
        del metadata
        if not self._accepted.done():
            self._accepted.set_result(None)

    def __aiter__(self) -> InProcessStream:
        return self

    async def __anext__(self) -> Message:
        if self._first is not None:
            first, self._first = self._first, None
            try:
                return await first
            except asyncio.CancelledError:
                first.cancel()
                raise
        return await self._next()

    async def initial_metadata(self) -> Metadata:
        self._first = asyncio.ensure_future(self._next())
        await asyncio.wait((self._first, self._accepted), return_when=asyncio.FIRST_COMPLETED)
        if not self._accepted.done() and isinstance(error := self._first.exception(), RpcFailure):
            raise error
        return ()

    def trailing_metadata(self) -> Metadata:
        return tuple(self._call.trailing)

    async def aclose(self) -> None:
        if self._first is not None:
            self._first.cancel()
            await asyncio.gather(self._first, return_exceptions=True)
        if self._responses is not None:
            await self._responses.aclose()

    async def _next(self) -> Message:
        try:
            async with asyncio.timeout_at(self._ends_at_s):
                if self._responses is None:
                    self._responses = await self._open()
                return await anext(self._responses)
        except TimeoutError:
            raise _failure(Refused(DEADLINE), self._call) from None
        except Refused as refused:
            raise _failure(refused, self._call) from None

    async def _open(self) -> Any:
        opened = await self._method.open(self._requests, self._call)
        return opened if self._method.streams_responses else _once(opened)


async def _once(response: Message) -> AsyncIterator[Message]:
    yield response
