"""What lies below requests: connections, how many and how slow they may be, and what is no HTTP."""

from __future__ import annotations

import asyncio
import logging
import resource
from collections import Counter
from typing import Any, cast

import orjson
import structlog
from aiohttp import HttpVersion10, HttpVersion11, StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import BadHttpMessage, HttpProcessingError, LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.http_websocket import WebSocketReader
from aiohttp.web_protocol import RequestHandler, RequestPayloadError, _ErrInfo
from grpc import StatusCode

from steward.gateway.v1 import options_pb2
from steward_gateway import errors
from steward_gateway.config import GatewayConfig
from steward_gateway.errors import Refusal
from steward_gateway.exchange import REQUEST_ID, SERVER, forwarded_of, request_id_of
from steward_gateway.forwarding import read_address

log = structlog.get_logger(__name__)

KEEPALIVE_S = 75  # above the 60 s of common proxies, so that they are the ones to close

MAX_TARGET_BYTES = 8_192
MAX_HEADER_BYTES = 16_384
"""Of one header, name and value. Another number than the target's, by which aiohttp's fault says
which of the two was too long."""
MAX_HEADERS = 128

LINGER_S = 2.0
"""How long what is left of a body that nobody wants is read, so that its sender gets the answer."""

SPARE_FILES = 128
"""Open files that are left to everything that is no connection of a caller."""


def _last_words(status_line: str, header: str, body: str) -> bytes:
    """An answer that is written past aiohttp, before the connection is closed."""
    lines = (
        f"HTTP/1.1 {status_line}",
        header,
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: close",
    )
    return "\r\n".join([*lines, "", body]).encode()


_FULL = _last_words(
    "503 Service Unavailable",
    "Retry-After: 1",
    '{"error":{"code":"UNAVAILABLE","message":"there are too many connections; try again"}}',
)
_LATE = _last_words(
    "408 Request Timeout",
    "Retry-After: 0",
    '{"error":{"code":"REQUEST_TIMEOUT","message":"the head of the request came too slowly"}}',
)


class Gate:
    """Counts connections, all together and by address. Pure."""

    def __init__(self, most: int, most_per_address: int | None = None) -> None:
        self._most = most
        self._most_per_address = most_per_address
        self._count = 0
        self._by_address: Counter[str] = Counter()

    def enter(self, address: str) -> bool:
        """Count one more, or say that it is one too many."""
        limit = self._most_per_address
        if self._count >= self._most or (limit and self._by_address[address] >= limit):
            return False
        self._count += 1
        if limit:
            self._by_address[address] += 1
        return True

    def leave(self, address: str) -> None:
        """Count one that had entered no longer."""
        self._count -= 1
        if self._most_per_address:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]


class Misframed(web.BaseRequest):
    """A request that aiohttp reads and we do not: what is in front of us may read it otherwise."""

    def __init__(self, refusal: Refusal, *parts: Any) -> None:
        super().__init__(*parts)
        self.refusal = refusal


def _misframed(message: RawRequestMessage) -> Refusal | None:
    """What is wrong with the version of a request, or with the coding of its body."""
    close = {"Connection": "close"}
    if message.version not in (HttpVersion10, HttpVersion11):
        text = "HTTP/1.1 is spoken here"
        return Refusal(StatusCode.UNIMPLEMENTED, text, http=505, headers=close)
    if not message.chunked:
        return None
    if message.version == HttpVersion10:  # RFC 9112 §6.1: the framing is faulty
        text = "Transfer-Encoding has no meaning in HTTP/1.0"
        return Refusal(StatusCode.INVALID_ARGUMENT, text, http=400, headers=close)
    if message.headers["Transfer-Encoding"].strip().lower() != "chunked":
        text = "bodies are taken with `Transfer-Encoding: chunked`, and no other"
        return Refusal(StatusCode.UNIMPLEMENTED, text, http=501, headers=close)
    return None


class Listener(web.Server):
    """Makes a `Connection` for each caller."""

    def __init__(
        self, handler: Any, config: GatewayConfig, loop: asyncio.AbstractEventLoop
    ) -> None:
        proxies = config.proxies

        def caller_of(message: RawRequestMessage, protocol: RequestHandler) -> str | None:
            """Who calls through proxies of ours; None if nobody does."""
            forwarded = forwarded_of(message.headers)
            peer = read_address(cast("Connection", protocol).address)
            caller = proxies.caller_of(peer, forwarded)
            return str(caller) if caller else None

        def make_request(
            message: RawRequestMessage,
            payload: StreamReader,
            protocol: RequestHandler,
            writer: AbstractStreamWriter,
            task: asyncio.Task[None],
        ) -> web.BaseRequest:
            parts = (payload, protocol, writer, task, loop)
            is_plain = message.version is HttpVersion11 and not message.chunked
            refusal = None if is_plain else _misframed(message)
            if refusal is None:
                remote = caller_of(message, protocol) if proxies.networks else None
                return web.BaseRequest(message, *parts, remote=remote)
            return Misframed(refusal, message._replace(version=HttpVersion11), *parts)

        # aiohttp prints what it cannot understand, and that may be a credential: a subprotocol it
        # does not know, say.
        logging.getLogger("aiohttp.websocket").setLevel(logging.ERROR)
        super().__init__(
            handler,
            request_factory=make_request,
            handler_cancellation=True,  # else a call goes on after its caller has left
            keepalive_timeout=KEEPALIVE_S,
            lingering_time=LINGER_S,
            access_log=None,
            logger=logging.getLogger("steward_gateway.http"),
            auto_decompress=False,  # bodies.py does, within its bound
            max_line_size=MAX_TARGET_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            max_headers=MAX_HEADERS,
        )
        self.head_timeout_s = config.head_timeout_s
        self.gate = Gate(_room(config.max_connections), config.max_connections_per_address)

    def __call__(self) -> RequestHandler:
        return Connection(self, loop=self._loop, **self._kwargs)


