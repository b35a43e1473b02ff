from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import pytest

from steward_server.environments.driver import FileFault
from tests.integration.environments.sandbox.machines import MIB, Machines, secured, spec, until


async def _content(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def _read(machines: Machines, machine: str, path: str, offset: int = 0) -> bytes:
    parts = [part async for part in machines.driver.files.read(machine, path, offset=offset)]
    return b"".join(parts)


async def _nothing_else_stays(machines: Machines, machine: str, listed: str) -> None:
    async with asyncio.timeout(30):
        while (await machines.sh(machine, "ls -A")).stdout != listed:
            await asyncio.sleep(0.05)


async def _fault(work: Awaitable[object]) -> str:
    with pytest.raises(FileFault) as refusal:
        await work
    return refusal.value.kind


async def test_a_file_is_written_and_read_back(machines: Machines, machine: str) -> None:
    files = machines.driver.files
    parts = [bytes([number]) * MIB for number in range(8)]

    made = await files.write(machine, "/workspace/größe", _content(*parts), mode=0o750)

    assert (made.path, made.kind, made.size_bytes, made.mode, made.user) == (
        "/workspace/größe", "file", 8 * MIB, 0o750, 1000,
    )  # fmt: skip
    assert await _read(machines, machine, "/workspace/größe") == b"".join(parts)
    assert await _read(machines, machine, "/workspace/größe", 8 * MIB - 3) == b"\x07" * 3
    ran = await machines.sh(machine, "stat -c '%a %U %s' größe")
    assert ran.stdout == f"750 agent {8 * MIB}\n"


async def test_half_a_file_is_never_seen(machines: Machines, machine: str) -> None:
    files = machines.driver.files
    await files.write(machine, "/workspace/f", _content(b"old"))

    async def stops() -> AsyncIterator[bytes]:
        yield b"new"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await files.write(machine, "/workspace/f", stops())

    assert await _read(machines, machine, "/workspace/f") == b"old"
    await _nothing_else_stays(machines, machine, "f\n")


async def test_directories_are_made_listed_moved_and_removed(
    machines: Machines, machine: str
) -> None:
    files = machines.driver.files
    made = await files.make_directory(machine, "/workspace/a/b/c")
    assert made.kind == "directory"
    await files.make_directory(machine, "/workspace/a/b/c")
    await files.write(machine, "/workspace/a/b/f", _content(b"x"))
    await machines.sh(machine, "ln -s /etc/passwd a/b/link; mkfifo a/b/pipe")

    found = {
        each.path.rpartition("/")[2]: each for each in await files.list(machine, "/workspace/a/b")
    }
    assert {name: each.kind for name, each in found.items()} == {
        "c": "directory", "f": "file", "link": "link", "pipe": "other",
    }  # fmt: skip
    assert found["link"].target == "/etc/passwd"
    assert (await files.stat(machine, "/workspace/a/b/link")).kind == "file"

    await files.move(machine, "/workspace/a/b", "/workspace/d")
    assert await _fault(files.remove(machine, "/workspace/d", recursive=False)) == "ENOTEMPTY"
    await files.remove(machine, "/workspace/d", recursive=True)
    assert [each.path for each in await files.list(machine, "/workspace")] == ["/workspace/a"]


async def test_many_files_are_listed(machines: Machines, machine: str) -> None:
    await machines.sh(machine, "mkdir many; cd many; seq 1 2500 | xargs touch")

    assert len(await machines.driver.files.list(machine, "/workspace/many")) == 2500


async def test_faults_have_their_names(machines: Machines, machine: str) -> None:
    files = machines.driver.files
    assert await _fault(files.stat(machine, "/none")) == "ENOENT"
    assert await _fault(files.list(machine, "/etc/passwd")) == "ENOTDIR"
    assert await _fault(_read(machines, machine, "/tmp")) == "EISDIR"
    assert await _fault(_read(machines, machine, "/dev/zero")) == "EINVAL"
    assert await _fault(_read(machines, machine, "/proc/version")) == "EINVAL"
    assert await _fault(files.stat(machine, "relative")) == "EINVAL"
    assert await _fault(files.write(machine, "/etc/passwd", _content(b""))) == "EACCES"
    assert await _fault(files.remove(machine, "/", recursive=True)) == "EPERM"
    assert await _fault(files.write(machine, "/usr/f", _content(b""))) in ("EROFS", "EACCES")


@pytest.mark.attack
async def test_a_named_pipe_does_not_hold_a_reader(machines: Machines, machine: str) -> None:
    await machines.sh(machine, "mkfifo pipe")
    async with asyncio.timeout(30):
        assert await _fault(_read(machines, machine, "/workspace/pipe")) == "EINVAL"


async def test_a_full_disk_is_told_and_leaves_nothing(machines: Machines) -> None:
    name = await machines.make(spec(storage_bytes=8 * MIB))
    parts = [b"x" * MIB] * 20

    kind = await _fault(machines.driver.files.write(name, "/workspace/f", _content(*parts)))

    assert kind == "ENOSPC"
    await _nothing_else_stays(machines, name, "")
    assert (await machines.sh(name, "echo y > small && cat small")).stdout == "y\n"


async def test_changes_below_a_directory_are_watched(machines: Machines, machine: str) -> None:
    watch = machines.driver.files.watch(machine, "/workspace")
    seen: dict[tuple[str, str], None] = {}

    async def follow() -> None:
        async for event in watch:
            seen[event] = None

    following = asyncio.create_task(follow())
    while not seen:  # what is made before it is watched is nothing new
        await machines.sh(machine, "touch early; sleep 0.1; rm early")
    await machines.sh(machine, "mkdir d")
    await until(lambda: ("created", "/workspace/d") in seen)
    await machines.sh(machine, "echo x > d/f")
    await until(lambda: ("changed", "/workspace/d/f") in seen)
    await machines.sh(machine, "mv d/f d/g")
    await until(lambda: ("created", "/workspace/d/g") in seen)
    await until(lambda: ("removed", "/workspace/d/f") in seen)
    following.cancel()
    await asyncio.wait([following])
    await watch.aclose()  # type: ignore[attr-defined]

    below = [each for each in seen if each[1] != "/workspace/early"]
    assert below[:2] == [("created", "/workspace/d"), ("created", "/workspace/d/f")]


@pytest.mark.attack
async def test_links_lead_nowhere_but_into_the_machine(
    machines: Machines, machine: str, tmp_path: Path
) -> None:
    """Absolute, relative, through /proc, and changed while it is looked."""
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    secret.chmod(0o644)
    script = (
        f"ln -s {secret} absolute; ln -s ../../../../../../..{secret} relative; "
        f"ln -s /proc/1/root{secret} one; ln -s /proc/self/root{secret} self; "
        "ln -s /proc/1/fd/4 descriptor; ln -s /proc/1/environ environ; ln -s /proc/self/fd/3 own"
    )
    assert (await machines.sh(machine, script)).code == 0
    for name in ("absolute", "relative", "one", "self", "descriptor", "environ", "own"):
        kind = await _fault(_read(machines, machine, f"/workspace/{name}"))
        assert kind in ("ENOENT", "EACCES", "ELOOP", "EPERM", "ENXIO"), (name, kind)
    for path in (f"/proc/1/root{secret}", f"/proc/self/root{secret}", "/proc/1/cwd"):
        assert await _fault(_read(machines, machine, path)) in ("EACCES", "ENOENT", "ELOOP")

    racing = asyncio.create_task(
        machines.sh(
            machine,
            f"mkdir -p d; i=0; while [ $i -lt 500 ]; do ln -sfn {tmp_path} d/x; "
            "ln -sfn /workspace d/x; i=$((i+1)); done",
        )
    )
    while not racing.done():
        try:
            content = await _read(machines, machine, "/workspace/d/x/secret")
        except FileFault:
            continue
        assert b"host" not in content
    await racing


@pytest.mark.attack
async def test_writing_through_a_link_writes_inside(
    machines: Machines, machine: str, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    await machines.sh(machine, f"ln -s {outside} out; ln -s /workspace/target in")

    await _fault(machines.driver.files.write(machine, "/workspace/out", _content(b"x")))
    await machines.driver.files.write(machine, "/workspace/in", _content(b"inside"))

    assert not outside.exists()
    assert (await machines.sh(machine, "cat target")).stdout == "inside"


async def test_files_are_used_as_the_machines_user(machines: Machines) -> None:
    name = await machines.make(secured(run_as_user=1234))
    made = await machines.driver.files.write(name, "/workspace/f", _content(b"x"))

    assert made.user == 1234
    await machines.sh(name, "chmod 000 f", user=1234)
    assert await _fault(_read(machines, name, "/workspace/f")) == "EACCES"
