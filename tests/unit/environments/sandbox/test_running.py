"""A command's pipes, as the server has them: what waits for them ends when they do."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from steward_server.environments.driver import Command, Gone, Unusable
from steward_server.environments.sandbox import making
from steward_server.environments.sandbox.cgroups import Cgroups
from steward_server.environments.sandbox.channel import Channel, listen
from steward_server.environments.sandbox.gvisor import machine as gvisor
from steward_server.environments.sandbox.native_machine import NativeMachine
from steward_server.environments.sandbox.ports import PortListener
from steward_server.environments.sandbox.record import Record
from steward_server.environments.sandbox.running import RunningCommand, pipes

_RECORD = Record(
    environment_id="m", cgroup="m", pid=os.getpid(), started_ticks=1, boot_id="", uid_base=0,
    image_root="/", user=1000, group=1000, image="host",
)  # fmt: skip


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

    await asyncio.wait_for(writing, 30)
    assert not asyncio.get_running_loop().remove_writer(fd)


async def test_who_reads_what_is_closed_is_let_go_and_watches_nothing(
    command: RunningCommand,
) -> None:
    fds = list(command._ends.outputs)
    reading = asyncio.ensure_future(command.read())
    await asyncio.sleep(0.05)

    await command.aclose()

    await asyncio.wait_for(reading, 30)
    assert not any(map(asyncio.get_running_loop().remove_reader, fds))


def _open_count() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_command_whose_machine_is_gone_meanwhile_leaves_no_descriptor_open(
    tmp_path: Path,
) -> None:
    class Dying(NativeMachine):
        is_paused = False

        def _join(self, group: str) -> int:
            raise Gone("it has ended")

        async def _end(self, group: str) -> bool:
            return True

    with listen(tmp_path / making.SOCKET):
        machine = Dying(tmp_path, _RECORD, cast("Cgroups", None), os.pidfd_open(os.getpid()))
        before = _open_count()
        with pytest.raises(Gone):
            await machine.exec(Command(("true",)))
        assert _open_count() == before
        machine.close()


def test_where_descriptors_are_short_none_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    pipe2 = os.pipe2

    def third_fails(flags: int) -> tuple[int, int]:
        made.append(flags)
        if len(made) == 3:
            raise OSError(errno.EMFILE, "too many open files")
        return pipe2(flags)

    monkeypatch.setattr(os, "pipe2", third_fails)
    before = _open_count()
    with pytest.raises(OSError, match="too many"):
        pipes()
    assert _open_count() == before


async def test_a_kernel_that_does_not_answer_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gvisor, "_ANSWER_S", 0.02)
    monkeypatch.setattr(gvisor.GvisorMachine, "is_paused", False)
    with listen(tmp_path / making.SOCKET):
        pidfd = os.pidfd_open(os.getpid())
        machine = gvisor.GvisorMachine(tmp_path, _RECORD, cast("Cgroups", None), pidfd)
        async with asyncio.timeout(30):
            with pytest.raises(Unusable, match=r"no answer within 0\.02 s"):
                await machine.processes()
        machine.close()


async def test_a_command_that_stands_still_is_watched_no_more_when_it_is_closed(
    command: RunningCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its descriptor's number is another's as soon as that is closed."""
    was_watched: list[bool] = []
    close = Channel.close

    def closed(channel: Channel) -> None:
        loop = asyncio.get_running_loop()
        was_watched.append(loop.remove_reader(channel._socket.fileno()))
        close(channel)

    monkeypatch.setattr(Channel, "close", closed)
    await asyncio.sleep(0)
    await command.aclose()

    assert was_watched == [False]


async def test_a_port_that_is_let_go_of_is_watched_no_more_when_it_is_closed() -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(False)
        fd = sock.fileno()
        listener = PortListener(sock, loop.create_future())
        waiting = asyncio.ensure_future(anext(listener, None))
        await asyncio.sleep(0.01)

        await listener.aclose()

        assert not loop.remove_reader(fd)
        assert await waiting is None
