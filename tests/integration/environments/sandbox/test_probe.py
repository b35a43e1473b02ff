"""A host that cannot isolate machines says so by name, and what to do; nothing is made weaker."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from steward_server.environments.driver import Unusable
from steward_server.environments.images.catalogue import Catalogue
from steward_server.environments.sandbox import SandboxDriver, machine, probe
from tests.integration.environments.sandbox.machines import spec, traces, until

_DRIVER = """
import asyncio, os, sys
from pathlib import Path
from steward_server.environments.images.catalogue import Catalogue
from steward_server.environments.sandbox import SandboxDriver
from steward_server.environments.driver import Unusable
from tests.integration.environments.sandbox.machines import spec

async def main():
    driver = SandboxDriver(Path(sys.argv[1]), Catalogue(Path(sys.argv[1]) / "images"))
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    await driver.open()
    print(driver.capabilities().unusable)
    try:
        await driver.create("x", spec())
    except Unusable as refusal:
        print(refusal.reason)
    print(await driver.list_owned())
    await driver.aclose()

asyncio.run(main())
"""


async def test_an_ordinary_user_is_told_that_root_is_needed(tmp_path: Path) -> None:
    folder = Path("/tmp") / f"steward-test-{os.getpid()}"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _DRIVER, str(folder), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir()
    folder.rmdir()

    why, reason, owned = said.decode().splitlines()
    assert "runs as user 65534" in why
    assert "run it as root" in why
    assert reason == "NO_ISOLATION"
    assert owned == "[]"


async def test_a_host_whose_control_groups_cannot_be_used_is_refused(
    tmp_path: Path, images: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "mounts", lambda: ({}, None))
    driver = SandboxDriver(tmp_path, images)
    await driver.open()

    assert "control groups memory, cpu, pids, freezer, cpuacct are not mounted" in (
        driver.capabilities().unusable
    )
    with pytest.raises(Unusable):
        await driver.create("x", spec())
    await driver.aclose()


async def test_an_isolation_that_does_not_hold_is_no_isolation(
    tmp_path: Path, images: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(machine._HOLDS, "vsock", "EPERM")
    driver = SandboxDriver(tmp_path, images)
    await driver.open()

    assert "does not hold on this host: vsock is EAFNOSUPPORT" in driver.capabilities().unusable
    await driver.aclose()
    await until(lambda: not traces(tmp_path))


def test_version_2_of_the_control_groups_must_offer_all_controllers(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu hugetlb\n")

    with pytest.raises(probe.NotHere, match="does not offer the controllers memory, pids"):
        probe.open_version_2(tmp_path, "steward-x")
