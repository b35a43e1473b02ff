"""HTTP and WebSocket that are passed on over a stream, to what answers at its other end.

What answers is not trusted: it stands behind our own origin, where the dashboard is. So

- nothing of the caller's that is a credential of ours goes in, the link itself included;
- of its headers only those come out that say what a body is. None of them sets a cookie, clears
  what the browser keeps, asks for a password or speaks for the whole origin;
- each answer is put into a sandbox by its Content-Security-Policy: its scripts run in an origin of
  their own, which reads nothing of ours, and it can register no worker.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, cast

import aiohttp
from aiohttp import StreamReader, WSMsgType, web
from aiohttp.client_proto import ResponseHandler
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from grpc import StatusCode
from multidict import CIMultiDict
from yarl import URL

from steward_gateway.bodies import let_send
from steward_gateway.config import GatewayConfig
from steward_gateway.contracts import (
    Contracts,
    dialect_of,
    full_method,
    message_class,
    method_rule,
)
from steward_gateway.errors import Refusal, Refused
from steward_gateway.exchange import PEER_KEY, REQUEST_ID, SERVER
from steward_gateway.handshake import VERSION, is_upgrade
from steward_gateway.rest import Exchange, wait_accepted
from steward_gateway.transport import RpcFailure, Stream, Transport

MAX_OPEN = 512
"""Requests and sockets at a time; each holds two descriptors beside its caller's."""
MAX_OF_LINK = 64
"""Of one link, so that no page takes them all."""
ANSWER_S = 60.0
"""How long what answers may take to begin with it, once it was asked all of it."""
MAX_FRAME_BYTES = 16 * 1024 * 1024
PIECE_BYTES = 65_536
CLOSE_S = 2.0

SANDBOX = (
    "sandbox allow-downloads allow-forms allow-modals allow-pointer-lock allow-popups allow-scripts"
)
"""Without allow-same-origin: what comes from inside is of no origin that there is."""
GUARDS = {
    "Content-Security-Policy": SANDBOX,
    "Referrer-Policy": "no-referrer",  # the address is a credential
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}

_NEVER_IN = frozenset(
    (
        "authorization", "connection", "content-length", "cookie", "expect", "forwarded", "host",
        "keep-alive", "origin", "proxy-authorization", "proxy-connection", "referer",
        "sec-websocket-accept", "sec-websocket-extensions", "sec-websocket-key",
        "sec-websocket-protocol", "sec-websocket-version", "te", "trailer", "transfer-encoding",
        "upgrade", "via", "x-api-key", "x-ic-key", "x-real-ip", "x-ticket",
    )
)  # fmt: skip
"""Ours, the hop's, or said anew. Of `x-forwarded-…` and `x-steward-…` nothing goes in either."""
_OUT = frozenset(
    (
        "accept-ranges", "access-control-allow-headers", "access-control-allow-methods",
        "access-control-allow-origin", "access-control-expose-headers", "access-control-max-age",
        "age", "allow", "cache-control", "content-disposition", "content-encoding",
        "content-language", "content-range", "content-type", "date", "etag", "expires",
        "last-modified", "retry-after", "vary",
    )
)  # fmt: skip
_NO_BODY = (204, 304)
_SAYS_ITS_END = ("Content-Length", "Transfer-Encoding")
"""A body with neither ends with its connection, however that does."""


