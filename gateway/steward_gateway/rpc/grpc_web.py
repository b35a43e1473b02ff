"""gRPC-Web, binary and text: gRPC for callers that cannot read trailers of HTTP.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from aiohttp import web
from google.rpc import status_pb2

from steward_gateway.bodies import read_body
from steward_gateway.codec import FieldErrors
from steward_gateway.config import GatewayConfig
from steward_gateway.exchange import headers_of, timeout_of
from steward_gateway.rpc import envelope
from steward_gateway.rpc.connect import enveloped, is_compressed, most_sent
from steward_gateway.rpc.failure import Failure
from steward_gateway.transport import Reply

TRAILERS = 0b1000_0000
TEXT = "application/grpc-web-text"

_TYPE = re.compile(r"application/grpc-web(-text)?(?:\+(proto|json))?")
_SEGMENT = re.compile(rb"[A-Za-z0-9+/]+={0,2}")
_UNQUOTED = " !#$&'()*+,/:;<=>?@[]^`{|}~\""  # all that is printable but the percent sign


class GrpcWeb:
    """One request; its type says whether it is base64 and which codec it uses."""

    def __init__(self, request: web.BaseRequest, media_type: str, config: GatewayConfig) -> None:
        found = _TYPE.fullmatch(media_type)
        assert found is not None  # noqa: S101 - who made this has looked
        self.coding = found[2] or "proto"
        self._request = request
        self._config = config
        self._sent_as_text = found[1] is not None
        self._as_text = self._sent_as_text or TEXT in request.headers.get("Accept", "")
        self._gzip = envelope.accepts_gzip(request.headers.get("Grpc-Accept-Encoding", ""))

    @staticmethod
    def is_meant(media_type: str) -> bool:
        """Whether a content type is one of this protocol's."""
        return _TYPE.fullmatch(media_type) is not None

    async def payloads(self) -> Sequence[bytes]:
        compressed = is_compressed(self._request.headers.get("Grpc-Encoding", ""))
        limit = self._config.max_body_bytes
        sent = most_sent(limit)
        if self._sent_as_text:
            sent = sent * 4 // 3 + 4
        body = await read_body(self._request, sent, self._config.body_timeout_s)
        if self._sent_as_text:
            body = _from_text(body)
        return enveloped(body, limit, compressed=compressed)

    def timeout_s(self, default_s: float | None) -> float | None:
        return timeout_of(self._request.headers, default_s, self._config.max_timeout_s)

    def answer(self, payload: bytes, reply: Reply) -> web.Response:
        headers = {**headers_of(reply.initial_metadata), **self.opening()}
        body = self.frame(payload) + self.end(None, headers_of(reply.trailing_metadata))
        return web.Response(status=200, body=body, headers=headers)

    def refuse(self, failure: Failure) -> web.Response:
        # In the body, where browsers can see it without having been allowed to.
        body = self.end(failure, failure.metadata)
        return web.Response(status=200, body=body, headers=dict(self.opening()))

    def opening(self) -> Mapping[str, str]:
        text = "-text" if self._as_text else ""
        headers = {"Content-Type": f"application/grpc-web{text}+{self.coding}"}
        if self._gzip:
            headers["Grpc-Encoding"] = envelope.GZIP
        return headers

    def frame(self, payload: bytes) -> bytes:
        if self._gzip and len(payload) >= envelope.WORTH_COMPRESSING_BYTES:
            packed = envelope.pack(envelope.deflate(payload), envelope.COMPRESSED)
        else:
            packed = envelope.pack(payload)
        return base64.b64encode(packed) if self._as_text else packed

    def end(self, failure: Failure | None, trailers: Mapping[str, str]) -> bytes:
        said = dict(trailers)
        if failure is None:
            said["grpc-status"] = "0"
        else:
            said |= _status(failure)
        lines = "".join(f"{name.lower()}: {value}\r\n" for name, value in said.items())
        packed = envelope.pack(lines.encode(), TRAILERS)
        return base64.b64encode(packed) if self._as_text else packed


def _status(failure: Failure) -> dict[str, str]:
    number: int = failure.code.value[0]
    said = {
        "grpc-status": str(number),
        "grpc-message": quote(failure.message, safe=_UNQUOTED),
    }
    if failure.details:
        status = status_pb2.Status(code=number, message=failure.message, details=failure.details)
        encoded = base64.b64encode(status.SerializeToString()).decode().rstrip("=")
        said["grpc-status-details-bin"] = encoded
    return said


def _from_text(body: bytes) -> bytes:
    """Undo base64, which may be padded wherever its writer flushed.

    Raises:
        FieldErrors: it is not base64.
    """
    segments = _SEGMENT.findall(body)
    if sum(map(len, segments)) != len(body):
        raise FieldErrors({"": "is not base64, as its type says"})
    try:
        return b"".join(base64.b64decode(segment, validate=True) for segment in segments)
    except binascii.Error:
        raise FieldErrors({"": "is not base64, as its type says"}) from None
