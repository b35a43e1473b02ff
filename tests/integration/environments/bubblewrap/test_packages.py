"""Python packages of a folder of the server, in a machine that reaches nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from steward_server.environments.images.catalogue import Catalogue
from tests.e2e.agentbox.wheels import write_wheel
from tests.integration.environments.sandbox.machines import Machines


@pytest.fixture
def images(tmp_path: Path) -> Catalogue:
    write_wheel(tmp_path / "wheels", "a_small_package", "ANSWER = 42\n")
    return Catalogue(tmp_path / "images", wheels=tmp_path / "wheels")


async def test_they_are_installed_where_nobody_is_root(machines: Machines, machine: str) -> None:
    shown = await machines.run(machine, "ls", "/opt/wheels")
    assert shown.stdout == "a_small_package-0.1-py3-none-any.whl\n"
    if (await machines.sh(machine, "command -v pip")).code:
        pytest.skip("the Python of this machine came without pip")
    installed = await machines.run(machine, "pip", "install", "a-small-package")
    assert installed.code == 0, installed.stderr
    asked = await machines.python(machine, "import a_small_package; print(a_small_package.ANSWER)")
    assert asked.stdout == "42\n"
