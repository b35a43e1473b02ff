"""A small answer, written in one go.

aiohttp puts every answer together from parts that may still change. One that is known whole needs
none of that, and saves a sixth of what a call costs.
"""

from __future__ import annotations

import time
from email.utils import formatdate
from http import HTTPStatus
from typing import cast

from aiohttp import HttpVersion11, web

_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}


class _Clock:
    """The `Date` header, made once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._line = ""

    def line(self) -> str:
        second = int(time.time())
        if second != self._second:
            self._second, self._line = second, f"Date: {formatdate(second, usegmt=True)}\r\n"
        return self._line


_clock = _Clock()


class Whole:
    """Stands for a response: what aiohttp's connections ask of one, and no more."""

    __http_exception__ = False
    keep_alive = True
    prepared = False
    """Until it is written; headers may be added."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body_length = len(body)
        self._body = body

    async def prepare(self, request: web.BaseRequest) -> None:
        """Write it, and wait if the reader is behind."""
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the caller has gone")
        lines = "".join([f"{name}: {value}\r\n" for name, value in self.headers.items()])
        length = f"Content-Length: {len(self._body)}\r\n\r\n"
        head = f"{_LINES[self.status]}{lines}{_clock.line()}{length}"
        transport.write(head.encode() + self._body)
        if request.protocol.writing_paused:
            await request.writer.drain()

    async def write_eof(self) -> None:
        """It is written."""


def is_whole(response: object) -> bool:
    """Whether an answer is written in one piece. `isinstance` would ask aiohttp's classes, too."""
    return type(response) is Whole


def respond(
    request: web.BaseRequest, status: int, headers: dict[str, str], body: bytes
) -> web.StreamResponse:
    """An answer with a body; in one piece where the connection goes on after it as usual.

    Header values must be printable.
    """
    if request.version == HttpVersion11 and request.keep_alive and request.method != "HEAD":
        return cast("web.StreamResponse", Whole(status, headers, body))
    return web.Response(status=status, body=body, headers=headers)
