"""A pod's shell is its image's: whatever it says, that call alone is told of it, and soon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from steward_server.clock import timestamp
from steward_server.environments.driver import Exit, FileFault, Stream
from steward_server.environments.kubernetes import inside
from steward_server.environments.kubernetes.files import PodFiles
from steward_server.environments.kubernetes.running import RunningCommand

pytestmark = pytest.mark.attack

_ROW = b"81a4 5 1000 1000 1700000000"


class _Pod:
    """It answers every script with the same, and every command with that without end."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self.was_read_bytes = 0

    async def run(self, environment_id: str, script: str, *words: str) -> bytes:
        return self._answer

    async def exec(self, environment_id: str, command: object) -> _Pod:
        return self

    async def read(self) -> tuple[Stream, bytes]:
        await asyncio.sleep(0)
        self.was_read_bytes += len(self._answer)
        return Stream.STDOUT, self._answer

    async def write(self, data: bytes) -> None: ...

    async def signal(self, number: int) -> None: ...

    async def close_input(self) -> None: ...

    async def aclose(self) -> None: ...


def _files(answer: bytes) -> PodFiles:
    return PodFiles(cast("Any", _Pod(answer)))


@pytest.mark.parametrize(
    "row",
    [
        b"",
        b"x y z",
        b"zz 5 1000 1000 1700000000",
        b"81a4 " + b"9" * 5000 + b" 1000 1000 1",
        b"81a4 -5 1000 1000 1",
        b"81a4 5 99999999999 1000 1",
        b"\xff 5 1000 1000 1",
    ],
)
async def test_facts_that_cannot_be_are_a_fault_of_that_file(row: bytes) -> None:
    with pytest.raises(FileFault) as fault:
        await _files(b"ok\n" + row).stat("e", "/f")
    assert fault.value.kind == "EIO"


@pytest.mark.parametrize(("modified_s", "year"), [(10**40, 9999), (-(10**40), 1), (0, 1970)])
async def test_a_time_beyond_the_calendar_is_its_end(modified_s: int, year: int) -> None:
    found = await _files(b"ok\n81a4 5 1000 1000 %d" % modified_s).stat("e", "/f")

    shown = timestamp(found.modified_at_us or 1)
    assert shown is not None
    assert shown.ToDatetime().year == year


@pytest.mark.parametrize("rows", [b"", b"x\n", b"-1\n", b"9" * 5000 + b"\n", "٣\n".encode()])
async def test_a_list_that_is_none_is_a_fault(rows: bytes) -> None:
    with pytest.raises(FileFault) as fault:
        await _files(b"ok\n" + rows).list("e", "/d")
    assert fault.value.kind == "EIO"


async def test_what_is_right_is_read() -> None:
    link = b"a1ff 5 1000 1000 1700000000"
    told = b"ok\n2\n" + _ROW + b"\n" + link + b"\n./a\n b\0./l\0\0/to\0"
    found = await _files(told).list("e", "/d/")
    assert [(each.path, each.kind, each.target) for each in found] == [
        ("/d/a\n b", "file", ""),
        ("/d/l", "link", "/to"),
    ]
    assert (await _files(b"ok\n" + _ROW).stat("e", "/f")).size_bytes == 5


async def test_a_tree_of_many_batches_takes_no_longer_for_each() -> None:
    batch = b"1\n" + _ROW + b"\n./%d\0\0"
    content = b"".join(batch % number for number in range(100_000))
    pod = _Pod(b"ok\n" + _ROW)
    files = PodFiles(cast("Any", pod))

    async def run(environment_id: str, script: str, *words: str) -> bytes:
        return content if "find" in script else b"ok\n" + _ROW

    pod.run = run  # type: ignore[method-assign]
    async with asyncio.timeout(30):
        assert len(await files._tree("e", "/d")) == 100_000


@pytest.mark.parametrize("answer", [b"x" * 10_000, b"go\n", b"ok\n" + b"x" * 10_000])
async def test_an_answer_without_end_is_not_waited_for(answer: bytes) -> None:
    async def content() -> AsyncIterator[bytes]:
        yield b"1"

    pod = _Pod(answer)
    async with asyncio.timeout(30):
        with pytest.raises(FileFault):
            await PodFiles(cast("Any", pod)).write("e", "/f", content())
    assert pod.was_read_bytes < 1 << 20


def test_numbers_of_processes_that_cannot_be_are_not_believed() -> None:
    huge = "9" * 5000
    rest = f"S {huge} " + " ".join([huge] * 22)
    told = f"{huge}\n7 (sh) {rest}\n{huge}\nsh\n{huge} (sh) {rest}\n1\nsh\n"

    (found,) = inside.processes(told.encode())

    assert (found.pid, found.parent_pid, found.user) == (7, 0, -1)
    assert found.memory_bytes == found.started_at_us == 0
    assert inside.use(f"p\np\nmemory {huge}\ncpu_us x\n".encode()) == (1, {"memory": 0})


async def test_an_end_that_is_no_number_is_none() -> None:
    command = RunningCommand.__new__(RunningCommand)
    loop = asyncio.get_running_loop()
    command._begun, command._exit = loop.create_future(), loop.create_future()
    for record in ("R 1", "E x", f"E {'9' * 5000}", "E -1"):
        command._heard(record)
        assert not command._exit.done()
    command._heard("E 143")
    assert await command._exit == Exit(143, 15)
