"""One WebSocket route served: a stream of the core behind frames of text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import orjson
import structlog
from aiohttp import WSCloseCode, WSMsgType, web
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.rpc import status_pb2
from grpc import StatusCode

from steward_gateway import errors
from steward_gateway.binding import Binding
from steward_gateway.codec import BadJson, Codecs, FieldErrors
from steward_gateway.config import GatewayConfig
from steward_gateway.contracts import message_class, type_of
from steward_gateway.cors import Cors
from steward_gateway.errors import Refusal
from steward_gateway.exchange import (
    REQUEST_ID,
    SERVER,
    headers_of,
    metadata_of,
    take_credentials,
    take_protocol_credential,
    timeout_of,
)
from steward_gateway.framing import build_framing
from steward_gateway.handshake import check_handshake
from steward_gateway.names import json_name
from steward_gateway.rest import Exchange, wait_accepted
from steward_gateway.routes import Route
from steward_gateway.transport import RpcFailure, Stream, Transport

log = structlog.get_logger(__name__)

_CODES: dict[int, StatusCode] = {code.value[0]: code for code in StatusCode}

CLOSE_CODE_BASE = 4000
"""A socket that ends with a gRPC status closes with this plus the status's number."""
CLOSE_HANDSHAKE_S = 2.0
"""How long a caller may take to answer a close before the connection is cut."""
MAX_UNSENT_BYTES = 32_768
"""Of a socket, before its writer waits; the socket itself is let wait beyond 64 KiB."""
MAX_FRAMES = 64
"""Kept at once by a route: what readers of one stream differ by."""
MAX_REASON_BYTES = 123  # RFC 6455 §5.5: a control frame holds 125 bytes, two are the code


@dataclass(frozen=True, slots=True)
class Frame:
    """A text and, made once for all its readers, the bytes of its frame."""

    text: str
    data: bytes

    @classmethod
    def of(cls, text: str) -> Frame:
        payload = text.encode()
        size = len(payload)
        # RFC 6455 §5.2: final, text, not masked; a server never masks.
        if size < 126:
            head = bytes((0x81, size))
        elif size < 2**16:
            head = b"\x81\x7e" + size.to_bytes(2)
        else:
            head = b"\x81\x7f" + size.to_bytes(8)
        return cls(text, head + payload)


class Frames:
    """The frames of messages that were written last, by the very message.

    A core in the same process hands one message to all who are to have it.
    """

    def __init__(self, write: Callable[[Message], str]) -> None:
        self._write = write
        self._kept: dict[int, tuple[Message, Frame]] = {}

    def of(self, message: Message) -> Frame:
        """The frame of a message; raises `ValueError` for a value that has no form in JSON."""
        # While a message is kept, no other can have its id.
        kept = self._kept.get(id(message))
        if kept is None:
            if len(self._kept) >= MAX_FRAMES:
                del self._kept[next(iter(self._kept))]
            kept = self._kept[id(message)] = (message, Frame.of(self._write(message)))
        return kept[1]


