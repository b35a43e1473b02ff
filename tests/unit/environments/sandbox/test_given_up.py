"""Work that is given up closes nothing that a thread of it still uses: numbers are given anew."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from steward_server.environments.sandbox import files as work
from steward_server.environments.sandbox.channel import Channel
from steward_server.environments.sandbox.files import SandboxFiles
from steward_server.environments.sandbox.inside import packets


async def test_a_write_that_is_given_up_closes_its_file_once_nobody_writes_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_go_on = threading.Event(), threading.Event()
    write_all = work._write_all

    def slow(fd: int, data: bytes) -> None:
        begun.set()
        assert may_go_on.wait(10)
        write_all(fd, data)

    monkeypatch.setattr(work, "_write_all", slow)
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    here.setblocking(False)

    async def connect() -> Channel:
        return Channel(here)

    record = SimpleNamespace(user=1000, group=1000)
    machine: Any = SimpleNamespace(name="m", record=record, is_alive=True, connect=connect)

    async def content() -> AsyncIterator[bytes]:
        yield b"of the first"

    with there, (tmp_path / "first").open("wb") as first:
        packets.send(there, {"ok": True}, [first.fileno()])
        writing = asyncio.create_task(SandboxFiles(lambda _: machine).write("m", "/f", content()))
        await asyncio.to_thread(begun.wait, 10)
        writing.cancel()
        await asyncio.sleep(0)
        others = os.open(tmp_path / "other", os.O_WRONLY | os.O_CREAT)  # takes what number is free
        may_go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await writing
        await asyncio.sleep(0.02)
        os.close(others)

    assert (tmp_path / "other").read_bytes() == b""
    assert (tmp_path / "first").read_bytes() == b"of the first"