class Passage:
    """Serves everything below `<path><credential>/` over one method that has a `PassageRule`."""

    def __init__(
        self, method: MethodDescriptor, transport: Transport, config: GatewayConfig
    ) -> None:
        rule = method_rule(method).passage
        self.path = rule.path
        self.dialect = dialect_of(method)
        self._credential = rule.credential
        self._method = full_method(method)
        self._request = message_class(method.input_type)
        self._transport = transport
        self._config = config
        self._open: Counter[str] = Counter()

    async def serve(self, exchange: Exchange, path: str) -> web.StreamResponse:
        """Pass a request on, and what is answered back, both as they come.

        The path is the target's, which may have a scheme and a host before it.

        Raises:
            RpcFailure: the link is good no more, or the environment does not run.
            Refused: 404, 502, 503 or 504.
        """
        request, request_id, query = exchange.request, exchange.request_id, exchange.query
        token, mark, rest = path.removeprefix(self.path).partition("/")
        if not token:
            raise Refused(Refusal(StatusCode.NOT_FOUND, "nothing is served at this path"))
        if not mark:  # else what the page names beside it would be looked for elsewhere
            return web.Response(
                status=308, headers={"Location": f"{path}/{query and '?'}{query}", **GUARDS}
            )
        with self._counted(token):
            async with self._connected(request, token, request_id) as (line, port, pump):
                target = URL(f"http://localhost:{port}/{rest}{query and '?'}{query}", encoded=True)
                connector = _One(line)
                async with aiohttp.ClientSession(
                    connector=connector,
                    cookie_jar=aiohttp.DummyCookieJar(),
                    auto_decompress=False,
                    timeout=aiohttp.ClientTimeout(total=None),
                    skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
                ) as session:
                    try:
                        if is_upgrade(request):
                            return await self._socket(request, session, target, request_id)
                        prefix = f"{self.path}{token}"
                        return await self._answer(
                            request, session, target, prefix, request_id, pump
                        )
                    except (aiohttp.ClientError, TimeoutError) as error:
                        raise _broken(error, port) from None

    @contextmanager
    def _counted(self, token: str) -> Iterator[None]:
        """Say for the block that one more is being answered."""
        of_link, of_all = self._open[token], self._open.total()
        if of_link >= MAX_OF_LINK or of_all >= MAX_OPEN:
            raise Refused(
                Refusal(
                    StatusCode.UNAVAILABLE,
                    f"{of_link} requests by this link and {of_all} in all are being answered; at "
                    f"most {MAX_OF_LINK} and {MAX_OPEN} are at a time: try again",
                    reason="TOO_MANY_PASSAGES",
                    retry_after_s=1,
                )
            )
        self._open[token] += 1
        try:
            yield
        finally:
            self._open[token] -= 1
            if not self._open[token]:
                del self._open[token]

    @asynccontextmanager
    async def _connected(
        self, request: web.BaseRequest, token: str, request_id: str
    ) -> AsyncIterator[tuple[socket.socket, int, asyncio.Task[bool]]]:
        """A line to the port that a link is for, for the block; which it is, and what fills it."""
        ours, theirs = socket.socketpair()
        try:
            reader, writer = await asyncio.open_connection(sock=theirs)
        except BaseException:
            ours.close()
            theirs.close()
            raise
        metadata = [("x-request-id", request_id), (self._credential, token)]
        if request.remote:
            metadata.append((PEER_KEY, request.remote))
        call = self._transport.stream(
            self._method, self._sent(reader), metadata=tuple(metadata), timeout_s=None
        )
        pump: asyncio.Task[bool] | None = None
        try:
            accepted = dict(await wait_accepted(call, self._config.accept_timeout_s))
            pump = asyncio.create_task(_pump(call, writer))
            yield ours, int(accepted.get("x-port", 0)), pump
        finally:
            ours.close()
            writer.close()
            if pump is not None:
                pump.cancel()
                await asyncio.wait({pump})
            await call.aclose()

    async def _sent(self, reader: asyncio.StreamReader) -> AsyncIterator[Message]:
        yield self._request(start={})
        while data := await reader.read(PIECE_BYTES):
            yield self._request(data=data)
        yield self._request(eof={})

    async def _answer(
        self,
        request: web.BaseRequest,
        session: aiohttp.ClientSession,
        target: URL,
        prefix: str,
        request_id: str,
        pump: asyncio.Task[bool],
    ) -> web.StreamResponse:
        headers = headers_in(request.headers)
        waits = asyncio.timeout(ANSWER_S)
        body = None
        if request.can_read_body:
            await let_send(request)
            if length := request.headers.get("Content-Length"):
                headers["Content-Length"] = length
            waits = asyncio.timeout(None)
            body = _passed_in(request.content, waits)
        asked = session.request(
            request.method, target, headers=headers, data=body, allow_redirects=False
        )
        async with waits:
            found = await asked
        async with found:
            if found.status < 200:  # it would leave HTTP, with whoever is in front of us
                raise aiohttp.ClientError
            response = web.StreamResponse(status=found.status, reason=found.reason)
            response.headers.extend(headers_out(found.headers, prefix, target))
            response.headers.update({REQUEST_ID: request_id, **SERVER})
            if _is_of_parts(found.headers) and request.headers.get("Sec-Fetch-Dest") != "image":
                # Each part has headers of its own, and a browser may show one without a sandbox.
                response.headers["Content-Type"] = "application/octet-stream"
            has_body = request.method != "HEAD" and found.status not in _NO_BODY
            if found.content_length is not None and (has_body or request.method == "HEAD"):
                response.content_length = found.content_length
            await response.prepare(request)
            if has_body:
                try:
                    async for piece in found.content.iter_any():
                        await response.write(piece)
                    has_end = any(name in found.headers for name in _SAYS_ITS_END)
                    if not has_end and pump.done() and not pump.result():
                        raise aiohttp.ClientPayloadError
                except aiohttp.ClientError:
                    # It was cut off inside: so it is for the caller, who must not think it whole.
                    if request.transport is not None:
                        request.transport.abort()
                    return response
            await response.write_eof()
            return response

    async def _socket(
        self,
        request: web.BaseRequest,
        session: aiohttp.ClientSession,
        target: URL,
        request_id: str,
    ) -> web.StreamResponse:
        if request.headers.get("Sec-WebSocket-Version") != VERSION:
            raise Refused(
                Refusal(
                    StatusCode.FAILED_PRECONDITION,
                    f"WebSockets of version {VERSION} are passed on",
                    http=426,
                    headers={"Sec-WebSocket-Version": VERSION},
                )
            )
        offered = request.headers.get("Sec-WebSocket-Protocol", "").split(",")
        async with asyncio.timeout(ANSWER_S):
            inner = await session.ws_connect(
                target,
                headers=headers_in(request.headers),
                protocols=[each.strip() for each in offered if each.strip()],
                max_msg_size=MAX_FRAME_BYTES,
                autoclose=False,
                autoping=False,
            )
        outer = web.WebSocketResponse(
            protocols=[inner.protocol] if inner.protocol else (),
            max_msg_size=MAX_FRAME_BYTES,
            timeout=CLOSE_S,
            autoclose=False,  # the other side is told first
            autoping=False,
            compress=False,
        )
        outer.headers.update({REQUEST_ID: request_id, **SERVER})
        try:
            await outer.prepare(request)
            ways = {
                asyncio.create_task(_relay(inner, outer)),
                asyncio.create_task(_relay(outer, inner)),
            }
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                await asyncio.wait(ways, timeout=CLOSE_S)  # a close is under way
                await outer.close(code=_told(outer.close_code))
            except asyncio.CancelledError:  # the gateway stops, or the caller has left
                await outer.close(code=aiohttp.WSCloseCode.GOING_AWAY)
                raise
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.wait(ways)
        finally:
            with suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(CLOSE_S):
                    await inner.close()
        return outer