def _room(wanted: int) -> int:
    """How many connections there can be: this process may need to be let have more files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + SPARE_FILES
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < needed:
        soft = needed if hard == unlimited else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == unlimited or soft >= needed:
        return wanted
    room = max(soft - SPARE_FILES, soft // 2)
    log.warning("gateway.few_files", max_connections=room, wanted=wanted, open_files=soft)
    return room


_receive = RequestHandler.data_received


class Connection(RequestHandler):
    """One connection: refuses what is one too many, too slow, or no HTTP."""

    __slots__ = ("_broken", "_entered", "_head_timeout_s", "_head_timer", "_listener", "address")

    def __init__(self, listener: Listener, **kwargs: Any) -> None:
        super().__init__(listener, **kwargs)
        self._listener = listener
        self._head_timeout_s = listener.head_timeout_s
        self._head_timer: asyncio.TimerHandle | None = None
        self.address = ""
        self._entered = False
        self._broken = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if isinstance(peer, tuple) else ""
        self._entered = self._listener.gate.enter(self.address)
        if self._entered:
            super().connection_made(transport)
        else:
            self._force_close = True  # what it sends is not read
            written = cast("asyncio.WriteTransport", transport)
            written.write(_FULL)
            written.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._entered:
            self._entered = False
            self._listener.gate.leave(self.address)
        if self._head_timer is not None:
            self._head_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._broken:
            return  # aiohttp would parse on, and queue a fault for whatever comes
        _receive(self, data)
        messages = self._messages
        if messages:
            if type(messages[-1][0]) is _ErrInfo:
                self._broken = True
                if self._current_request is not None:
                    self._end_broken_body(self._current_request.content)
            return
        waiter = self._waiter
        if waiter is not None and self._head_timer is None and not waiter.done():
            # What came is the beginning of a head; a whole one would have ended the wait.
            self._head_timer = self._loop.call_later(
                self._head_timeout_s, self._head_is_late, self._request_count
            )

    def _end_broken_body(self, body: StreamReader) -> None:
        """Tell whoever reads a body that it goes on as no body does; aiohttp only queues that."""
        if not body.is_eof():
            body.set_exception(RequestPayloadError("the framing is broken"))

    def _head_is_late(self, request_count: int) -> None:
        self._head_timer = None
        waiter = self._waiter
        idle = waiter is not None and not waiter.done()
        if idle and self._request_count == request_count and self.transport is not None:
            self.transport.write(_LATE)
            self.force_close()

    def set_parser(self, parser: Any, data_received_cb: Any = None) -> None:
        super().set_parser(cast("WebSocketReader", _MaskedOnly(self, parser)), data_received_cb)

    def frames_go_to(self, parser: WebSocketReader) -> None:
        """Hand what comes to the reader of frames, without a look at it."""
        self._payload_parser = parser

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what aiohttp could not read, in our terms; nothing of it is echoed or logged."""
        del status, message
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun")
        request_id = request_id_of(request.headers)
        if isinstance(exc, HttpProcessingError):
            refusal = _broken(exc)
        else:
            self.log_exception("request %s failed", request_id, exc_info=exc)
            refusal = errors.internal(request_id)
        answer = errors.answer(refusal, options_pb2.DIALECT_IRON)
        response = web.Response(
            status=answer.status,
            body=orjson.dumps(answer.body),
            headers={REQUEST_ID: request_id, "Content-Type": "application/json", **SERVER},
        )
        response.force_close()
        return response


def _broken(fault: HttpProcessingError) -> Refusal:
    text, http = "the request breaks the rules of HTTP/1.1", 400
    if isinstance(fault, LineTooLong):
        if fault.args[1] == MAX_TARGET_BYTES:
            text, http = f"the path and query have more than {MAX_TARGET_BYTES} bytes", 414
        else:
            text, http = f"a header has more than {MAX_HEADER_BYTES} bytes", 431
    elif isinstance(fault, BadHttpMessage) and fault.message.startswith("Too many headers"):
        text, http = f"the request has more than {MAX_HEADERS} headers", 431
    return Refusal(StatusCode.INVALID_ARGUMENT, text, http=http)


class _MaskedOnly:
    """Stands before the reader of frames until the first has begun; that must be masked.

    RFC 6455 §5.1 asks a server to close when a client does not mask, and aiohttp does not look. A
    client that does not mask at all is found by its first frame.
    """

    _BROKEN = b"\xf1\x80"  # reserved bits: the reader closes with 1002, as for any broken frame

    def __init__(self, connection: Connection, parser: WebSocketReader) -> None:
        self._connection = connection
        self._parser = parser
        self._begun = b""

    def feed_eof(self) -> None:
        self._parser.feed_eof()

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        begun = self._begun + data
        if len(begun) < 2:
            self._begun = begun
            return False, b""
        self._connection.frames_go_to(self._parser)
        return self._parser.feed_data(begun if begun[1] & 0x80 else self._BROKEN)
