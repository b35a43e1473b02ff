"""HTTP/1.1 by hand: requests as bytes that no client library would send, answers as they come."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

TIMEOUT_S = 20


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """A status, headers under their lower-case names, a body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of an error in the dialect of Iron."""
        return str(self.json["error"]["code"])

    @property
    def fields(self) -> dict[str, str]:
        """What is wrong with which field, in the same dialect."""
        return dict(self.json["error"].get("fields", {}))


class RawHttp:
    """One connection."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> Self:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.writer.transport.abort()

    async def send(self, data: bytes | str) -> None:
        self.writer.write(data if isinstance(data, bytes) else data.encode("latin-1"))
        await self.writer.drain()

    async def answer(self, method: str = "GET") -> RawAnswer:
        """Read one answer; raises `IncompleteReadError` if the connection ends before it does."""
        async with asyncio.timeout(TIMEOUT_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, *lines = head.split("\r\n")[:-2]
            headers = {
                name.lower(): value for name, _, value in (each.partition(": ") for each in lines)
            }
            status = int(line.split(" ")[1])
            has_body = method != "HEAD" and status not in (101, 204, 304)
            length = int(headers.get("content-length", 0)) if has_body else 0
            return RawAnswer(status, headers, await self.reader.readexactly(length))

    async def ended(self) -> bool:
        """Wait until the server has closed the connection; whatever else it sent is dropped."""
        async with asyncio.timeout(TIMEOUT_S):
            with contextlib.suppress(ConnectionError):
                await self.reader.read()
        return True


async def exchange(port: int, data: bytes | str) -> RawAnswer:
    """Send bytes over a connection of their own and read one answer."""
    async with RawHttp(port) as http:
        await http.send(data)
        return await http.answer("HEAD" if data[:4] in (b"HEAD", "HEAD") else "GET")


def get(target: str, *lines: str) -> str:
    """A GET with a target as it is, and more header lines."""
    return "\r\n".join([f"GET {target} HTTP/1.1", "Host: x", *lines, "", ""])


def post(target: str, body: bytes, *lines: str, content_type: str = "application/json") -> bytes:
    """A POST of a body whose length is told, and more header lines."""
    head = [
        f"POST {target} HTTP/1.1",
        "Host: x",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        *lines,
    ]
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


def bomb(coding: str) -> bytes:
    """A megabyte that unpacks to a gigabyte of zeros."""
    packer = zlib.compressobj(9, wbits=31 if coding == "gzip" else 15)
    first, next_one = (
        packer.compress(bytes(1024 * 1024)) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2)
    )
    return first + next_one * 1_023


def peak_bytes(pid: int) -> int:
    """The most memory a process ever held."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def resident_bytes(pid: int) -> int:
    """How much memory a process holds."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
