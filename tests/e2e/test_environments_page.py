"""What docs/environments.md prints does what it says there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.agentbox.scene import AgentboxScene, agentbox_scene, image_of

PAGE = Path(__file__).parents[2] / "docs" / "environments.md"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentboxScene]:
    with agentbox_scene(tmp_path_factory.mktemp("page") / "data") as scene:
        yield scene


def block(kind: str, beginning: str) -> str:
    """The block of code that has a text in its first lines."""
    blocks = re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return next(str(each) for each in blocks if beginning in each)


def run(scene: AgentboxScene, folder: Path, *command: str) -> str:
    """What a program prints that ends well, with the server and a key in its variables."""
    variables = {
        "STEWARD_SERVER": scene.server.grpc_address,
        "STEWARD_API_KEY": scene["api_key"],
        "STEWARD_HOME": str(folder),
        "TOKEN": "a secret",
    }
    kept = {name: text for name, text in os.environ.items() if not name.startswith("STEWARD_")}
    ran = subprocess.run(
        command,
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
        cwd=folder,
        env=kept | variables,
    )
    assert ran.returncode == 0, (ran.stdout, ran.stderr)
    return ran.stdout


def test_the_lines_of_python_do_what_they_say(scene: AgentboxScene, tmp_path: Path) -> None:
    text = block("python", "steward_client").replace("python:3.11", image_of(scene, "python:3.11"))
    assert run(scene, tmp_path, sys.executable, "-c", text).split() == [
        *("0", "hello"),
        *("stdout", "b'1\\n2\\n3\\n'"),
    ]


def test_the_lines_of_the_shell_do_what_they_say(scene: AgentboxScene, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "job.py").write_text("print('kept')")
    typed = re.findall(r"^\$ (.*)$", block("console", "steward env create"), re.MULTILINE)
    alone = [line for line in typed if not re.match("steward env (attach|logs -f)", line)]
    assert len(alone) == len(typed) - 2
    text = "\n".join(alone).replace("python:3.11", image_of(scene, "python:3.11"))
    steward = Path(sys.executable).with_name("steward")
    said = run(scene, tmp_path, "bash", "-ec", f'steward() {{ "{steward}" "$@"; }}\n{text}')
    assert "\n2\n" in said
    assert (tmp_path / "back" / "job.py").read_text() == "print('kept')"
    assert scene.run("$url/api/v1/environments $as_admin").body["total"] == 0
