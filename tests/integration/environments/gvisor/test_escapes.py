"""What a command has started ends with it, whatever it says that it is."""

from __future__ import annotations

import asyncio

import pytest

from steward_server.environments.driver import Command, FileFault, Gone, Unusable
from tests.integration.environments.gvisor.conftest import Machines
from tests.integration.environments.sandbox.machines import MIB, spec

pytestmark = pytest.mark.attack

_DAEMON = "if os.fork(): os._exit(0)\nos.setsid()\n"
_STAY = "while True: open('/workspace/here', 'a').write('x'); time.sleep(0.05)"
_SH = "while :; do printf x >> /workspace/here; sleep 0.05; done"
_WAYS = {
    "by the name of the machine's own program": (
        f"import os\n{_DAEMON}argv = ['/dev/steward/init signals', '-c', '''{_SH}''']\n"
        "os.execve('/bin/sh', argv, {'PATH': '/bin'})"
    ),
    "as a child of its parent's": (
        "import os, ctypes, time\nos.environ.clear()\n"
        "pid = ctypes.CDLL(None).syscall(56, 0x8000 | 17, 0, 0, 0, 0)\n"  # CLONE_PARENT | SIGCHLD
        f"if pid == 0: os.execve('/bin/sh', ['sh', '-c', '''{_SH}'''], {{'PATH': '/bin'}})\n"
    ),
    "as a thread whose first one is dead": (
        f"import os, ctypes, threading, time\n{_DAEMON}"
        f"def stay():\n  {_STAY}\n"
        "threading.Thread(target=stay).start()\n"
        "ctypes.CDLL(None).syscall(60, 0)"
    ),
}


async def _size(machines: Machines, machine: str) -> int:
    try:
        return (await machines.driver.files.stat(machine, "/workspace/here")).size_bytes
    except FileFault:
        return 0


@pytest.mark.parametrize("program", _WAYS.values(), ids=_WAYS.keys())
async def test_nobody_is_overlooked(machines: Machines, machine: str, program: str) -> None:
    running = await machines.driver.exec(machine, Command(("python3", "-c", program)))
    async with asyncio.timeout(30):
        while await _size(machines, machine) < 2:
            await asyncio.sleep(0.1)

    await asyncio.wait_for(running.aclose(), 30)

    before = await _size(machines, machine)
    await asyncio.sleep(0.5)
    assert await _size(machines, machine) == before
    assert await machines.driver.processes(machine) == []


async def test_no_name_hides_a_process(machines: Machines, machine: str) -> None:
    argv = "['/dev/steward/init signals', '777']"
    program = f"import os; os.execve('/bin/sleep', {argv}, {{}})"
    running = await machines.driver.exec(machine, Command(("python3", "-c", program)))
    async with asyncio.timeout(30):
        while [each.command for each in await machines.driver.processes(machine)] != [
            "/dev/steward/init signals 777"
        ]:
            await asyncio.sleep(0.1)
    await running.aclose()


async def _look_for_ever(machines: Machines, machine: str) -> None:
    while True:
        await machines.driver.processes(machine)


async def test_too_much_to_tell_of_holds_up_nothing(machines: Machines) -> None:
    """Arguments of megabytes in every process, so that a list of all would not end.

    gVisor's kernel may panic where it is asked for a process that ends just then: the machine is
    over with it and says so, and another is tried.
    """
    for _ in range(4):
        machine = await machines.make(
            spec(memory_bytes=1024 * MIB)
        )  # for the kernel that writes it
        try:
            await _hold_up_nothing(machines, machine)
        except Gone:
            told = machines.driver.logs(machine, follow=True)
            async with asyncio.timeout(10):  # it ends with the machine
                said = [each.message async for each in told]
            assert any("gVisor's kernel ended with" in each for each in said), said
        else:
            return
    pytest.fail("it panics each time")


async def _hold_up_nothing(machines: Machines, machine: str) -> None:
    program = (
        "import os\nif os.fork(): os._exit(0)\nos.setsid()\n"
        "for _ in range(14):\n  if not os.fork(): break\n"
        "os.execve('/bin/sleep', ['sleep', '777', *['\\1' * 100000] * 3], {})"
    )
    running = await machines.driver.exec(machine, Command(("python3", "-c", program)))
    async with asyncio.timeout(30):
        with pytest.raises(Unusable) as refusal:
            await _look_for_ever(machines, machine)
    assert refusal.value.reason == "NO_ANSWER"

    await asyncio.wait_for(running.aclose(), 30)

    assert await machines.driver.processes(machine) == []
    assert (await machines.run(machine, "echo", "fine")).stdout == "fine\n"
