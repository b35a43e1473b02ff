"""Where it cannot isolate, it says why and what to do, and makes nothing weaker."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest

from steward_server.environments.driver import Capabilities, Unusable
from steward_server.environments.images.catalogue import Catalogue
from steward_server.environments.sandbox import SandboxDriver, machine
from steward_server.environments.sandbox.bubblewrap import delegated, probe
from steward_server.environments.sandbox.cgroups import Version2
from steward_server.environments.sandbox.limits import limits
from tests.integration.environments.sandbox.machines import MIB, spec

_FORBIDDEN = "#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2\nexit 1\n"
_TIMID = """#!/bin/sh
for word; do
  shift
  case "$word" in --cap-add | ALL) ;; *) set -- "$@" "$word" ;; esac
done
exec /usr/bin/bwrap "$@"
"""


async def _refused(folder: Path, images: Catalogue) -> str:
    """Why a driver makes nothing here; and it does not."""
    driver = SandboxDriver(folder, images)
    await driver.open()
    try:
        told: Capabilities = driver.capabilities()
        assert told.unusable
        assert (told.backend, told.features, dict(told.limits)) == ("", frozenset(), {})
        with pytest.raises(Unusable) as refusal:
            await driver.create("x", spec())
        assert refusal.value.reason == "NO_ISOLATION"
        assert str(refusal.value) == told.unusable
        assert await driver.list_owned() == []
    finally:
        await driver.aclose()
    return told.unusable


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is looked in for bwrap, and nowhere else."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setattr(probe, "PATH", str(folder))
    return folder


def _install(programs: Path, text: str) -> None:
    (programs / "bwrap").write_text(text)
    (programs / "bwrap").chmod(0o755)


async def test_without_the_program_it_says_which_package_has_it(
    programs: Path, tmp_path: Path, images: Catalogue
) -> None:
    why = await _refused(tmp_path / "x", images)

    assert "native: the server runs as user" in why
    assert "bubblewrap: the program bwrap is not here; install the package bubblewrap" in why


@pytest.mark.parametrize(
    ("name", "value", "fix"),
    [
        ("user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=10000"),
        ("kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ("none/of/these", "1", "--security-opt seccomp=unconfined"),
    ],
)
async def test_where_user_namespaces_are_forbidden_it_says_what_allows_them(
    programs: Path, tmp_path: Path, images: Catalogue, monkeypatch: pytest.MonkeyPatch,
    name: str, value: str, fix: str,
) -> None:  # fmt: skip
    _install(programs, _FORBIDDEN)
    switch = tmp_path / "sys" / name
    switch.parent.mkdir(parents=True)
    switch.write_text(f"{value}\n")
    monkeypatch.setattr(probe, "_SYSCTLS", tmp_path / "sys")

    why = await _refused(tmp_path / "x", images)

    assert "cannot make namespaces here (bwrap: setting up uid map: Permission denied)" in why
    assert fix in why


async def test_a_bwrap_that_is_setuid_is_not_used(
    programs: Path, tmp_path: Path, images: Catalogue
) -> None:
    _install(programs, _FORBIDDEN)
    (programs / "bwrap").chmod(0o4755)

    assert "chmod u-s" in await _refused(tmp_path / "x", images)


async def test_a_bwrap_that_gives_no_rights_over_its_namespaces_is_not_used(
    programs: Path, tmp_path: Path, images: Catalogue
) -> None:
    _install(programs, _TIMID)

    assert "gives no rights over the namespaces" in await _refused(tmp_path / "x", images)


async def test_a_python_that_is_shut_is_named(
    tmp_path: Path, images: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    shut = tmp_path / "shut"
    shut.mkdir(mode=0)
    monkeypatch.setattr(sys, "executable", str(shut / "python3"))

    why = await _refused(tmp_path / "x", images)

    assert f"{shut} is shut to it" in why


async def test_an_isolation_that_does_not_hold_is_no_isolation(
    tmp_path: Path, images: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(machine._HOLDS, "vsock", "EPERM")

    why = await _refused(tmp_path / "x", images)

    assert "does not hold on this host: vsock is EAFNOSUPPORT" in why


_PRINT = """
import asyncio, sys
from pathlib import Path
from steward_server.environments.images.catalogue import Catalogue
from steward_server.environments.sandbox import SandboxDriver