class WebSocketRoute:
    """Serves one WebSocket route."""

    def __init__(
        self,
        route: Route,
        transport: Transport,
        codecs: Codecs,
        config: GatewayConfig,
        *,
        sessions: set[asyncio.Task[None]],
    ) -> None:
        self.route = route
        self._transport = transport
        self.config = config
        self._cors = Cors(config.cors_origins)
        self._sessions = sessions
        method = route.method
        self._request_class = message_class(method.input_type)
        self._opening = _opening_field(route)
        filled = type_of(self._opening) if self._opening is not None else method.input_type
        self._takes_query = self._opening is not None or not method.client_streaming
        self._binding = Binding(codecs, filled, route.variables, "")
        self._parameters = {json_name(field, codecs.style) for field in filled.fields}
        self.framing = build_framing(
            codecs,
            route.framing,
            request=method.input_type if method.client_streaming else None,
            response=method.output_type,
            response_body=route.response_body,
        )
        write = self.framing.write
        # What answers one caller's frames is for nobody else.
        is_alone = route.streams_requests
        self.frame_of = (lambda message: Frame.of(write(message))) if is_alone else Frames(write).of

    async def serve(self, exchange: Exchange) -> web.StreamResponse:
        """Start the call, upgrade once it is accepted, then carry frames until either side ends.

        Raises:
            FieldErrors, BadPath, Refused: the query, the path or the handshake is refused.
            RpcFailure: the core refuses the call; the caller gets a plain HTTP answer.
        """
        request = exchange.request
        check_handshake(request, self._cors)
        timeout_s = timeout_of(request.headers, None, self.config.max_timeout_s)
        metadata = metadata_of(request, exchange.request_id)
        protocols = take_protocol_credential(request.headers, metadata)
        query = take_credentials(exchange.query, metadata, self._parameters)
        opening = self._first(exchange, query)
        requests: _Requests | None = None
        sent: Message | AsyncIterator[Message]
        if self.route.streams_requests or opening is None:
            sent = requests = _Requests(opening, self.config.frame_queue_count)
        else:
            sent = opening
        call = self._transport.stream(
            self.route.full_method,
            sent,
            metadata=tuple(metadata),
            timeout_s=timeout_s,
        )
        try:
            accepted = await wait_accepted(call, self.config.accept_timeout_s)
            socket = web.WebSocketResponse(
                heartbeat=self.config.heartbeat_s,
                max_msg_size=self.config.max_frame_bytes,
                timeout=CLOSE_HANDSHAKE_S,
                protocols=protocols,
                compress=False,
            )
            socket.headers.update(
                {**headers_of(accepted), REQUEST_ID: exchange.request_id, **SERVER}
            )
            await socket.prepare(request)
        except BaseException:
            await call.aclose()
            raise
        session = _Session(self, call, socket, requests, exchange)
        task = asyncio.create_task(session.run(), name=f"websocket {exchange.request_id}")
        self._sessions.add(task)
        task.add_done_callback(self._sessions.discard)
        try:
            # The session outlives a lost connection: what was sent before is still carried out.
            await asyncio.shield(task)
        except asyncio.CancelledError:
            session.connection_lost.set()
            if not task.cancelled():
                raise
        return socket

    def _first(self, exchange: Exchange, query: str) -> Message | None:
        if not self._takes_query:
            if query:
                raise FieldErrors({query.partition("=")[0]: "unknown parameter"})
            return None
        filled = self._binding.bind(self.route.template.values(exchange.segments), query, b"")
        if self._opening is None:
            return filled
        first = self._request_class()
        getattr(first, self._opening.name).CopyFrom(filled)
        return first


def _opening_field(route: Route) -> FieldDescriptor | None:
    if not route.opening:
        return None
    return route.method.input_type.fields_by_name[route.opening]


class _Requests:
    """The request stream of a call: the opening, then what the socket's reader puts in."""

    def __init__(self, opening: Message | None, queue_count: int) -> None:
        self._queue: asyncio.Queue[Message | None] = asyncio.Queue(queue_count)
        if opening is not None:
            self._queue.put_nowait(opening)
        self._ended = False

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    async def __anext__(self) -> Message:
        message = None if self._ended else await self._queue.get()
        if message is None:
            self._ended = True
            raise StopAsyncIteration
        return message

    async def put(self, message: Message) -> None:
        """Hand a message over; waits while the method is behind."""
        await self._queue.put(message)

    async def end(self) -> None:
        await self._queue.put(None)


