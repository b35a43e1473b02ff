"""One HTTP route served: request, call, answer; streams as NDJSON or server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import orjson
import structlog
from aiohttp import web
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from grpc import StatusCode

from steward_gateway import errors
from steward_gateway.binding import HTTP_BODY, Binding
from steward_gateway.bodies import JSON, body_at_hand, media_type_of, read_body, require_json
from steward_gateway.codec import Codecs
from steward_gateway.conditions import (
    IF_MATCH,
    LAST_EVENT_ID,
    position_of,
    tag_of,
    take_if_match,
    take_last_event,
)
from steward_gateway.config import GatewayConfig
from steward_gateway.contracts import method_rule, type_of
from steward_gateway.cors import Cors
from steward_gateway.errors import Refusal, Refused
from steward_gateway.exchange import (
    REQUEST_ID,
    SERVER,
    fill_request_id,
    headers_of,
    metadata_of,
    plain_media_type,
    take_credentials,
    timeout_of,
)
from steward_gateway.joining import JoinedWriter
from steward_gateway.names import field_rule, json_name
from steward_gateway.negotiation import (
    LEAST_COMPRESSED_BYTES,
    accepts,
    compressed,
    is_known,
    is_wanted,
    takes_gzip,
)
from steward_gateway.routes import Route
from steward_gateway.transport import Metadata, RpcFailure, Stream, Transport
from steward_gateway.whole import respond

log = structlog.get_logger(__name__)

NDJSON = "application/x-ndjson"
EVENT_STREAM = "text/event-stream"
OCTETS = "application/octet-stream"
STREAMED = (EVENT_STREAM, NDJSON, JSON)

MAX_LOGGED = 200
"""Characters of what a caller has named."""

COMPRESSED_HERE_BYTES = 65_536
"""Larger bodies are compressed on a thread, so that others need not wait for it."""


class Exchange(NamedTuple):
    """One request on its way through a route; the path and query as they were sent."""

    request: web.BaseRequest
    request_id: str
    segments: list[str]
    query: str
    facts: dict[str, str]
    """For the log."""


class RestRoute:
    """Serves one HTTP route; everything that can be known at start is looked up here, once."""

    def __init__(
        self,
        route: Route,
        transport: Transport,
        codecs: Codecs,
        config: GatewayConfig,
        *,
        stopping: asyncio.Event,
    ) -> None:
        self.route = route
        self.streams = route.streams_responses
        self.serve = self._serve_stream if self.streams else self._serve_unary
        """Answer a request.

        Raises:
            BadJson, FieldErrors, BadPath, Refused: the request is refused here.
            RpcFailure: the core refuses it.
        """
        self._transport = transport
        self._config = config
        self._stopping = stopping
        self._binding = Binding(
            codecs,
            route.method.input_type,
            route.variables,
            route.body,
            patches=route.verb == "PATCH",
        )
        self._parameters = {
            json_name(field, codecs.style) for field in route.method.input_type.fields
        }
        fields = route.method.input_type.fields
        self._logged = [field.name for field in fields if field_rule(field).logged]
        self._is_read = route.verb == "GET" and route.success_status == 200
        self._changes = route.verb not in ("GET", "HEAD")
        self._cors = Cors(config.cors_origins) if config.cors_origins else None
        output = route.method.output_type
        if route.response_body:
            field = output.fields_by_name[route.response_body]
            shown = field.message_type if not field.is_repeated else None
            self._encode = _field_encoder(codecs, route)
        else:
            shown = output
            self._encode = codecs.of(output).encode
        self._raw = shown is not None and shown.full_name == HTTP_BODY
        rule = method_rule(route.method)
        self._timeout_s = rule.deadline_s or config.unary_timeout_s
        self._events_by_default = rule.events.by_default
        self._named = route.named_event
        self._encode_named = (
            codecs.of(type_of(route.named_event)).encode if route.named_event else self._encode
        )
        at = route.position
        self._is_around = at is not None and at.containing_type is not shown
        """Whether where a stream is stands beside what is shown of it."""
        self.if_true: RestRoute | None = None
        """What serves the path where a parameter of the query is true."""

    def taken(self, query: str) -> RestRoute:
        """This route, or the one at the same path that the query asks for."""
        other = self.if_true
        if other is None or not query:
            return self
        told = parse_qsl(query, keep_blank_values=True)
        said = [text.lower() for name, text in told if name == other.route.taken_if]
        return other if said and said[0] in ("true", "1") else self

    async def _serve_unary(self, exchange: Exchange) -> web.StreamResponse:
        request, config = exchange.request, self._config
        headers = request.headers
        accept = headers.get("Accept")
        if accept is not None and not self._raw and not accepts(accept, JSON):
            raise Refused(_not_acceptable(JSON))
        timeout_s = timeout_of(headers, self._timeout_s, config.max_timeout_s)
        body = body_at_hand(request, config.max_body_bytes) if self._binding.takes_body else b""
        if body is None:
            body = await read_body(request, config.max_body_bytes, config.body_timeout_s)
        message = self._bind(exchange, exchange.query, body)
        wanted = headers.get(IF_MATCH) if self._changes else None
        if wanted is not None:
            take_if_match(message, self.route.if_match, wanted)
        try:
            reply = await self._transport.unary(
                self.route.full_method,
                message,
                metadata=tuple(metadata_of(request, exchange.request_id)),
                timeout_s=timeout_s,
            )
        except RpcFailure as failure:
            if wanted is None or failure.code is not StatusCode.ABORTED:
                raise
            passed = errors.refusal_of(failure, exchange.request_id, self.route.statuses)
            told = headers_of(failure.initial_metadata + failure.trailing_metadata)
            raise Refused(replace(passed, http=412, headers=told)) from None
        shown = headers_of(reply.initial_metadata + reply.trailing_metadata)
        shown[REQUEST_ID] = exchange.request_id
        status = self.route.success_status
        if status == 204:
            return web.Response(status=204, headers=shown)
        if self._raw:
            raw = self._raw_body(reply.message)
            shown["Content-Type"] = plain_media_type(raw.content_type)
            body = raw.data
            if shown["Content-Type"].startswith("text/"):
                body = await _packed(headers, shown, body)
            return web.Response(status=status, body=body, headers=shown)
        shown["Content-Type"] = JSON
        body = orjson.dumps(self._encode(reply.message))
        etag = ""
        if self._is_read or self.route.etag:
            etag = shown["ETag"] = tag_of(reply.message, self.route.etag, body)
        if self._is_read:
            shown["Cache-Control"] = "private, no-cache"  # keep it, but ask whether it holds
            known = headers.get("If-None-Match")
            if known is not None and is_known(known, etag):
                del shown["Content-Type"]
                return web.Response(status=304, headers=shown)
        body = await _packed(headers, shown, body)
        return respond(request, status, shown, body)

    def _raw_body(self, message: Message) -> Any:
        name = self.route.response_body
        return getattr(message, name) if name else message

    def _bind(self, exchange: Exchange, query: str, body: bytes) -> Message:
        request, binding = exchange.request, self._binding
        media_type = ""
        if binding.takes_raw_body:
            media_type = media_type_of(request)
        elif body:
            require_json(request)
        values = self.route.template.values(exchange.segments)
        message = binding.bind(values, query, body, media_type)
        fill_request_id(message, self.route.request_id_field, request.headers)
        for name in self._logged:
            if text := getattr(message, name):
                exchange.facts[name] = text[:MAX_LOGGED]
        return message

    async def _serve_stream(self, exchange: Exchange) -> web.StreamResponse:
        request = exchange.request
        if not self._raw and not accepts(request.headers.get("Accept", ""), *STREAMED):
            raise Refused(_not_acceptable(*STREAMED))
        timeout_s = timeout_of(request.headers, None, self._config.max_timeout_s)
        metadata = metadata_of(request, exchange.request_id)
        query = take_credentials(exchange.query, metadata, self._parameters)
        config = self._config
        body = b""
        if self._binding.takes_body:
            body = await read_body(request, config.max_body_bytes, config.body_timeout_s)
        message = self._bind(exchange, query, body)
        after, left_at = self.route.after, request.headers.get(LAST_EVENT_ID)
        if after is not None and left_at:
            take_last_event(message, after, left_at)
        call = self._transport.stream(
            self.route.full_method, message, metadata=tuple(metadata), timeout_s=timeout_s
        )
        try:
            accepted = await wait_accepted(call, self._config.accept_timeout_s)
            events = self._sends_events(request.headers.get("Accept", ""))
            content = {"Content-Type": OCTETS if self._raw else EVENT_STREAM if events else NDJSON}
            headers = stream_headers(accepted, content, exchange, self._cors)
            response = web.StreamResponse(status=self.route.success_status, headers=headers)
            await response.prepare(request)
            if request.method == "HEAD":
                return response
            frame = _event if events else _line
            position = self.route.position if events else None
            async with _Heartbeat(response, self._config.heartbeat_s if events else None):
                await self._relay(call, response, frame, position, exchange.request_id)
            return response
        finally:
            await call.aclose()

    def _sends_events(self, accept: str) -> bool:
        """Whether a stream is told as server-sent events, else as NDJSON."""
        if self._events_by_default:
            return NDJSON not in accept.lower() and accepts(accept, EVENT_STREAM)
        return is_wanted(accept, EVENT_STREAM, NDJSON, JSON)

    async def _relay(
        self,
        call: Stream,
        response: web.StreamResponse,
        frame: Callable[[Any, str], bytes],
        position: FieldDescriptor | None,
        request_id: str,
    ) -> None:
        """Write what the call yields; a failure is the last thing written."""
        try:
            if self._raw:
                async for message in call:
                    await response.write(self._raw_body(message).data)
            else:
                async with JoinedWriter(response) as joined:
                    async for message in call:
                        await joined.write(self._framed(message, frame, position))
        except RpcFailure as failure:
            refusal = errors.refusal_of(failure, request_id, self.route.statuses)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._stopping.is_set() or task is None:
                raise
            task.uncancel()  # the gateway stops: the reader is told so before it goes
            refusal = Refusal(StatusCode.UNAVAILABLE, "the gateway is stopping; connect again")
        except ConnectionError:
            return  # the reader has gone
        except Exception:
            # The head is sent: what goes wrong now can only be told in the body.
            log.exception(
                "gateway.stream_failed", method=self.route.full_method, request_id=request_id
            )
            refusal = errors.internal(request_id)
        else:
            return
        if self._raw:
            raise ConnectionError("cut off: what was sent must not pass for the whole")
        body = errors.answer(refusal, self.route.dialect).body
        await response.write(frame(body, "error"))

    def _framed(
        self,
        message: Message,
        frame: Callable[[Any, str], bytes],
        position: FieldDescriptor | None,
    ) -> bytes:
        if self._named is not None and message.HasField(self._named.name):
            return self._named_frame(message, frame)
        if position is None:
            return frame(self._encode(message), "")
        name = self.route.response_body
        shown = getattr(message, name) if name and not self._is_around else message
        begin = f"id: {at}\n".encode() if (at := position_of(shown, position)) else b""
        return begin + frame(self._encode(message), "")

    def _named_frame(self, message: Message, frame: Callable[[Any, str], bytes]) -> bytes:
        assert self._named is not None  # noqa: S101 - looked at by the caller
        name = self._named.name
        value = self._encode_named(getattr(message, name))
        return frame(value, name) if frame is _event else frame({name: value}, name)


def _field_encoder(codecs: Codecs, route: Route) -> Callable[[Message], Any]:
    """The encoder of one field of the response, whatever kind of field it is."""
    output = route.method.output_type
    field = output.fields_by_name[route.response_body]
    if field.message_type is not None and not field.is_repeated:
        encode, name = codecs.of(field.message_type).encode, field.name
        return lambda message: encode(getattr(message, name))
    encode_all, key = codecs.of(output).encode, json_name(field, codecs.style)
    return lambda message: encode_all(message).get(key)


def stream_headers(
    accepted: Metadata, content: Mapping[str, str], exchange: Exchange, cors: Cors | None
) -> dict[str, str]:
    """What a stream of answers begins with: nothing can be added once it is sent."""
    return {
        **headers_of(accepted),
        **content,
        REQUEST_ID: exchange.request_id,
        "Cache-Control": "no-store",
        "X-Accel-Buffering": "no",  # nginx is not to wait until there is much
        **SERVER,
        **(cors.headers_for(exchange.request.headers) if cors is not None else {}),
    }


async def wait_accepted(call: Stream, timeout_s: float) -> Metadata:
    """Wait until a stream is accepted, but not for ever: some say nothing before they are told.

    Raises:
        RpcFailure: it was refused.
    """
    accepted = asyncio.ensure_future(call.initial_metadata())
    try:
        await asyncio.wait({accepted}, timeout=timeout_s)
        return accepted.result() if accepted.done() else ()
    finally:
        if not accepted.done():
            accepted.add_done_callback(_forget)


def _forget(task: asyncio.Future[Metadata]) -> None:
    if not task.cancelled():
        task.exception()  # told by the stream itself


async def _packed(headers: Mapping[str, str], shown: dict[str, str], body: bytes) -> bytes:
    """The body as its caller takes it; says in the headers of the answer which way that is."""
    if len(body) < LEAST_COMPRESSED_BYTES:
        return body
    shown["Vary"] = "Accept-Encoding"
    if not takes_gzip(headers.get("Accept-Encoding", "")):
        return body
    shown["Content-Encoding"] = "gzip"
    if shown.get("ETag", "").startswith('"'):  # RFC 9110 §8.8.3.3: other bytes, so not strong now
        shown["ETag"] = f"W/{shown['ETag']}"
    if len(body) <= COMPRESSED_HERE_BYTES:
        return compressed(body)
    return await asyncio.to_thread(compressed, body)


def _not_acceptable(*produced: str) -> Refusal:
    return Refusal(
        StatusCode.INVALID_ARGUMENT,
        f"the answer is {' or '.join(produced)}, which the Accept header does not let in",
        http=406,
    )


def _line(value: Any, event: str) -> bytes:
    del event
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)


def _event(value: Any, event: str) -> bytes:
    name = f"event: {event}\n".encode() if event else b""
    return name + b"data: " + orjson.dumps(value) + b"\n\n"


class _Heartbeat:
    """Writes a comment into server-sent events at intervals, so that a dead reader is noticed."""

    def __init__(self, response: web.StreamResponse, interval_s: float | None) -> None:
        self._response = response
        self._interval_s = interval_s
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        if self._interval_s is not None:
            self._task = asyncio.create_task(self._beat(self._interval_s))

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _beat(self, interval_s: float) -> None:
        while True:
            await asyncio.sleep(interval_s)
            try:
                await self._response.write(b": alive\n\n")
            except ConnectionError:
                return  # the relay meets the same error
