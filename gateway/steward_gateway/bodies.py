"""Bodies of requests: read in their time, within their bound, and out of their coding."""

from __future__ import annotations

import asyncio
import zlib

from aiohttp import StreamReader, web
from aiohttp.web_protocol import RequestPayloadError
from grpc import StatusCode

from steward_gateway.errors import Refusal, Refused

JSON = "application/json"

_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": 15}
CODINGS = "gzip, deflate, identity"

UNPACKED_HERE_BYTES = 65_536
"""Larger compressed bodies are unpacked on a thread, so that others need not wait for it."""


def body_at_hand(request: web.BaseRequest, max_bytes: int) -> bytes | None:
    """A small body, which arrived with its head; None if it must be waited for or unpacked.

    Raises:
        Refused: with 413 if it is too large.
    """
    content = request.content
    if not content.is_eof() or "Content-Encoding" in request.headers or content.exception():
        return None
    body = content.read_nowait()
    if len(body) > max_bytes:
        raise Refused(_too_large(max_bytes))
    return body


async def read_body(request: web.BaseRequest, max_bytes: int, timeout_s: float) -> bytes:
    """Read a request's body, unpacked if it was sent compressed.

    Raises:
        Refused: with 413 if it is too large, packed or not; with 408 if it does not come in time;
            with 415 if its coding is not known; with 400 if it is not what its headers say.
    """
    if not request.can_read_body:
        return b""
    coding = request.headers.get("Content-Encoding")
    if coding is not None:
        coding = coding.strip().lower()
        if coding not in _WINDOW_BITS and coding not in ("", "identity"):
            raise Refused(
                _closing(
                    StatusCode.INVALID_ARGUMENT,
                    415,
                    f"bodies are read in these codings: {CODINGS}",
                    headers={"Accept-Encoding": CODINGS},
                )
            )
    body = await _read(request, max_bytes, timeout_s)
    if not coding or coding == "identity" or not body:
        return body
    if len(body) <= UNPACKED_HERE_BYTES:
        return unpacked(body, coding, max_bytes)
    return await asyncio.to_thread(unpacked, body, coding, max_bytes)


def unpacked(body: bytes, coding: str, max_bytes: int) -> bytes:
    """Undo a coding, never holding more than the bound. Pure.

    Raises:
        Refused: with 413 if there is more inside than the bound; with 400 if it is not of the
            coding, is cut off, or goes on after its end.
    """
    unpacker = zlib.decompressobj(_WINDOW_BITS[coding])
    try:
        plain = unpacker.decompress(body, max_bytes + 1)
    except zlib.error:
        raise Refused(_not_so(coding)) from None
    if len(plain) > max_bytes:
        raise Refused(_too_large(max_bytes))
    if not unpacker.eof or unpacker.unused_data:
        raise Refused(_not_so(coding))
    return plain


async def _read(request: web.BaseRequest, max_bytes: int, timeout_s: float) -> bytes:
    try:
        length = request.content_length
        if length is not None and length > max_bytes:
            raise Refused(_too_large(max_bytes))
        await let_send(request)
        async with asyncio.timeout(timeout_s):
            return await _collect(request.content, max_bytes)
    except TimeoutError:
        text = f"the body did not come within {timeout_s} s"
        raise Refused(_closing(StatusCode.DEADLINE_EXCEEDED, 408, text)) from None
    except RequestPayloadError:
        text = "the body is not framed as the headers say"
        raise Refused(_closing(StatusCode.INVALID_ARGUMENT, 400, text)) from None


async def let_send(request: web.BaseRequest) -> None:
    """Tell a caller who asks before sending a body that it may."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0


async def _collect(content: StreamReader, max_bytes: int) -> bytes:
    body = bytearray()
    async for part in content.iter_any():
        body += part
        if len(body) > max_bytes:
            raise Refused(_too_large(max_bytes))
    return bytes(body)


def media_type_of(request: web.BaseRequest) -> str:
    """The type of a body that is taken as it is; "" if none is given.

    Raises:
        Refused: with 415, if it is nothing that could be passed on.
    """
    content_type = request.headers.get("Content-Type", "")
    if content_type.isascii() and content_type.isprintable():
        return content_type
    text = "the Content-Type must be printable ASCII"
    raise Refused(Refusal(StatusCode.INVALID_ARGUMENT, text, http=415))


def require_json(request: web.BaseRequest) -> None:
    """Refuse a body that is not said to be JSON.

    Raises:
        Refused: with 415.
    """
    content_type = request.headers.get("Content-Type", "")
    if content_type == JSON:
        return
    media_type, _, parameters = content_type.partition(";")
    charset = parameters.strip().lower().replace('"', "")
    if media_type.strip().lower() == JSON and charset in ("", "charset=utf-8"):
        return
    raise Refused(
        Refusal(
            StatusCode.INVALID_ARGUMENT,
            f"the body must be sent as Content-Type: {JSON}",
            http=415,
            headers={"Accept": JSON},
        )
    )


def _closing(
    code: StatusCode, http: int, text: str, *, headers: dict[str, str] | None = None
) -> Refusal:
    """A refusal after which the rest of the body is not waited for."""
    return Refusal(code, text, http=http, headers={**(headers or {}), "Connection": "close"})


def _too_large(max_bytes: int) -> Refusal:
    text = f"the body is larger than {max_bytes} bytes"
    return _closing(StatusCode.RESOURCE_EXHAUSTED, 413, text)


def _not_so(coding: str) -> Refusal:
    text = f"the body is not the whole of one {coding} stream, as Content-Encoding says"
    return Refusal(StatusCode.INVALID_ARGUMENT, text, http=400)