class _Session:
    """One open socket. The reader, the writer and a lost connection each may end it."""

    def __init__(
        self,
        route: WebSocketRoute,
        call: Stream,
        socket: web.WebSocketResponse,
        requests: _Requests | None,
        exchange: Exchange,
    ) -> None:
        self._route = route
        self._call = call
        self._socket = socket
        self._transport = exchange.request.transport
        self._requests = requests
        self._request_id = exchange.request_id
        self.connection_lost = asyncio.Event()

    async def run(self) -> None:
        reader = asyncio.create_task(self._read())
        writer = asyncio.create_task(self._write())
        lost = asyncio.create_task(self.connection_lost.wait())
        try:
            await asyncio.wait({reader, writer, lost}, return_when=asyncio.FIRST_COMPLETED)
            if not writer.done():
                await self._finish_without_reader(reader, writer)
            reader.cancel()
            if writer.done():
                code, reason = writer.result()
                await self._socket.close(code=code, message=reason)
        except asyncio.CancelledError:
            reader.cancel()
            await self._socket.close(
                code=WSCloseCode.GOING_AWAY, message=b"the gateway is stopping"
            )
            raise
        finally:
            tasks = {reader, writer, lost}
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)  # the call may not be closed while one of them reads it
            await self._call.aclose()
            for task in tasks:
                if not task.cancelled() and (error := task.exception()) is not None:
                    log.error("gateway.websocket_failed", exc_info=error, **self._facts())

    async def _finish_without_reader(
        self, reader: asyncio.Task[bool], writer: asyncio.Task[tuple[int, bytes]]
    ) -> None:
        """The caller has closed: end the request stream and give the method time to take it in."""
        grace_s = self._route.config.half_close_grace_s
        await asyncio.wait({reader}, timeout=grace_s)
        orderly = reader.done() and reader.exception() is None and reader.result()
        if orderly and self._requests is not None:
            try:
                async with asyncio.timeout(grace_s):
                    await self._requests.end()
                    await asyncio.wait({writer})
            except TimeoutError:
                return

    async def _read(self) -> bool:
        """Put frames into the request stream; says whether the caller closed in an orderly way."""
        while True:
            message = await self._socket.receive()
            if message.type is WSMsgType.TEXT:
                await self._take(message.data)
            elif message.type is WSMsgType.BINARY:
                await self._refuse_frame(FieldErrors({"": "frames must be text, not binary"}))
            else:
                return message.type is WSMsgType.CLOSE

    async def _take(self, text: str) -> None:
        read = self._route.framing.read
        if read is None or self._requests is None:
            await self._refuse_frame(FieldErrors({"": "this socket takes no frames"}))
            return
        try:
            request = read(text)
        except (BadJson, FieldErrors) as fault:
            await self._refuse_frame(fault)
            return
        await self._requests.put(request)

    async def _refuse_frame(self, fault: BadJson | FieldErrors) -> None:
        await self._send_refusal(errors.refusal_of_input(fault))

    async def _send_refusal(self, refusal: Refusal) -> None:
        frame = errors.error_frame(refusal, self._route.route.dialect)
        await self._send(orjson.dumps(frame).decode())

    def _refusal_of(self, failure: RpcFailure) -> Refusal:
        return errors.refusal_of(failure, self._request_id, self._route.route.statuses)

    async def _write(self) -> tuple[int, bytes]:
        """Send what the call yields; gives the code and reason to close with."""
        frame_of = self._route.frame_of
        refused = self._route.route.refusal
        try:
            async for message in self._call:
                if refused and message.HasField(refused):
                    failure = _failure_of(getattr(message, refused))
                    await self._send_refusal(self._refusal_of(failure))
                else:
                    await self._send_frame(frame_of(message))
        except RpcFailure as failure:
            return self._close_of(self._refusal_of(failure))
        except Exception:
            log.exception("gateway.stream_failed", **self._facts())
            return self._close_of(errors.internal(self._request_id))
        return WSCloseCode.OK, b""

    async def _send_frame(self, frame: Frame) -> None:
        """Write a frame as it is; a reader that is behind is waited for by the slower way."""
        transport = self._transport
        if (
            transport is None
            or self._socket.closed
            or transport.is_closing()
            or transport.get_write_buffer_size() > MAX_UNSENT_BYTES
        ):
            await self._send(frame.text)
        else:
            transport.write(frame.data)

    async def _send(self, text: str) -> None:
        """Send a frame, waiting while the reader is behind; into nothing once it has gone."""
        if self._socket.closed:
            return
        try:
            await self._socket.send_str(text)
        except ConnectionError:
            return

    def _close_of(self, refusal: Refusal) -> tuple[int, bytes]:
        number: int = refusal.code.value[0]
        reason = refusal.reason or refusal.message
        return CLOSE_CODE_BASE + number, _shortened(reason)

    def _facts(self) -> dict[str, str]:
        return {"method": self._route.route.full_method, "request_id": self._request_id}


def _failure_of(status: status_pb2.Status) -> RpcFailure:
    return RpcFailure(_CODES.get(status.code, StatusCode.UNKNOWN), status.message, status)


def _shortened(reason: str) -> bytes:
    return reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore").encode()
