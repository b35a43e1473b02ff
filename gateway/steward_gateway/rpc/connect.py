"""The Connect protocol, over HTTP/1.1: https://connectrpc.com/docs/protocol."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs

import grpc
import orjson
from aiohttp import web
from google.protobuf.message import DecodeError

from steward_gateway.bodies import JSON, read_body
from steward_gateway.codec import Codecs, FieldErrors
from steward_gateway.config import GatewayConfig
from steward_gateway.contracts import message_class
from steward_gateway.errors import Refusal, Refused
from steward_gateway.exchange import headers_of
from steward_gateway.rpc import envelope
from steward_gateway.rpc.failure import Failure
from steward_gateway.transport import Reply

UNARY_TYPES = {JSON: "json", "application/proto": "proto"}
STREAM_TYPES = {"application/connect+json": "json", "application/connect+proto": "proto"}
_UNARY_TYPE_OF = {coding: name for name, coding in UNARY_TYPES.items()}

END_OF_STREAM = 0b0000_0010
MAX_MESSAGES = 10_000
"""In the body of a stream of requests, which is read whole: an empty one is five bytes."""
_AROUND_BYTES = 32
"""Of each message at most: its head, and what gzip adds to a small one."""
_MILLISECONDS = re.compile(r"[0-9]{1,10}")

Code = grpc.StatusCode

_HTTP_STATUS = {
    Code.CANCELLED: 499,
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}
"""The protocol's own table, which is not that of the REST dialects."""


def code_name(code: grpc.StatusCode) -> str:
    """The protocol's word for a code."""
    return "canceled" if code is Code.CANCELLED else code.name.lower()


def error_body(failure: Failure, codecs: Codecs) -> dict[str, Any]:
    """The JSON a failure is told as."""
    body: dict[str, Any] = {"code": code_name(failure.code), "message": failure.message}
    if failure.details:
        body["details"] = [_detail(packed, codecs) for packed in failure.details]
    return body


def _detail(packed: Any, codecs: Codecs) -> dict[str, Any]:
    name = packed.type_url.rpartition("/")[2]
    detail: dict[str, Any] = {
        "type": name,
        "value": base64.b64encode(packed.value).decode().rstrip("="),
    }
    try:
        descriptor = codecs.pool.FindMessageTypeByName(name)
        message = message_class(descriptor).FromString(packed.value)
        detail["debug"] = codecs.of(descriptor).encode(message)
    except (KeyError, DecodeError, ValueError):
        pass  # a type that is not known here; `value` says it all the same
    return detail


def plain_answer(failure: Failure, codecs: Codecs) -> web.Response:
    """A failure as JSON under its HTTP status: what any caller of HTTP can read."""
    status = failure.http or _HTTP_STATUS[failure.code]
    headers = {**failure.metadata, **failure.headers, "Content-Type": JSON}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    body = orjson.dumps(error_body(failure, codecs))
    return web.Response(status=status, body=body, headers=headers)


class _Connect:
    """What both forms share."""

    def __init__(
        self, request: web.BaseRequest, coding: str, codecs: Codecs, config: GatewayConfig
    ) -> None:
        self.coding = coding
        self._request = request
        self._codecs = codecs
        self._config = config

    def _check_version(self) -> None:
        version = self._request.headers.get("Connect-Protocol-Version", "1")
        if version != "1":
            raise FieldErrors({"Connect-Protocol-Version": f"must be 1, not {version[:20]!r}"})

    def timeout_s(self, default_s: float | None) -> float | None:
        text = self._request.headers.get("Connect-Timeout-Ms")
        if text is None:
            return default_s
        if not _MILLISECONDS.fullmatch(text):
            raise FieldErrors({"Connect-Timeout-Ms": "must be a whole number of milliseconds"})
        return min(int(text) / 1000, self._config.max_timeout_s)


