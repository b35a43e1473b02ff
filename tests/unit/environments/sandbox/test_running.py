"""A command's pipes, as the server has them: what waits for them ends when they do."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator

import pytest

from steward_server.environments.sandbox.channel import Channel
from steward_server.environments.sandbox.running import RunningCommand, pipes


@pytest.fixture
async def command() -> AsyncIterator[RunningCommand]:
    """One that never reads, writes or ends."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    here.setblocking(False)
    ends, theirs = pipes()

    async def send(_: int) -> None: ...

    async def end() -> bool:
        return False

    running = RunningCommand(Channel(here), ends, send=send, end=end)
    yield running
    await running.aclose()
    there.close()
    for fd in theirs:
        os.close(fd)


@pytest.mark.parametrize("close", [RunningCommand.aclose, RunningCommand.close_input])
async def test_who_writes_to_what_is_closed_is_let_go_and_watches_nothing(
    command: RunningCommand, close: object
) -> None:
    fd = command._ends.input
    writing = asyncio.ensure_future(command.write(b"x" * 4_000_000))
    await asyncio.sleep(0.05)
    assert not writing.done()

    assert callable(close)
    await close(command)

    await asyncio.wait_for(writing, 1)
    assert not asyncio.get_running_loop().remove_writer(fd)


async def test_who_reads_what_is_closed_is_let_go_and_watches_nothing(
    command: RunningCommand,
) -> None:
    fds = list(command._ends.outputs)
    reading = asyncio.ensure_future(command.read())
    await asyncio.sleep(0.05)

    await command.aclose()

    await asyncio.wait_for(reading, 1)
    assert not any(map(asyncio.get_running_loop().remove_reader, fds))