async def main():
    folder = Path(sys.argv[1])
    driver = SandboxDriver(folder, Catalogue(folder / "images"))
    await driver.open()
    print(driver.capabilities().unusable)
    await driver.aclose()

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("echo 1 > /proc/sys/user/max_user_namespaces", "cannot make namespaces here"),
        ("mount --bind /dev/null /proc/uptime", "--security-opt systempaths=unconfined"),
    ],
)
async def test_a_kernel_that_refuses_is_told_as_it_is(
    tmp_path: Path, before: str, said: str
) -> None:
    """In a user namespace that has no others below it, and in one with a part of /proc hidden."""
    again = f"exec unshare --user --map-user=1000 --map-group=1000 {sys.executable} -c '{_PRINT}' "
    process = await asyncio.create_subprocess_exec(
        "unshare", "--user", "--map-root-user", "--mount", "sh", "-c",
        f"{before} && {again} {tmp_path}/x", stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    told, _ = await asyncio.wait_for(process.communicate(), 60)

    why = told.decode()
    assert "native: the server runs as user 1000" in why
    assert said in why


def test_delegated_control_groups_hold_what_they_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stands in for version 2 of the control groups, which is rarely delegated where tests run."""
    service = tmp_path / "groups/user.slice/steward.service"
    service.mkdir(parents=True)
    (service / "cgroup.controllers").write_text("cpu memory pids\n")
    (service / "cgroup.procs").write_text("")
    process = tmp_path / "process"
    process.mkdir()
    (process / "cgroup").write_text("0::/user.slice/steward.service/steward-host\n")
    monkeypatch.setattr(delegated, "mounts", lambda: ({}, tmp_path / "groups"))

    found, why = delegated.find("steward-abc", process)

    assert why == ""
    assert isinstance(found, Version2)
    assert (service / "cgroup.subtree_control").read_text() == "+memory +cpu +pids"
    mkdir = Path.mkdir

    def made(folder: Path) -> None:
        """As the kernel does: with its files."""
        mkdir(folder)
        for name in ("memory.max", "cpu.max", "pids.max", "cgroup.procs"):
            (folder / name).touch()

    monkeypatch.setattr(Path, "mkdir", made)
    found.make("m1", limits(spec(memory_bytes=64 * MIB).resources, process_count=9))
    found.join("m1", 4711)
    told = {each.name: each.read_text() for each in (service / "steward-abc/m1").iterdir()}
    assert told == {
        "memory.max": str(64 * MIB), "cpu.max": "100000 100000", "pids.max": "9",
        "cgroup.procs": "4711",
    }  # fmt: skip


def test_control_groups_that_are_not_delegated_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cgroup").write_text("0::/\n")
    (tmp_path / "cgroup.controllers").write_text("hugetlb\n")
    monkeypatch.setattr(delegated, "mounts", lambda: ({}, tmp_path))
    assert "does not offer the controllers memory, cpu, pids" in delegated.find("x", tmp_path)[1]

    (tmp_path / "cgroup.controllers").write_text("cpu memory pids\n")
    tmp_path.chmod(0o500)
    if os.geteuid() != 0:
        assert "cannot be written" in delegated.find("x", tmp_path)[1]
    tmp_path.chmod(0o700)

    monkeypatch.setattr(delegated, "mounts", lambda: ({}, None))
    assert "not mounted" in delegated.find("x", tmp_path)[1]


def test_the_tests_have_the_program(driver: SandboxDriver) -> None:
    assert shutil.which("bwrap")
    assert driver.capabilities().backend == "bubblewrap"


async def test_a_host_that_is_too_busy_to_answer_is_asked_again(
    programs: Path, tmp_path: Path, images: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "_ANSWER_S", 0.2)
    _install(programs, "#!/bin/sh\nexec sleep 5\n")
    driver = SandboxDriver(tmp_path / "x", images)
    await driver.open()
    assert driver.capabilities().unusable.endswith("bwrap has not answered within 0.2 s")
    assert driver.capabilities().may_come

    monkeypatch.undo()
    await driver.open()
    try:
        assert driver.capabilities().unusable == ""
    finally:
        await driver.aclose()
