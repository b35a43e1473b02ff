"""A connection between a client and a server that tests can cut."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Self


class Relay:
    """Passes on what it is sent; `address` is where. Each connection is made after a delay."""

    def __init__(self, server: str, *, delay_s: float = 0.0) -> None:
        self._host, _, port = server.rpartition(":")
        self._port = int(port)
        self._delay_s = delay_s
        self._writers: set[asyncio.StreamWriter] = set()
        self._closed = False
        self._passes = asyncio.Event()
        self._passes.set()
        self.address = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.close()

    def cut(self) -> None:
        """End every connection there is, without a farewell; new ones are taken."""
        for writer in self._writers:
            writer.transport.abort()

    def close(self) -> None:
        """End every connection and take no new one."""
        self._closed = True
        self.cut()

    def open(self) -> None:
        self._closed = False

    def hang(self) -> None:
        """Pass nothing on any more, and say nothing of it."""
        self._passes.clear()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward: asyncio.StreamWriter | None = None
        self._writers.add(writer)
        try:
            await asyncio.sleep(self._delay_s)
            if self._closed or writer.is_closing():
                return
            onward_reader, onward = await asyncio.open_connection(self._host, self._port)
            self._writers.add(onward)
            if self._closed or writer.is_closing():
                return  # cut meanwhile
            await asyncio.gather(
                self._pump(reader, onward),
                self._pump(onward_reader, writer),
                return_exceptions=True,
            )
        except (OSError, asyncio.CancelledError):
            return  # nobody is there, or the test is over
        finally:
            for each in filter(None, (writer, onward)):
                self._writers.discard(each)
                each.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                await self._passes.wait()
                writer.write(data)
                await writer.drain()
        writer.close()