def passages_of(
    contracts: Contracts, transport: Transport, config: GatewayConfig
) -> tuple[Passage, ...]:
    """One for each method that has a `PassageRule`."""
    return tuple(
        Passage(method, transport, config)
        for method in contracts.methods()
        if method_rule(method).passage.path
    )


class _One(aiohttp.BaseConnector):
    """Connects once: to what is connected already."""

    def __init__(self, line: socket.socket) -> None:
        super().__init__(force_close=True)
        self._line = line

    async def _create_connection(self, *asked: Any, **more: Any) -> ResponseHandler:
        del asked, more
        line = self._line.dup()
        line.setblocking(False)
        loop = asyncio.get_running_loop()
        _, handler = await loop.create_connection(lambda: ResponseHandler(loop), sock=line)
        return handler


def headers_in(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """What of a request's headers is passed in."""
    named = {each.strip().lower() for each in headers.get("Connection", "").split(",")}
    passed: CIMultiDict[str] = CIMultiDict()
    for name, value in headers.items():
        lower = name.lower()
        if lower in _NEVER_IN or lower in named or lower.startswith(("x-forwarded-", "x-steward-")):
            continue
        passed.add(name, value)
    return passed


def headers_out(headers: Mapping[str, str], prefix: str, target: URL) -> CIMultiDict[str]:
    """What of an answer's headers is passed out, with what keeps it in its sandbox."""
    passed: CIMultiDict[str] = CIMultiDict()
    for name, value in headers.items():
        if name.lower() in _OUT:
            passed.add(name, value)
    if location := headers.get("Location"):
        own = f"{target.origin()}/"
        if location.startswith(own):
            location = location[len(own) - 1 :]
        is_path = location.startswith("/") and not location.startswith(("//", "/\\"))
        passed["Location"] = f"{prefix}{location}" if is_path else location
    passed.update(GUARDS)
    return passed


async def _passed_in(content: StreamReader, waits: asyncio.Timeout) -> AsyncIterator[bytes]:
    """A body, which takes its time; from its end on it is waited for the answer."""
    async for piece in content.iter_any():
        yield piece
    with suppress(RuntimeError):  # it was answered before
        waits.reschedule(asyncio.get_running_loop().time() + ANSWER_S)


def _is_of_parts(headers: Mapping[str, str]) -> bool:
    return headers.get("Content-Type", "").strip().lower().startswith("multipart/")


async def _pump(call: Stream, writer: asyncio.StreamWriter) -> bool:
    """Write what comes from inside; what ends there, ends here. Whether it came to its end."""
    has_ended = False
    try:
        async for message in call:
            answer = cast("Any", message)
            if answer.HasField("eof"):
                writer.write_eof()
                has_ended = True
            else:
                writer.write(answer.data)
                await writer.drain()
    except (RpcFailure, ConnectionError):
        pass  # whoever reads finds it cut off
    finally:
        writer.close()
    return has_ended


async def _relay(source: Any, sink: Any) -> None:
    """Pass frames on until one side closes; with what it says, the other is closed."""
    with suppress(ConnectionError, aiohttp.ClientError):
        async for frame in _frames(source):
            match frame.type:
                case WSMsgType.TEXT:
                    await sink.send_str(frame.data)
                case WSMsgType.BINARY:
                    await sink.send_bytes(frame.data)
                case WSMsgType.PING:
                    await sink.ping(frame.data)
                case WSMsgType.PONG:
                    await sink.pong(frame.data)
                case WSMsgType.CLOSE:
                    await sink.close(code=_told(frame.data), message=(frame.extra or "").encode())
                    return
                case WSMsgType.CLOSING:  # the other way has heard of the end
                    return
                case _:
                    await sink.close(code=aiohttp.WSCloseCode.GOING_AWAY)
                    return


async def _frames(source: Any) -> AsyncIterator[aiohttp.WSMessage]:
    while True:
        yield await source.receive()


def _told(code: int | None) -> int:
    """A code that a close may carry; RFC 6455 keeps some for what is never sent."""
    return code if code and code not in (1005, 1006, 1015) else aiohttp.WSCloseCode.OK


def _broken(error: Exception, port: int) -> Refused:
    if isinstance(error, TimeoutError):
        text, http = f"what listens on port {port} did not answer within {ANSWER_S:g} s", 504
        return Refused(Refusal(StatusCode.UNAVAILABLE, text, reason="PASSAGE_TIMEOUT", http=http))
    if isinstance(error, aiohttp.WSServerHandshakeError):
        text = f"what listens on port {port} opens no WebSocket there: {error.status}"
    else:
        text = f"what listens on port {port} does not speak HTTP/1.1, or has broken off"
    return Refused(Refusal(StatusCode.UNAVAILABLE, text, reason="PASSAGE_BROKEN", http=502))