class ConnectUnary(_Connect):
    """One message in the body, one in the answer's, HTTP statuses: near to plain HTTP.

    A GET carries the message in its query; only methods without side effects are asked that way.
    """

    def __init__(
        self,
        request: web.BaseRequest,
        coding: str,
        codecs: Codecs,
        config: GatewayConfig,
        query: Mapping[str, list[str]] | None = None,
    ) -> None:
        super().__init__(request, coding, codecs, config)
        self._query = query
        if query is None:
            self._sent_as = request.headers.get("Content-Encoding", "")
        else:
            self._sent_as = query.get("compression", [""])[0]
        self._gzip = envelope.accepts_gzip(request.headers.get("Accept-Encoding", self._sent_as))

    async def payloads(self) -> Sequence[bytes]:
        self._check_version()
        compressed = is_compressed(self._sent_as)
        limit = self._config.max_body_bytes
        if self._query is None:
            # Its Content-Encoding is undone there, and the limit is for what comes out as well.
            return [await read_body(self._request, limit, self._config.body_timeout_s)]
        version = self._query.get("connect", ["v1"])[0]
        if version != "v1":
            raise FieldErrors({"connect": f"must be v1, not {version[:20]!r}"})
        payload = self._from_query(self._query)
        return [inflated(payload, limit) if compressed else payload]

    def _from_query(self, query: Mapping[str, list[str]]) -> bytes:
        text = query.get("message", [""])[0]
        payload = text.encode()
        if query.get("base64", [""])[0] == "1":
            try:
                padded = text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4)
                payload = base64.b64decode(padded, altchars=b"-_", validate=True)
            except (binascii.Error, ValueError):
                raise FieldErrors({"message": "must be base64, as `base64=1` says"}) from None
        return payload

    def answer(self, payload: bytes, reply: Reply) -> web.Response:
        headers = headers_of(reply.initial_metadata)
        for name, value in headers_of(reply.trailing_metadata).items():
            headers[f"Trailer-{name}"] = value
        headers["Content-Type"] = _UNARY_TYPE_OF[self.coding]
        if self._query is not None:
            headers["Vary"] = "Accept-Encoding, Authorization, X-API-Key, X-IC-Key"
            headers["Cache-Control"] = "private, no-cache"  # as what REST reads
        if self._gzip and len(payload) >= envelope.WORTH_COMPRESSING_BYTES:
            headers["Content-Encoding"] = envelope.GZIP
            headers.setdefault("Vary", "Accept-Encoding")
            payload = envelope.deflate(payload)
        return web.Response(status=200, body=payload, headers=headers)

    def refuse(self, failure: Failure) -> web.Response:
        return plain_answer(failure, self._codecs)


class ConnectStream(_Connect):
    """Enveloped messages both ways; the last of the answer says how the call ended."""

    def __init__(
        self, request: web.BaseRequest, coding: str, codecs: Codecs, config: GatewayConfig
    ) -> None:
        super().__init__(request, coding, codecs, config)
        self._sent_as = request.headers.get("Connect-Content-Encoding", "")
        accepted = request.headers.get("Connect-Accept-Encoding", self._sent_as)
        self._gzip = envelope.accepts_gzip(accepted)

    async def payloads(self) -> Sequence[bytes]:
        self._check_version()
        compressed = is_compressed(self._sent_as)
        limit = self._config.max_body_bytes
        body = await read_body(self._request, most_sent(limit), self._config.body_timeout_s)
        return enveloped(body, limit, compressed=compressed)

    def refuse(self, failure: Failure) -> web.Response:
        body = self.end(failure, failure.metadata)
        return web.Response(status=200, body=body, headers=dict(self.opening()))

    def opening(self) -> Mapping[str, str]:
        headers = {"Content-Type": f"application/connect+{self.coding}"}
        if self._gzip:
            headers["Connect-Content-Encoding"] = envelope.GZIP
        return headers

    def frame(self, payload: bytes) -> bytes:
        if self._gzip and len(payload) >= envelope.WORTH_COMPRESSING_BYTES:
            return envelope.pack(envelope.deflate(payload), envelope.COMPRESSED)
        return envelope.pack(payload)

    def end(self, failure: Failure | None, trailers: Mapping[str, str]) -> bytes:
        said: dict[str, Any] = {}
        if failure is not None:
            said["error"] = error_body(failure, self._codecs)
        if trailers:
            said["metadata"] = {name: [value] for name, value in trailers.items()}
        return envelope.pack(orjson.dumps(said), END_OF_STREAM)


