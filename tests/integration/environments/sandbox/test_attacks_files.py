"""Whoever works on files for the server is led nowhere by what happens to them meanwhile."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path

from steward_server.environments.driver import Command, FileFault
from steward_server.environments.sandbox import SandboxDriver
from tests.integration.environments.sandbox.machines import Machines, secured

_SWAP = """
import os
os.makedirs('/workspace/real', exist_ok=True)
print('up', flush=True)
targets = ['/workspace/real', '/etc', {outside!r}, '/proc/1/root', '/proc/self/fd', '/workspace/x']
n = 0
while True:
  n += 1
  try: os.symlink(targets[n % len(targets)], '/workspace/new')
  except FileExistsError: pass
  os.replace('/workspace/new', '/workspace/x')
"""


async def test_a_link_that_is_swapped_all_the_time_leads_out_for_nobody(
    machines: Machines, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    outside.chmod(0o777)
    (outside / "secret").write_text("of the host")
    name = await machines.make(secured(run_as_user=1000))
    before = (await machines.sh(name, "ls -A /etc")).stdout
    swapper = await machines.driver.exec(
        name, Command(("python3", "-c", _SWAP.format(outside=str(outside))))
    )
    await swapper.read()

    async def content() -> AsyncIterator[bytes]:
        yield b"evil"

    files, outcomes = machines.driver.files, set()
    for number in range(40):
        for work in (
            files.write(name, f"/workspace/x/w{number}", content()),
            files.make_directory(name, f"/workspace/x/d{number}"),
            files.list(name, "/workspace/x/"),
            files.remove(name, "/workspace/x/secret", recursive=True),
            files.stat(name, "/workspace/x/secret"),
        ):
            try:
                await asyncio.wait_for(work, 10)
                outcomes.add("done")
            except FileFault as fault:
                outcomes.add(fault.kind)
    await swapper.aclose()

    assert "done" in outcomes
    assert [each.name for each in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_text() == "of the host"
    assert (await machines.sh(name, "ls -A /etc")).stdout == before
    assert (await machines.run(name, "echo", "fine")).stdout == "fine\n"


async def test_what_a_machine_is_asked_by_is_shut_to_others_on_the_host(
    driver: SandboxDriver, machines: Machines, machine: str
) -> None:
    folder = driver._known(machine)
    for path in (driver._folder, folder):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    for path in folder.iterdir():
        if path.is_socket():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_files_that_never_end_are_not_waited_for(machines: Machines, machine: str) -> None:
    await machines.sh(
        machine, "mkfifo /workspace/pipe; ln -s /dev/zero /workspace/zero; ln -s l /workspace/l; "
        "ln -s /proc/self/mem /workspace/mem; ln -s /proc/1/fd/0 /workspace/fd; "
        "python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('/workspace/socket')\""
    )  # fmt: skip

    async def read(path: str) -> bytes:
        return b"".join([part async for part in machines.driver.files.read(machine, path)])

    for name in ("pipe", "zero", "l", "mem", "fd", "socket"):
        try:
            found = await asyncio.wait_for(read(f"/workspace/{name}"), 30)
        except FileFault:
            continue
        assert found == b"", name
