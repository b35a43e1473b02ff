"""What CyborgMind's document prints is run as it stands, with address and token filled in."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.curl import differences
from tests.e2e.cyborgmind.calls import ACTION, BATCH, RESET, TOKEN, told
from tests.e2e.cyborgmind.scene import CyborgScene, cyborg_scene
from tests.e2e.iron.shapes import HEALTH
from tests.missing import missing

DOCUMENT = Path(__file__).with_name("cyborgmind")
ADDRESS = "localhost:8000"
PRINTED: dict[str, tuple[int, Any]] = {
    "test health": (200, HEALTH),
    "step with the static token": (200, ACTION),
    "make a token": (200, TOKEN),
    "step with a token": (200, ACTION),
    "health": (200, HEALTH),
    "reset": (200, RESET | {"agent_id": "session_abc123"}),
    "step": (200, ACTION | {"agent_id": "cartpole_agent"}),
    "step a batch": (200, BATCH | {"agent_ids": ["default"]}),
    "make a token for an hour": (200, TOKEN | {"subject": "api_client_001"}),
}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CyborgScene]:
    with cyborg_scene(tmp_path_factory.mktemp("cyborgmind") / "data") as opened:
        yield opened


def examples() -> dict[str, str]:
    """Those of the document that call curl, by name."""
    found = re.split(r"^=== (.*)\n", (DOCUMENT / "examples.txt").read_text(), flags=re.MULTILINE)[
        1:
    ]
    return dict(zip(found[::2], found[1::2], strict=True))


def filled(scene: CyborgScene, text: str) -> str:
    """The document's text with what a reader has."""
    assert ADDRESS in text
    token = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9..."
    if token in text:
        made = scene.post("/auth/token", {"subject": "user123"}, "X: y")
        text = text.replace(token, made["access_token"])
    return text.replace(ADDRESS, scene.server.http_address)


def printed_by(*command: str) -> str:
    ran = subprocess.run(command, capture_output=True, check=False, text=True, timeout=30)
    assert ran.returncode == 0, (ran.stdout, ran.stderr)
    return ran.stdout


def curled(scene: CyborgScene, name: str) -> tuple[int, str]:
    status = 'curl() { command curl -sS "$@" -w "\\n%{http_code}"; }\n'
    body, _, code = printed_by("bash", "-c", status + filled(scene, examples()[name])).rpartition(
        "\n"
    )
    return int(code), body


@pytest.mark.parametrize("name", PRINTED)
def test_an_example_answers_as_the_document_prints(scene: CyborgScene, name: str) -> None:
    if name == "step":  # of an agent that the document says is to be reset first
        begin = '-X POST $url/reset $as_client $json -d \'{"agent_id":"cartpole_agent"}\''
        assert scene.run(begin).status == 200
    status, body = curled(scene, name)
    wanted, shape = PRINTED[name]
    assert status == wanted
    assert list(differences(shape, json.loads(body))) == [], body


def test_the_example_that_reads_metrics_reads_them(scene: CyborgScene) -> None:
    curled(scene, "step with the static token")
    status, body = curled(scene, "metrics")
    assert status == 200
    assert re.search(
        r'^request_count_total{endpoint="/step",status="success"} \d', body, re.MULTILINE
    )


def test_every_example_is_run() -> None:
    assert examples().keys() == PRINTED.keys() | {"metrics"}


def test_the_example_of_a_client_in_python_steps(scene: CyborgScene) -> None:
    text = filled(scene, (DOCUMENT / "client.py.txt").read_text())
    reset, step = printed_by(sys.executable, "-c", text).splitlines()
    assert reset == str(RESET | {"agent_id": "my_session"})
    assert re.fullmatch(r"Action: 1, Value: \d+\.\d+", step)


def test_the_example_of_a_stream_in_python_steps(scene: CyborgScene) -> None:
    text = filled(scene, (DOCUMENT / "stream.py.txt").read_text())
    said = printed_by(sys.executable, "-c", text)
    assert re.fullmatch(r"Action: 1\nValue: \d+\.\d+\n", said)


def test_the_example_of_a_stream_in_a_browser_steps(scene: CyborgScene) -> None:
    if shutil.which("node") is None:
        missing("node is not installed")
    text = filled(scene, (DOCUMENT / "stream.js").read_text())
    leave = "ws.addEventListener('message', () => ws.close());"  # which the document's does not
    said = printed_by("node", "--experimental-websocket", "--eval", text + leave)
    assert re.fullmatch(r"Action: 1\nValue: \d+\.\d+\nWebSocket closed\n", said)


def test_an_agent_that_was_not_reset_is_refused_as_the_document_says(tmp_path: Path) -> None:
    with cyborg_scene(tmp_path / "data") as fresh:
        status, body = curled(fresh, "step")
    assert status == 400
    assert json.loads(body) == told("Agent 'cartpole_agent' not initialized. Call /reset first.")