def wire_of_query(
    request: web.BaseRequest, query: str, codecs: Codecs, config: GatewayConfig
) -> ConnectUnary:
    """Read a GET.

    Raises:
        Refused: its coding is not one of ours.
        FieldErrors: a parameter is not of its form.
    """
    try:
        parameters = parse_qs(query, keep_blank_values=True, errors="strict", max_num_fields=100)
    except (UnicodeDecodeError, ValueError):
        raise FieldErrors({"": "has a query that cannot be read"}) from None
    coding = parameters.get("encoding", [""])[0]
    if coding not in _UNARY_TYPE_OF:
        raise Refused(
            Refusal(
                Code.UNIMPLEMENTED,
                "the parameter `encoding` must be json or proto",
                http=415,
            )
        )
    return ConnectUnary(request, coding, codecs, config, parameters)


def is_compressed(encoding: str) -> bool:
    """Whether messages are sent in gzip.

    Raises:
        Refused: they are sent in another coding.
    """
    name = encoding.strip().lower()
    if name in ("", envelope.IDENTITY, envelope.GZIP):
        return name == envelope.GZIP
    text = f"the compression {name[:40]!r} is not known here; gzip and identity are"
    raise Refused(Refusal(Code.UNIMPLEMENTED, text))


def too_large(max_bytes: int) -> Refused:
    text = f"what is sent is larger than {max_bytes} bytes"
    return Refused(Refusal(Code.RESOURCE_EXHAUSTED, text))


def inflated(payload: bytes, max_bytes: int) -> bytes:
    """Undo a message's compression.

    Raises:
        Refused: it becomes too large.
        FieldErrors: it cannot be undone.
    """
    try:
        return envelope.inflate(payload, max_bytes)
    except envelope.TooLarge:
        raise too_large(max_bytes) from None
    except envelope.BrokenEnvelope as fault:
        raise FieldErrors({"": f"cannot be read: {fault}"}) from None


def most_sent(max_bytes: int) -> int:
    """How large a body may be whose messages have `max_bytes` together, as they are meant.

    gzip makes larger what it cannot make smaller, by less than a thousandth.
    """
    return max_bytes + max_bytes // 1_000 + MAX_MESSAGES * _AROUND_BYTES


def enveloped(body: bytes, max_bytes: int, *, compressed: bool) -> list[bytes]:
    """Read the messages of a body, together no larger than `max_bytes` as they are meant.

    Raises:
        Refused: they are too large, or too many.
        FieldErrors: the body is not made of messages.
    """
    messages: list[bytes] = []
    room = max_bytes
    try:
        for flags, payload in envelope.unpack(body):
            if flags & ~envelope.COMPRESSED:
                raise FieldErrors({"": f"has a message with flags {flags} that none may have"})
            if flags and not compressed:
                raise FieldErrors({"": "has a compressed message, but no header names the coding"})
            message = envelope.inflate(payload, room) if flags else payload
            room -= len(message)
            if room < 0:
                raise too_large(max_bytes)
            if len(messages) == MAX_MESSAGES:
                text = f"a request holds at most {MAX_MESSAGES} messages"
                raise Refused(Refusal(Code.RESOURCE_EXHAUSTED, text))
            messages.append(message)
    except envelope.TooLarge:
        raise too_large(max_bytes) from None
    except envelope.BrokenEnvelope as fault:
        raise FieldErrors({"": f"cannot be read: {fault}"}) from None
    return messages
