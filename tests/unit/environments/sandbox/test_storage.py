from __future__ import annotations

import asyncio
import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from steward_server.environments.driver import Unusable
from steward_server.environments.environment import Resources
from steward_server.environments.sandbox import storage
from steward_server.environments.sandbox.limits import MEBIBYTE, limits
from steward_server.environments.sandbox.storage import Templates

_LIMITS = limits(
    Resources(cpu_millicores=1000, memory_bytes=64 * MEBIBYTE, storage_bytes=4 * MEBIBYTE),
    process_count=1,
)

pytestmark = pytest.mark.skipif(
    shutil.which("mkfs.ext4", path="/usr/sbin:/sbin:/usr/bin:/bin") is None,
    reason="there is no mkfs.ext4",
)


async def test_few_empty_disks_are_kept_and_those_that_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_MOST_TEMPLATES", 3)
    folder = tmp_path / "disks"
    templates = Templates(folder)
    folder.mkdir()
    (folder / "7-7.new").write_bytes(b"half")

    for number, size in enumerate((4, 8, 12, 4, 16, 20)):
        wanted = replace(_LIMITS, storage_bytes=size * MEBIBYTE)
        os.close(await templates.copy(wanted, tmp_path / f"{number}"))
        assert (tmp_path / f"{number}").stat().st_size == size * MEBIBYTE

    kept = {int(path.name.split("-")[0]) // MEBIBYTE for path in folder.iterdir()}
    assert kept == {4, 16, 20}


async def test_a_disk_has_its_name_once_it_is_written_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, rename = os.fsync, Path.replace

    def synced(fd: int) -> None:
        done.append(Path(f"/proc/self/fd/{fd}").readlink().suffix)
        sync(fd)

    def replaced(path: Path, target: Path) -> Path:
        done.append("renamed")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)

    os.close(await Templates(tmp_path / "disks").copy(_LIMITS, tmp_path / "disk"))

    assert done == [".new", "renamed"]


async def test_a_copy_that_is_given_up_leaves_no_descriptor_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    templates = Templates(tmp_path / "disks")
    os.close(await templates.copy(_LIMITS, tmp_path / "first"))
    begun, may_go_on = threading.Event(), threading.Event()
    copy = storage._copy_sparse

    def slow(read: int, write: int) -> None:
        begun.set()
        assert may_go_on.wait(10)
        copy(read, write)  # not onto descriptors that are others' by now

    monkeypatch.setattr(storage, "_copy_sparse", slow)
    before = set(Path("/proc/self/fd").iterdir())
    copying = asyncio.create_task(templates.copy(_LIMITS, tmp_path / "second"))
    await asyncio.to_thread(begun.wait, 10)
    copying.cancel()
    await asyncio.sleep(0)
    may_go_on.set()

    with pytest.raises(asyncio.CancelledError):
        await copying
    assert set(Path("/proc/self/fd").iterdir()) == before
    assert (tmp_path / "second").stat().st_blocks == (tmp_path / "first").stat().st_blocks


async def test_who_makes_a_disk_is_ended_with_whoever_wants_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "mkfs"
    program.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr(storage, "_MKFS_S", 0.1)
    monkeypatch.setattr(shutil, "which", lambda *_, **__: str(program))

    with pytest.raises(Unusable, match="took too long"):
        await Templates(tmp_path / "disks").copy(_LIMITS, tmp_path / "disk")

    status = Path(f"/proc/{int((tmp_path / 'pid').read_text())}/status")
    async with asyncio.timeout(30):
        while status.exists():
            await asyncio.sleep(0.005)
