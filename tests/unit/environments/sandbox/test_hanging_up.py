"""A supervisor that serves nobody any more, which may be an attacker's by then."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from subprocess import DEVNULL, Popen

import pytest

from steward_server.environments.driver import Exit
from steward_server.environments.sandbox import making
from steward_server.environments.sandbox.bubblewrap.machine import BubblewrapMachine
from steward_server.environments.sandbox.channel import Channel, listen
from steward_server.environments.sandbox.inside import packets
from steward_server.environments.sandbox.record import Record


@pytest.fixture
def supervisor() -> Iterator[Popen[bytes]]:
    """A process that may be taken for one."""
    with Popen(("sleep", "60"), stdout=DEVNULL) as process:
        yield process
        process.kill()


async def test_a_supervisor_that_hangs_up_is_not_asked_again_at_once(
    tmp_path: Path, supervisor: Popen[bytes]
) -> None:
    record = Record(
        "env-1", "env-1", supervisor.pid, 0, "", 0, "/", 1000, 1000, "i", command=("sleep", "60")
    )
    pidfd = os.pidfd_open(supervisor.pid)
    machine = BubblewrapMachine(tmp_path, record, None, pidfd)
    with listen(tmp_path / making.SOCKET) as listener, closing(machine):
        listener.setblocking(False)
        hung_up_count = 0

        def hang_up() -> None:
            nonlocal hung_up_count
            listener.accept()[0].close()
            hung_up_count += 1

        loop = asyncio.get_running_loop()
        loop.add_reader(listener, hang_up)
        waiting = asyncio.create_task(machine.wait())
        await asyncio.sleep(0.2)
        loop.remove_reader(listener)
        listener.close()
        assert hung_up_count == 1
        supervisor.kill()
        assert await asyncio.wait_for(waiting, 30) == Exit(137, 9)


async def test_who_sends_to_one_that_reads_nothing_does_not_try_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    here.setblocking(False)
    attempt_count, send = 0, packets.send

    def counted(sock: socket.socket, message: packets.Message, fds: Sequence[int]) -> None:
        nonlocal attempt_count
        attempt_count += 1
        send(sock, message, fds)

    async def send_much(channel: Channel) -> None:
        for _ in range(10):
            await channel.send({"text": "x" * 60_000})

    monkeypatch.setattr(packets, "send", counted)
    with there, closing(Channel(here)) as channel:
        sending = asyncio.create_task(send_much(channel))
        await asyncio.sleep(0.05)
        before = attempt_count
        await asyncio.sleep(0.1)
        assert (sending.done(), attempt_count) == (False, before)
        for _ in range(10):
            await asyncio.to_thread(there.recv, 65_536)
        await asyncio.wait_for(sending, 30)
