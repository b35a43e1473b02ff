from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

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
