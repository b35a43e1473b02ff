"""What docs/inference.md prints does what it says there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cyborgmind.scene import CyborgScene, cyborg_scene
from tests.e2e.scene import STATIC_TOKEN

TEXT = (Path(__file__).parents[2] / "docs" / "inference.md").read_text(encoding="utf-8")
CALLS = re.findall(r"^\$ (curl .*(?:\\\n.*)?)\n(\{.*\})$", TEXT, re.MULTILINE)
VARYING = {"access_token", "expires_at"}
PROGRAMS = re.findall(r"```python\n(.*?)```\n```\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CyborgScene]:
    data_dir = tmp_path_factory.mktemp("page") / "data"
    with cyborg_scene(data_dir, STEWARD_STATIC_TOKEN=STATIC_TOKEN) as opened:
        yield opened


def said(scene: CyborgScene, *command: str) -> str:
    """What a program prints that ends well, with the token in its variables."""
    filled = [
        each.replace("127.0.0.1:8080", scene.server.http_address).replace(
            "127.0.0.1:50051", scene.server.grpc_address
        )
        for each in command
    ]
    variables = os.environ | {"STEWARD_STATIC_TOKEN": STATIC_TOKEN}
    ran = subprocess.run(
        filled, capture_output=True, check=False, text=True, timeout=60, env=variables
    )
    assert ran.returncode == 0, (ran.stdout, ran.stderr)
    return ran.stdout


def rounded(value: Any) -> Any:
    """Another processor rounds otherwise."""
    if isinstance(value, float):
        return pytest.approx(value, rel=1e-3, abs=1e-3)
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return value


def test_the_calls_are_answered_as_is_printed(scene: CyborgScene) -> None:
    assert len(CALLS) == 5
    for typed, printed in CALLS:
        answer, expected = (
            json.loads(said(scene, "bash", "-c", f"{typed} -sS")),
            json.loads(printed),
        )
        assert answer.keys() == expected.keys()
        assert answer == {
            name: answer[name] if name in VARYING else rounded(value)
            for name, value in expected.items()
        }


@pytest.mark.parametrize(("text", "printed"), PROGRAMS, ids=["websocket", "grpc", "triton"])
def test_the_programs_print_what_is_printed(scene: CyborgScene, text: str, printed: str) -> None:
    figures = re.compile(r"-?\d+(?:\.\d+)?")
    told = said(scene, sys.executable, "-c", text)
    assert figures.sub("#", told) == figures.sub("#", printed)
    found, expected = (list(map(float, figures.findall(each))) for each in (told, printed))
    assert found == pytest.approx(expected, rel=1e-3, abs=2e-3)
