"""Work that is given up closes nothing that a thread of it still uses: numbers are given anew."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from steward_server.environments.environment import NetworkPolicy, Resources
from steward_server.environments.images.image import Image
from steward_server.environments.sandbox import files as work
from steward_server.environments.sandbox.bubblewrap import making
from steward_server.environments.sandbox.channel import Channel
from steward_server.environments.sandbox.files import SandboxFiles
from steward_server.environments.sandbox.inside import packets
from steward_server.environments.sandbox.limits import limits
from steward_server.environments.sandbox.making import Shape
from steward_server.environments.sandbox.network import Network


class Held:
    """Work in a thread that stands still until it may go on."""

    def __init__(self) -> None:
        self._begun, self._may_go_on = threading.Event(), threading.Event()

    def stand_still(self) -> None:
        self._begun.set()
        assert self._may_go_on.wait(10)

    async def give_up(self, task: asyncio.Task[Any]) -> None:
        """Cancel a task while its work stands still; `go_on` lets that end."""
        await asyncio.to_thread(self._begun.wait, 10)
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def go_on(self) -> None:
        self._may_go_on.set()


async def test_a_write_that_is_given_up_closes_its_file_once_nobody_writes_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held()
    write_all = work._write_all

    def slow(fd: int, data: bytes) -> None:
        held.stand_still()
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
        await held.give_up(writing)
        others = os.open(tmp_path / "other", os.O_WRONLY | os.O_CREAT)  # takes what number is free
        held.go_on()
        with pytest.raises(asyncio.CancelledError):
            await writing
        await asyncio.sleep(0.02)
        os.close(others)

    assert (tmp_path / "other").read_bytes() == b""
    assert (tmp_path / "first").read_bytes() == b"of the first"


async def test_a_network_that_is_given_up_is_made_in_no_other_machines_namespace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = Held()
    used: list[int] = []

    def slow(machine_id: str, netns: int, policy: NetworkPolicy) -> None:
        held.stand_still()
        used.append(os.fstat(netns).st_ino)

    network = Network("steward-test")
    monkeypatch.setattr(network, "_attach", slow)
    own, other = (os.open(each, os.O_RDONLY) for each in ("/proc/self/ns/net", "/dev/null"))

    async def attach() -> None:
        try:
            await network.attach("m", own, NetworkPolicy(allow_internet=True))
        finally:
            os.dup2(other, own)  # the number is another's from now on

    wanted = os.fstat(own).st_ino
    attaching = asyncio.create_task(attach())
    await held.give_up(attaching)
    held.go_on()
    with pytest.raises(asyncio.CancelledError):
        await attaching
    await network.aclose()
    os.close(own)
    os.close(other)

    assert used == [wanted]


async def test_a_bwrap_that_is_given_up_is_started_with_what_is_its_own_and_is_buried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held()
    started: list[subprocess.Popen[bytes]] = []

    def slow(command: list[str], standard: tuple[int, int, int]) -> int:
        held.stand_still()
        for fd in standard:
            os.fstat(fd)
        process = subprocess.Popen(["sleep", "60"], start_new_session=True)
        started.append(process)
        process.returncode = 0  # buried by its number
        return process.pid

    monkeypatch.setattr(making, "_spawn", slow)
    folder = tmp_path / "machines" / "m"
    folder.mkdir(parents=True)
    maker = making.Maker(tmp_path, "bwrap", None, log_bytes=1 << 20)
    small = limits(Resources(1000, 64 << 20, 4 << 20), process_count=8)
    shape = Shape(Image("nothing", "", tmp_path), small, 1000, 1000, read_only=False)
    before = set(Path("/proc/self/fd").iterdir())
    making_it = asyncio.create_task(maker.make(folder, shape))
    await held.give_up(making_it)
    held.go_on()
    with pytest.raises(asyncio.CancelledError):
        await making_it
    await making.clear(folder, None, "m")
    await maker.bury("m")

    assert not Path(f"/proc/{started[0].pid}").exists()
    assert set(Path("/proc/self/fd").iterdir()) == before
    assert not folder.exists()
