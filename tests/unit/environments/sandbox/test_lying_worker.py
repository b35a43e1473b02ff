"""What works on files inside may belong to an attacker: no answer of it hurts the server."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from steward_server.clock import timestamp
from steward_server.environments.driver import FileFault, Unusable
from steward_server.environments.sandbox import files as work
from steward_server.environments.sandbox.channel import Channel
from steward_server.environments.sandbox.files import SandboxFiles
from steward_server.environments.sandbox.ports import listen, open_port
from steward_server.environments.sandbox.worked import Worked

pytestmark = pytest.mark.attack

_FILE = {"path": "/f", "kind": "file", "size": 1, "mode": 1, "user": 1, "group": 1,
         "modified_at_us": 1, "target": ""}  # fmt: skip


def _files(*answers: object, fds: tuple[int, ...] = ()) -> tuple[SandboxFiles, socket.socket]:
    """The files of a machine whose worker says what is given, whatever it is asked."""
    machine, there = _machine(*answers, fds=fds)
    return SandboxFiles(lambda _: machine), there


def _machine(*answers: object, fds: tuple[int, ...] = ()) -> tuple[Worked, socket.socket]:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    here.setblocking(False)
    for answer in answers:
        payload = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        socket.send_fds(there, [payload], list(fds))

    async def connect() -> Channel:
        return Channel(here)

    record = SimpleNamespace(user=1000, group=1000)
    machine = SimpleNamespace(name="m", record=record, is_alive=True, connect=connect)
    return cast("Worked", machine), there


async def _bytes() -> AsyncIterator[bytes]:
    yield b"x" * 1_000_000


async def _read(files: SandboxFiles) -> None:
    async for _ in files.read("m", "/f"):
        pass


async def _watch(files: SandboxFiles) -> None:
    async for _ in files.watch("m", "/"):
        pass


_WORK: dict[str, Callable[[SandboxFiles], Awaitable[Any]]] = {
    "stat": lambda files: files.stat("m", "/f"),
    "list": lambda files: files.list("m", "/"),
    "read": _read,
    "write": lambda files: files.write("m", "/f", _bytes()),
    "make_directory": lambda files: files.make_directory("m", "/d"),
}


@pytest.mark.parametrize("work", _WORK)
@pytest.mark.parametrize(
    "answer",
    [
        b"\xff",
        b"[]",
        {},
        {"file": 7},
        {"files": 7},
        {"files": [{}]},
        {"file": {}},
        {"errno": []},
        {"errno": 2},
        {"errno": 2, "error": 7},
    ],
)
async def test_an_answer_that_means_nothing_is_a_fault_of_that_call(
    work: str, answer: object
) -> None:
    files, worker = _files(answer)
    with worker, pytest.raises(FileFault):
        await asyncio.wait_for(_WORK[work](files), 30)


@pytest.mark.parametrize("work", ["read", "write"])
async def test_a_descriptor_that_would_never_end_is_not_used(work: str) -> None:
    """Nobody reads this pipe, and what writes would wait for that in one of few threads."""
    read, write = os.pipe()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    files, worker = _files({"ok": True}, fds=(write,))
    with worker, pytest.raises(FileFault, match="meddled"):
        await asyncio.wait_for(_WORK[work](files), 30)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    os.close(read)
    os.close(write)


async def test_descriptors_that_nobody_asked_for_are_closed() -> None:
    read, write = os.pipe()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    files, worker = _files(
        {"files": [_FILE], "more": True}, {"files": [_FILE], "more": False}, fds=(read, write)
    )
    with worker:
        assert len(await files.list("m", "/")) == 2
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("events", [7, [7], [["created"]], [["created", 7]], {"a": 1}])
async def test_events_that_mean_nothing_end_the_watch(events: object) -> None:
    files, worker = _files({"ok": True}, {"events": events})
    with worker, pytest.raises(FileFault, match="meddled"):
        await asyncio.wait_for(_watch(files), 30)


@pytest.mark.parametrize("kind", ["none", "two", "pipe", "unix", "datagram", "refused"])
@pytest.mark.parametrize("is_listener", [True, False])
async def test_what_is_handed_out_in_the_place_of_a_port_is_refused(
    kind: str, *, is_listener: bool
) -> None:
    read, write = os.pipe()
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as unix,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram,
    ):
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        fds = {"two": (read, write), "pipe": (read,), "unix": (unix.fileno(),),
               "datagram": (datagram.fileno(),), "refused": (read,)}  # fmt: skip
        answer = {"errno": "x", "error": "x" * 9_000} if kind == "refused" else {"ok": True}
        machine, worker = _machine(answer, fds=fds.get(kind, ()))
        worker.shutdown(socket.SHUT_WR)
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with pytest.raises(Unusable) as refusal:
            await (listen(machine, 80, ended) if is_listener else open_port(machine, 80))
        worker.close()
        assert refusal.value.reason == "PORT_REFUSED"
        assert len(str(refusal.value)) < 500
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    os.close(read)
    os.close(write)


async def test_of_a_directory_without_end_no_more_is_kept_than_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(work, "MOST_LISTED", 5)
    monkeypatch.setattr(work, "_MOST_ENTRIES", 100)
    many = [
        {"files": [{**_FILE, "path": f"/f{999 - 8 * part - each}"} for each in range(8)],
         "more": part < 11}
        for part in range(12)
    ]  # fmt: skip
    files, worker = _files(*many)
    with worker:
        found = await files.list("m", "/")
    assert [each.path for each in found] == [f"/f{number}" for number in range(904, 910)]

    endless = {"files": [_FILE] * 8, "more": True}
    files, worker = _files(*[endless] * 14)
    with worker, pytest.raises(FileFault) as fault:
        await asyncio.wait_for(files.list("m", "/"), 30)
    assert fault.value.kind == "EOVERFLOW"
    assert "more than 100 entries; run a command" in str(fault.value)


@pytest.mark.parametrize(
    "lie", [{"path": 7}, {"size": "1"}, {"size": 1 << 70}, {"mode": -1}, {"user": 1 << 40}]
)
async def test_a_file_with_facts_that_cannot_be_is_a_fault(lie: dict[str, Any]) -> None:
    files, worker = _files({"files": [{**_FILE, **lie}, _FILE], "more": False})
    with worker, pytest.raises(FileFault) as fault:
        await files.list("m", "/")
    assert fault.value.kind == "EIO"


@pytest.mark.parametrize(("modified_at_us", "year"), [(10**30, 9999), (-(10**30), 1), (1, 1970)])
async def test_a_time_beyond_the_calendar_is_its_end(modified_at_us: int, year: int) -> None:
    """A file in memory may have any, and its folder is to be seen all the same."""
    told = {"files": [{**_FILE, "modified_at_us": modified_at_us}], "more": False}
    files, worker = _files(told)
    with worker:
        (found,) = await files.list("m", "/")

    shown = timestamp(found.modified_at_us)
    assert shown is not None
    assert shown.ToDatetime().year == year
